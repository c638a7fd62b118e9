import Glibc
import HostSystem
import SystemPackage
import Testing

@testable import Devices

@Suite struct ControlProtocolTests {
  private func command(_ text: String) -> Result<ControlCommand, ControlError> {
    ControlRequest(parsing: Array(text.utf8)).command
  }

  static let valid: [(String, ControlCommand)] = [
    (#"{"command":"status"}"#, ControlCommand.status), (#"{"command":"pause","id":7}"#, .pause),
    (#"{"command":"resume","id":null}"#, .resume), (#"{"command":"stats"}"#, .stats),
    (#"{"command":"stop"}"#, .stop(force: false)), (#"{"command":"stop","force":true}"#, .stop(force: true)),
    (#"{"command":"resize-disk","device":"disk0","bytes":1073741824}"#, .resizeDisk(device: "disk0", bytes: 1 << 30)),
    (#"{"command":"link","device":"net0","up":false}"#, .link(device: "net0", isUp: false)),
    (
      #"{"command":"mac","device":"net0","address":"52:54:00:12:34:56"}"#,
      .mac(device: "net0", address: [0x52, 0x54, 0, 0x12, 0x34, 0x56])
    ),
    (#"{"command":"inject","device":"d","fault":"wedge"}"#, .inject(device: "d", .wedge(queue: 0))),
    (#"{"command":"inject","device":"d","fault":"fail-next","count":3}"#, .inject(device: "d", .failNext(count: 3))),
    (
      #"{"command":"inject","device":"d","fault":"fail-sectors","first":8,"count":4}"#,
      .inject(device: "d", .failSectors(8..<12))
    ),
    (#"{"command":"inject","device":"d","fault":"fail-rate","rate":0.25}"#, .inject(device: "d", .failRate(0.25))),
    (#"{"command":"inject","device":"d","fault":"fail-rate","rate":1}"#, .inject(device: "d", .failRate(1))),
    (
      #"{"command":"inject","device":"d","fault":"delay","microseconds":50}"#,
      .inject(device: "d", .delay(microseconds: 50))
    ),
    (#"{"command":"inject","device":"d","fault":"needs-reset"}"#, .inject(device: "d", .needsReset)),
    (
      #"{"command":"inject","device":"d","fault":"spurious-interrupt"}"#,
      .inject(device: "d", .spuriousInterrupt(queue: 0))
    ),
    (
      #"{"command":"inject","device":"d","fault":"spurious-interrupt","queue":2}"#,
      .inject(device: "d", .spuriousInterrupt(queue: 2))
    ),
    (#"{"command":"inject","device":"d","fault":"off"}"#, .inject(device: "d", .off)),
  ]

  @Test(arguments: valid)
  func requestBecomesACommand(text: String, expected: ControlCommand) throws {
    #expect(try command(text).get() == expected)
  }

  static let invalid: [(String, String)] = [
    ("[]", "JSON object"), ("{}", "\"command\""), (#"{"command":1}"#, "\"command\""),
    (#"{"command":"dance"}"#, "unknown command \"dance\""),
    (#"{"command":"pause","now":1}"#, "unknown argument \"now\""),
    (#"{"command":"stop","force":1}"#, "true or false"), (#"{"command":"resize-disk","device":"d"}"#, "\"bytes\""),
    (#"{"command":"resize-disk","device":"d","bytes":-1}"#, "\"bytes\""),
    (#"{"command":"resize-disk","device":"d","bytes":1.5}"#, "\"bytes\""),
    (#"{"command":"resize-disk","bytes":1}"#, "\"device\""), (#"{"command":"link","device":"n"}"#, "\"up\""),
    (#"{"command":"mac","device":"n","address":"52:54:00:12:34"}"#, "MAC address"),
    (#"{"command":"mac","device":"n","address":"53:54:00:12:34:56"}"#, "unicast"),
    (#"{"command":"inject","device":"d","fault":"fire"}"#, "\"fault\""),
    (#"{"command":"inject","device":"d","fault":"fail-rate","rate":1.1}"#, "0 to 1"),
    (#"{"command":"inject","device":"d","fault":"fail-rate","rate":2}"#, "0 to 1"),
    (#"{"command":"inject","device":"d","fault":"fail-sectors","first":0,"count":0}"#, "at least 1"),
    (#"{"command":"inject","device":"d","fault":"delay","microseconds":60000001}"#, "at most"),
    (#"{"command":"inject","device":"d","fault":"off","count":1}"#, "unknown argument"), ("{", "JSON"),
  ]

  @Test(arguments: invalid)
  func badRequestIsExplained(text: String, part: String) throws {
    guard case .failure(let error) = command(text) else {
      Issue.record("\(text) was taken")
      return
    }
    #expect(error.message.contains(part), "\(error.message)")
  }

  @Test func largestSectorRangeDoesNotOverflow() throws {
    let text =
      #"{"command":"inject","device":"d","fault":"fail-sectors","first":9223372036854775807,"count":9223372036854775807}"#
    #expect(try command(text).get() == .inject(device: "d", .failSectors(UInt64(Int64.max)..<UInt64(Int64.max) * 2)))
  }
}

@Suite struct ControlServerTests {
  final class Target: ControlTarget {
    var performed: [ControlCommand] = []
    func perform(_ command: ControlCommand) throws(ControlError) -> JSONValue {
      performed.append(command)
      switch command {
      case .pause: throw ControlError("already paused")
      case .stats: return ["filler": .string(String(repeating: "x", count: 50_000))]
      default: return ["state": "running"]
      }
    }
  }

  let scratch = ScratchDirectory()
  let loop: EventLoop
  let target = Target()
  let server: ControlServer
  let path: String

  init() throws {
    loop = try EventLoop()
    path = scratch.file("control.sock")
    server = try ControlServer(path: path, loop: loop, target: target)
  }

  private func connect() throws -> OwnedDescriptor {
    try UnixListener.connect(to: try UnixListener.address(of: path))
  }

  /// Reads `count` lines from a client, running the loop meanwhile.
  private func lines(_ count: Int, from client: borrowing OwnedDescriptor) throws -> [JSONValue] {
    let descriptor = client.rawValue
    var got: [UInt8] = []
    let enough = poll(loop) {
      got += readAvailable(descriptor)
      return got.count { $0 == 10 } >= count
    }
    #expect(enough, "\(String(decoding: got, as: UTF8.self))")
    return try got.split(separator: 10).map { try JSONValue(parsing: Array($0)) }
  }

  @Test func requestIsAnsweredWithItsIdentifier() throws {
    let client = try connect()
    writeAll(client.rawValue, #"{"id":"a","command":"status"}"# + "\n" + #"{"id":5,"command":"pause"}"# + "\n\n")
    #expect(
      try lines(2, from: client) == [
        ["id": "a", "ok": true, "result": ["state": "running"]],
        ["id": 5, "ok": false, "error": "already paused"],
      ])
    #expect(target.performed == [.status, .pause])
    server.close()
  }

  @Test func requestInPiecesAndWithoutAnEndIsAnswered() throws {
    let client = try connect()
    for piece in [#"{"comm"#, #"and":"sta"#, #"tus"}"#] {
      writeAll(client.rawValue, piece)
      for _ in 0..<3 { loop.poll(timeoutMilliseconds: 1) }
    }
    #expect(target.performed.isEmpty)
    shutdown(client.rawValue, CInt(SHUT_WR))
    #expect(try lines(1, from: client).first?["ok"] == true)
    let descriptor = client.rawValue
    #expect(
      poll(loop) {
        var byte: UInt8 = 0
        return read(descriptor, &byte, 1) == 0
      })
  }

  @Test func rubbishIsAnsweredWithErrorsAndTheClientStays() throws {
    let client = try connect()
    writeAll(client.rawValue, "hello\n\u{1}\n{\"command\":\"nothing\"}\n[[[[\n")
    let replies = try lines(4, from: client)
    #expect(replies.allSatisfy { $0["ok"] == false && $0["id"] == .null })
    writeAll(client.rawValue, #"{"command":"status"}"# + "\n")
    #expect(try lines(1, from: client).first?["ok"] == true)
  }

  @Test func overlongLineIsSkippedToItsEnd() throws {
    let client = try connect()
    let chunk = String(repeating: "x", count: 10_000)
    for _ in 0..<30 {
      writeAll(client.rawValue, chunk)
      loop.poll(timeoutMilliseconds: 1)
      loop.poll(timeoutMilliseconds: 0)
    }
    writeAll(client.rawValue, "\n" + #"{"command":"status"}"# + "\n")
    let replies = try lines(2, from: client)
    #expect(replies.count == 2)
    #expect(replies.first?["ok"] == false)
    #expect(replies.last?["ok"] == true)
  }

  @Test func severalClientsAreServedAndTooManyAreTurnedAway() throws {
    var descriptors: [CInt] = []
    defer { for descriptor in descriptors { close(descriptor) } }
    for _ in 0..<ControlServer.maximumClients {
      descriptors.append(try connect().release())
      loop.poll(timeoutMilliseconds: 1)
    }
    for descriptor in descriptors { writeAll(descriptor, #"{"command":"status"}"# + "\n") }
    for descriptor in descriptors {
      var got: [UInt8] = []
      #expect(
        poll(loop) {
          got += readAvailable(descriptor)
          return got.contains(10)
        })
    }
    let oneTooMany = try connect()
    #expect(try lines(1, from: oneTooMany).first?["error"] == "too many clients")
  }

  @Test func clientThatDoesNotReadIsNotReadFromAndLosesNothing() throws {
    let client = try connect()
    let requests = 60
    writeAll(client.rawValue, (0..<requests).map { "{\"id\":\($0),\"command\":\"stats\"}\n" }.joined())
    for _ in 0..<20 { loop.poll(timeoutMilliseconds: 1) }
    #expect(target.performed.count < 30, "replies of 50 kB do not pile up without a bound")
    let descriptor = client.rawValue
    var replies = 0
    #expect(
      poll(loop) {
        replies += readAvailable(descriptor).count { $0 == 10 }
        return replies == requests
      })
  }

  @Test func clientThatGoesAwayInTheMiddleDisturbsNobody() throws {
    do {
      let rude = try connect()
      writeAll(rude.rawValue, #"{"command":"stats"}"# + "\n" + #"{"comm"#)
    }
    let client = try connect()
    writeAll(client.rawValue, #"{"command":"status"}"# + "\n")
    #expect(try lines(1, from: client).first?["ok"] == true)
  }

  @Test(arguments: 0..<6 as Range<UInt64>)
  func randomBytesNeverStopTheServer(seed: UInt64) throws {
    var random = SplitMix(state: seed)
    let client = try connect()
    let pieces = [
      #"{"id":1,"command":"status"}"#, "\n", "{", "\"", "inject", "\u{0}", "\\ud800", "9e9999", "[[", ":", "\r\n",
    ]
    for _ in 0..<500 {
      writeAll(client.rawValue, pieces.randomElement(using: &random) ?? "")
      loop.poll(timeoutMilliseconds: 0)
      _ = readAvailable(client.rawValue)
    }
    let other = try connect()
    writeAll(other.rawValue, #"{"command":"status"}"# + "\n")
    #expect(try lines(1, from: other).first?["ok"] == true)
  }

  @Test func socketFileIsPrivateAndGoesAway() throws {
    let path = scratch.file("other.sock")
    do {
      let server = try ControlServer(path: path, loop: loop, target: target)
      var status = stat()
      #expect(lstat(path, &status) == 0 && status.st_mode & 0o777 == 0o600)
      #expect(throws: SocketPathError.inUse(path: path)) {
        try ControlServer(path: path, loop: loop, target: target)
      }
      server.close()
    }
    #expect(access(path, F_OK) != 0)
  }
}
