// The flags that describe a machine: one for every key of a configuration file, and how both become one description.

import ArgumentParser
import Configuration
import Foundation

/// A configuration file and the flags that override it.
struct MachineOptions: ParsableArguments {
  @Argument(
    help: "Machine description in YAML. Without it: the demo, configs/demo.yaml of the package.",
    completion: .file(extensions: ["yaml", "yml"]))
  var config: String?

  @Option(help: "Name by which castor ctl finds the machine (default: the configuration file's).")
  var name: String?
  @Option(help: "RAM, such as 512M or 2GiB (default: 128M).")
  var memory: String?
  @Option(help: "Host memory behind RAM: anonymous or memfd.", completion: .list(["anonymous", "memfd"]))
  var backing: String?
  @Flag(inversion: .prefixedNo, help: "Ask for transparent huge pages behind RAM (default: yes).")
  var hugePages: Bool?
  @Option(help: "Number of virtual CPUs (default: 1).")
  var cpus: String?
  @Option(help: "Kernel: a PVH ELF or a Linux bzImage (default: Pollux, built with the package).", completion: .file())
  var kernel: String?
  @Option(help: "Boot archive of Pollux, or none.", completion: .file(extensions: ["tar"]))
  var archive: String?
  @Option(help: "Initial RAM disk of a Linux guest.", completion: .file())
  var initrd: String?
  @Option(help: "The kernel's command line.")
  var commandLine: String?
  @Flag(inversion: .prefixedNo, help: "Start at the reset vector through the boot ROM (default: no).")
  var firmware: Bool?
  @Option(
    help: ArgumentHelp(
      "A block device. Repeat for more; replaces the file's disks.",
      discussion: """
        PATH or fields separated by commas (a comma in a value is written twice): path=FILE | memory=SIZE | null=SIZE, \
        size=SIZE (creates a missing file), read-only=on|off, queues=1..16, queue-size=2..1024, direct=auto|on|off, \
        block-size=512|4096, serial=TEXT, poll=MICROSECONDS (at most, before the device's \
        thread sleeps; 200 where the host has processors beside the vCPUs', 0: never).
        """, valueName: "fields"), completion: .file())
  var disk: [String] = []
  @Option(
    help: ArgumentHelp(
      "A network interface. Repeat for more; replaces the file's nets.",
      discussion: """
        TAP or fields: tap=NAME | listen=SOCKET | connect=SOCKET, mac=52:54:00:12:34:56, queue-size=2..1024.
        """, valueName: "fields"))
  var net: [String] = []
  @Flag(inversion: .prefixedNo, help: "A virtio entropy device (default: no).")
  var entropy: Bool?
  @Option(
    help: "Serial console: stdio, none, pty, file:PATH or unix:PATH (default: stdio; Ctrl-A x quits, Ctrl-A h helps).",
    completion: .list(["stdio", "none", "pty", "file:", "unix:"]))
  var serial: String?
  @Option(help: "Control socket for castor ctl, or none (default: by the machine's name).", completion: .file())
  var control: String?
  @Option(help: "Wait for gdb on PORT, ADDRESS:PORT or unix:PATH (default: none).")
  var gdb: String?
  @Flag(inversion: .prefixedNo, help: "Stop before the first instruction until gdb continues (default: no).")
  var waitGdb: Bool?
  @Option(
    help: ArgumentHelp(
      "A service of the guest's composition. Repeat for more; replaces the file's services.",
      discussion: """
        NAME or fields: name=NAME, program=FILE, class=CLASS, mode=MODE, arguments=TEXT, device=disk0|net0|entropy.
        """, valueName: "fields"))
  var service: [String] = []
  @Flag(name: .customLong("no-reboot"), help: "End the machine when the guest reboots.")
  var noReboot = false
  @Option(
    help: "Least important messages: trace, debug, info, notice, warning, error or critical (default: notice).",
    completion: .list(LogLevel.allCases.map(\.rawValue)))
  var logLevel: String?
  @Flag(inversion: .prefixedNo, help: "Print when each stage of the start was reached (default: no).")
  var timing: Bool?
  @Flag(
    inversion: .prefixedNo, help: "Doorbell pages and message interrupts beside the standard registers (default: yes).")
  var doorbellPages: Bool?

