// Free blocks and inodes: the bitmaps and the counts beside them.

extension Ext2 {
  /// The first clear bit in `range`, looking from `goal` to the end and then from the start.
  private func findClear(_ area: ByteArea, count: UInt32, goal: UInt32) -> UInt32? {
    func search(_ from: UInt32, _ to: UInt32) -> UInt32? {
      var bit = from
      while bit < to {
        if bit % 64 == 0, bit + 64 <= to, area.load64(Int(bit / 8)) == UInt64.max {
          bit += 64
        } else {
          if area.load8(Int(bit / 8)) >> UInt8(bit % 8) & 1 == 0 { return bit }
          bit += 1
        }
      }
      return nil
    }
    let start = min(goal, count)
    return search(start, count) ?? search(0, start)
  }

  private func adjust(_ group: UInt32, _ field: Int, by delta: Int) throws(FileError) {
    let entry = try descriptor(group)
    let value = Int(entry.buffer.area.load16(entry.offset + field)) + delta
    entry.buffer.store(UInt16(truncatingIfNeeded: max(0, value)), at: entry.offset + field)
  }

  /// Takes a free block, near `goal` if possible. Blocks given up since the last sync count as used; when nothing else is left,
  /// the caller syncs and tries again (`withSpace`).
  func allocateBlock(goal: UInt32) throws(FileError) -> UInt32 {
    guard freeBlocks > 0 else { throw .noSpace }
    let wanted = goal > geometry.firstDataBlock && goal < geometry.blocks ? goal : geometry.firstDataBlock
    let first = (wanted - geometry.firstDataBlock) / geometry.blocksPerGroup
    for step in 0..<geometry.groups {
      let group = (first + step) % geometry.groups
      let entry = try descriptor(group)
      guard entry.buffer.area.load16(entry.offset + GroupOffset.freeBlocks) > 0 else { continue }
      let bitmap = try buffers.buffer(entry.buffer.area.load32(entry.offset + GroupOffset.blockBitmap), .structure)
      let start = geometry.firstBlock(of: group)
      let near = step == 0 ? wanted - start : 0
      while let bit = findClear(bitmap.area, count: geometry.blockCount(of: group), goal: near) {
        bitmap.store(bitmap.area.load8(Int(bit / 8)) | 1 << UInt8(bit % 8), at: Int(bit / 8))
        // A bitmap that calls metadata free lies; the bit is set now, so go on with the next.
        guard try isData(start + bit) else { continue }
        try adjust(group, GroupOffset.freeBlocks, by: -1)
        freeBlocks -= 1
        return start + bit
      }
    }
    throw .noSpace
  }

  /// Clears a block's bit. Only from `reap`, or for a block that was taken and never used.
  func freeBlock(_ block: UInt32) throws(FileError) {
    guard try isData(block) else { throw damaged() }
    let group = (block - geometry.firstDataBlock) / geometry.blocksPerGroup
    let bit = block - geometry.firstBlock(of: group)
    let entry = try descriptor(group)
    let bitmap = try buffers.buffer(entry.buffer.area.load32(entry.offset + GroupOffset.blockBitmap), .structure)
    let byte = bitmap.area.load8(Int(bit / 8))
    guard byte >> UInt8(bit % 8) & 1 != 0 else { throw damaged() }
    bitmap.store(byte & ~(1 << UInt8(bit % 8)), at: Int(bit / 8))
    try adjust(group, GroupOffset.freeBlocks, by: 1)
    freeBlocks += 1
  }

  /// Takes a free inode, for a file in its directory's group, for a directory in the next group with much room. The inode is zeroed.
  func allocateInode(parent: UInt32, isDirectory: Bool) throws(FileError) -> Inode {
    guard freeInodes > 0 else { throw .noSpace }
    var first = (parent - 1) / geometry.inodesPerGroup
    if isDirectory {
      first = nextDirectoryGroup % geometry.groups
      nextDirectoryGroup = (first + 1) % geometry.groups
    }
    for step in 0..<geometry.groups {
      let group = (first + step) % geometry.groups
      let entry = try descriptor(group)
      guard entry.buffer.area.load16(entry.offset + GroupOffset.freeInodes) > 0 else { continue }
      let bitmap = try buffers.buffer(entry.buffer.area.load32(entry.offset + GroupOffset.inodeBitmap), .structure)
      let reserved = group == 0 ? geometry.firstInode - 1 : 0
      guard let bit = findClear(bitmap.area, count: geometry.inodesPerGroup, goal: reserved), bit >= reserved else {
        continue
      }
      bitmap.store(bitmap.area.load8(Int(bit / 8)) | 1 << UInt8(bit % 8), at: Int(bit / 8))
      try adjust(group, GroupOffset.freeInodes, by: -1)
      if isDirectory { try adjust(group, GroupOffset.directories, by: 1) }
      freeInodes -= 1
      let inode = try inode(group * geometry.inodesPerGroup + bit + 1)
      inode.buffer.area.slice(inode.offset, geometry.inodeSize).fill()
      inode.buffer.isDirty = true
      return inode
    }
    throw .noSpace
  }

  func freeInode(_ number: UInt32, isDirectory: Bool) throws(FileError) {
    let group = (number - 1) / geometry.inodesPerGroup
    let bit = Int((number - 1) % geometry.inodesPerGroup)
    let entry = try descriptor(group)
    let bitmap = try buffers.buffer(entry.buffer.area.load32(entry.offset + GroupOffset.inodeBitmap), .structure)
    let byte = bitmap.area.load8(bit / 8)
    guard byte >> UInt8(bit % 8) & 1 != 0 else { throw damaged() }
    bitmap.store(byte & ~(1 << UInt8(bit % 8)), at: bit / 8)
    try adjust(group, GroupOffset.freeInodes, by: 1)
    if isDirectory { try adjust(group, GroupOffset.directories, by: -1) }
    freeInodes += 1
  }

  /// Runs `body`; if space is short while blocks or inodes wait to be freed, syncs and runs it once more.
  func withSpace<T>(_ body: () throws(FileError) -> T) throws(FileError) -> T {
    do throws(FileError) { return try body() } catch {
      guard error == .noSpace, !pendingBlocks.isEmpty || !dying.isEmpty else { throw error }
    }
    try sync()
    return try body()
  }
}
