// A cable between two machines on one host: a Unix socket that keeps packets apart (SOCK_SEQPACKET).

import CLinux
import Glibc
import HostSystem
import SystemPackage

/// One end of a socket that carries packets, each with its virtio header, to another device of this kind.
public final class SocketLink: PacketLink, @unchecked Sendable {
  // @unchecked: used by one thread at a time, as the protocol says.
  public let offloads = LinkOffloads.all
  /// An epoll descriptor, so that it stays the same while connections come and go.
  public var descriptor: CInt { poll.rawValue }
  /// Whether there is somebody at the other end.
  public var isConnected: Bool { connection >= 0 }

  private let poll: OwnedDescriptor
  private var listener: CInt = -1
  private var connection: CInt = -1
  private let path: String?
  private var waitsForRoom = false

  private init(path: String?) throws(NetworkLinkError) {
    self.path = path
    do throws(Errno) { poll = try OwnedDescriptor { epoll_create1(CInt(EPOLL_CLOEXEC)) } } catch {
      throw .noSocket(error)
    }
  }

  deinit {
    if connection >= 0 { close(connection) }
    if listener >= 0 {
      close(listener)
      if let path { unlink(path) }
    }
  }

  /// Two ends that are connected to each other.
  public static func pair() throws(NetworkLinkError) -> (SocketLink, SocketLink) {
    let (first, second) = (try SocketLink(path: nil), try SocketLink(path: nil))
    var ends: [CInt] = [-1, -1]
    let type = CInt(SOCK_SEQPACKET.rawValue) | CInt(SOCK_NONBLOCK.rawValue) | CInt(SOCK_CLOEXEC.rawValue)
    guard socketpair(AF_UNIX, type, 0, &ends) == 0 else { throw .noSocket(Errno(rawValue: errno)) }
    first.take(ends[0])
    second.take(ends[1])
    return (first, second)
  }

  /// Waits at `path` for another machine; while there is none, packets are dropped. A socket that a dead process left
  /// there is replaced.
  public static func listening(path: String) throws(NetworkLinkError) -> SocketLink {
    let link = try SocketLink(path: path)
    let descriptor = try makeSocket()
    if withAddress(path, { bind(descriptor, $0, $1) }) != 0 {
      var error = Errno(rawValue: errno)
      if error == .addressInUse, isAbandoned(path) {
        unlink(path)
        error = withAddress(path, { bind(descriptor, $0, $1) }) == 0 ? Errno(rawValue: 0) : Errno(rawValue: errno)
      }
      guard error.rawValue == 0 else {
        close(descriptor)
        throw .cannotListen(path: path, error)
      }
    }
    // From here on the socket file is this link's to remove.
    link.listener = descriptor
    guard listen(descriptor, 1) == 0 else { throw .cannotListen(path: path, Errno(rawValue: errno)) }
    link.watch(descriptor, EPOLLIN.rawValue, EPOLL_CTL_ADD)
    return link
  }

  /// Connects to a machine that listens at `path`.
  public static func connected(path: String) throws(NetworkLinkError) -> SocketLink {
    let link = try SocketLink(path: path)
    let descriptor = try makeSocket()
    guard withAddress(path, { connect(descriptor, $0, $1) }) == 0 else {
      let error = Errno(rawValue: errno)
      close(descriptor)
      throw .cannotConnect(path: path, error)
    }
    link.take(descriptor)
    return link
  }

  private static func makeSocket() throws(NetworkLinkError) -> CInt {
    let type = CInt(SOCK_SEQPACKET.rawValue) | CInt(SOCK_NONBLOCK.rawValue) | CInt(SOCK_CLOEXEC.rawValue)
    let descriptor = socket(AF_UNIX, type, 0)
    guard descriptor >= 0 else { throw .noSocket(Errno(rawValue: errno)) }
    return descriptor
  }

