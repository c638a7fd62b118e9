// The boot ROM starts the same kernel, with the same result, as the direct entry.

import Foundation
import Testing

@Suite(.serialized, .enabled(if: Host.castor.isAvailable, "needs /dev/kvm")) struct FirmwareTests {
  @Test(arguments: [1, 2])
  func kernelStartedFromTheResetVectorReachesThePromptAndPowersOff(cpus: Int) throws {
    var description = GuestDescription()
    description.cpus = cpus
    description.extra = ["firmware=on"]
    let guest = try description.start(on: .castor)
    #expect(guest.waitFor("pollux> "), "no prompt; the console shows: \(guest.console)")
    guest.type("halt\r")
    let run = guest.finish()
    #expect(run.exitCode == 0, "\(run.errors)")
  }
}
