// An ext2 file system (§4.3): mount, attributes, and the sync that brings changes to the disk in a safe order.
//
// Changes of metadata stay in buffers until `sync`. What a sync writes, with a flush of the device after each step, so
// that a kill between any two writes leaves something that a check can mend without losing what an earlier sync has made
// durable:
//   0  "not clean" in the superblock (data has been written as it came, to blocks that were free at the last sync)
//   1  fresh blocks: indirect blocks and directory blocks to which nothing on the disk points yet
//   2  inodes, bitmaps, old indirect blocks
//   3  directory blocks that gained names, then those that lost some: a renamed file has one name too many, never none
//   4  inodes without names and blocks cut off are freed; only from here on can they be used again
//   5  counts, and "clean"
// A file system that was not clean is checked and mended at the mount (Check.swift).

/// An ext2 file system on `Store`. Used by one thread at a time.
public final class Ext2<Store: BlockStore>: PagedFileSystem {
  let store: Store
  let geometry: Geometry
  let buffers: BufferCache<Store>
  let superblock: ByteBlock
  /// A block for partial reads and writes of data.
  let scratch: ByteBlock

  public var now: UInt32 = 0
  /// No change is accepted: unknown features, a read-only disk, or damage found on the way.
  public internal(set) var isReadOnly: Bool
  /// What the check at the mount mended; nil where none was needed.
  public internal(set) var checkReport: CheckReport?

  /// Whether the superblock on the disk says "clean".
  var isCleanOnDisk: Bool
  /// Blocks that files gave up since the last sync; still set in the bitmaps.
  var pendingBlocks: [UInt32] = []
  /// Inodes without a name since the last sync or still open.
  var dying: [UInt32] = []
  /// How often an inode is held open.
  var openCounts: [(inode: UInt32, count: Int)] = []
  var freeBlocks: UInt64 = 0
  var freeInodes: UInt64 = 0
  var lastGeneration: UInt32 = 0
  /// Where the search for a free inode's directory group begins.
  var nextDirectoryGroup: UInt32 = 0
  public var beforeSync: (() throws(FileError) -> Void)?
  /// Data has been written since the last flush.
  var hasUnflushedData = false

  public var root: UInt32 { ReservedInode.root }
  public var blockSize: Int { geometry.blockSize }

  /// Mounts the disk. One that is not clean is checked and mended first, unless it is read-only: then it is used as it is.
  /// `now`: seconds since 1970.
  public init(_ store: Store, now: UInt32 = 0, readOnly: Bool = false) throws(Ext2MountError) {
    let superblock = ByteBlock(count: Geometry.superblockSize)
    guard store.byteCount >= Geometry.superblockOffset + UInt64(Geometry.superblockSize) else { throw .notExt2 }
    do throws(FileError) { try store.read(Geometry.superblockOffset, into: superblock.area) } catch {
      throw .inputOutput(error)
    }
    let geometry = try Geometry(superblock.area, byteCount: store.byteCount)
    self.store = store
    self.superblock = superblock
    self.geometry = geometry
    self.now = now
    buffers = BufferCache(store, blockSize: geometry.blockSize)
    scratch = ByteBlock(count: geometry.blockSize)
    isReadOnly = readOnly || store.isReadOnly || !geometry.allowsWriting
    isCleanOnDisk = superblock.area.load16(SuperOffset.state) & 3 == 1
    try checkDescriptors()
    let needsCheck = !isCleanOnDisk
    if needsCheck, geometry.compatible & Ext2Feature.sparseSuper2 != 0 { isReadOnly = true }
    do throws(FileError) {
      if needsCheck, !isReadOnly {
        checkReport = try check()
      } else {
        try count()
      }
      if !isReadOnly {
        let area = superblock.area
        area.store(now, at: SuperOffset.mountTime)
        area.store(area.load16(SuperOffset.mountCount) &+ 1, at: SuperOffset.mountCount)
      }
    } catch {
      throw .checkFailed(error)
    }
  }

  /// Every group's bitmaps and inode table must lie inside the disk and not upon each other.
  private func checkDescriptors() throws(Ext2MountError) {
    for group in 0..<geometry.groups {
      do throws(FileError) {
        let entry = try descriptor(group)
        let head = geometry.firstDataBlock + 1 + geometry.descriptorBlocks
        for field in [GroupOffset.blockBitmap, GroupOffset.inodeBitmap, GroupOffset.inodeTable] {
          let start = entry.buffer.area.load32(entry.offset + field)
          let length = field == GroupOffset.inodeTable ? geometry.inodeTableBlocks : 1
          guard start >= head, start < geometry.blocks, length <= geometry.blocks - start else {
            throw FileError.corrupt
          }
        }
      } catch {
        if error == .corrupt { throw .badNumber(offset: GroupOffset.size * Int(group)) }
        throw .inputOutput(error)
      }
    }
  }

