// Every composition of configs/ boots to its prompt on every host, all its services run, and what it says is to be started again is.

import Configuration
import Foundation
import Testing

@Suite(.serialized) struct ScenarioTests {
  private static let folder = URL(fileURLWithPath: #filePath).deletingLastPathComponent()
    .appendingPathComponent("../../configs").standardized

  /// A configuration as `castor run --dry-run` understands it.
  private func configuration(_ name: String) throws -> MachineConfiguration {
    let castor = Process()
    castor.executableURL = URL(
      fileURLWithPath: "\(HostPaths.folder(of: try #require(HostPaths.executable)))/castor")
    castor.arguments = ["run", "--dry-run", Self.folder.appendingPathComponent("\(name).yaml").path]
    let output = Pipe()
    castor.standardOutput = output
    try castor.run()
    let text = String(decoding: output.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
    castor.waitUntilExit()
    return try MachineConfiguration(arguments: text.split(separator: "\n").map(String.init))
  }

  /// A guest with a configuration's memory, processors and services, and a disk in `folder`. A service of a driver that there is none of is
  /// left out.
  private func description(_ machine: MachineConfiguration, on host: Host, in folder: ScratchFolder) throws
    -> GuestDescription
  {
    var description = GuestDescription(memory: "\(machine.memory >> 20)M", cpus: machine.cpus)
    description.disk = try folder.file("disk.img", bytes: 16 << 20)
    if machine.entropy {
      description.extra =
        host == .castor
        ? ["entropy=on"]
        : ["-object", "rng-random,filename=/dev/urandom,id=rng0", "-device", "virtio-rng-device,rng=rng0"]
    }
    description.compose(
      services(machine).map { service in
        // The command line's form has the arguments last, and under QEMU, where disks have no such names, a driver takes the first.
        service.fields.filter { field in
          !field.value.isEmpty && field.name != "arguments"
            && (host == .castor || field.name != "device" || field.value == "entropy")
        }.map { "\($0.name)=\($0.value)" }.joined(separator: ",")
          + (service.arguments.isEmpty ? "" : ",arguments=\(service.arguments)")
      }, on: host)
    return description
  }

  private func services(_ machine: MachineConfiguration) -> [ServiceConfiguration] {
    machine.services.filter { LinuxDrivers.arePresent || $0.device != "entropy" }
  }

  @Test func everyScenarioIsTested() throws {
    let names = try FileManager.default.contentsOfDirectory(atPath: Self.folder.path)
    // A Linux guest has tests of its own (make test-linux); debug waits for gdb (DebuggerTests).
    #expect(Set(names) == Set(["phone", "vehicle", "router", "demo", "solo", "debug", "linux"].map { "\($0).yaml" }))
  }

  @Test(arguments: Host.available, ["phone", "vehicle", "router", "demo", "solo"])
  func scenarioBootsAndRestartsItsServices(on host: Host, name: String) throws {
    let machine = try configuration(name)
    let folder = try ScratchFolder()
    let description = try description(machine, on: host, in: folder)
    let guest = try description.start(on: host)
    #expect(guest.waitFor("pollux> "), "\(guest.console)")
    // Whoever restarts is killed; the console last, since it takes the commands.
    for service in services(machine).sorted(by: { $1.program == "console" && $0.program != "console" })
    where service.restart != .off {
      guest.type("kill \(service.name)\r")
      #expect(guest.waitFor("init: \(service.name): started again"), "\(service.name): \(guest.console)")
    }
    #expect(!guest.console.contains("FAILED") && !guest.console.contains("not started"), "\(guest.console)")
    usleep(300_000)
    let before = guest.console.count
    guest.type("services\r")
    #expect(guest.waitFor("REMARK"), "\(guest.console)")
    if machine.services.contains(where: { $0.program == "vfs" }) {
      // The service that has been started again has a root of its own.
      guest.type("mkdir /again\rls /\r")
      #expect(guest.waitFor("again/") || guest.waitFor("again", seconds: 1), "\(guest.console)")
    }
    guest.type("halt\r")
    let run = guest.finish()
    #expect(run.exitCode == 0, "\(run.console)\(run.errors)")
    let after = run.console.dropFirst(before)
    for service in services(machine) where service.program != "block-twin" {
      let line = after.split(whereSeparator: \.isNewline).first { $0.hasPrefix(service.name.prefix(16) + " ") }
      #expect(line?.contains(" running ") == true, "\(service.name): \(after)")
    }
  }

  @Test(.enabled(if: LinuxDrivers.arePresent), arguments: Host.available)
  func theDemoUsesLinuxDrivers(on host: Host) throws {
    let console = try services(of: "demo", on: host, archive: nil)
    #expect(console.contains { $0.hasPrefix("block.container  linux-container") && $0.contains("Linux's virtio_blk") })
    #expect(console.contains { $0.hasPrefix("block            block-twin") && $0.contains(" running ") })
    #expect(console.contains { $0.hasPrefix("entropy          linux-container") && $0.contains("Linux's virtio_rng") })
  }

  /// What an offline set-up makes: the same archive without Linux's modules.
  @Test(arguments: Host.available)
  func withoutLinuxDriversTheDemoUsesItsOwn(on host: Host) throws {
    let folder = try ScratchFolder()
    let archive = "\(folder.path)/archive.tar"
    let built = try #require(try HostPaths.findGuest().archive)
    try FileManager.default.copyItem(atPath: built, toPath: archive)
    if LinuxDrivers.arePresent {
      let tar = Process()
      tar.executableURL = URL(fileURLWithPath: "/usr/bin/env")
      tar.arguments = ["tar", "--delete", "--wildcards", "-f", archive, "linux/*"]
      try tar.run()
      tar.waitUntilExit()
      try #require(tar.terminationStatus == 0)
    }
    let console = try services(of: "demo", on: host, archive: archive)
    #expect(
      console.contains {
        $0.hasSuffix(
          "init: block: Linux's drivers are not in the boot archive (make drivers puts them there): block-container drives the disk"
        )
      }, "\(console)")
    #expect(console.contains { $0.hasPrefix("block.container  block-container") && $0.contains(" running ") })
  }

  /// The console's lines after `services` was asked for.
  private func services(of name: String, on host: Host, archive: String?) throws -> [Substring] {
    let machine = try configuration(name)
    let folder = try ScratchFolder()
    var description = try description(machine, on: host, in: folder)
    description.archive = archive
    let guest = try description.start(on: host)
    #expect(guest.waitFor("pollux> "), "\(guest.console)")
    usleep(1_500_000)
    guest.type("services\r")
    #expect(guest.waitFor("REMARK"), "\(guest.console)")
    guest.type("halt\r")
    return guest.finish().console.split(whereSeparator: \.isNewline)
  }
}
