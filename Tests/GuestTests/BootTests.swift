// Pollux boots to its prompt and obeys it, on every host that this machine has.

import Foundation
import Testing

@Suite(.serialized) struct BootTests {
  @Test(arguments: Host.available, [1, 2])
  func reachesThePromptAndPowersOffWhenTold(host: Host, cpus: Int) throws {
    var description = GuestDescription()
    description.cpus = cpus
    let guest = try description.start(on: host)
    #expect(guest.waitFor("pollux> "), "no prompt; the console shows: \(guest.console)")
    guest.type("halt\r")
    let run = guest.finish()
    #expect(run.exitCode == 0, "\(run.errors)")
  }

  @Test(arguments: Host.available)
  func shellAnswersItsCommands(host: Host) throws {
    let guest = try GuestDescription().start(on: host)
    #expect(guest.waitFor("pollux> "))
    for (command, expected) in [
      ("help", "services"), ("ps", "console"), ("services", "console"), ("mem", "free"), ("ls", "init"),
    ] {
      guest.type("\(command)\r")
      #expect(guest.waitFor(expected), "'\(command)' does not show '\(expected)': \(guest.console)")
    }
    guest.type("halt\r")
    #expect(guest.finish().exitCode == 0)
  }

  /// A composition with a program that is not there names it, and starts the rest.
  @Test(arguments: Host.available)
  func aProgramThatIsMissingIsNamed(host: Host) throws {
    var description = GuestDescription()
    description.compose(["name=ghost,program=nowhere", "console"], on: host)
    let guest = try description.start(on: host)
    #expect(guest.waitFor("init: ghost: not in the boot archive: nowhere"), "\(guest.console)")
    #expect(guest.waitFor("pollux> "), "\(guest.console)")
    guest.type("halt\r")
    #expect(guest.finish().exitCode == 0)
  }
}
