// castor ctl: words become requests, replies become text, and a socket that misbehaves is named.

import Configuration
import Foundation
import Testing

@testable import castor

@Suite struct ControlRequestTests {
  @Test(arguments: [
    ("status", #"{"command":"status"}"#),
    ("resize-disk disk0 2G", #"{"bytes":2147483648,"command":"resize-disk","device":"disk0"}"#),
    ("link net1 down", #"{"command":"link","device":"net1","up":false}"#),
    ("inject disk0 fail-next 3", #"{"command":"inject","count":3,"device":"disk0","fault":"fail-next"}"#),
    (
      "inject disk0 fail-sectors 5-9",
      #"{"command":"inject","count":5,"device":"disk0","fault":"fail-sectors","first":5}"#
    ),
    ("inject disk0 fail-rate 0.5", #"{"command":"inject","device":"disk0","fault":"fail-rate","rate":0.5}"#),
    ("inject disk0 delay 20ms", #"{"command":"inject","device":"disk0","fault":"delay","microseconds":20000}"#),
    (
      "inject disk0 spurious-interrupt",
      #"{"command":"inject","device":"disk0","fault":"spurious-interrupt","queue":0}"#
    ),
    ("stop", #"{"command":"stop"}"#), ("stop force", #"{"command":"stop","force":true}"#),
    ("inject net0 off", #"{"command":"inject","device":"net0","fault":"off"}"#),
    ("inject disk0 needs-reset", #"{"command":"inject","device":"disk0","fault":"needs-reset"}"#),
  ])
  func wordsBecomeARequest(_ words: String, _ json: String) throws {
    let request = try ControlRequest(words: words.split(separator: " ").map(String.init))
    let data = try JSONSerialization.data(withJSONObject: request.members, options: [.sortedKeys])
    #expect(String(decoding: data, as: UTF8.self) == json)
  }

  @Test(arguments: [
    "", "reboot", "status now", "resize-disk", "resize-disk disk0", "resize-disk disk0 100", "link net0", "link net0 x",
    "inject", "inject disk0", "inject disk0 fire", "inject disk0 fail-next", "inject disk0 fail-next 0",
    "inject disk0 fail-sectors 9-5", "inject disk0 fail-sectors 9", "inject disk0 fail-rate 2",
    "inject disk0 delay 5", "inject disk0 delay 2h", "inject disk0 needs-reset 1", "stop now", "inject disk0 delay 61s",
  ])
  func otherWordsAreUsageErrors(_ words: String) throws {
    let error = try #require(throws: ConfigurationError.self) {
      try ControlRequest(words: words.split(separator: " ").map(String.init))
    }
    #expect(error.exitCode == .usage)
  }
}

/// A control socket that answers every line with a fixed reply.
final class FakeMonitor: @unchecked Sendable {
  // @unchecked: the descriptor is set before the thread starts and only read afterwards.
  let path: String
  private let listener: CInt

  init(path: String, reply: String) throws {
    self.path = path
    listener = socket(AF_UNIX, CInt(SOCK_STREAM.rawValue), 0)
    var address = sockaddr_un()
    address.sun_family = sa_family_t(AF_UNIX)
    withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: Array(path.utf8).prefix($0.count - 1)) }
    let result = withUnsafePointer(to: &address) { pointer in
      pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
        bind(listener, $0, socklen_t(MemoryLayout<sockaddr_un>.size))
      }
    }
    try #require(result == 0 && listen(listener, 4) == 0)
    let descriptor = listener
    Thread.detachNewThread {
      while true {
        let client = accept(descriptor, nil, nil)
        guard client >= 0 else {
          // Closed here and nowhere else, so that this thread never accepts on a number that is another test's by now.
          close(descriptor)
          return
        }
        var bytes = [UInt8](repeating: 0, count: 4096)
        if read(client, &bytes, bytes.count) > 0 {
          _ = reply.utf8CString.withUnsafeBytes { write(client, $0.baseAddress, $0.count - 1) }
        }
        close(client)
      }
    }
  }

  deinit {
    shutdown(listener, CInt(SHUT_RDWR))
  }
}

@Suite struct ControlClientTests {
  @Test func aReplyComesBack() throws {
    let folder = try TestFolder()
    let monitor = try FakeMonitor(
      path: folder.path("s"), reply: "{\"id\":null,\"ok\":true,\"result\":{\"state\":\"running\"}}\n")
    let reply = try ControlClient(path: monitor.path).request(["command": "status"])
    #expect(reply["state"] as? String == "running")
  }

  @Test(arguments: [
    ("{\"ok\":false,\"error\":\"no disk7\"}\n", "no disk7"), ("[]\n", "not a JSON object"), ("", "closed"),
    ("garbage\n", "not a JSON object"), ("{\"ok\":true}", "closed"),
    ("{}\n", "no reason"),
  ])
  func aBadReplyIsExplained(_ reply: String, _ text: String) throws {
    let folder = try TestFolder()
    let monitor = try FakeMonitor(path: folder.path("s"), reply: reply)
    let failure = try #require(throws: CommandFailure.self) {
      try ControlClient(path: monitor.path).request(["command": "status"])
    }
    #expect(failure.exitCode == .protocolError)
    #expect(failure.message.contains(text))
  }

  @Test func aMissingMachineIsNamed() throws {
    let failure = try #require(throws: CommandFailure.self) { try ControlClient(path: "/nonexistent/s.sock") }
    #expect(failure.exitCode == .noSuchMachine && failure.message.contains("/nonexistent/s.sock"))
  }

  @Test func repliesAreReadable() throws {
    let text =
      #"{"state":"running","cpus":[{"id":0,"on":true},{"id":1,"on":false}],"sizes":[1,2],"gdb":null}"#
    let object = try #require(try JSONSerialization.jsonObject(with: Data(text.utf8)) as? [String: Any])
    #expect(
      ReplyText.lines(of: object) == [
        "cpus:", "  - id: 0", "    on: yes", "  - id: 1", "    on: no", "gdb: none", "sizes: 1 2", "state: running",
      ])
  }

  @Test func statisticsAreSummed() throws {
    let text = """
      {"time_ns":5,"cpus":[{"exits":{"port-write":1,"mmio-read":4}},{"exits":{"port-write":2}}],"devices":[{"name":"disk0","queues":[
      {"requests":10,"doorbells":2,"interrupts":1,"latency_ns":{"count":5}},{"requests":20,"doorbells":3,"interrupts":4}]}]}
      """
    let object = try #require(try JSONSerialization.jsonObject(with: Data(text.utf8)) as? [String: Any])
    let statistics = MachineStatistics(object)
    #expect(statistics.exits == 7 && statistics.requests == 30)
    #expect(statistics.doorbells == 5 && statistics.interrupts == 5)
  }

  @Test func machinesAreFoundByNameAndByPath() {
    #expect(Control.path(of: "./x.sock") == "./x.sock")
    #expect(Control.path(of: "demo") == HostPaths.controlSocket(name: "demo"))
  }
}
