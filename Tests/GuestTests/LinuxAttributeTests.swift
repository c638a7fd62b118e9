// What Linux's sysfs would show of a driver's devices, in the guest's shell.

import Configuration
import Foundation
import Testing

@Suite(
  .enabled(
    if: LinuxDrivers.arePresent && Host.castor.isAvailable, "needs KVM, and Linux's modules by make drivers"))
struct LinuxAttributeTests {
  /// A machine with a disk, whose driver has this mode, and a control socket.
  private func start(_ mode: String) throws -> (guest: GuestMachine, scratch: ScratchFolder) {
    let scratch = try ScratchFolder()
    var description = GuestDescription()
    description.disk = try scratch.file("disk.img", bytes: 8 << 20)
    description.services = [
      "name=console,program=console", "name=block,program=linux-container,mode=\(mode),device=disk0",
    ]
    description.extra = ["control=\(scratch.path)/control.sock"]
    let guest = try description.start(on: .castor)
    #expect(guest.waitFor("[vda]") && guest.waitFor("pollux> "), "\(guest.console)")
    return (guest, scratch)
  }

  /// What the shell writes after a command until its next prompt, without what the driver says meanwhile.
  private func answer(_ guest: GuestMachine, _ command: String) throws -> [String] {
    let before = guest.console.count
    guest.type("\(command)\r")
    for _ in 0..<1500 {
      let text = String(guest.console.dropFirst(before)).replacingOccurrences(of: "\r", with: "")
      let lines = text.split(separator: "\n", omittingEmptySubsequences: false).map(String.init)
      if let echo = lines.firstIndex(where: { $0.hasSuffix(command) }),
        // The driver may go on in the prompt's line.
        let prompt = lines[(echo + 1)...].firstIndex(where: { $0.hasPrefix("pollux> ") })
      {
        return lines[(echo + 1)..<prompt].filter { !$0.contains("linux: ") }
      }
      Thread.sleep(forTimeInterval: 0.02)
    }
    Issue.record("no answer to \(command): \(guest.console)")
    return []
  }

  @Test(arguments: ["solo", "twin"]) func aDriversAttributesAreListedReadAndSet(mode: String) throws {
    let (guest, _) = try start(mode)
    let all = try answer(guest, "attributes block")
    #expect(all.contains("virtio/virtio0/device  0x0002"), "\(guest.console)")
    #expect(all.contains("virtio/virtio0/status  0x0000000f"), "\(guest.console)")
    #expect(all.contains("block/vda/cache_type  write back"), "\(guest.console)")
    // The driver asks its device for it, which in the other mode only the twin may.
    let serial = all.first { $0.contains("block/vda/serial") }
    #expect(
      serial
        == (mode == "solo"
          ? "block/vda/serial  castor-disk0"
          : "attributes: block/vda/serial: the driver would need the device's queue, which is its twin's"),
      "\(guest.console)")
    #expect(try answer(guest, "attributes block block/vda/cache_type write through") == [])
    #expect(try answer(guest, "attributes block block/vda/cache_type") == ["write through"])
    for (command, complaint) in [
      ("block/vda/cache_type other", "block/vda/cache_type: this is no value for it"),
      ("virtio/virtio0/device 7", "virtio/virtio0/device: not to be read or written so"),
      ("block/vda/nothing", "block/vda/nothing: there is no such attribute"),
    ] {
      #expect(try answer(guest, "attributes block \(command)") == ["attributes: \(complaint)"])
    }
    #expect(try answer(guest, "attributes console") == ["attributes: not found"])
    guest.type("halt\r")
    #expect(guest.finish(seconds: 30).exitCode == 0)
  }

  @Test func aSuspendedDriverDoesNotKeepTheShell() throws {
    let (guest, _) = try start("twin")
    _ = try answer(guest, "suspend block")
    var tries = 0
    while try !answer(guest, "services").contains(where: { $0.contains("suspended") }), tries < 100 { tries += 1 }
    let lines = try answer(guest, "attributes block block/vda/cache_type")
    #expect(lines == ["attributes: block/vda/cache_type: the driver does not answer"], "\(guest.console)")
    _ = try answer(guest, "resume block")
    #expect(try answer(guest, "attributes block block/vda/cache_type") == ["write back"], "\(guest.console)")
    guest.type("halt\r")
    #expect(guest.finish(seconds: 30).exitCode == 0)
  }

  /// The driver waits for its device in the middle of an attribute; who asked does not wait with it.
  @Test func aDriverThatHangsOverAnAttributeDoesNotKeepTheShell() throws {
    let (guest, scratch) = try start("solo")
    let control = CastorControl(socket: "\(scratch.path)/control.sock")
    #expect(try answer(guest, "attributes block block/vda/serial") == ["castor-disk0"], "\(guest.console)")
    #expect(try control(["inject", "disk0", "wedge"]).code == 0)
    let unanswered = ["attributes: block/vda/serial: the driver does not answer"]
    #expect(try answer(guest, "attributes block block/vda/serial") == unanswered, "\(guest.console)")
    // It is still about that one, and nobody else gets in between.
    #expect(
      try answer(guest, "attributes block block/vda/cache_type")
        == ["attributes: block/vda/cache_type: the driver does not answer"], "\(guest.console)")
    #expect(try control(["inject", "disk0", "off"]).code == 0)
    var serial: [String] = unanswered
    for _ in 0..<20 where serial == unanswered { serial = try answer(guest, "attributes block block/vda/serial") }
    #expect(serial == ["castor-disk0"], "\(guest.console)")
    guest.type("halt\r")
    #expect(guest.finish(seconds: 30).exitCode == 0)
  }
}
