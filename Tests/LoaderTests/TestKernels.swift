// Small kernels and files made for the tests, and a directory that cleans up after itself.

import Glibc
import GuestMemory
import Testing

@testable import Loader

/// A directory of files that goes away with the value.
final class TemporaryDirectory {
  let path: String
  private var names: [String] = []

  init() throws {
    var template = Array("/tmp/castor-loader-XXXXXX".utf8CString)
    path = try #require(mkdtemp(&template).map { String(cString: $0) })
  }

  deinit {
    for name in names { unlink("\(path)/\(name)") }
    rmdir(path)
  }

  /// Writes a file and returns its path.
  func file(_ name: String, _ bytes: [UInt8]) throws -> String {
    let file = try #require(fopen("\(path)/\(name)", "w"))
    names.append(name)
    defer { fclose(file) }
    #expect(fwrite(bytes, 1, bytes.count, file) == bytes.count)
    return "\(path)/\(name)"
  }
}

extension [UInt8] {
  /// Replaces the bytes at `offset` by an integer, little-endian.
  mutating func put<T: FixedWidthInteger>(_ value: T, at offset: Int) {
    Swift.withUnsafeBytes(of: value.littleEndian) { replaceSubrange(offset..<(offset + $0.count), with: $0) }
  }

  static func little<T: FixedWidthInteger>(_ value: T) -> [UInt8] {
    Swift.withUnsafeBytes(of: value.littleEndian) { Array($0) }
  }
}

/// An x86-64 ELF executable to be.
struct TestELF {
  struct Segment {
    var address: UInt64
    var contents: [UInt8]
    var memoryCount: UInt64
  }
  var segments = [Segment(address: 0x10_0000, contents: Array(repeating: 0x90, count: 5000), memoryCount: 0x3000)]
  var notes: [UInt8] =
    TestELF.note("Castor", 1, .little(UInt64(0x10_0010)))
    + TestELF.note("Xen", 18, .little(UInt32(0x10_0020)))

  static func note(_ owner: String, _ kind: UInt32, _ descriptor: [UInt8]) -> [UInt8] {
    var bytes: [UInt8] = .little(UInt32(owner.utf8.count + 1)) + .little(UInt32(descriptor.count)) + .little(kind)
    bytes += Array(owner.utf8) + [0]
    while bytes.count % 4 != 0 { bytes.append(0) }
    bytes += descriptor
    while bytes.count % 4 != 0 { bytes.append(0) }
    return bytes
  }

  /// Header, program headers (the segments', then PT_NOTE), notes, segments' contents.
  var bytes: [UInt8] {
    var file = [UInt8](repeating: 0, count: 64 + 56 * (segments.count + 1))
    file.replaceSubrange(0..<7, with: [0x7f, 0x45, 0x4c, 0x46, 2, 1, 1])
    file.put(UInt16(2), at: 16)
    file.put(UInt16(62), at: 18)
    file.put(UInt32(1), at: 20)
    file.put(UInt64(64), at: 32)
    file.put(UInt16(64), at: 52)
    file.put(UInt16(56), at: 54)
    file.put(UInt16(segments.count + 1), at: 56)
    let note = 64 + 56 * segments.count
    file.put(UInt32(4), at: note)
    file.put(UInt64(file.count), at: note + 8)
    file.put(UInt64(notes.count), at: note + 32)
    file.put(UInt64(notes.count), at: note + 40)
    file.put(UInt64(4), at: note + 48)
    file += notes
    for (index, segment) in segments.enumerated() {
      let header = 64 + 56 * index
      file.put(UInt32(1), at: header)
      file.put(UInt64(file.count), at: header + 8)
      file.put(segment.address | 0xffff_ffff_8000_0000, at: header + 16)
      file.put(segment.address, at: header + 24)
      file.put(UInt64(segment.contents.count), at: header + 32)
      file.put(segment.memoryCount, at: header + 40)
      file += segment.contents
    }
    return file
  }
}

/// A guest of a few MiB with nothing in it.
struct TestGuest {
  let directory: TemporaryDirectory
  let memory: GuestMemory
  var request: BootRequest

  init(kernel: [UInt8], archive: [UInt8]? = nil, memory ranges: [Range<UInt64>] = [0..<(4 << 20)]) throws {
    directory = try TemporaryDirectory()
    memory = try GuestMemory(ranges: ranges, hugePages: false)
    var platform = PlatformDescription(processorCount: 2, memory: ranges)
    platform.commandLine = "console=ttyS0 quiet"
    platform.virtioDevices = [VirtioWindow(index: 0, deviceType: 2, queueCount: 4)]
    request = BootRequest(kernelPath: try directory.file("kernel", kernel), platform: platform)
    request.archivePath = try archive.map { try directory.file("archive", $0) }
  }

  func load() throws(LoaderError) -> BootPlan { try loadGuest(request, into: memory) }

  func read<T: FixedWidthInteger & BitwiseCopyable>(_ address: UInt64, as type: T.Type = T.self) throws -> T {
    try memory.read(T.self, at: GuestAddress(address))
  }

  /// The problem that loading ends in.
  func problem() -> LoaderError.Problem? {
    do {
      _ = try load()
      return nil
    } catch {
      return error.problem
    }
  }
}
