// Where the machine's connections to the outside go: the serial console and the debugger.

/// What the guest's serial port is connected to.
public enum SerialEndpoint: Equatable, Sendable, CustomStringConvertible {
  /// Standard input and output; raw mode on a terminal.
  case stdio
  /// Output appended to a file; no input.
  case file(path: String)
  /// A new pseudo-terminal, whose name is printed.
  case pty
  /// A Unix socket that takes one client at a time.
  case unix(path: String)
  /// Output is dropped.
  case none

  init(key: String, _ text: String) throws(ConfigurationError) {
    switch text {
    case "stdio": self = .stdio
    case "pty": self = .pty
    case "none": self = .none
    default:
      if text.hasPrefix("file:") {
        self = .file(path: try Value.path(key, String(text.dropFirst(5))))
      } else if text.hasPrefix("unix:") {
        self = .unix(path: try Value.socketPath(key, String(text.dropFirst(5))))
      } else {
        throw ConfigurationError(key: key, value: text, expected: "must be stdio, none, pty, file:PATH or unix:PATH")
      }
    }
  }

  public var description: String {
    switch self {
    case .stdio: "stdio"
    case .file(let path): "file:\(path)"
    case .pty: "pty"
    case .unix(let path): "unix:\(path)"
    case .none: "none"
    }
  }
}

/// Where gdb connects.
public enum DebuggerEndpoint: Equatable, Sendable, CustomStringConvertible {
  /// TCP on a numeric host address.
  case tcp(host: String, port: UInt16)
  /// A Unix socket.
  case unix(path: String)

  init(key: String, _ text: String) throws(ConfigurationError) {
    if text.hasPrefix("unix:") {
      self = .unix(path: try Value.socketPath(key, String(text.dropFirst(5))))
      return
    }
    var host = "127.0.0.1"
    var port = text[...]
    if let colon = text.lastIndex(of: ":") {
      port = text[text.index(after: colon)...]
      host = String(text[..<colon])
      if host.hasPrefix("["), host.hasSuffix("]") { host = String(host.dropFirst().dropLast()) }
      if host.isEmpty || host == "localhost" { host = "127.0.0.1" }
    }
    guard let number = UInt16(port), number > 0, Self.isNumericAddress(host) else {
      throw ConfigurationError(
        key: key, value: text, expected: "must be PORT, ADDRESS:PORT (a numeric address) or unix:PATH")
    }
    self = .tcp(host: host, port: number)
  }

  /// Whether the text is an IPv4 address, or has the characters of an IPv6 one.
  private static func isNumericAddress(_ host: String) -> Bool {
    let parts = host.split(separator: ".", omittingEmptySubsequences: false)
    if parts.count == 4, parts.allSatisfy({ UInt8($0) != nil }) { return true }
    return host.contains(":") && host.allSatisfy { $0.isHexDigit || $0 == ":" }
  }

  public var description: String {
    switch self {
    case .tcp(let host, let port): host.contains(":") ? "[\(host)]:\(port)" : "\(host):\(port)"
    case .unix(let path): "unix:\(path)"
    }
  }
}
