// Debian's virtio_rng in the driver container: random bytes of the host by /dev/hwrng.

import Foundation
import Testing

@Suite(
  .serialized, .enabled(if: LinuxDrivers.arePresent, "make drivers has not put Linux's modules into the boot archive"))
struct LinuxEntropyTests {
  private static let generator = "program=linux-container,device=entropy,restart=on-failure"

  /// The device itself.
  private static func device(_ host: Host) -> [String] {
    switch host {
    case .castor: ["entropy=on"]
    case .qemu:
      ["-object", "rng-random,filename=/dev/urandom,id=rng0", "-device", "virtio-rng-device,rng=rng0"]
    }
  }

  @Test(arguments: Host.available)
  func randomBytesComeByTheNode(host: Host) throws {
    let folder = try ScratchFolder()
    var description = GuestDescription()
    description.disk = try folder.file("disk.img", bytes: 8 << 20)
    let network =
      host == .castor
      ? ["net=listen=\(folder.path)/net"]
      : ["-netdev", "user,id=net0,restrict=on", "-device", "virtio-net-device,netdev=net0"]
    description.extra = Self.device(host) + network
    description.compose(
      [
        "name=block,program=linux-container,mode=twin\(host == .castor ? ",device=disk0" : "")",
        "name=net,program=linux-container,mode=twin,device=\(host == .castor ? "net0" : "net")",
        "name=entropy,\(Self.generator)",
        "name=vfs,program=vfs,arguments=memory=2M",
        "name=test,program=file-test,mode=entropy",
      ], on: host)
    let run = try description.start(on: host).finish(seconds: 120)
    #expect(run.lines.filter { $0.hasPrefix("FAILED") }.isEmpty, "\(run.console)")
    #expect(run.lines.contains("ok the test reached its end"), "\(run.console)\(run.errors)")
    #expect(run.lines.contains { $0.hasPrefix("init: entropy: started again") }, "\(run.console)")
    #expect(!run.console.contains("gives no random bytes"), "\(run.console)")
    #expect(run.exitCode == 0, "\(run.errors)")
  }

  @Test(arguments: Host.available)
  func aGeneratorHasNoTwin(host: Host) throws {
    var description = GuestDescription()
    description.extra = Self.device(host)
    description.compose(
      ["name=entropy,mode=twin,\(Self.generator)", "name=test,program=bench-rpc"], on: host)
    let guest = try description.start(on: host)
    defer { kill(guest.process.processIdentifier, SIGKILL) }
    #expect(guest.waitFor("init: entropy: not started"), "\(guest.console)")
  }

  @Test(.enabled(if: Host.castor.isAvailable))
  func aDeviceThatAsksForAResetGoesOn() throws {
    let folder = try ScratchFolder()
    var description = GuestDescription()
    description.extra = Self.device(.castor) + ["control=\(folder.path)/ctl"]
    description.services = [
      "name=entropy,\(Self.generator)", "name=vfs,program=vfs,arguments=memory=2M",
      "name=test,program=file-test,mode=random",
    ]
    let guest = try description.start(on: .castor)
    defer { kill(guest.process.processIdentifier, SIGKILL) }
    #expect(guest.waitFor("random 2\n"), "\(guest.console)")
    let control = CastorControl(socket: "\(folder.path)/ctl")
    for reset in 1...3 {
      let before = Self.rounds(guest)
      let (code, _, errors) = try control(["inject", "entropy", "needs-reset"])
      #expect(code == 0, "\(errors)")
      #expect(guest.waitFor("random \(before + 3)\n"), "\(guest.console)")
      #expect(guest.console.components(separatedBy: "the device asks for a reset").count == reset + 1)
    }
    #expect(!guest.console.contains("FAILED"), "\(guest.console)")
    // Nobody waited in vain for a request that the driver had not made.
    #expect(!guest.console.contains("gives no random bytes"), "\(guest.console)")
    #expect(!guest.console.contains("started again"), "\(guest.console)")
  }

  /// How many times the guest has read, as far as it said so.
  private static func rounds(_ guest: GuestMachine) -> Int {
    guest.console.split(separator: "\n").last { $0.hasPrefix("random ") }.flatMap { Int($0.dropFirst(7)) } ?? 0
  }
}
