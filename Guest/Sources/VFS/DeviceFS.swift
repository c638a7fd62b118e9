// The devices of the machine as a directory of nodes, which come and go with their drivers.

import FileInterface

/// A device as this file system knows it.
private struct Entry {
  var inode: UInt32
  var device: DeviceDescription
  /// How many have it open.
  var holders = 0
  /// While somebody has it open.
  var node: (any DeviceNode)?
  /// Its driver has it still.
  var isThere = true
}

/// Nodes for the devices of a source, which is asked anew whenever the directory is looked into. Nothing can be made or removed here.
public final class DeviceFS: FileSystem {
  private let source: any DeviceSource
  private var entries: [Entry] = []
  private var nextInode: UInt32 = 2
  public let root: UInt32 = 1
  public var now: UInt32 = 0

  public init(_ source: any DeviceSource) { self.source = source }

  public var space: FileSystemSpace {
    FileSystemSpace(
      blockSize: 512, blocks: 0, freeBlocks: 0, inodes: UInt64(entries.count) + 1, freeInodes: 0,
      isReadOnly: false)
  }

  /// Learns which devices there are now.
  private func refresh() throws(FileError) {
    for index in entries.indices { entries[index].isThere = false }
    var index = 0
    while let device = try source.device(index) {
      index += 1
      if let known = entries.firstIndex(where: { $0.device.serial == device.serial }) {
        entries[known].device = device
        entries[known].isThere = true
      } else {
        entries.append(Entry(inode: nextInode, device: device))
        nextInode += 1
      }
    }
    entries.removeAll { !$0.isThere && $0.holders == 0 }
  }

  private func index(_ inode: UInt32) throws(FileError) -> Int {
    if inode == root { throw .isDirectory }
    guard let index = entries.firstIndex(where: { $0.inode == inode }) else { throw .notFound }
    return index
  }

  private func checkDirectory(_ inode: UInt32) throws(FileError) {
    guard inode == root else { throw .notDirectory }
  }

  public func lookup(_ directory: UInt32, _ name: Bytes) throws(FileError) -> UInt32 {
    try checkDirectory(directory)
    try refresh()
    for entry in entries where entry.isThere && entry.device.name == name.array {
      return entry.inode
    }
    throw .notFound
  }

  /// The cursor is the number of the entry that was told last, so that none is told twice when others go meanwhile.
  public func readDirectory(_ directory: UInt32, _ cursor: inout UInt64) throws(FileError)
    -> DirectoryEntry?
  {
    try checkDirectory(directory)
    if cursor == 0 { try refresh() }
    for entry in entries where entry.isThere && UInt64(entry.inode) > cursor {
      cursor = UInt64(entry.inode)
      return DirectoryEntry(inode: entry.inode, kind: entry.device.kind, name: entry.device.name)
    }
    return nil
  }

  public func attributes(_ inode: UInt32) throws(FileError) -> FileAttributes {
    if inode == root {
      return FileAttributes(inode: root, kind: .directory, permissions: 0o755, size: 0, links: 2)
    }
    let entry = entries[try index(inode)]
    return FileAttributes(
      inode: inode, kind: entry.device.kind, permissions: entry.device.permissions,
      size: entry.device.size,
      links: entry.isThere ? 1 : 0)
  }

  public func size(_ inode: UInt32) throws(FileError) -> UInt64 { try attributes(inode).size }
  public func parent(of directory: UInt32) throws(FileError) -> UInt32 { root }

  public func openDevice(_ inode: UInt32) throws(FileError) -> any DeviceNode {
    let place = try index(inode)
    if let node = entries[place].node { return node }
    let node = try source.open(entries[place].device)
    // Opening may have taken time, and asked others.
    entries[try index(inode)].node = node
    return node
  }

  public func retain(_ inode: UInt32) {
    for index in entries.indices where entries[index].inode == inode { entries[index].holders += 1 }
  }

  public func release(_ inode: UInt32) throws(FileError) {
    guard inode != root else { return }
    let place = try index(inode)
    entries[place].holders -= 1
    guard entries[place].holders == 0 else { return }
    let node = entries[place].node
    entries[place].node = nil
    if !entries[place].isThere { entries.remove(at: place) }
    try node?.flush()
  }

  public func sync() throws(FileError) {
    for entry in entries where entry.isThere { try entry.node?.flush() }
  }

  // Devices are no files, and their drivers alone make them.
  public func readLink(_ inode: UInt32) throws(FileError) -> [UInt8] { throw .invalid }
  public func create(
    _ directory: UInt32, _ name: Bytes, kind: FileKind, permissions: UInt16
  ) throws(FileError) -> UInt32 { throw .readOnly }
  public func makeLink(_ directory: UInt32, _ name: Bytes, target: Bytes) throws(FileError)
    -> UInt32
  {
    throw .readOnly
  }
  public func link(_ inode: UInt32, _ directory: UInt32, _ name: Bytes) throws(FileError) {
    throw .readOnly
  }
  public func unlink(_ directory: UInt32, _ name: Bytes) throws(FileError) { throw .readOnly }
  public func removeDirectory(_ directory: UInt32, _ name: Bytes) throws(FileError) {
    throw .readOnly
  }
  public func rename(_ from: UInt32, _ name: Bytes, to: UInt32, _ newName: Bytes) throws(FileError) {
    throw .readOnly
  }
  public func setPermissions(_ inode: UInt32, _ permissions: UInt16) throws(FileError) {
    throw .readOnly
  }
  public func setSize(_ inode: UInt32, _ size: UInt64) throws(FileError) { throw .invalid }
  public func reserve(_ inode: UInt32, _ offset: UInt64, _ count: Int) throws(FileError) {
    throw .invalid
  }
  public func readData(_ inode: UInt32, _ offset: UInt64, into area: ByteArea) throws(FileError) {
    throw .invalid
  }
  public func writeData(_ inode: UInt32, _ offset: UInt64, from area: ByteArea) throws(FileError) {
    throw .invalid
  }
  public func writeBack(_ inode: UInt32, _ offset: UInt64, from area: ByteArea) throws(FileError) {
    throw .invalid
  }
}
