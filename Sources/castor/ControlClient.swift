// One conversation with a running machine over its control socket (docs/control.md): a JSON line there, one back.

import Configuration
import Foundation

/// Counters of a running machine, summed over vCPUs and queues.
struct MachineStatistics: Equatable {
  var exits: UInt64 = 0
  var requests: UInt64 = 0
  var doorbells: UInt64 = 0
  var interrupts: UInt64 = 0

  init() {}

  /// Adds up the result of `stats`: the exits of every vCPU, and the counters of every queue below `devices`.
  init(_ reply: [String: Any]) {
    exits = (reply["cpus"] as? [[String: Any]] ?? []).reduce(0) { $0 &+ Self.sum(of: $1["exits"]) }
    requests = Self.sum(named: "requests", in: reply["devices"])
    doorbells = Self.sum(named: "doorbells", in: reply["devices"])
    interrupts = Self.sum(named: "interrupts", in: reply["devices"])
  }

  /// The sum of the counters of an object.
  private static func sum(of value: Any?) -> UInt64 {
    (value as? [String: Any] ?? [:]).values.reduce(0) { $0 &+ (($1 as? NSNumber)?.uint64Value ?? 0) }
  }

  /// The sum of the numbers of one name at any depth.
  private static func sum(named name: String, in value: Any?) -> UInt64 {
    switch value {
    case let list as [Any]: list.reduce(0) { $0 &+ sum(named: name, in: $1) }
    case let object as [String: Any]:
      object.reduce(0) { sum, member in
        sum
          &+ (member.key == name
            ? (member.value as? NSNumber)?.uint64Value ?? 0 : Self.sum(named: name, in: member.value))
      }
    default: 0
    }
  }
}

/// A connection to a machine's control socket.
final class ControlClient {
  private let descriptor: CInt
  private let path: String
  private var received: [UInt8] = []

  init(path: String) throws {
    self.path = path
    descriptor = try ControlSocket.connect(to: path)
    // A monitor that hangs must not hang its client.
    var limit = timeval(tv_sec: 10, tv_usec: 0)
    setsockopt(descriptor, SOL_SOCKET, SO_RCVTIMEO, &limit, socklen_t(MemoryLayout<timeval>.size))
  }

  deinit { close(descriptor) }

  /// Sends one request and returns the reply's `result`. A refusal is a `CommandFailure` with the machine's reason.
  func request(_ object: [String: Any]) throws -> [String: Any] {
    let line = try JSONSerialization.data(withJSONObject: object, options: [.sortedKeys]) + Data([0x0a])
    var sent = 0
    while sent < line.count {
      let count = line.withUnsafeBytes { bytes in
        send(descriptor, bytes.baseAddress?.advanced(by: sent), bytes.count - sent, CInt(MSG_NOSIGNAL))
      }
      if count < 0, errno == EINTR { continue }
      guard count > 0 else { throw broken("the connection is lost") }
      sent += count
    }
    let text = Data(try readLine())
    guard let reply = (try? JSONSerialization.jsonObject(with: text)) as? [String: Any] else {
      throw broken("the reply is not a JSON object")
    }
    guard reply["ok"] as? Bool == true else {
      throw CommandFailure(
        message: "the machine refuses: \(reply["error"] as? String ?? "no reason given")", exitCode: .protocolError)
    }
    return reply["result"] as? [String: Any] ?? [:]
  }

  private func readLine() throws -> [UInt8] {
    while true {
      if let end = received.firstIndex(of: 0x0a) {
        let line = Array(received[..<end])
        received.removeFirst(end + 1)
        return line
      }
      var bytes = [UInt8](repeating: 0, count: 1 << 16)
      let count = read(descriptor, &bytes, bytes.count)
      if count < 0, errno == EINTR { continue }
      guard count > 0, received.count < 16 << 20 else {
        throw broken(count < 0 ? "no reply within 10 s" : "the connection was closed")
      }
      received += bytes[..<count]
    }
  }

  private func broken(_ reason: String) -> CommandFailure {
    CommandFailure(message: "control '\(path)': \(reason)", exitCode: .protocolError)
  }

  /// The machine's counters.
  func statistics() throws -> MachineStatistics { MachineStatistics(try request(["command": "stats"])) }
}
