// A disk in memory that records its writes, e2fsprogs as the judge, and helpers that hide `Bytes`.
import Ext2
import Foundation
import Testing

/// A disk in memory. Everything between two flushes can be lost; the journal lets a test build any such state.
final class MemoryStore: BlockStore {
  var content: [UInt8]
  var isReadOnly = false
  /// Writes since recording began: offset and data.
  var journal: [(offset: Int, data: [UInt8])] = []
  var isRecording = false
  /// Fails every operation when it reaches 0.
  var operationsLeft = Int.max

  init(_ content: [UInt8]) { self.content = content }

  var byteCount: UInt64 { UInt64(content.count) }

  private func spend() throws(FileError) {
    guard operationsLeft > 0 else { throw .inputOutput }
    operationsLeft -= 1
  }

  func read(_ offset: UInt64, into area: ByteArea) throws(FileError) {
    try spend()
    guard offset <= byteCount, UInt64(area.count) <= byteCount - offset else { throw .inputOutput }
    content.withUnsafeBytes { bytes in
      area.unsafeBase.copyMemory(from: bytes.baseAddress! + Int(offset), byteCount: area.count)
    }
  }

  func write(_ offset: UInt64, from area: ByteArea) throws(FileError) {
    try spend()
    guard offset <= byteCount, UInt64(area.count) <= byteCount - offset else { throw .inputOutput }
    let data = [UInt8](UnsafeRawBufferPointer(start: area.unsafeBase, count: area.count))
    content.replaceSubrange(Int(offset)..<Int(offset) + data.count, with: data)
    if isRecording { journal.append((Int(offset), data)) }
  }

  func flush() throws(FileError) { try spend() }
}

struct SplitMix: RandomNumberGenerator {
  var state: UInt64
  mutating func next() -> UInt64 {
    state &+= 0x9e37_79b9_7f4a_7c15
    var z = state
    z = (z ^ (z >> 30)) &* 0xbf58_476d_1ce4_e5b9
    z = (z ^ (z >> 27)) &* 0x94d0_49bb_1331_11eb
    return z ^ (z >> 31)
  }
}

/// Runs `body` with a name as `Bytes`.
func named<T>(_ text: String, _ body: (Bytes) throws(FileError) -> T) throws(FileError) -> T {
  let array = [UInt8](text.utf8)
  let copy = UnsafeMutableRawPointer.allocate(byteCount: max(1, array.count), alignment: 8)
  defer { copy.deallocate() }
  for (index, byte) in array.enumerated() { copy.storeBytes(of: byte, toByteOffset: index, as: UInt8.self) }
  return try body(Bytes(unsafeBase: copy, count: array.count))
}

extension FileSystem {
  func make(_ directory: UInt32, _ name: String, _ kind: FileKind = .file) throws(FileError) -> UInt32 {
    try named(name) { bytes throws(FileError) in
      try create(directory, bytes, kind: kind, permissions: kind == .directory ? 0o755 : 0o644)
    }
  }
  func find(_ directory: UInt32, _ name: String) throws(FileError) -> UInt32 {
    try named(name) { bytes throws(FileError) in try lookup(directory, bytes) }
  }
  func remove(_ directory: UInt32, _ name: String) throws(FileError) {
    try named(name) { bytes throws(FileError) in try unlink(directory, bytes) }
  }
  func removeDirectory(_ directory: UInt32, named name: String) throws(FileError) {
    try named(name) { bytes throws(FileError) in try removeDirectory(directory, bytes) }
  }
  func move(_ from: UInt32, _ name: String, _ to: UInt32, _ newName: String) throws(FileError) {
    try named(name) { old throws(FileError) in
      try named(newName) { new throws(FileError) in try rename(from, old, to: to, new) }
    }
  }
  func contents(_ inode: UInt32) throws(FileError) -> [UInt8] {
    let size = try attributes(inode).size
    guard size <= 1 << 24 else { throw .tooLarge }
    let block = ByteBlock(count: Int(size))
    try readData(inode, 0, into: block.area)
    return block.area.bytes.array
  }
  func names(_ directory: UInt32) throws(FileError) -> [String: UInt32] {
    var result: [String: UInt32] = [:]
    var cursor: UInt64 = 0
    while let entry = try readDirectory(directory, &cursor) {
      result[String(decoding: entry.name, as: UTF8.self)] = entry.inode
    }
    return result
  }
}

extension Ext2 {
  func write(_ inode: UInt32, _ offset: UInt64, _ data: [UInt8]) throws(FileError) {
    let block = ByteBlock(count: data.count)
    for (index, byte) in data.enumerated() { block.area.store(byte, at: index) }
    try writeData(inode, offset, from: block.area)
  }
}

/// A folder for disk images that disappears with its owner.
final class Workshop {
  let folder: String
  init() {
    folder = FileManager.default.temporaryDirectory.appendingPathComponent("ext2-\(UUID().uuidString)").path
    try? FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
  }
  deinit { try? FileManager.default.removeItem(atPath: folder) }

  func run(_ tool: String, _ arguments: [String]) throws -> (status: Int32, output: String) {
    let path = try #require(
      ["/usr/sbin/", "/sbin/", "/usr/bin/", "/bin/"].map { $0 + tool }.first { access($0, X_OK) == 0 })
    let process = Process()
    process.executableURL = URL(fileURLWithPath: path)
    process.arguments = arguments
    let pipe = Pipe()
    process.standardOutput = pipe
    process.standardError = pipe
    process.standardInput = FileHandle.nullDevice
    try process.run()
    let output = pipe.fileHandleForReading.readDataToEndOfFile()
    process.waitUntilExit()
    return (process.terminationStatus, String(decoding: output, as: UTF8.self))
  }

  /// A new image by `mke2fs`.
  func format(_ kib: Int, _ arguments: [String]) throws -> [UInt8] {
    let path = folder + "/new.img"
    #expect(FileManager.default.createFile(atPath: path, contents: nil))
    truncate(path, kib * 1024)
    let result = try run("mke2fs", ["-q", "-F"] + arguments + [path])
    try #require(result.status == 0, "\(result.output)")
    return [UInt8](try Data(contentsOf: URL(fileURLWithPath: path)))
  }

  /// `e2fsck` on a copy of `content`; its exit code, what it said and the disk after it.
  func check(_ content: [UInt8], _ mode: String = "-fn") throws -> (status: Int32, output: String, after: [UInt8]) {
    let path = folder + "/check.img"
    try Data(content).write(to: URL(fileURLWithPath: path))
    let result = try run("e2fsck", [mode, path])
    return (
      result.status, result.output, mode == "-fn" ? content : [UInt8](try Data(contentsOf: URL(fileURLWithPath: path)))
    )
  }
}
