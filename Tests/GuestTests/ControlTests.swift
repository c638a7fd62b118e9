// `castor ctl` and a running guest: what each command does to it (docs/control.md).

import Configuration
import Foundation
import Testing

@Suite(.serialized, .enabled(if: Host.castor.isAvailable)) struct ControlTests {
  let scratch: ScratchFolder
  let socket: String

  init() throws {
    scratch = try ScratchFolder()
    socket = "\(scratch.path)/control.sock"
  }

  private func start(disk bytes: Int? = nil, mode: String = "twin") throws -> GuestMachine {
    var description = GuestDescription()
    description.memory = "128M"
    if let bytes {
      description.disk = try scratch.file("disk.img", bytes: bytes)
      description.services = [
        "name=console,program=console", "name=block,program=block-container,mode=\(mode),device=disk0",
      ]
      if mode != "solo" { description.services.append("name=block-twin,program=block-twin,mode=\(mode)") }
    }
    description.extra = ["control=\(socket)"]
    let guest = try description.start(on: .castor)
    #expect(guest.waitFor("pollux> "), "\(guest.console)")
    return guest
  }

  private func ctl(_ words: String...) throws -> (code: Int32, reply: [String: Any], errors: String) {
    try CastorControl(socket: socket)(words)
  }

  @Test func pausedGuestStandsStillAndGoesOn() throws {
    let guest = try start()
    let status = try ctl("status").reply
    #expect(status["state"] as? String == "running")
    let boot = status["boot_ns"] as? [String: Int] ?? [:]
    #expect(boot["1"].map { $0 > 0 } == true && boot["2"].map { $0 > boot["1"] ?? .max } == true)

    #expect(try ctl("pause").code == 0)
    guest.type("help\r")
    usleep(500_000)
    #expect(!guest.console.contains("this text"))
    #expect(try ctl("status").reply["state"] as? String == "paused")
    #expect(try ctl("resume").code == 0)
    #expect(guest.waitFor("this text"))
    guest.type("halt\r")
    #expect(guest.finish().exitCode == 0)
    #expect(access(socket, F_OK) != 0, "the socket goes away with the machine")
  }

  @Test func resizedDiskIsSeenByTheDriver() throws {
    let guest = try start(disk: 64 << 20)
    let reply = try ctl("resize-disk", "disk0", "96M")
    #expect(reply.code == 0 && reply.reply["bytes"] as? Int == 96 << 20)
    #expect(guest.waitFor("capacity is now \((96 << 20) / 512) sectors"), "\(guest.console)")
    let attributes = try FileManager.default.attributesOfItem(atPath: "\(scratch.path)/disk.img")
    #expect(attributes[.size] as? Int == 96 << 20)
    guest.type("halt\r")
    #expect(guest.finish().exitCode == 0)
  }

  @Test func countersCountTheGuestsRequests() throws {
    let guest = try start(disk: 64 << 20)
    guest.type("bench sizes=4K depths=1\r")
    #expect(guest.waitFor("\npollux> ", seconds: 60), "\(guest.console)")
    let stats = try ctl("stats").reply
    let device = (stats["devices"] as? [[String: Any]])?.first
    let queue = (device?["queues"] as? [[String: Any]])?.first ?? [:]
    let requests = queue["requests"] as? Int ?? 0
    let latency = queue["latency_ns"] as? [String: Any] ?? [:]
    #expect(requests > 0 && latency["count"] as? Int ?? 0 > 0)
    let buckets = latency["buckets"] as? [[Int]] ?? []
    #expect(buckets.reduce(0) { $0 + $1[1] } == latency["count"] as? Int)
    let exits = (stats["cpus"] as? [[String: Any]])?.first?["exits"] as? [String: Int] ?? [:]
    #expect(exits["port-write"] ?? 0 > 0)
    guest.type("halt\r")
    #expect(guest.finish().exitCode == 0)
  }

  @Test func stopPowersTheGuestOff() throws {
    let guest = try start()
    #expect(try ctl("stop").code == 0)
    let run = guest.finish(seconds: 20)
    #expect(run.exitCode == 0)
    #expect(run.console.contains("power button"), "\(run.console)")
    #expect(!run.errors.contains("did not"), "\(run.errors)")
  }

  @Test func terminationSignalPowersTheGuestOff() throws {
    let guest = try start()
    guest.process.terminate()
    let run = guest.finish(seconds: 20)
    #expect(run.exitCode == 0)
    #expect(run.console.contains("power button"), "\(run.console)")
  }

  @Test func pausedGuestIsWokenToPowerOff() throws {
    let guest = try start()
    #expect(try ctl("pause").code == 0)
    #expect(try ctl("stop").code == 0)
    #expect(guest.finish(seconds: 20).exitCode == 0)
  }

  @Test func injectedFaultsReachTheDeviceAndTheDriverRecovers() throws {
    let guest = try start(disk: 64 << 20)
    #expect(try ctl("inject", "disk0", "fail-next", "2").code == 0)
    guest.type("bench sizes=4K depths=1\r")
    #expect(guest.waitFor("bench-end", seconds: 60), "\(guest.console)")
    #expect(try firstQueue()["errors"] as? Int == 2)
    #expect(try ctl("inject", "disk0", "spurious-interrupt").code == 0)
    #expect(try ctl("inject", "disk0", "needs-reset").code == 0)
    #expect(guest.waitFor("asks for a reset"), "\(guest.console)")
    let before = try firstQueue()["requests"] as? Int ?? 0
    guest.type("bench sizes=4K depths=1\r")
    #expect(waits(for: 2, "bench-end", on: guest), "\(guest.console)")
    #expect(try firstQueue()["requests"] as? Int ?? 0 > before)
    guest.type("halt\r")
    #expect(guest.finish().exitCode == 0)
  }

  /// Two clients wait for requests that end one after the other: the driver, having answered the first, hears of the second.
  @Test(arguments: ["solo", "twin", "twin-poll"])
  func requestsThatEndApartAreAllAnswered(mode: String) throws {
    let guest = try start(disk: 64 << 20, mode: mode)
    #expect(try ctl("inject", "disk0", "delay", "20ms").code == 0)
    guest.type("bench selftest=on\r")
    #expect(guest.waitFor("two sessions, each is told of its end", seconds: 60), "\(guest.console)")
    #expect(guest.waitFor("\npollux> ", seconds: 20), "\(guest.console)")
    #expect(!guest.console.contains("FAILED"), "\(guest.console)")
    guest.type("halt\r")
    #expect(guest.finish().exitCode == 0)
  }

  /// Whether the console shows `text` so many times within a minute.
  private func waits(for count: Int, _ text: String, on guest: GuestMachine) -> Bool {
    let deadline = Date().addingTimeInterval(60)
    while Date() < deadline {
      if guest.console.components(separatedBy: text).count > count { return true }
      usleep(20_000)
    }
    return false
  }

  private func firstQueue() throws -> [String: Any] {
    let device = (try ctl("stats").reply["devices"] as? [[String: Any]])?.first
    return (device?["queues"] as? [[String: Any]])?.first ?? [:]
  }

  @Test func forcedStopEndsTheMachineAtOnce() throws {
    let guest = try start()
    #expect(try ctl("stop", "force").code == 0)
    #expect(guest.finish(seconds: 10).exitCode == 0)
    #expect(try ctl("status").code == ExitCode.noSuchMachine.rawValue)
  }

  @Test func impossibleRequestsAreRefusedAndChangeNothing() throws {
    let guest = try start()
    for words in [["resize-disk", "disk7", "1G"], ["link", "net0", "up"], ["inject", "disk0", "fail-next", "1"]] {
      let (code, _, errors) =
        try words.count == 3 ? ctl(words[0], words[1], words[2]) : ctl("inject", "disk0", "fail-next", "1")
      #expect(code == ExitCode.protocolError.rawValue, "\(words)")
      #expect(errors.contains("there is no device"), "\(errors)")
    }
    #expect(try ctl("status").reply["state"] as? String == "running")
    let second = GuestDescription(extra: ["control=\(socket)"])
    #expect(try second.start(on: .castor).finish(seconds: 20).exitCode == ExitCode.addressInUse.rawValue)
    guest.type("halt\r")
    #expect(guest.finish().exitCode == 0)
  }
}
