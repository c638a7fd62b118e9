// A listening Unix socket: who may connect (its owner), what happens to the file a dead process left behind.

import CLinux
import Glibc
import HostSystem
import SystemPackage

/// Why a socket cannot be made at a path.
public enum SocketPathError: Error, Equatable, CustomStringConvertible {
  /// A path in the file system can name a socket only if it has at most 107 bytes, none of them zero (unix(7)).
  case unusablePath(String)
  /// A living process listens there.
  case inUse(path: String)
  /// A file that is not a socket is in the way.
  case notASocket(path: String)
  /// The host refused.
  case cannotListen(path: String, Errno)

  public var description: String {
    switch self {
    case .unusablePath(let path): "socket path \"\(path)\" is empty or longer than 107 bytes"
    case .inUse(let path): "socket \(path): another process listens there"
    case .notASocket(let path): "socket \(path): a file that is not a socket is in the way"
    case .cannotListen(let path, let code): "socket \(path): \(code)"
    }
  }
}

/// A Unix stream socket that listens at a path of the file system. The file has mode 0600 and goes away with this object.
final class UnixListener {
  let path: String
  private let descriptor: OwnedDescriptor
  private let identity: (device: dev_t, inode: ino_t)

  /// Makes the socket. A socket file on which nobody listens any more is replaced.
  init(path: String) throws(SocketPathError) {
    let address = try Self.address(of: path)
    let descriptor = try Self.makeSocket(for: path)

    do { try Self.bind(descriptor.rawValue, to: address) } catch {
      guard error == .addressInUse else { throw .cannotListen(path: path, error) }
      try Self.removeStale(path, address)
      do { try Self.bind(descriptor.rawValue, to: address) } catch { throw .cannotListen(path: path, error) }
    }
    var status = stat()
    do {
      try systemCall { lstat(path, &status) }
      try systemCall { listen(descriptor.rawValue, 16) }
    } catch {
      unlink(path)
      throw .cannotListen(path: path, error)
    }
    self.path = path
    self.descriptor = descriptor
    identity = (status.st_dev, status.st_ino)
  }

  deinit {
    // Somebody may have put another file there in the meantime.
    var status = stat()
    if lstat(path, &status) == 0, status.st_dev == identity.device, status.st_ino == identity.inode { unlink(path) }
  }

  var fileDescriptor: CInt { descriptor.rawValue }

  /// Takes a waiting connection, non-blocking and close-on-exec; nil when none waits or the host has no descriptor left.
  func accept() -> CInt? {
    let accepted = castor_accept(descriptor.rawValue)
    return accepted >= 0 ? accepted : nil
  }

  private static func makeSocket(for path: String) throws(SocketPathError) -> OwnedDescriptor {
    do {
      let descriptor = try OwnedDescriptor {
        socket(AF_UNIX, CInt(SOCK_STREAM.rawValue) | CInt(SOCK_CLOEXEC.rawValue) | CInt(SOCK_NONBLOCK.rawValue), 0)
      }
      let number = descriptor.rawValue
      // The file takes the mode that the socket has when it is bound, so it is never open to others.
      try systemCall { fchmod(number, 0o600) }
      return descriptor
    } catch { throw .cannotListen(path: path, error) }
  }

  /// The address of a path.
  static func address(of path: String) throws(SocketPathError) -> sockaddr_un {
    var address = sockaddr_un()
    address.sun_family = sa_family_t(AF_UNIX)
    let bytes = Array(path.utf8)
    let room = MemoryLayout.size(ofValue: address.sun_path) - 1
    guard !bytes.isEmpty, bytes.count <= room, !bytes.contains(0) else { throw .unusablePath(path) }
    // The destination has one byte more than was checked, and that stays zero.
    withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: bytes) }
    return address
  }

  /// Connects a new non-blocking socket to `address`.
  static func connect(to address: sockaddr_un) throws(Errno) -> OwnedDescriptor {
    let client = try OwnedDescriptor {
      socket(AF_UNIX, CInt(SOCK_STREAM.rawValue) | CInt(SOCK_CLOEXEC.rawValue) | CInt(SOCK_NONBLOCK.rawValue), 0)
    }
    try Self.call(address) { Glibc.connect(client.rawValue, $0, $1) }
    return client
  }

  private static func bind(_ descriptor: CInt, to address: sockaddr_un) throws(Errno) {
    try call(address) { Glibc.bind(descriptor, $0, $1) }
  }

  private static func call(_ address: sockaddr_un, _ body: (UnsafePointer<sockaddr>, socklen_t) -> CInt) throws(Errno) {
    var result: Result<CInt, Errno> = .success(0)
    withUnsafePointer(to: address) { pointer in
      // A sockaddr_un begins with the family, as every sockaddr does; the length says how much of it there is.
      pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { generic in
        result = Result { () throws(Errno) in
          try systemCall { body(generic, socklen_t(MemoryLayout<sockaddr_un>.size)) }
        }
      }
    }
    _ = try result.get()
  }

  private static func removeStale(_ path: String, _ address: sockaddr_un) throws(SocketPathError) {
    var status = stat()
    guard lstat(path, &status) == 0 else { return }
    guard status.st_mode & S_IFMT == S_IFSOCK else { throw .notASocket(path: path) }
    do {
      _ = try connect(to: address)
      throw SocketPathError.inUse(path: path)
    } catch let error as Errno {
      guard error == .connectionRefused else { throw .inUse(path: path) }
      unlink(path)
    } catch let error as SocketPathError {
      throw error
    } catch {
      throw .inUse(path: path)
    }
  }
}
