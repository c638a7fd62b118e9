// The border between a driver's control and data plane, by a pair of programs in the places of container and twin that try to cross it.
// QEMU's machine has no pages of its own for doorbells, so there is nothing to enforce it with.

import Foundation
import Testing

struct CrossingTests {
  /// What the two try, in the words of Guest/Sources/CrossingTest.
  private static let attempts = [
    "the container is given the doorbell page", "the container rings by QueueNotify of its page",
    "the twin is given the register page", "the twin is given the message table",
    "an interrupt of the device's by the doorbell page", "the twin's doorbell has the request done",
  ]
  private static let attemptsOfBoth = [
    "a page of the device that lies behind the own", "a mapping that begins behind the own page",
    "the device's pages by their physical address",
  ]

  @Test(.enabled(if: Host.available.contains(.castor)))
  func neitherContainerNorTwinReachesThePagesOfTheOther() throws {
    let folder = try ScratchFolder()
    var description = GuestDescription(memory: "128M", archive: "crossing-test.tar")
    description.disk = try folder.file("disk.img", bytes: 1 << 20)
    description.services = ["name=block,program=block-container,mode=twin,device=disk0"]
    let guest = try description.start(on: .castor)
    // The last attempt's end; init goes on.
    #expect(guest.waitFor("init: block.container died"), "\(guest.console)")
    usleep(200_000)
    guest.process.terminate()
    let run = guest.finish()
    for attempt in Self.attempts {
      #expect(run.lines.filter { $0 == "crossing: \(attempt): ok" }.count == 1, "\(attempt): \(run.console)")
    }
    for attempt in Self.attemptsOfBoth {
      #expect(run.lines.filter { $0 == "crossing: \(attempt): ok" }.count == 2, "\(attempt): \(run.console)")
    }
    // The twin read the registers at the container's address, the container wrote to the doorbell at the twin's: page faults.
    #expect(run.lines.contains("init: block died of exception 14"), "\(run.console)")
    #expect(run.lines.contains("init: block.container died of exception 14"), "\(run.console)")
    #expect(!run.console.contains("FAILED"), "\(run.console)")
  }
}
