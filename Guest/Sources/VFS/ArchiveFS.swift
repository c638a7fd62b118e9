// The boot archive as a read-only file system, so that what the machine was started with has a place in the tree.

import FileInterface

/// The files of a tape archive in one directory. The archive stays mapped as long as this is used.
public final class ArchiveFS: FileSystem {
  private var files: [TapeArchive.File] = []
  private var bytes: UInt64 = 0
  public let root: UInt32 = 1
  public var now: UInt32 = 0

  public init(_ archive: TapeArchive) {
    archive.forEachFile { file in
      files.append(file)
      bytes += UInt64(file.contents.count)
      return true
    }
  }

  public var space: FileSystemSpace {
    FileSystemSpace(
      blockSize: 512, blocks: (bytes + 511) / 512, freeBlocks: 0, inodes: UInt64(files.count) + 1, freeInodes: 0,
      isReadOnly: true)
  }

  private func file(_ inode: UInt32) throws(FileError) -> TapeArchive.File {
    if inode == root { throw .isDirectory }
    guard inode >= 2, Int(inode) - 2 < files.count else { throw .notFound }
    return files[Int(inode) - 2]
  }

  private func checkDirectory(_ inode: UInt32) throws(FileError) {
    guard inode == root else { throw .notDirectory }
  }

  public func attributes(_ inode: UInt32) throws(FileError) -> FileAttributes {
    if inode == root { return FileAttributes(inode: root, kind: .directory, permissions: 0o555, size: 0, links: 2) }
    let count = UInt64(try file(inode).contents.count)
    return FileAttributes(
      inode: inode, kind: .file, permissions: 0o444, size: count, links: 1, sectors: (count + 511) / 512)
  }

  public func size(_ inode: UInt32) throws(FileError) -> UInt64 { UInt64(try file(inode).contents.count) }

  public func lookup(_ directory: UInt32, _ name: Bytes) throws(FileError) -> UInt32 {
    try checkDirectory(directory)
    for index in files.indices where files[index].name.equals(name) { return UInt32(index) + 2 }
    throw .notFound
  }

  public func parent(of directory: UInt32) throws(FileError) -> UInt32 { root }

  public func readDirectory(_ directory: UInt32, _ cursor: inout UInt64) throws(FileError) -> DirectoryEntry? {
    try checkDirectory(directory)
    guard cursor < UInt64(files.count) else { return nil }
    let index = Int(cursor)
    cursor += 1
    return DirectoryEntry(inode: UInt32(index) + 2, kind: .file, name: files[index].name.array)
  }

  public func readData(_ inode: UInt32, _ offset: UInt64, into area: ByteArea) throws(FileError) {
    let contents = try file(inode).contents
    area.fill()
    guard offset < UInt64(contents.count),
      let part = contents.slice(Int(offset), min(area.count, contents.count - Int(offset)))
    else { return }
    area.copy(part.area)
  }

  public func readLink(_ inode: UInt32) throws(FileError) -> [UInt8] { throw .invalid }
  public func retain(_ inode: UInt32) {}
  public func release(_ inode: UInt32) throws(FileError) {}
  public func sync() {}

  // Nothing can be changed.
  public func create(
    _ directory: UInt32, _ name: Bytes, kind: FileKind, permissions: UInt16
  ) throws(FileError) -> UInt32 { throw .readOnly }
  public func makeLink(_ directory: UInt32, _ name: Bytes, target: Bytes) throws(FileError) -> UInt32 {
    throw .readOnly
  }
  public func link(_ inode: UInt32, _ directory: UInt32, _ name: Bytes) throws(FileError) { throw .readOnly }
  public func unlink(_ directory: UInt32, _ name: Bytes) throws(FileError) { throw .readOnly }
  public func removeDirectory(_ directory: UInt32, _ name: Bytes) throws(FileError) { throw .readOnly }
  public func rename(_ from: UInt32, _ name: Bytes, to: UInt32, _ newName: Bytes) throws(FileError) {
    throw .readOnly
  }
  public func setPermissions(_ inode: UInt32, _ permissions: UInt16) throws(FileError) { throw .readOnly }
  public func setSize(_ inode: UInt32, _ size: UInt64) throws(FileError) { throw .readOnly }
  public func reserve(_ inode: UInt32, _ offset: UInt64, _ count: Int) throws(FileError) { throw .readOnly }
  public func writeData(_ inode: UInt32, _ offset: UInt64, from area: ByteArea) throws(FileError) {
    throw .readOnly
  }
  public func writeBack(_ inode: UInt32, _ offset: UInt64, from area: ByteArea) throws(FileError) {
    throw .readOnly
  }
}