  /// Buffer and offset of a group's descriptor.
  func descriptor(_ group: UInt32) throws(FileError) -> (buffer: Buffer, offset: Int) {
    let perBlock = UInt32(geometry.blockSize / GroupOffset.size)
    let buffer = try buffers.buffer(geometry.firstDataBlock + 1 + group / perBlock, .summary)
    return (buffer, Int(group % perBlock) * GroupOffset.size)
  }

  /// Sums up the free blocks and inodes that the descriptors name.
  func count() throws(FileError) {
    freeBlocks = 0
    freeInodes = 0
    for group in 0..<geometry.groups {
      let entry = try descriptor(group)
      freeBlocks += UInt64(entry.buffer.area.load16(entry.offset + GroupOffset.freeBlocks))
      freeInodes += UInt64(entry.buffer.area.load16(entry.offset + GroupOffset.freeInodes))
    }
  }

  /// The inode's place, if the number is one.
  func inode(_ number: UInt32) throws(FileError) -> Inode {
    guard number >= 1, number <= geometry.inodes else { throw .corrupt }
    let index = (number - 1) % geometry.inodesPerGroup
    let entry = try descriptor((number - 1) / geometry.inodesPerGroup)
    let perBlock = UInt32(geometry.blockSize / geometry.inodeSize)
    let table = entry.buffer.area.load32(entry.offset + GroupOffset.inodeTable)
    let buffer = try buffers.buffer(table + index / perBlock, .structure)
    return Inode(number: number, buffer: buffer, offset: Int(index % perBlock) * geometry.inodeSize)
  }

  /// An inode in use.
  func usedInode(_ number: UInt32) throws(FileError) -> Inode {
    let inode = try inode(number)
    guard inode.links > 0 || openCount(number) > 0, inode.kind != nil else { throw .notFound }
    return inode
  }

  /// A directory.
  func directory(_ number: UInt32) throws(FileError) -> Inode {
    let inode = try usedInode(number)
    guard inode.kind == .directory else { throw .notDirectory }
    guard !dying.contains(number) else { throw .notFound }
    return inode
  }

  /// Whether a block may hold data: inside the disk and outside all metadata.
  func isData(_ block: UInt32) throws(FileError) -> Bool {
    guard block > geometry.firstDataBlock, block < geometry.blocks else { return false }
    let group = (block - geometry.firstDataBlock) / geometry.blocksPerGroup
    if block < geometry.firstBlock(of: group) + geometry.headBlocks(of: group) { return false }
    let entry = try descriptor(group)
    let area = entry.buffer.area
    let table = area.load32(entry.offset + GroupOffset.inodeTable)
    return block != area.load32(entry.offset + GroupOffset.blockBitmap)
      && block != area.load32(entry.offset + GroupOffset.inodeBitmap)
      && !(block >= table && block - table < geometry.inodeTableBlocks)
  }

  /// To be called first by every operation that changes something.
  func beginChange() throws(FileError) {
    guard !isReadOnly else { throw .readOnly }
    buffers.trim(limit: 1024)
    if pendingBlocks.count > 8192 || dying.count > 512 { try sync() }
  }

  /// To be called first by every operation that only looks.
  func beginLook() { buffers.trim(limit: 1024) }

  /// Damage was found: nothing is written any more, so that it gets no worse.
  func damaged() -> FileError {
    isReadOnly = true
    return .corrupt
  }

  // MARK: Attributes

  public var space: FileSystemSpace {
    FileSystemSpace(
      blockSize: UInt32(geometry.blockSize), blocks: UInt64(geometry.blocks),
      freeBlocks: freeBlocks + UInt64(pendingBlocks.count), inodes: UInt64(geometry.inodes), freeInodes: freeInodes,
      isReadOnly: isReadOnly)
  }

  public func attributes(_ number: UInt32) throws(FileError) -> FileAttributes {
    beginLook()
    let inode = try usedInode(number)
    guard let kind = inode.kind else { throw .corrupt }
    return FileAttributes(
      inode: number, kind: kind, permissions: inode.mode & 0xfff, size: inode.size,
      links: dying.contains(number) ? 0 : UInt32(inode.links), sectors: UInt64(inode.sectors),
      accessed: inode.accessed, modified: inode.modified, changed: inode.changed)
  }

