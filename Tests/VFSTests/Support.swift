// A tree of two file systems in memory, and strings in place of `Bytes`.

import Ext2
import Foundation
import Testing
import TmpFS
import VFS

/// Calls `body` with a text as `Bytes`.
func with<T>(_ text: String, _ body: (Bytes) throws(FileError) -> T) throws(FileError) -> T {
  let block = ByteBlock(count: text.utf8.count)
  for (index, byte) in text.utf8.enumerated() { block.area.store(byte, at: index) }
  defer { withExtendedLifetime(block) {} }
  return try body(block.area.bytes)
}

/// A disk in memory.
final class MemoryStore: BlockStore {
  private let content: ByteBlock
  var isReadOnly = false
  /// Writes so far; and whether they fail.
  private(set) var writes = 0
  var failsWrites = false
  init(_ data: Data) {
    content = ByteBlock(count: data.count)
    data.copyBytes(to: UnsafeMutableRawBufferPointer(start: content.area.unsafeBase, count: data.count))
  }
  var data: Data { Data(bytes: content.area.unsafeBase, count: content.area.count) }
  var byteCount: UInt64 { UInt64(content.area.count) }
  func read(_ offset: UInt64, into area: ByteArea) throws(FileError) {
    area.copy(content.area.slice(Int(offset), area.count))
  }
  func write(_ offset: UInt64, from area: ByteArea) throws(FileError) {
    guard !failsWrites else { throw .inputOutput }
    writes += 1
    content.area.copy(area, at: Int(offset))
  }
  func flush() throws(FileError) {}
}

/// A disk of `mke2fs`.
func formattedDisk(_ kib: Int, blockSize: Int = 1024) throws -> MemoryStore {
  let image = FileManager.default.temporaryDirectory.appendingPathComponent("vfs-\(UUID().uuidString).img").path
  defer { try? FileManager.default.removeItem(atPath: image) }
  try #require(try Tree.run("mke2fs", ["-q", "-F", "-b", "\(blockSize)", image, "\(kib)K"]).status == 0)
  return MemoryStore(try Data(contentsOf: URL(fileURLWithPath: image)))
}

/// Expects that `e2fsck -fn` finds the disk clean.
func expectClean(_ disk: MemoryStore) throws {
  let path = FileManager.default.temporaryDirectory.appendingPathComponent("vfs-\(UUID().uuidString).img").path
  defer { try? FileManager.default.removeItem(atPath: path) }
  try disk.data.write(to: URL(fileURLWithPath: path))
  let result = try Tree.run("e2fsck", ["-fn", path])
  #expect(result.status == 0, "\(result.output)")
}

/// tmpfs at `/` with `pages` pages, and ext2 made by `mke2fs` at `/disk`.
struct Tree {
  let pages: PageStore
  let root: TmpFS
  let vfs: VFS
  let disk: MemoryStore

  init(pages count: Int = 256, diskKiB: Int = 1024) throws {
    let size = count * PageStore.pageSize
    // Lives until the tests end: the tree outlives this value in some.
    let memory = UnsafeMutableRawPointer.allocate(byteCount: size, alignment: PageStore.pageSize)
    memory.initializeMemory(as: UInt8.self, repeating: 0, count: size)
    pages = PageStore(ByteArea(unsafeBase: memory, count: size))
    root = TmpFS(pages)
    vfs = VFS(root: root)
    disk = try formattedDisk(diskKiB)
    let (tree, system) = (vfs, try Ext2(disk))
    try tree.makeDirectory("/disk")
    try with("/disk") { path throws(FileError) in try tree.mount(system, at: path) }
  }

  static func run(_ tool: String, _ arguments: [String]) throws -> (status: Int32, output: String) {
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

  func expectClean() throws { try VFSTests.expectClean(disk) }
}

/// The operations with strings and arrays.
extension VFS {
  @discardableResult
  func open(_ path: String, _ flags: OpenFlags = .read, client: UInt64 = 1) throws(FileError) -> UInt64 {
    try with(path) { path throws(FileError) in try open(client, path, flags) }
  }
  func write(_ handle: UInt64, _ offset: UInt64, _ data: [UInt8], client: UInt64 = 1) throws(FileError) {
    let block = ByteBlock(count: data.count)
    for (index, byte) in data.enumerated() { block.area.store(byte, at: index) }
    #expect(try write(client, handle, offset, from: block.area) == data.count)
  }
  func read(_ handle: UInt64, _ offset: UInt64, _ count: Int, client: UInt64 = 1) throws(FileError) -> [UInt8] {
    let block = ByteBlock(count: count)
    let done = try read(client, handle, offset, into: block.area)
    return Array(block.area.bytes.array.prefix(done))
  }
  /// Makes a file with this content.
  func put(_ path: String, _ text: String) throws(FileError) {
    let handle = try open(path, [.write, .create, .truncate])
    try write(handle, 0, Array(text.utf8))
    try close(1, handle)
  }
  func get(_ path: String) throws(FileError) -> String {
    let handle = try open(path)
    let data = try read(handle, 0, 1 << 20)
    try close(1, handle)
    return String(decoding: data, as: UTF8.self)
  }
  func makeDirectory(_ path: String) throws(FileError) {
    try with(path) { path throws(FileError) in try makeDirectory(path) }
  }
  func removeDirectory(_ path: String) throws(FileError) {
    try with(path) { path throws(FileError) in try removeDirectory(path) }
  }
  func unlink(_ path: String) throws(FileError) { try with(path) { path throws(FileError) in try unlink(path) } }
  func rename(_ path: String, _ to: String) throws(FileError) {
    try with(path) { path throws(FileError) in
      try with(to) { to throws(FileError) in try rename(path, to: to) }
    }
  }
  func link(_ path: String, _ to: String) throws(FileError) {
    try with(path) { path throws(FileError) in
      try with(to) { to throws(FileError) in try link(path, to: to) }
    }
  }
  func makeLink(_ path: String, _ target: String) throws(FileError) {
    try with(path) { path throws(FileError) in
      try with(target) { target throws(FileError) in try makeLink(path, target: target) }
    }
  }
  func attributes(_ path: String, followsLink: Bool = true) throws(FileError) -> FileAttributes {
    try with(path) { path throws(FileError) in try attributes(at: path, followsLink: followsLink) }
  }
  /// Names in a directory, read with room for `room` bytes at once.
  func names(_ path: String, room: Int = 300) throws(FileError) -> [String] {
    let handle = try open(path, [.read, .directory])
    var names: [String] = []
    var cursor: UInt64 = 0
    let block = ByteBlock(count: room)
    while true {
      let used = try readDirectory(1, handle, &cursor, into: block.area)
      if used == 0 { break }
      var at = 0
      while let entry = DirectoryRecord.take(at: &at, from: block.area.slice(0, used)) {
        names.append(String(decoding: entry.name, as: UTF8.self))
      }
    }
    try close(1, handle)
    return names.sorted()
  }
}
