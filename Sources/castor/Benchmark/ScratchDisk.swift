// The disk under test: a file that is made, filled and removed, one that the user names, or none.

import CLinux
import Configuration
import Foundation

/// What holds the benchmark's data on the host.
final class ScratchDisk {
  /// The file; nil for the null back end.
  let path: String?
  /// Bytes that cases use.
  let size: UInt64
  private let isOurs: Bool

  /// A disk without data: requests complete at once.
  init(nullOfSize size: UInt64) {
    path = nil
    self.size = size
    isOurs = false
  }

  /// A file of the user's. One that exists is only written to with `overwrite`; one that does not is made and removed.
  init(path: String, size: UInt64, writes: Bool, overwrite: Bool) throws {
    self.path = path
    var status = stat()
    if stat(path, &status) == 0 {
      guard !writes || overwrite else {
        throw ConfigurationError(
          key: "--file", value: path,
          expected:
            "exists, and the benchmark's writes would destroy its contents; add --overwrite, or --operations read",
          exitCode: .cannotCreate)
      }
      isOurs = false
      let isBlockDevice = status.st_mode & S_IFMT == S_IFBLK
      self.size = isBlockDevice ? size : min(size, UInt64(status.st_size))
      guard self.size >= 1 << 20 else {
        throw ConfigurationError(
          key: "--file", value: path, expected: "has less than 1M",
          exitCode: self.size == 0 ? .emptyDisk : .diskTooSmall)
      }
      return
    }
    isOurs = true
    self.size = size
    try fill(path)
  }

  deinit { remove() }

  /// Removes the file where it was made here.
  func remove() { if isOurs, let path { unlink(path) } }

  /// Writes every byte: a file with holes would be read without touching the disk.
  private func fill(_ path: String) throws {
    let descriptor = castor_open(path, O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC, 0o600)
    guard descriptor >= 0 else {
      throw ConfigurationError(
        key: "--file", value: path, expected: "cannot be created: \(String(cString: strerror(errno)))",
        exitCode: .cannotCreate)
    }
    defer { close(descriptor) }
    var generator = SystemRandomNumberGenerator()
    var chunk = [UInt64](repeating: 0, count: 1 << 17)
    for index in chunk.indices { chunk[index] = generator.next() }
    var written: UInt64 = 0
    while written < size {
      do { try Interruption.check() } catch {
        unlink(path)
        throw error
      }
      chunk[0] = written
      let count = Int(min(UInt64(chunk.count * 8), size - written))
      let result = chunk.withUnsafeBytes { write(descriptor, $0.baseAddress, count) }
      guard result > 0 else {
        if result < 0, errno == EINTR { continue }
        let reason = String(cString: strerror(errno))
        unlink(path)
        throw CommandFailure(message: "file '\(path)': cannot be filled: \(reason)", exitCode: .inputOutputError)
      }
      written += UInt64(result)
    }
    fdatasync(descriptor)
  }
}