  private static func withAddress(_ path: String, _ body: (UnsafePointer<sockaddr>, socklen_t) -> CInt) -> CInt {
    var address = sockaddr_un()
    address.sun_family = sa_family_t(AF_UNIX)
    let bytes = Array(path.utf8)
    guard !bytes.isEmpty, bytes.count < MemoryLayout.size(ofValue: address.sun_path) else {
      errno = ENAMETOOLONG
      return -1
    }
    withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: bytes) }
    // Safe: sockaddr_un is a sockaddr by the rules of the socket interface, of the size given.
    return withUnsafePointer(to: &address) { pointer in
      pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { body($0, socklen_t(MemoryLayout<sockaddr_un>.size)) }
    }
  }

  /// Whether nobody accepts connections at `path` although there is a socket.
  private static func isAbandoned(_ path: String) -> Bool {
    guard let descriptor = try? makeSocket() else { return false }
    defer { close(descriptor) }
    return withAddress(path) { connect(descriptor, $0, $1) } != 0 && errno == ECONNREFUSED
  }

  private func watch(_ descriptor: CInt, _ events: UInt32, _ operation: CInt) {
    var event = epoll_event()
    event.events = events
    event.data.fd = descriptor
    epoll_ctl(poll.rawValue, operation, descriptor, &event)
  }

  private func take(_ descriptor: CInt) {
    // Room for several of the largest packets; more than the system's limit is silently cut to it.
    var size: CInt = 1 << 20
    setsockopt(descriptor, SOL_SOCKET, SO_SNDBUF, &size, socklen_t(MemoryLayout<CInt>.size))
    connection = descriptor
    waitsForRoom = false
    watch(descriptor, EPOLLIN.rawValue, EPOLL_CTL_ADD)
    // A second caller waits in the backlog, and shall not keep waking us.
    if listener >= 0 { watch(listener, 0, EPOLL_CTL_MOD) }
  }

  private func disconnect() {
    guard connection >= 0 else { return }
    close(connection)
    connection = -1
    if listener >= 0 { watch(listener, EPOLLIN.rawValue, EPOLL_CTL_MOD) }
  }

  private func waitForRoom(_ wait: Bool) {
    guard waitsForRoom != wait, connection >= 0 else { return }
    waitsForRoom = wait
    watch(connection, wait ? EPOLLIN.rawValue | EPOLLOUT.rawValue : EPOLLIN.rawValue, EPOLL_CTL_MOD)
  }

  /// Does nothing: a receiver that cannot do something finds out by the packet's header.
  public func accept(_ offloads: LinkOffloads) {}

  public func send(_ segments: UnsafeMutableBufferPointer<iovec>) -> SendResult {
    guard connection >= 0 else { return .dropped }
    var message = msghdr()
    message.msg_iov = segments.baseAddress
    message.msg_iovlen = segments.count
    while true {
      if sendmsg(connection, &message, CInt(MSG_NOSIGNAL)) >= 0 {
        waitForRoom(false)
        return .sent
      }
      switch errno {
      case EINTR: continue
      case EAGAIN:
        waitForRoom(true)
        return .full
      case EPIPE, ECONNRESET:
        disconnect()
        return .dropped
      default: return .dropped
      }
    }
  }

  public func receive(into buffer: UnsafeMutableRawBufferPointer) -> Int? {
    while true {
      if connection < 0 {
        guard listener >= 0 else { return nil }
        let descriptor = Glibc.accept(listener, nil, nil)
        guard descriptor >= 0 else { return nil }
        _ = castor_set_nonblocking(descriptor)
        take(descriptor)
      }
      let count = recv(connection, buffer.baseAddress, buffer.count, 0)
      if count > 0 { return count }
      if count < 0, errno == EINTR { continue }
      if count < 0, errno == EAGAIN { return nil }
      // The other end is gone; a listener takes the next one.
      disconnect()
      if listener < 0 { return nil }
    }
  }
}