  public func size(_ number: UInt32) throws(FileError) -> UInt64 {
    beginLook()
    return try usedInode(number).size
  }

  public func setPermissions(_ number: UInt32, _ permissions: UInt16) throws(FileError) {
    try beginChange()
    let inode = try usedInode(number)
    inode.mode = inode.mode & 0xf000 | permissions & 0xfff
    inode.changed = now
  }

  // MARK: Inodes held open

  func openCount(_ number: UInt32) -> Int {
    for entry in openCounts where entry.inode == number { return entry.count }
    return 0
  }

  public func retain(_ number: UInt32) {
    for index in openCounts.indices where openCounts[index].inode == number {
      openCounts[index].count += 1
      return
    }
    openCounts.append((number, 1))
  }

  public func release(_ number: UInt32) throws(FileError) {
    for index in openCounts.indices where openCounts[index].inode == number {
      openCounts[index].count -= 1
      if openCounts[index].count == 0 { openCounts.remove(at: index) }
      return
    }
  }

  // MARK: Sync

  /// See the head of this file.
  public func sync() throws(FileError) {
    guard !isReadOnly else { return }
    if let beforeSync { try beforeSync() }
    if buffers.dirtyCount == 0, dying.isEmpty, pendingBlocks.isEmpty {
      if hasUnflushedData { try store.flush() }
      hasUnflushedData = false
      if !isCleanOnDisk { try writeSuperblock(clean: true) }
      return
    }
    if isCleanOnDisk { try writeSuperblock(clean: false) }
    try store.flush()
    hasUnflushedData = false
    if try buffers.write({ $0.isFresh }) { try store.flush() }
    if try buffers.write({ $0.kind == .structure }) { try store.flush() }
    if try buffers.write({ $0.kind == .directory && !$0.hasRemovals }) { try store.flush() }
    if try buffers.write({ $0.kind == .directory }) { try store.flush() }
    try reap()
    if try buffers.write({ _ in true }) { try store.flush() }
    // A file that is open without a name belongs to nobody once the machine stops.
    try writeSuperblock(clean: dying.isEmpty)
  }

  func writeSuperblock(clean: Bool) throws(FileError) {
    let area = superblock.area
    area.store(area.load16(SuperOffset.state) & ~1 & ~2 | (clean ? 1 : 0), at: SuperOffset.state)
    area.store(UInt32(truncatingIfNeeded: freeBlocks), at: SuperOffset.freeBlocks)
    area.store(UInt32(truncatingIfNeeded: freeInodes), at: SuperOffset.freeInodes)
    area.store(now, at: SuperOffset.writeTime)
    try store.write(Geometry.superblockOffset, from: area)
    try store.flush()
    isCleanOnDisk = clean
  }

  /// Frees what has lost its last name, and what was cut off; the directories on the disk do not name it any more.
  private func reap() throws(FileError) {
    var kept: [UInt32] = []
    for number in dying {
      let inode = try inode(number)
      if openCount(number) > 0 {
        if inode.links != 0 { inode.links = 0 }
        kept.append(number)
        continue
      }
      try releaseAttributes(inode)
      if !inode.isShortLink { try truncate(inode, toBlocks: 0) }
      inode.links = 0
      // A smaller number would be a link of the chain of inodes to be deleted.
      inode.deleted = max(now, geometry.inodes)
      inode.size = 0
      try freeInode(number, isDirectory: inode.kind == .directory)
    }
    dying = kept
    for block in pendingBlocks {
      try freeBlock(block)
      buffers.discard(block)
    }
    pendingBlocks.removeAll(keepingCapacity: true)
  }

  /// Gives up the block of extended attributes, which several inodes may share.
  private func releaseAttributes(_ inode: Inode) throws(FileError) {
    let block = inode.attributeBlock
    guard block != 0 else { return }
    guard try isData(block) else { throw damaged() }
    let buffer = try buffers.buffer(block, .structure)
    let references = buffer.area.load32(4)
    if references > 1 {
      buffer.store(references - 1, at: 4)
    } else {
      pendingBlocks.append(block)
    }
    inode.attributeBlock = 0
    let size = UInt32(geometry.blockSize / 512)
    inode.sectors = inode.sectors >= size ? inode.sectors - size : 0
  }
}
