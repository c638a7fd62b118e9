// Directory blocks: a chain of records, each with inode, length of the record, length of the name, kind and name, that fills the block.

/// One record as it stands in a block, checked against the block's end.
struct DirectoryRecord {
  let offset: Int
  let length: Int
  let inode: UInt32
  let nameLength: Int
  let kind: UInt8

  /// The record at `offset`; nil if it contradicts itself or the block.
  init?(_ area: ByteArea, _ offset: Int) {
    guard offset >= 0, offset + 8 <= area.count else { return nil }
    self.offset = offset
    inode = area.load32(offset)
    length = Int(area.load16(offset + 4))
    nameLength = Int(area.load8(offset + 6))
    kind = area.load8(offset + 7)
    guard length >= 8, length % 4 == 0, length <= area.count - offset, 8 + nameLength <= length else { return nil }
  }

  /// Bytes that a record with a name of this length needs.
  static func size(_ nameLength: Int) -> Int { (8 + nameLength + 3) & ~3 }

  /// Bytes that this record needs itself; the rest of its length is free.
  var used: Int { inode == 0 ? 0 : Self.size(nameLength) }

  func name(_ area: ByteArea) -> Bytes {
    let part = area.slice(offset + 8, nameLength)
    return Bytes(unsafeBase: UnsafeRawPointer(part.unsafeBase), count: part.count)
  }
}

/// Where a name stands.
struct DirectoryPlace {
  let buffer: Buffer
  let record: DirectoryRecord
  /// The record before it in the same block.
  let previous: DirectoryRecord?
}

extension Ext2 {
  /// Blocks of a directory; a length that is none is damage.
  func directoryBlocks(_ directory: Inode) throws(FileError) -> UInt64 {
    let size = directory.size
    guard size % UInt64(geometry.blockSize) == 0, size / UInt64(geometry.blockSize) <= UInt64(geometry.blocks) else {
      throw damaged()
    }
    return size / UInt64(geometry.blockSize)
  }

  /// The buffer of one block of a directory; nil for a hole.
  func directoryBlock(_ directory: Inode, _ index: UInt64) throws(FileError) -> Buffer? {
    let block = try block(directory, index)
    return block == 0 ? nil : try buffers.buffer(block, .directory)
  }

  /// Finds `name`, or nil.
  func find(_ directory: Inode, _ name: Bytes) throws(FileError) -> DirectoryPlace? {
    for index in 0..<(try directoryBlocks(directory)) {
      guard let buffer = try directoryBlock(directory, index) else { continue }
      var offset = 0
      var previous: DirectoryRecord?
      while offset < geometry.blockSize {
        guard let record = DirectoryRecord(buffer.area, offset) else { throw damaged() }
        if record.inode != 0, record.nameLength == name.count, record.name(buffer.area).equals(name) {
          guard record.inode <= geometry.inodes else { throw damaged() }
          return DirectoryPlace(buffer: buffer, record: record, previous: previous)
        }
        previous = record
        offset += record.length
      }
    }
    return nil
  }

  private func write(
    _ buffer: Buffer, _ offset: Int, length: Int, _ inode: UInt32, _ kind: FileKind, _ name: Bytes
  ) {
    buffer.store(inode, at: offset)
    buffer.store(UInt16(length), at: offset + 4)
    buffer.store(UInt8(name.count), at: offset + 6)
    buffer.store(geometry.hasFileTypes ? kind.rawValue : 0, at: offset + 7)
    var index = 0
    while let byte = name.byte(index) {
      buffer.store(byte, at: offset + 8 + index)
      index += 1
    }
  }

