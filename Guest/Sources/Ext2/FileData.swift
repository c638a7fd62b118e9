// Contents of files: read, write, length. Data goes to the device as it comes, to blocks that no synced file uses.

extension Ext2 {
  private var size64: UInt64 { UInt64(geometry.blockSize) }

  /// A regular file.
  private func file(_ number: UInt32) throws(FileError) -> Inode {
    let inode = try usedInode(number)
    switch inode.kind {
    case .file: return inode
    case .directory: throw .isDirectory
    default: throw .invalid
    }
  }

  /// Blocks in a row on the disk from logical block `first` on, at most `limit`; block 0 for a hole.
  private func run(_ inode: Inode, _ first: UInt64, limit: Int) throws(FileError) -> (block: UInt32, count: Int) {
    let start = try block(inode, first)
    var count = 1
    while count < limit {
      let next = try block(inode, first + UInt64(count))
      if next != (start == 0 ? 0 : start &+ UInt32(count)) { break }
      count += 1
    }
    return (start, count)
  }

  public func readData(_ number: UInt32, _ offset: UInt64, into area: ByteArea) throws(FileError) {
    beginLook()
    let inode = try file(number)
    let end = min(inode.size, offset + UInt64(area.count))
    var position = offset
    while position < end {
      let within = Int(position % size64)
      let place = Int(position - offset)
      let left = Int(end - position)
      if within != 0 || left < geometry.blockSize {
        let block = try block(inode, position / size64)
        let part = min(left, geometry.blockSize - within)
        if block == 0 {
          area.slice(place, part).fill()
        } else {
          try store.read(UInt64(block) * size64, into: scratch.area)
          area.copy(scratch.area.slice(within, part), at: place)
        }
        position += UInt64(part)
      } else {
        let (block, count) = try run(inode, position / size64, limit: left / geometry.blockSize)
        let part = area.slice(place, count * geometry.blockSize)
        if block == 0 { part.fill() } else { try store.read(UInt64(block) * size64, into: part) }
        position += UInt64(part.count)
      }
    }
    let done = max(position, offset) - offset
    if done < UInt64(area.count) { area.slice(Int(done), area.count - Int(done)).fill() }
  }

  /// The highest length that a file can have here.
  private var maximumSize: UInt64 {
    let bySectors = (UInt64(UInt32.max) / UInt64(geometry.blockSize / 512)) * size64
    let bySize = geometry.revision == 0 ? UInt64(1) << 31 - 1 : UInt64.max
    return min(geometry.maximumBlocks * size64, bySectors, bySize)
  }

  private func extend(_ inode: Inode, to size: UInt64) {
    if size > inode.size {
      inode.size = size
      noteLargeFile(size)
    }
    inode.modified = now
    inode.changed = now
  }

  /// The first file beyond 2 GiB makes that a feature of the file system.
  private func noteLargeFile(_ size: UInt64) {
    let features = superblock.area.load32(SuperOffset.readOnlyCompatible)
    guard size >= 1 << 31, geometry.revision == 1, features & Ext2Feature.largeFile == 0 else { return }
    superblock.area.store(features | Ext2Feature.largeFile, at: SuperOffset.readOnlyCompatible)
  }

  public func reserve(_ number: UInt32, _ offset: UInt64, _ count: Int) throws(FileError) {
    try reserve(number, offset, count, zeroes: false)
  }

  /// `zeroes`: new blocks that the range covers in part are made zero, so that they can be read before they are written.
  private func reserve(_ number: UInt32, _ offset: UInt64, _ count: Int, zeroes: Bool) throws(FileError) {
    try beginChange()
    guard count >= 0, offset <= maximumSize, UInt64(count) <= maximumSize - offset else { throw .tooLarge }
    guard count > 0 else { return }
    try withSpace { () throws(FileError) in
      let inode = try file(number)
      var filled: [UInt32] = []
      do throws(FileError) {
        for logical in offset / size64...(offset + UInt64(count) - 1) / size64 {
          let (block, isNew) = try ensureBlock(inode, logical)
          guard isNew else { continue }
          if logical * size64 < inode.size { filled.append(block) }
          if zeroes, offset > logical * size64 || offset + UInt64(count) < (logical + 1) * size64 {
            try clear(block)
          }
        }
      } catch {
        if error == .noSpace {
          // No block may lie behind the end, and those that fill a hole now still read as zeros.
          try truncate(inode, toBlocks: (inode.size + size64 - 1) / size64)
          for block in filled { try clear(block) }
        }
        throw error
      }
      extend(inode, to: offset + UInt64(count))
    }
  }

  private func clear(_ block: UInt32) throws(FileError) {
    scratch.area.fill()
    try writeBlock(block, scratch.area)
  }

  private func writeBlock(_ block: UInt32, _ area: ByteArea) throws(FileError) {
    try store.write(UInt64(block) * size64, from: area)
    hasUnflushedData = true
  }

  /// Writes all of `area` at any `offset`, with allocation.
  public func writeData(_ number: UInt32, _ offset: UInt64, from area: ByteArea) throws(FileError) {
    guard area.count > 0 else { return }
    // Between the old end and the start of this write lie holes, or zeros that `setSize` and `reserve` left.
    try reserve(number, offset, area.count, zeroes: true)
    let inode = try file(number)
    var position = offset
    let end = offset + UInt64(area.count)
    while position < end {
      let within = Int(position % size64)
      let place = Int(position - offset)
      let left = Int(end - position)
      if within != 0 || left < geometry.blockSize {
        let block = try block(inode, position / size64)
        let part = min(left, geometry.blockSize - within)
        guard block != 0 else { throw damaged() }
        try store.read(UInt64(block) * size64, into: scratch.area)
        scratch.area.copy(area.slice(place, part), at: within)
        try writeBlock(block, scratch.area)
        position += UInt64(part)
      } else {
        let (block, count) = try run(inode, position / size64, limit: left / geometry.blockSize)
        guard block != 0 else { throw damaged() }
        try store.write(UInt64(block) * size64, from: area.slice(place, count * geometry.blockSize))
        hasUnflushedData = true
        position += UInt64(count) * size64
      }
    }
  }

  public func writeBack(_ number: UInt32, _ offset: UInt64, from area: ByteArea) throws(FileError) {
    guard !isReadOnly else { throw .readOnly }
    guard offset % size64 == 0, area.count % geometry.blockSize == 0 else { throw .invalid }
    let inode = try file(number)
    var done = 0
    while done < area.count {
      let (block, count) = try run(
        inode, (offset + UInt64(done)) / size64, limit: (area.count - done) / geometry.blockSize)
      let part = area.slice(done, count * geometry.blockSize)
      if block != 0 {
        try store.write(UInt64(block) * size64, from: part)
        hasUnflushedData = true
      }
      done += part.count
    }
  }

  public func setSize(_ number: UInt32, _ size: UInt64) throws(FileError) {
    try beginChange()
    guard size <= maximumSize else { throw .tooLarge }
    let inode = try file(number)
    if size < inode.size {
      let keep = (size + size64 - 1) / size64
      try truncate(inode, toBlocks: keep)
      let within = Int(size % size64)
      if within != 0 {
        // What lay behind the new end must not come back when the file grows again.
        let block = try block(inode, size / size64)
        if block != 0 {
          try store.read(UInt64(block) * size64, into: scratch.area)
          scratch.area.slice(within, geometry.blockSize - within).fill()
          try writeBlock(block, scratch.area)
        }
      }
      inode.size = size
    } else if size > inode.size {
      inode.size = size
      noteLargeFile(size)
    }
    inode.modified = now
    inode.changed = now
  }
}
