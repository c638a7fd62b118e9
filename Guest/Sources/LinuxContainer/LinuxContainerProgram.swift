// The Linux driver container: a process in which Debian's driver modules run unmodified, over the kernel interface that
// Guest/Linux provides. It has one device, whose registers and interrupt init gave it.

import BlockInterface
import BlockServer
import BootFormats
import CLinuxContainer
import DriverControl
import LinuxModules
import NetServer
import Pollux

@main enum LinuxContainerProgram {
  static func main() {
    do throws(LoadFailure) { try run() } catch {
      report(error)
      Kernel.exit(2)
    }
  }

  private static func run() throws(LoadFailure) {
    let start = Program.start
    guard let service = start.handle("service"), let events = start.handle("line-events"),
      let page = start.handle("registers"), let archive = start.handle("archive"),
      let archiveSize = start.number("archive-size"), let memory = start.handle("memory")
    else { throw .kernel(.notFound) }
    let notification = Notification(Handle(events))
    let registers: UnsafeMutableRawPointer
    let files: TapeArchive
    let linux: Linux
    let control: VirtioRegisters
    do throws(SystemError) {
      registers = try MemoryObject(Handle(page)).map([.read, .write]).base + Int(start.number("registers-offset") ?? 0)
      control = VirtioRegisters(unsafeBase: registers)
      let mapping = try MemoryObject(Handle(archive)).map(.read)
      files = TapeArchive(
        Bytes(unsafeBase: UnsafeRawPointer(mapping.base), count: Int(min(archiveSize, UInt64(mapping.size)))))
    } catch { throw .kernel(error) }
    let modules = try LoadedModules(files, arguments: start.text("arguments") ?? Bytes(""))
    do throws(SystemError) {
      linux = try Linux(modules, events: notification, memory: MemoryObject(Handle(memory)))
      try LinuxExceptions.attach(modules.entries)
    } catch { throw .kernel(error) }
    try modules.announceSelf()
    let type = start.number("device-type")
    let isNetwork = type == 1
    let isEntropy = type == 4
    func probe() throws(LoadFailure) {
      var modules = modules
      try modules.insert(Name("virtio_mmio"))
      guard linux.addDevice("virtio-mmio", registers: registers, physical: 0, size: 0x200) else {
        throw .kernel(.notFound)
      }
      try modules.insert(Name(isNetwork ? "virtio_net" : isEntropy ? "virtio_rng" : "virtio_blk"))
      linux.runWork()
      try linux.connect(modules)
      // Others that somebody wants in the same container.
      if let more = CommandLine(start.text("arguments") ?? Bytes("")).value("module") {
        try modules.insert(ModuleFile.moduleName(more))
        linux.runWork()
      }
    }
    let isSolo = start.text("mode")?.equals("solo") ?? false
    if isSolo { try probe() }
    linux.publishAttributes()
    do throws(SystemError) {
      if isEntropy {
        // The class has no twin, and init starts it in no other mode.
        guard isSolo else { throw .unsupported }
        Program.remark(Bytes("solo: Linux's virtio_rng"))
        var server = try EntropyServer(linux, control, endpoint: Handle(service), events: notification)
        try server.run()
      }
      switch (isNetwork, isSolo) {
      case (false, true):
        guard let plane = LinuxPlane(linux, control) else { throw .notFound }
        Program.remark(Bytes(LinuxPlane.remark))
        try BlockServer(
          plane: plane, endpoint: Handle(service), events: notification, name: "vda",
          timeout: Program.requestTimeout(30_000)
        ).run()
      case (true, true):
        guard let plane = LinuxNetPlane(linux, control) else { throw .notFound }
        Program.remark(Bytes(LinuxNetPlane.remark))
        try NetServer(
          plane: plane, endpoint: Handle(service), events: notification, name: "eth0",
          timeout: Program.requestTimeout(5000)
        ).run()
      case (false, false):
        Program.remark(Bytes(LinuxDisk.remark))
        try serve(LinuxControl<LinuxDisk>(linux, control, start, probe: probe), Handle(service), notification)
      case (true, false):
        Program.remark(Bytes(LinuxInterface.remark))
        try serve(LinuxControl<LinuxInterface>(linux, control, start, probe: probe), Handle(service), notification)
      }
    } catch { throw .kernel(error) }
  }

  private static func serve<Plane: ControlPlane>(
    _ plane: Plane, _ service: Handle, _ notification: Notification
  ) throws(SystemError) -> Never {
    try Endpoint(service).bind(notification)
    var server = ControlServer(device: plane, endpoint: service)
    try server.run()
  }

  static func complain(_ what: StaticString) {
    var line = Text("linux-container: ")
    line.add(what)
    line.add("\n")
    line.print()
    line.log()
  }

  static func report(_ failure: LoadFailure) {
    var line = Text("linux-container: ")
    switch failure {
    case .module(let error): line.add(error.line)
    case .kernel(let error): line.add(error.name)
    case .noSuchModule(let name):
      line.add("not in the boot archive: linux/")
      line.add(name.bytes)
      line.add(".ko")
    case .refused(let name, let error):
      line.add(name.bytes)
      line.add(": its initialisation failed with error ")
      line.add(Int(error))
    case .parameter(let name, let parameter, let error):
      line.add(name.bytes)
      line.add(": parameter ")
      line.add(parameter.bytes)
      line.add(" does not take this value, error ")
      line.add(Int(error))
    case .otherInterface: line.add("container.ko is of another state of the sources: run make drivers")
    case .missing(let name, let symbols):
      line.add(name.bytes)
      line.add(": nobody provides")
      for symbol in symbols {
        line.add(" ")
        line.add(symbol.bytes)
      }
    }
    line.add("\n")
    line.print()
    line.log()
  }
}