  /// Adds a name that is not there yet, in the first gap that is large enough, else in a new block.
  func addEntry(_ directory: Inode, _ name: Bytes, _ inode: UInt32, _ kind: FileKind) throws(FileError) {
    let needed = DirectoryRecord.size(name.count)
    let count = try directoryBlocks(directory)
    for index in 0..<count {
      guard let buffer = try directoryBlock(directory, index) else { continue }
      var offset = 0
      while offset < geometry.blockSize {
        guard let record = DirectoryRecord(buffer.area, offset) else { throw damaged() }
        if record.length - record.used >= needed {
          let start = offset + record.used
          if record.used > 0 { buffer.store(UInt16(record.used), at: offset + 4) }
          write(buffer, start, length: record.length - record.used, inode, kind, name)
          touch(directory)
          return
        }
        offset += record.length
      }
    }
    // Length is a 32-bit field for directories.
    guard (count + 1) * UInt64(geometry.blockSize) < 1 << 31 else { throw .tooLarge }
    let (block, _) = try ensureBlock(directory, count)
    let buffer = buffers.fresh(block, .directory)
    directory.size = (count + 1) * UInt64(geometry.blockSize)
    write(buffer, 0, length: geometry.blockSize, inode, kind, name)
    touch(directory)
  }

  /// A changed directory: new times, and its hash index does not hold any more.
  func touch(_ directory: Inode) {
    directory.modified = now
    directory.changed = now
    if directory.flags & Inode.indexFlag != 0 { directory.flags &= ~Inode.indexFlag }
  }

  /// Removes a record: the one before it takes its room, or it becomes an empty one.
  func removeEntry(_ directory: Inode, _ place: DirectoryPlace) {
    let buffer = place.buffer
    if let previous = place.previous {
      buffer.store(UInt16(previous.length + place.record.length), at: previous.offset + 4)
    } else {
      buffer.store(UInt32(0), at: place.record.offset)
    }
    buffer.hasRemovals = true
    touch(directory)
  }

  /// Makes an existing record mean another inode.
  func replaceEntry(_ directory: Inode, _ place: DirectoryPlace, _ inode: UInt32, _ kind: FileKind) {
    place.buffer.store(inode, at: place.record.offset)
    place.buffer.store(geometry.hasFileTypes ? kind.rawValue : 0, at: place.record.offset + 7)
    touch(directory)
  }

  /// The first block of a new directory.
  func fillNewDirectory(_ directory: Inode, parent: UInt32) throws(FileError) {
    let (block, _) = try ensureBlock(directory, 0)
    let buffer = buffers.fresh(block, .directory)
    write(buffer, 0, length: 12, directory.number, .directory, Bytes("."))
    write(buffer, 12, length: geometry.blockSize - 12, parent, .directory, Bytes(".."))
    directory.size = UInt64(geometry.blockSize)
  }

  /// Whether nothing but `.` and `..` is in a directory.
  func isEmpty(_ directory: Inode) throws(FileError) -> Bool {
    var cursor: UInt64 = 0
    return try nextEntry(directory, &cursor) == nil
  }

  /// The record at or after byte `cursor` of the directory, without `.` and `..`.
  private func nextEntry(
    _ directory: Inode, _ cursor: inout UInt64
  ) throws(FileError) -> (record: DirectoryRecord, area: ByteArea)? {
    let size = UInt64(geometry.blockSize)
    let count = try directoryBlocks(directory)
    while cursor / size < count {
      guard let buffer = try directoryBlock(directory, cursor / size) else {
        cursor = (cursor / size + 1) * size
        continue
      }
      // A cursor that lies inside a record (entries have been removed meanwhile) goes on at the next one.
      let wanted = Int(cursor % size)
      var offset = 0
      while offset < geometry.blockSize {
        guard let record = DirectoryRecord(buffer.area, offset) else { throw damaged() }
        let next = offset + record.length
        if offset >= wanted, record.inode != 0 {
          let name = record.name(buffer.area)
          if !name.equals("."), !name.equals("..") {
            cursor = cursor / size * size + UInt64(next)
            return (record, buffer.area)
          }
        }
        offset = next
      }
      cursor = (cursor / size + 1) * size
    }
    return nil
  }

  public func readDirectory(_ number: UInt32, _ cursor: inout UInt64) throws(FileError) -> DirectoryEntry? {
    beginLook()
    let directory = try directory(number)
    guard let (record, area) = try nextEntry(directory, &cursor) else { return nil }
    guard record.inode <= geometry.inodes else { throw damaged() }
    var kind = FileKind(rawValue: record.kind)
    if kind == nil { kind = try inode(record.inode).kind }
    guard let kind else { throw damaged() }
    return DirectoryEntry(inode: record.inode, kind: kind, name: record.name(area).array)
  }
}
