// The block drivers in the guest, container with twin and solo: data arrives intact, the interface refuses what it must, and
// the system survives the death of a driver.

import Foundation
import Testing

/// How the block driver is divided.
private let modes = ["solo", "twin", "twin-poll"]

/// A guest with a disk, a block driver in `mode`, and `bench-block` with `arguments`, which ends the machine.
private func benchmark(_ host: Host, _ mode: String, _ arguments: String, disk: String) throws -> GuestRun {
  var description = GuestDescription()
  description.disk = disk
  switch host {
  case .castor:
    description.services = [
      "name=block,program=block-container,mode=\(mode),device=disk0",
      "name=bench,program=bench-block,arguments=\(arguments.replacingOccurrences(of: ",", with: ",,")) exit=on",
    ]
  case .qemu:
    description.commandLine =
      "pollux.mode=\(mode) pollux.run=bench-block pollux.arguments=\"\(arguments) exit=on\""
  }
  return try description.start(on: host).finish(seconds: 120)
}

@Suite(.serialized) struct BlockTests {
  @Test(arguments: Host.available, modes)
  func writtenDataIsReadBack(host: Host, mode: String) throws {
    let folder = try ScratchFolder()
    let run = try benchmark(
      host, mode,
      "operations=write,read patterns=random,sequential sizes=4096,131072 depths=1,16 milliseconds=60",
      disk: folder.file("disk.img", bytes: 32 << 20))
    let results = run.records.filter { $0["report"] as? String == "bench-result" }
    #expect(results.count == 16, "\(run.console) \(run.errors)")
    for result in results {
      #expect(result["errors"] as? Int == 0)
      #expect(result["mode"] as? String == mode)
      #expect((result["requests"] as? Int ?? 0) > 0)
      if result["operation"] as? String == "write" { #expect(result["verified"] as? Bool == true) }
    }
    #expect(run.exitCode == 0, "\(run.errors)")
  }

  @Test(arguments: Host.available, modes)
  func theInterfaceKeepsItsPromises(host: Host, mode: String) throws {
    let folder = try ScratchFolder()
    let run = try benchmark(host, mode, "selftest=on", disk: folder.file("disk.img", bytes: 1 << 20))
    #expect(run.exitCode == 0)
    #expect(run.lines.filter { $0.contains("self test:") && $0.hasSuffix("ok") }.count == 11, "\(run.console)")
  }

  @Test(arguments: Host.available)
  func manyThreadsShareADriver(host: Host) throws {
    let folder = try ScratchFolder()
    let run = try benchmark(
      host, "twin", "operations=write sizes=4096 depths=8 patterns=random milliseconds=100 path=threads",
      disk: folder.file("disk.img", bytes: 4 << 20))
    let result = run.records.first { $0["report"] as? String == "bench-result" }
    #expect(result?["verified"] as? Bool == true, "\(run.console)")
    #expect(run.exitCode == 0)
  }

  /// A client of a driver that has died gets an error and the rest of the system goes on.
  @Test(arguments: Host.available)
  func aDeadServiceIsReportedAndMissed(host: Host) throws {
    var description = GuestDescription()
    if host == .castor { description.services = ["console", "memdisk"] }
    let guest = try description.start(on: host)
    #expect(guest.waitFor("pollux> "))
    guest.type("memtest\r")
    #expect(guest.waitFor("eight requests at once"), "\(guest.console)")
    guest.type("kill memdisk\r")
    #expect(guest.waitFor("memdisk ended with code 137"), "\(guest.console)")
    guest.type("memtest\r")
    #expect(guest.waitFor("service is gone"), "\(guest.console)")
    guest.type("services\r")
    #expect(guest.waitFor("ended"))
    guest.type("halt\r")
    let run = guest.finish()
    #expect(run.exitCode == 0)
  }
}
