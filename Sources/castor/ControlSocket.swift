// The control sockets of running machines: their folder, which of them are alive, and one request to one of them.

import Configuration
import Foundation

enum ControlSocket {
  /// Makes the folder of this user's sockets, closed to other users; an explicit path elsewhere is left alone.
  static func prepareFolder(of path: String) throws {
    let folder = HostPaths.folder(of: path)
    guard folder == HostPaths.controlFolder else { return }
    if mkdir(folder, 0o700) != 0, errno != EEXIST {
      throw CommandFailure(
        message: "control '\(path)': its folder cannot be created: \(String(cString: strerror(errno)))",
        exitCode: .cannotCreate)
    }
    var status = stat()
    guard lstat(folder, &status) == 0, status.st_mode & S_IFMT == S_IFDIR, status.st_uid == getuid(),
      status.st_mode & 0o022 == 0
    else {
      throw CommandFailure(
        message: "control '\(path)': \(folder) is not a folder that only this user may write", exitCode: .cannotCreate)
    }
  }

  /// The name itself, or with -2, -3, … where a running machine has it.
  static func freeName(_ name: String) -> String {
    for number in 1..<1000 {
      let candidate = number == 1 ? name : "\(name)-\(number)"
      guard let descriptor = try? connect(to: HostPaths.controlSocket(name: candidate)) else { return candidate }
      close(descriptor)
    }
    return "\(name)-\(getpid())"
  }

  /// Connects to a Unix socket. The caller closes the descriptor.
  static func connect(to path: String) throws -> CInt {
    var address = sockaddr_un()
    address.sun_family = sa_family_t(AF_UNIX)
    let fits = withUnsafeMutableBytes(of: &address.sun_path) { bytes in
      let text = Array(path.utf8)
      guard text.count < bytes.count else { return false }
      bytes.copyBytes(from: text)
      return true
    }
    guard fits else {
      throw ConfigurationError(
        key: "control", value: path, expected: "a Unix socket's path has at most 107 bytes", exitCode: .usage)
    }
    let descriptor = socket(AF_UNIX, CInt(SOCK_STREAM.rawValue) | CInt(SOCK_CLOEXEC.rawValue), 0)
    guard descriptor >= 0 else {
      throw CommandFailure(
        message: "no socket can be made: \(String(cString: strerror(errno)))", exitCode: .operatingSystemError)
    }
    let result = withUnsafePointer(to: &address) { pointer in
      // sockaddr_un begins with the family, as sockaddr does; the length says how much of it is there (unix(7)).
      pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
        Glibc.connect(descriptor, $0, socklen_t(MemoryLayout<sockaddr_un>.size))
      }
    }
    guard result == 0 else {
      let code = errno
      close(descriptor)
      throw CommandFailure(
        message: "control '\(path)': no running machine answers (\(String(cString: strerror(code))))",
        exitCode: code == EACCES ? .permissionDenied : .noSuchMachine)
    }
    return descriptor
  }
}
