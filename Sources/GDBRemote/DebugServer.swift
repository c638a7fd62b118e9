// How debuggers connect: a listening socket, one client at a time, served by a thread of its own, so that a vCPU never
// waits for a debugger that is slow or absent.

import Glibc
import HostSystem
import Logging
import SystemPackage

/// Listens for gdb and runs a session for each debugger that comes, one at a time. A debugger that detaches or loses
/// its connection leaves the target running; the next may come.
public final class DebugServer<Target: DebugTarget>: @unchecked Sendable {
  // @unchecked: `client` is touched only on the event loop's thread, everything else is constant after `init`.
  private final class Client {
    let descriptor: OwnedDescriptor
    let session: DebugSession<Target>
    var waitsToWrite = false
    init(descriptor: consuming OwnedDescriptor, session: DebugSession<Target>) {
      self.descriptor = descriptor
      self.session = session
    }
  }

  private let target: Target
  private let logger: Logger
  private let listener: OwnedDescriptor
  private let loop: EventLoop
  private var client: Client?
  private var thread: HostThread?

  /// Where the server listens, with the real port when any free one was asked for.
  public let address: DebugAddress

  /// Opens the listening socket; nothing is served before `start`.
  public init(listeningOn address: DebugAddress, target: Target, logger: Logger) throws(DebugServerError) {
    self.target = target
    self.logger = logger
    listener = try Self.listen(on: address)
    self.address = Self.actualAddress(of: listener.rawValue, asked: address)
    do throws(Errno) {
      loop = try EventLoop()
    } catch {
      throw .cannotListen("\(address)", errno: error.rawValue)
    }
  }

  /// Starts the server's thread.
  public func start() throws(DebugServerError) {
    do throws(Errno) {
      try loop.add(listener.rawValue, for: .readable) { [weak self] _ in self?.accept() }
      thread = try HostThread(name: "gdb") { [loop] in loop.run() }
    } catch {
      throw .cannotListen("\(address)", errno: error.rawValue)
    }
  }

  /// Ends the thread and closes all sockets; a debugger that is still there sees the connection close. Call from
  /// another thread than the server's.
  public func stop() {
    loop.perform { [weak self] in self?.dropClient() }
    loop.stop()
    thread?.join()
    thread = nil
    if case .unix(let path) = address { unlink(path) }
  }

  // MARK: Connections

  private func accept() {
    let accepted = Glibc.accept(listener.rawValue, nil, nil)
    guard accepted >= 0 else { return }
    let descriptor = OwnedDescriptor(owning: accepted)
    guard client == nil else {
      logger.warning("a second debugger on \(address) was turned away")
      return
    }
    _ = fcntl(accepted, F_SETFL, O_NONBLOCK)
    _ = fcntl(accepted, F_SETFD, FD_CLOEXEC)
    if case .tcp = address {
      // Packets are small and each waits for its answer.
      var on: CInt = 1
      setsockopt(accepted, CInt(IPPROTO_TCP), TCP_NODELAY, &on, socklen_t(MemoryLayout<CInt>.size))
    }
    let session = DebugSession(target: target, logger: logger) { [loop, weak self] token, event in
      let server = self
      loop.perform {
        guard let server, let client = server.client else { return }
        client.session.targetStopped(token, event)
        server.flush(client)
      }
    }
    let client = Client(descriptor: descriptor, session: session)
    do throws(Errno) {
      try loop.add(accepted, for: [.readable, .hangUp]) { [weak self, weak client] readiness in
        if let self, let client { serve(client, readiness) }
      }
    } catch {
      session.disconnected()
      return
    }
    self.client = client
    logger.info("debugger connected on \(address)")
  }

  private func serve(_ client: Client, _ readiness: Readiness) {
    if readiness.contains(.writable) {
      flush(client)
      guard self.client === client, client.session.output.isEmpty else { return }
    }
    let (data, isOpen) = receive(client.descriptor.rawValue)
    client.session.receive(data)
    if isOpen { flush(client) } else { dropClient() }
  }

  private func receive(_ descriptor: CInt) -> (data: [UInt8], isOpen: Bool) {
    var count = 0
    let data = [UInt8](unsafeUninitializedCapacity: 4096) { buffer, initialized in
      // `recv` initialises as many bytes as it returns.
      count = recv(descriptor, buffer.baseAddress, 4096, 0)
      initialized = max(0, count)
    }
    if count < 0 { return ([], errno == EAGAIN || errno == EINTR) }
    return (data, count > 0)
  }

  /// Sends what the session has written; what the socket does not take waits until it can, and no more is read
  /// meanwhile, so that a debugger that does not read cannot make the output grow.
  private func flush(_ client: Client) {
    let sent = client.session.output.withUnsafeBytes { bytes -> Int in
      var sent = 0
      while sent < bytes.count {
        let count = send(
          client.descriptor.rawValue, bytes.baseAddress.map { $0 + sent }, bytes.count - sent,
          CInt(MSG_NOSIGNAL))
        if count < 0 {
          if errno == EINTR { continue }
          return errno == EAGAIN ? sent : -1
        }
        sent += count
      }
      return sent
    }
    guard sent >= 0 else { return dropClient() }
    client.session.output.removeFirst(sent)
    let mustWait = !client.session.output.isEmpty
    if client.session.isOver, !mustWait { return dropClient() }
    guard mustWait != client.waitsToWrite else { return }
    client.waitsToWrite = mustWait
    do throws(Errno) {
      try loop.modify(client.descriptor.rawValue, for: mustWait ? [.writable, .hangUp] : [.readable, .hangUp])
    } catch {
      dropClient()
    }
  }

