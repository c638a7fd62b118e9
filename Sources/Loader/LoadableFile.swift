// Reading a kernel or module file: small pieces by value, large ones straight into guest memory.

import Glibc
import GuestMemory
import HostSystem
import SystemPackage

/// The host's words for an errno.
func hostErrorText(_ code: Int32) -> String { Errno(rawValue: code).description }

/// An open regular file whose reads are checked against its length.
struct LoadableFile: ~Copyable {
  let path: String
  /// Length in bytes when it was opened.
  let count: UInt64
  private let descriptor: OwnedDescriptor

  private init(path: String, count: UInt64, descriptor: consuming OwnedDescriptor) {
    self.path = path
    self.count = count
    self.descriptor = descriptor
  }

  /// Opens the file for reading.
  static func open(_ path: String) throws(LoaderError) -> LoadableFile {
    var status = stat()
    do throws(Errno) {
      let descriptor = try OwnedDescriptor { Glibc.open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK) }
      try systemCall { fstat(descriptor.rawValue, &status) }
      if status.st_mode & S_IFMT == S_IFREG {
        return LoadableFile(path: path, count: UInt64(max(status.st_size, 0)), descriptor: descriptor)
      }
    } catch {
      throw LoaderError(path: path, problem: .cannotRead(errno: error.rawValue))
    }
    throw LoaderError(path: path, problem: .notARegularFile)
  }

  func failure(_ problem: LoaderError.Problem) -> LoaderError { LoaderError(path: path, problem: problem) }

  /// Fills `buffer` from `offset`, or says that the file ends before `part` does.
  func read(into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64, part: @autoclosure () -> String)
    throws(LoaderError)
  {
    guard offset <= count, UInt64(buffer.count) <= count - offset else { throw failure(.truncated(part: part())) }
    var done = 0
    while done < buffer.count {
      let got: Int
      do {
        // The range rebased is inside `buffer`, and `offset + done` is below `count`, which is a valid off_t.
        got = try systemCall {
          pread(
            descriptor.rawValue, buffer.baseAddress.map { $0 + done }, buffer.count - done, off_t(offset) + off_t(done))
        }
      } catch {
        throw failure(.cannotRead(errno: error.rawValue))
      }
      // The file became shorter while it was read.
      guard got > 0 else { throw failure(.truncated(part: part())) }
      done += got
    }
  }

  /// `count` bytes from `offset`.
  func bytes(at offset: UInt64, count wanted: Int, part: @autoclosure () -> String) throws(LoaderError) -> FileBytes {
    var bytes = [UInt8](repeating: 0, count: wanted)
    // withUnsafeMutableBytes cannot pass a typed error on in every compiler, so it comes back as a value.
    let result: Result<Void, LoaderError> = bytes.withUnsafeMutableBytes { buffer in
      do throws(LoaderError) {
        try read(into: buffer, at: offset, part: part())
        return .success(())
      } catch {
        return .failure(error)
      }
    }
    try result.get()
    return FileBytes(bytes)
  }
}

/// Little-endian fields of a piece of a file.
struct FileBytes {
  let bytes: [UInt8]
  init(_ bytes: [UInt8]) { self.bytes = bytes }

  /// The integer at `offset`; zero beyond the end, which callers exclude by the size they asked for.
  func integer<T: FixedWidthInteger>(_ offset: Int, as type: T.Type = T.self) -> T {
    let size = MemoryLayout<T>.size
    guard offset >= 0, offset <= bytes.count - size else { return 0 }
    // The bytes loaded were just checked to lie inside the array.
    return bytes.withUnsafeBytes { T(littleEndian: $0.loadUnaligned(fromByteOffset: offset, as: T.self)) }
  }
}
