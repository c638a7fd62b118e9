// The commands of the control socket (docs/control.md): from a line of JSON to a typed command, and back to a reply.

/// A fault to inject into a device.
public enum FaultInjection: Equatable, Sendable {
  /// The next `count` requests fail with an I/O error.
  case failNext(count: Int)
  /// Requests that touch these sectors of 512 bytes fail with an I/O error.
  case failSectors(Range<UInt64>)
  /// This part of the requests, 0 to 1, fails with an I/O error.
  case failRate(Double)
  /// Completions come this much later; 0 ends that.
  case delay(microseconds: UInt64)
  /// The device sets DEVICE_NEEDS_RESET.
  case needsReset
  /// An interrupt of a queue that has nothing new.
  case spuriousInterrupt(queue: Int)
  /// A queue is not served any more, until the driver resets the device.
  case wedge(queue: Int)
  /// No faults from now on.
  case off
}

/// What a client of the control socket asks for.
public enum ControlCommand: Equatable, Sendable {
  case status
  case pause
  case resume
  case resizeDisk(device: String, bytes: UInt64)
  case link(device: String, isUp: Bool)
  /// Another address for a network interface, six bytes.
  case mac(device: String, address: [UInt8])
  case inject(device: String, FaultInjection)
  case stats
  case stop(force: Bool)

  /// Every command's name, in the order of docs/control.md.
  public static let names = ["status", "pause", "resume", "resize-disk", "link", "mac", "inject", "stats", "stop"]
}

/// A command that cannot be carried out; the message goes to the client.
public struct ControlError: Error, Equatable, Sendable {
  public let message: String
  public init(_ message: String) { self.message = message }
}

/// What is controlled: the machine.
public protocol ControlTarget: AnyObject {
  /// Carries a command out and returns its result, an object of docs/control.md. Called on the event loop's thread.
  func perform(_ command: ControlCommand) throws(ControlError) -> JSONValue
}

/// One request of a client.
struct ControlRequest: Equatable {
  /// What the reply repeats: a string, an integer or null.
  let id: JSONValue
  /// The command, or why there is none.
  let command: Result<ControlCommand, ControlError>

  init(parsing line: [UInt8]) {
    let value: JSONValue
    do { value = try JSONValue(parsing: line) } catch {
      id = .null
      command = .failure(ControlError(error.description))
      return
    }
    var identifier = JSONValue.null
    switch value["id"] {
    case .string?, .integer?: identifier = value["id"] ?? .null
    default: break
    }
    id = identifier
    command = Result { () throws(ControlError) in try ControlCommand(value) }
  }

  static func reply(id: JSONValue, _ result: Result<JSONValue, ControlError>) -> [UInt8] {
    var bytes: [UInt8] = []
    let reply: JSONValue =
      switch result {
      case .success(let value): ["id": id, "ok": true, "result": value]
      case .failure(let error): ["id": id, "ok": false, "error": .string(error.message)]
      }
    reply.write(to: &bytes)
    bytes.append(0x0a)
    return bytes
  }
}

extension ControlCommand {
  init(_ request: JSONValue) throws(ControlError) {
    guard case .object(let members) = request else { throw ControlError("a request is a JSON object") }
    guard case .string(let name)? = request["command"] else { throw ControlError("\"command\" must be a string") }
    var arguments = Arguments(request: request, command: name)
    switch name {
    case "status": self = .status
    case "pause": self = .pause
    case "resume": self = .resume
    case "resize-disk": self = .resizeDisk(device: try arguments.string("device"), bytes: try arguments.count("bytes"))
    case "link": self = .link(device: try arguments.string("device"), isUp: try arguments.boolean("up"))
    case "mac": self = .mac(device: try arguments.string("device"), address: try arguments.address("address"))
    case "inject": self = .inject(device: try arguments.string("device"), try FaultInjection(&arguments))
    case "stats": self = .stats
    case "stop": self = .stop(force: try arguments.boolean("force", default: false))
    default:
      throw ControlError("unknown command \"\(name)\"; there are \(Self.names.joined(separator: ", "))")
    }
    if let stranger = members.first(where: { !arguments.known.contains($0.name) }) {
      throw ControlError("\(name): unknown argument \"\(stranger.name)\"")
    }
  }
}

extension FaultInjection {
  fileprivate init(_ arguments: inout Arguments) throws(ControlError) {
    switch try arguments.string("fault") {
    case "fail-next": self = .failNext(count: Int(clamping: try arguments.count("count")))
    case "fail-sectors":
      let first = try arguments.count("first")
      let count = try arguments.count("count")
      guard count > 0 else { throw arguments.problem("count", "must be at least 1") }
      self = .failSectors(first..<first + count)  // Both are below 2⁶³.
    case "fail-rate": self = .failRate(try arguments.fraction("rate"))
    case "delay":
      let microseconds = try arguments.count("microseconds")
      guard microseconds <= 60_000_000 else { throw arguments.problem("microseconds", "must be at most 60000000") }
      self = .delay(microseconds: microseconds)
    case "needs-reset": self = .needsReset
    case "spurious-interrupt": self = .spuriousInterrupt(queue: Int(clamping: try arguments.count("queue", default: 0)))
    case "wedge": self = .wedge(queue: Int(clamping: try arguments.count("queue", default: 0)))
    case "off": self = .off
    default:
      throw arguments.problem(
        "fault",
        "must be fail-next, fail-sectors, fail-rate, delay, needs-reset, spurious-interrupt, wedge or off")
    }
  }
}

/// The members of a request, each fetched with its type; remembers which ones have a meaning.
private struct Arguments {
  let request: JSONValue
  let command: String
  var known: Set<String> = ["id", "command"]

  init(request: JSONValue, command: String) {
    self.request = request
    self.command = command
  }

  func problem(_ name: String, _ what: String) -> ControlError { ControlError("\(command): \"\(name)\" \(what)") }

  mutating func string(_ name: String) throws(ControlError) -> String {
    known.insert(name)
    guard case .string(let value)? = request[name] else { throw problem(name, "must be a string") }
    return value
  }

  /// A unicast MAC address as text.
  mutating func address(_ name: String) throws(ControlError) -> [UInt8] {
    let parts = try string(name).split(separator: ":", omittingEmptySubsequences: false)
    let bytes = parts.compactMap { $0.count == 2 ? UInt8($0, radix: 16) : nil }
    guard parts.count == 6, bytes.count == 6, bytes[0] & 1 == 0, bytes.contains(where: { $0 != 0 }) else {
      throw problem(name, "must be a unicast MAC address such as 52:54:00:12:34:56")
    }
    return bytes
  }

  mutating func boolean(_ name: String, default fallback: Bool? = nil) throws(ControlError) -> Bool {
    known.insert(name)
    if let fallback, request[name] == nil { return fallback }
    guard case .boolean(let value)? = request[name] else { throw problem(name, "must be true or false") }
    return value
  }

  mutating func count(_ name: String, default fallback: UInt64? = nil) throws(ControlError) -> UInt64 {
    known.insert(name)
    if let fallback, request[name] == nil { return fallback }
    guard case .integer(let value)? = request[name], value >= 0 else {
      throw problem(name, "must be an integer, not negative")
    }
    return UInt64(value)
  }

  mutating func fraction(_ name: String) throws(ControlError) -> Double {
    known.insert(name)
    switch request[name] {
    case .integer(let value)? where value == 0 || value == 1: return Double(value)
    case .number(let value)? where value >= 0 && value <= 1: return value
    default: throw problem(name, "must be a number from 0 to 1")
    }
  }
}