  private func dropClient() {
    guard let client else { return }
    loop.remove(client.descriptor.rawValue)
    self.client = nil
    client.session.disconnected()
    logger.info("debugger disconnected")
  }

  // MARK: Sockets

  private static func listen(on address: DebugAddress) throws(DebugServerError) -> OwnedDescriptor {
    do throws(Errno) {
      switch address {
      case .tcp(let host, let port): return try listenTCP(host: host, port: port)
      case .unix(let path): return try listenUnix(path: path)
      }
    } catch {
      throw error == .addressInUse
        ? .addressInUse("\(address)") : .cannotListen("\(address)", errno: error.rawValue)
    }
  }

  private static func listenTCP(host: String, port: UInt16) throws(Errno) -> OwnedDescriptor {
    let isIPv6 = host.contains(":")
    let descriptor = try OwnedDescriptor {
      socket(
        isIPv6 ? AF_INET6 : AF_INET, CInt(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue | SOCK_NONBLOCK.rawValue), 0)
    }
    // A port whose last connection is in TIME_WAIT may be used again at once.
    var on: CInt = 1
    setsockopt(descriptor.rawValue, SOL_SOCKET, SO_REUSEADDR, &on, socklen_t(MemoryLayout<CInt>.size))
    if isIPv6 {
      var socketAddress = sockaddr_in6()
      socketAddress.sin6_family = sa_family_t(AF_INET6)
      socketAddress.sin6_port = port.bigEndian
      inet_pton(AF_INET6, host, &socketAddress.sin6_addr)
      try bind(descriptor.rawValue, &socketAddress)
    } else {
      var socketAddress = sockaddr_in()
      socketAddress.sin_family = sa_family_t(AF_INET)
      socketAddress.sin_port = port.bigEndian
      inet_pton(AF_INET, host, &socketAddress.sin_addr)
      try bind(descriptor.rawValue, &socketAddress)
    }
    try systemCall { Glibc.listen(descriptor.rawValue, 2) }
    return descriptor
  }

  private static func listenUnix(path: String) throws(Errno) -> OwnedDescriptor {
    let descriptor = try OwnedDescriptor {
      socket(AF_UNIX, CInt(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue | SOCK_NONBLOCK.rawValue), 0)
    }
    var socketAddress = sockaddr_un()
    socketAddress.sun_family = sa_family_t(AF_UNIX)
    withUnsafeMutableBytes(of: &socketAddress.sun_path) { field in
      // `DebugAddress` has checked that the path and its terminator fit.
      field.copyBytes(from: Array(path.utf8).prefix(field.count - 1))
    }
    do throws(Errno) {
      try bind(descriptor.rawValue, &socketAddress)
    } catch .addressInUse {
      // A socket file that nobody listens on is left over from a machine that was killed.
      let probe = try OwnedDescriptor { socket(AF_UNIX, CInt(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue), 0) }
      let refused = withSocketAddress(&socketAddress) { connect(probe.rawValue, $0, $1) } < 0 && errno == ECONNREFUSED
      guard refused else { throw .addressInUse }
      unlink(path)
      try bind(descriptor.rawValue, &socketAddress)
    }
    try systemCall { Glibc.listen(descriptor.rawValue, 2) }
    return descriptor
  }

  private static func bind<Address>(_ descriptor: CInt, _ address: inout Address) throws(Errno) {
    let result = withSocketAddress(&address) { Glibc.bind(descriptor, $0, $1) }
    if result < 0 { throw Errno(rawValue: errno) }
  }

  private static func withSocketAddress<Address>(
    _ address: inout Address, _ body: (UnsafePointer<sockaddr>, socklen_t) -> CInt
  ) -> CInt {
    withUnsafePointer(to: &address) { pointer in
      // Every socket address type begins with the members of sockaddr; the length says where it ends.
      pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { body($0, socklen_t(MemoryLayout<Address>.size)) }
    }
  }

  private static func actualAddress(of descriptor: CInt, asked: DebugAddress) -> DebugAddress {
    guard case .tcp(let host, 0) = asked else { return asked }
    var storage = sockaddr_in6()
    var length = socklen_t(MemoryLayout<sockaddr_in6>.size)
    withUnsafeMutablePointer(to: &storage) { pointer in
      // IPv4 and IPv6 socket addresses both have the port at bytes 2 and 3.
      pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { _ = getsockname(descriptor, $0, &length) }
    }
    return .tcp(host: host, port: UInt16(bigEndian: storage.sin6_port))
  }
}
