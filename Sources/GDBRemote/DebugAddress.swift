// Where the stub listens: how `[HOST:]PORT` and socket paths are read.

import Glibc

/// An address that a debugger connects to.
public enum DebugAddress: Equatable, Sendable, CustomStringConvertible {
  /// An IPv4 or IPv6 address in numbers, and a TCP port (0: any free one).
  case tcp(host: String, port: UInt16)
  /// A Unix socket's path.
  case unix(path: String)

  /// Reads `PORT`, `:PORT`, `HOST:PORT`, `[IPv6]:PORT`, `unix:PATH`, or a path, which contains a `/`. Without HOST, and for
  /// `localhost`, it is loopback: the stub gives full control of the guest to whoever connects.
  public init(_ text: String) throws(DebugServerError) {
    if text.hasPrefix("unix:") || text.contains("/") {
      let path = text.hasPrefix("unix:") ? String(text.dropFirst(5)) : text
      guard !path.isEmpty, path.utf8.count < 108 else { throw .invalidAddress(text) }
      self = .unix(path: path)
      return
    }
    var host = "127.0.0.1"
    var digits = Substring(text)
    if let colon = text.lastIndex(of: ":") {
      digits = text[text.index(after: colon)...]
      var name = text[..<colon]
      if name.hasPrefix("["), name.hasSuffix("]") { name = name.dropFirst().dropLast() }
      if !name.isEmpty, name != "localhost" { host = String(name) }
    }
    guard let port = UInt16(digits) else { throw .invalidAddress(text) }
    var bytes = in6_addr()
    let family = host.contains(":") ? AF_INET6 : AF_INET
    guard inet_pton(family, host, &bytes) == 1 else { throw .invalidAddress(text) }
    self = .tcp(host: host, port: port)
  }

  public var description: String {
    switch self {
    case .tcp(let host, let port): host.contains(":") ? "[\(host)]:\(port)" : "\(host):\(port)"
    case .unix(let path): path
    }
  }
}

/// Why the stub cannot listen.
public enum DebugServerError: Error, Equatable, CustomStringConvertible {
  /// Neither `[HOST:]PORT` nor a socket path.
  case invalidAddress(String)
  /// Another process listens there.
  case addressInUse(String)
  /// Anything else the host said.
  case cannotListen(String, errno: Int32)

  public var description: String {
    switch self {
    case .invalidAddress(let text): "gdb address '\(text)' is neither [HOST:]PORT nor a socket path"
    case .addressInUse(let address): "gdb address \(address) is in use"
    case .cannotListen(let address, let code):
      "cannot listen for gdb on \(address): \(String(cString: strerror(code)))"
    }
  }
}