  /// What the flags set, as keys and values.
  var settings: [(MachineKey, String)] {
    var settings: [(MachineKey, String)] = []
    func add(_ key: MachineKey, _ value: String?) { if let value { settings.append((key, value)) } }
    func add(_ key: MachineKey, _ value: Bool?) { if let value { settings.append((key, value ? "on" : "off")) } }
    for key in MachineKey.allCases {
      switch key {
      case .name: add(key, name)
      case .memory: add(key, memory)
      case .backing: add(key, backing)
      case .hugePages: add(key, hugePages)
      case .cpus: add(key, cpus)
      case .kernel: add(key, kernel)
      case .archive: add(key, archive)
      case .initrd: add(key, initrd)
      case .commandLine: add(key, commandLine)
      case .firmware: add(key, firmware)
      case .disk: for item in disk { add(key, item) }
      case .net: for item in net { add(key, item) }
      case .entropy: add(key, entropy)
      case .serial: add(key, serial)
      case .control: add(key, control)
      case .gdb: add(key, gdb)
      case .waitGDB: add(key, waitGdb)
      case .service: for item in service { add(key, item) }
      case .noReboot: add(key, noReboot ? true : nil)
      case .logLevel: add(key, logLevel)
      case .timing: add(key, timing)
      case .doorbellPages: add(key, doorbellPages)
      }
    }
    return settings
  }

  /// The complete description: defaults, then the file, then the flags, then what follows from them.
  func resolve() throws -> MachineConfiguration {
    var machine: MachineConfiguration
    if let config {
      machine = try ConfigurationFile(path: config).read()
    } else if kernel == nil {
      machine = try ConfigurationFile(path: try Installation.demoConfiguration()).read()
    } else {
      machine = MachineConfiguration()
    }
    var replaced: Set<MachineKey> = []
    for (key, value) in settings {
      if key.isRepeatable, replaced.insert(key).inserted { machine.removeAll(key) }
      do {
        try machine.apply(key, value)
      } catch {
        var error = error
        error.key = "--\(error.key)"
        throw error
      }
    }
    if machine.kernel == nil {
      let guest = try HostPaths.findGuest()
      machine.kernel = guest.kernel
      if machine.archive == nil, archive != "none" { machine.archive = guest.archive }
    }
    if control == nil, machine.control == nil {
      if name == nil { machine.name = ControlSocket.freeName(machine.name) }
      machine.control = HostPaths.controlSocket(name: machine.name)
    }
    try machine.validate()
    machine.resolveReferences()
    return machine
  }
}

/// Where the package's files are.
enum Installation {
  /// The folders that may hold `configs`, in order: the installation's, then those above the build folder.
  static func demoConfiguration() throws -> String {
    let executable = HostPaths.executable ?? CommandLine.arguments[0]
    var folder = HostPaths.folder(of: executable)
    var candidates = ["\(folder)/../share/castor/configs/demo.yaml"]
    for _ in 0..<5 {
      candidates.append("\(folder)/configs/demo.yaml")
      folder = HostPaths.folder(of: folder)
    }
    for candidate in candidates where access(candidate, R_OK) == 0 { return candidate }
    throw ConfigurationError(
      key: "configuration", value: "",
      expected:
        "none was given and the demo (configs/demo.yaml) was not found beside the package; give a file, or --kernel",
      exitCode: .missingInput)
  }

  /// The virtual machine monitor, beside this executable.
  static func monitor() throws -> String {
    let folder = HostPaths.folder(of: HostPaths.executable ?? CommandLine.arguments[0])
    let path = "\(folder)/castor-vmm"
    guard access(path, X_OK) == 0 else {
      throw ConfigurationError(
        key: "castor-vmm", value: path, expected: "not found beside castor; build the package with swift build",
        exitCode: .missingInput)
    }
    return path
  }
}
