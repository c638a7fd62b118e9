// The check of a file system that was not cleanly left: every inode and directory is read, and bitmaps, counts and links are made to
// agree with them. What no directory names any more goes to /lost+found, as with e2fsck.

/// What a check mended.
public struct CheckReport: Equatable, Sendable {
  /// Block pointers outside the data area, or to a block that another inode has.
  public var badPointers = 0
  /// Blocks behind the end of their file.
  public var blocksBeyondEnd = 0
  /// Inodes whose length or space was wrong.
  public var wrongSizes = 0
  /// Inodes that are in use by no sign, or not of a known kind.
  public var clearedInodes = 0
  /// Directory blocks whose records contradict themselves, and names of unused inodes.
  public var badEntries = 0
  /// Inodes that no directory named; now in /lost+found.
  public var reconnected = 0
  /// Inodes whose number of names was wrong.
  public var wrongLinks = 0
  /// Bitmap blocks that differed.
  public var wrongBitmaps = 0

  public init() {}
  public var isEmpty: Bool { self == CheckReport() }
}

/// Bits by number.
private struct BitSet {
  private var words: [UInt64]
  init(count: Int) { words = [UInt64](repeating: 0, count: (count + 63) / 64) }
  func contains(_ index: UInt32) -> Bool { words[Int(index / 64)] >> UInt64(index % 64) & 1 != 0 }
  mutating func insert(_ index: UInt32) { words[Int(index / 64)] |= 1 << UInt64(index % 64) }
  mutating func remove(_ index: UInt32) { words[Int(index / 64)] &= ~(1 << UInt64(index % 64)) }
  func byte(_ index: UInt32) -> UInt8 { UInt8(truncatingIfNeeded: words[Int(index / 64)] >> UInt64(index % 64)) }
}

/// What the check knows about the disk so far.
private struct CheckState {
  var report = CheckReport()
  var blocks: BitSet
  /// Inodes in use.
  var inodes: BitSet
  /// Those of them that are directories.
  var directories: BitSet
  /// Directories that have a name, and files with at least one.
  var reached: BitSet
  /// Names found, by inode.
  var names: [UInt16]
  /// Blocks of extended attributes seen; several inodes may share one.
  var attributeBlocks: [UInt32] = []

  init(blocks: UInt32, inodes: UInt32) {
    self.blocks = BitSet(count: Int(blocks))
    self.inodes = BitSet(count: Int(inodes) + 1)
    directories = self.inodes
    reached = self.inodes
    names = [UInt16](repeating: 0, count: Int(inodes) + 1)
  }
}

extension Ext2 {
  /// Mends the disk and leaves it clean.
  func check() throws(FileError) -> CheckReport {
    var state = CheckState(blocks: geometry.blocks, inodes: geometry.inodes)
    try writeSuperblock(clean: false)
    try markMetadata(&state)
    for number in 1...geometry.inodes {
      try checkInode(number, &state)
      buffers.trim(limit: 4096)
    }
    try checkRoot(&state)
    try walk(from: root, parent: root, &state)
    try rebuildBitmaps(&state)
    try reconnect(&state)
    try checkLinks(&state)
    try sync()
    return state.report
  }

  // MARK: Blocks and inodes

  private func markMetadata(_ state: inout CheckState) throws(FileError) {
    for block in 0...geometry.firstDataBlock { state.blocks.insert(block) }
    for group in 0..<geometry.groups {
      let first = geometry.firstBlock(of: group)
      for index in 0..<min(geometry.headBlocks(of: group), geometry.blockCount(of: group)) {
        state.blocks.insert(first + index)
      }
      let entry = try descriptor(group)
      state.blocks.insert(entry.buffer.area.load32(entry.offset + GroupOffset.blockBitmap))
      state.blocks.insert(entry.buffer.area.load32(entry.offset + GroupOffset.inodeBitmap))
      let table = entry.buffer.area.load32(entry.offset + GroupOffset.inodeTable)
      for index in 0..<geometry.inodeTableBlocks { state.blocks.insert(table + index) }
    }
  }

  /// Claims a block for an inode; false: it is not a block that this inode can have.
  private func claim(_ block: UInt32, _ state: inout CheckState) -> Bool {
    guard block > geometry.firstDataBlock, block < geometry.blocks, !state.blocks.contains(block) else {
      state.report.badPointers += 1
      return false
    }
    state.blocks.insert(block)
    return true
  }

  private func checkInode(_ number: UInt32, _ state: inout CheckState) throws(FileError) {
    let inode = try inode(number)
    let isReserved = number < geometry.firstInode && number != root
    if isReserved {
      state.inodes.insert(number)
      // The bad blocks' inode, the resize inode and their like: what they hold is theirs, whatever their counts say.
      for index in 0..<15 where inode.slot(index).value != 0 {
        _ = try claimTree(inode.slot(index), level: max(0, index - 11), base: 0, span: 0, keep: UInt64.max, &state)
      }
      return
    }
    guard inode.links > 0, let kind = inode.kind else {
      if inode.mode != 0 || inode.links != 0 {
        if inode.deleted == 0 || inode.links != 0 {
          inode.links = 0
          inode.deleted = max(now, geometry.inodes)
          state.report.clearedInodes += 1
        }
      }
      return
    }
    state.inodes.insert(number)
    if kind == .directory { state.directories.insert(number) }
    if inode.deleted != 0 { inode.deleted = 0 }
    var sectors = try checkAttributeBlock(inode, &state)
    if kind == .file || kind == .directory || (kind == .link && !inode.isShortLink) {
      sectors += try checkBlocks(inode, &state) * UInt32(geometry.blockSize / 512)
    }
    if inode.sectors != sectors {
      inode.sectors = sectors
      state.report.wrongSizes += 1
    }
  }

  private func checkAttributeBlock(_ inode: Inode, _ state: inout CheckState) throws(FileError) -> UInt32 {
    let block = inode.attributeBlock
    guard block != 0 else { return 0 }
    if !state.attributeBlocks.contains(block) {
      guard claim(block, &state) else {
        inode.attributeBlock = 0
        return 0
      }
      state.attributeBlocks.append(block)
    }
    return UInt32(geometry.blockSize / 512)
  }

  /// Claims all blocks of an inode that lie before its end and cuts off the others; how many it has, indirect ones included.
  private func checkBlocks(_ inode: Inode, _ state: inout CheckState) throws(FileError) -> UInt32 {
    let size64 = UInt64(geometry.blockSize)
    if inode.kind == .directory {
      // A directory has no holes: it ends at the first.
      let wanted = min(inode.size / size64, UInt64(geometry.blocks))
      var blocks: UInt64 = 0
      while blocks < wanted, try checkedBlock(inode, blocks) { blocks += 1 }
      if inode.size != blocks * size64 {
        inode.size = blocks * size64
        state.report.wrongSizes += 1
      }
    }
    let keep = inode.size / size64 + (inode.size % size64 == 0 ? 0 : 1)
    var count: UInt32 = 0
    for index in 0..<12 where inode.slot(index).value != 0 {
      count += try claimTree(inode.slot(index), level: 0, base: UInt64(index), span: 1, keep: keep, &state)
    }
    var base: UInt64 = 12
    var span = geometry.pointers
    for level in 1...3 {
      let slot = inode.slot(11 + level)
      if slot.value != 0 {
        count += try claimTree(slot, level: level, base: base, span: span, keep: keep, &state)
      }
      base += span
      span *= geometry.pointers
    }
    return count
  }

  /// Whether a block of a directory is there, as far as its pointers can be followed.
  private func checkedBlock(_ inode: Inode, _ logical: UInt64) throws(FileError) -> Bool {
    let before = isReadOnly
    do throws(FileError) { return try block(inode, logical) != 0 } catch {
      guard error == .corrupt else { throw error }
      isReadOnly = before
      return false
    }
  }

  /// Claims the block that `slot` points to and, `level` indirect blocks deep, those below it; clears pointers that cannot be, and
  /// those to logical blocks from `keep` on. The number of blocks claimed.
  private func claimTree(
    _ slot: Slot, level: Int, base: UInt64, span: UInt64, keep: UInt64, _ state: inout CheckState
  ) throws(FileError) -> UInt32 {
    if base >= keep {
      state.report.blocksBeyondEnd += 1
      slot.value = 0
      return 0
    }
    guard claim(slot.value, &state) else {
      slot.value = 0
      return 0
    }
    guard level > 0 else { return 1 }
    var count: UInt32 = 1
    let buffer = try buffers.buffer(slot.value, .structure)
    let part = span / geometry.pointers
    for index in 0..<Int(geometry.pointers) where buffer.area.load32(index * 4) != 0 {
      count += try claimTree(
        Slot(buffer: buffer, offset: index * 4), level: level - 1, base: base + UInt64(index) * part, span: part,
        keep: keep, &state)
    }
    return count
  }

  // MARK: Directories

  private func checkRoot(_ state: inout CheckState) throws(FileError) {
    guard state.directories.contains(root) else { throw .corrupt }
    state.reached.insert(root)
  }

  /// Reads the directory `number` and all below it, and mends their records.
  private func walk(from number: UInt32, parent: UInt32, _ state: inout CheckState) throws(FileError) {
    var waiting: [(directory: UInt32, parent: UInt32)] = [(number, parent)]
    while let next = waiting.popLast() {
      let directory = try inode(next.directory)
      let blocks = directory.size / UInt64(geometry.blockSize)
      if blocks == 0 {
        // All its blocks were lost: an empty directory. Its block is taken once the bitmaps are known.
        state.report.badEntries += 1
      }
      for index in 0..<blocks {
        let block = try block(directory, index)
        guard block != 0 else { throw .corrupt }
        let buffer = try buffers.buffer(block, .directory)
        checkRecords(buffer, isFirst: index == 0, next.directory, next.parent, &state)
        try checkNames(buffer, next.directory, next.parent, &state, &waiting)
      }
      buffers.trim(limit: 4096)
    }
  }

  /// Makes a directory block a proper chain of records; the first block begins with `.` and `..`.
  private func checkRecords(
    _ buffer: Buffer, isFirst: Bool, _ number: UInt32, _ parent: UInt32, _ state: inout CheckState
  ) {
    let area = buffer.area
    func put(_ offset: Int, length: Int, _ inode: UInt32, _ dots: Int) {
      buffer.store(inode, at: offset)
      buffer.store(UInt16(length), at: offset + 4)
      buffer.store(UInt8(dots), at: offset + 6)
      buffer.store(geometry.hasFileTypes && dots > 0 ? FileKind.directory.rawValue : 0, at: offset + 7)
      for index in 0..<dots { buffer.store(UInt8(0x2e), at: offset + 8 + index) }
    }
    if isFirst {
      let dot = DirectoryRecord(area, 0)
      if dot?.inode != number || dot?.nameLength != 1 || dot?.length != 12 || area.load8(8) != 0x2e {
        state.report.badEntries += 1
        put(0, length: 12, number, 1)
        put(12, length: geometry.blockSize - 12, parent, 2)
      }
      if let up = DirectoryRecord(area, 12), up.nameLength == 2, area.load16(20) == 0x2e2e {
        if up.inode != parent {
          state.report.badEntries += 1
          buffer.store(parent, at: 12)
        }
      } else {
        state.report.badEntries += 1
        put(12, length: geometry.blockSize - 12, parent, 2)
      }
    }
    var offset = 0
    while offset < geometry.blockSize {
      guard let record = DirectoryRecord(area, offset) else {
        // From here on nothing can be believed: one empty record to the end of the block.
        state.report.badEntries += 1
        put(offset, length: geometry.blockSize - offset, 0, 0)
        return
      }
      offset += record.length
    }
  }

  /// Counts the names of a block and takes out those that mean nothing.
  private func checkNames(
    _ buffer: Buffer, _ number: UInt32, _ parent: UInt32, _ state: inout CheckState,
    _ waiting: inout [(directory: UInt32, parent: UInt32)]
  ) throws(FileError) {
    let area = buffer.area
    var offset = 0
    while offset < geometry.blockSize, let record = DirectoryRecord(area, offset) {
      offset += record.length
      guard record.inode != 0 else { continue }
      let name = record.name(area)
      if record.offset == 0, name.equals(".") {
        state.names[Int(number)] &+= 1
        continue
      }
      if record.offset == 12, name.equals("..") {
        state.names[Int(parent)] &+= 1
        continue
      }
      let target = record.inode
      let isSound =
        target <= geometry.inodes && (target >= geometry.firstInode) && state.inodes.contains(target)
        && name.count > 0 && name.firstIndex(of: 0x2f) == nil && name.firstIndex(of: 0) == nil
        && !name.equals(".") && !name.equals("..")
        && !(state.directories.contains(target) && state.reached.contains(target))
        && state.names[Int(target)] < UInt16.max
      guard isSound else {
        state.report.badEntries += 1
        buffer.store(UInt32(0), at: record.offset)
        continue
      }
      let kind = try inode(target).kind?.rawValue ?? 0
      if geometry.hasFileTypes, record.kind != kind {
        state.report.badEntries += 1
        buffer.store(kind, at: record.offset + 7)
      }
      state.names[Int(target)] &+= 1
      state.reached.insert(target)
      if state.directories.contains(target) { waiting.append((target, number)) }
    }
  }

  // MARK: What no directory names

  private func reconnect(_ state: inout CheckState) throws(FileError) {
    var lost: [UInt32] = []
    for number in geometry.firstInode...geometry.inodes
    where state.inodes.contains(number) && !state.reached.contains(number) {
      lost.append(number)
    }
    if lost.isEmpty { return }
    // A directory that another lost one names comes back with that.
    var named = BitSet(count: Int(geometry.inodes) + 1)
    for number in lost where state.directories.contains(number) {
      let directory = try inode(number)
      for index in 0..<(directory.size / UInt64(geometry.blockSize)) {
        guard let buffer = try directoryBlock(directory, index) else { continue }
        var offset = 0
        while offset < geometry.blockSize, let record = DirectoryRecord(buffer.area, offset) {
          let name = record.name(buffer.area)
          if record.inode != 0, record.inode != number, record.inode <= geometry.inodes, !name.equals("..") {
            named.insert(record.inode)
          }
          offset += record.length
        }
      }
    }
    for isSecondRound in [false, true] {
      for number in lost where !state.reached.contains(number) && state.inodes.contains(number) {
        if !isSecondRound, named.contains(number) { continue }
        try attach(number, &state)
      }
    }
  }

  /// Gives a lost inode a name in /lost+found; an empty file is freed.
  private func attach(_ number: UInt32, _ state: inout CheckState) throws(FileError) {
    let inode = try inode(number)
    if inode.kind == .file, inode.size == 0, inode.sectors == 0 {
      inode.links = 0
      inode.deleted = max(now, geometry.inodes)
      try freeInode(number, isDirectory: false)
      state.inodes.remove(number)
      state.report.clearedInodes += 1
      return
    }
    let home = try lostAndFound(&state)
    var name: [UInt8] = [0x23]
    var divisor: UInt32 = 1_000_000_000
    while divisor > 0 {
      if number >= divisor { name.append(0x30 + UInt8(number / divisor % 10)) }
      divisor /= 10
    }
    let block = ByteBlock(count: name.count)
    for index in name.indices { block.area.store(name[index], at: index) }
    let directory = try self.inode(home)
    guard let kind = inode.kind else { throw .corrupt }
    if try find(directory, block.area.bytes) == nil { try addEntry(directory, block.area.bytes, number, kind) }
    state.names[Int(number)] &+= 1
    state.reached.insert(number)
    state.report.reconnected += 1
    if kind == .directory { try walk(from: number, parent: home, &state) }
  }

  private func lostAndFound(_ state: inout CheckState) throws(FileError) -> UInt32 {
    let top = try inode(root)
    if let place = try find(top, Bytes("lost+found")) {
      if state.directories.contains(place.record.inode) { return place.record.inode }
      removeEntry(top, place)
      state.names[Int(place.record.inode)] &-= 1
      if state.names[Int(place.record.inode)] == 0 { state.reached.remove(place.record.inode) }
    }
    let inode = try allocateInode(parent: root, isDirectory: true)
    inode.mode = FileKind.directory.modeBits | 0o700
    inode.links = 2
    inode.accessed = now
    inode.modified = now
    inode.changed = now
    try fillNewDirectory(inode, parent: root)
    try addEntry(top, Bytes("lost+found"), inode.number, .directory)
    state.inodes.insert(inode.number)
    state.directories.insert(inode.number)
    state.reached.insert(inode.number)
    state.names[Int(inode.number)] = 2
    state.names[Int(root)] &+= 1
    return inode.number
  }

  private func checkLinks(_ state: inout CheckState) throws(FileError) {
    for number in 1...geometry.inodes where state.inodes.contains(number) {
      if number < geometry.firstInode, number != root { continue }
      let inode = try inode(number)
      if state.directories.contains(number), inode.size == 0 {
        // Lost all its blocks: `.` and `..` again.
        guard let parent = try parentNaming(number, state) else { throw .corrupt }
        try fillNewDirectory(inode, parent: parent)
        state.names[Int(number)] &+= 1
        state.names[Int(parent)] &+= 1
        let above = try self.inode(parent)
        above.links = state.names[Int(parent)]
      }
      if inode.links != state.names[Int(number)] {
        inode.links = state.names[Int(number)]
        state.report.wrongLinks += 1
      }
      buffers.trim(limit: 4096)
    }
  }

  /// The directory that names `number`.
  private func parentNaming(_ number: UInt32, _ state: CheckState) throws(FileError) -> UInt32? {
    for candidate in 1...geometry.inodes where state.directories.contains(candidate) {
      let directory = try inode(candidate)
      for index in 0..<(directory.size / UInt64(geometry.blockSize)) {
        guard let buffer = try directoryBlock(directory, index) else { continue }
        var offset = 0
        while offset < geometry.blockSize, let record = DirectoryRecord(buffer.area, offset) {
          let name = record.name(buffer.area)
          if record.inode == number, !name.equals("."), !name.equals("..") { return candidate }
          offset += record.length
        }
      }
    }
    return number == root ? root : nil
  }

  // MARK: Bitmaps

  /// Writes bitmaps and counts from what has been claimed. What is allocated afterwards (lost+found) is allocated as ever.
  private func rebuildBitmaps(_ state: inout CheckState) throws(FileError) {
    for group in 0..<geometry.groups {
      let entry = try descriptor(group)
      let first = geometry.firstBlock(of: group)
      let blockBitmap = try buffers.buffer(entry.buffer.area.load32(entry.offset + GroupOffset.blockBitmap), .structure)
      let inodeBitmap = try buffers.buffer(entry.buffer.area.load32(entry.offset + GroupOffset.inodeBitmap), .structure)
      let freeBlocks = fill(blockBitmap, count: geometry.blockCount(of: group), &state.report) {
        state.blocks.contains(first + $0)
      }
      let base = group * geometry.inodesPerGroup + 1
      let freeInodes = fill(inodeBitmap, count: geometry.inodesPerGroup, &state.report) {
        state.inodes.contains(base + $0)
      }
      var directories: UInt32 = 0
      for index in 0..<geometry.inodesPerGroup where state.directories.contains(base + index) { directories += 1 }
      put(entry, GroupOffset.freeBlocks, freeBlocks)
      put(entry, GroupOffset.freeInodes, freeInodes)
      put(entry, GroupOffset.directories, directories)
    }
    try count()
  }

  private func put(_ entry: (buffer: Buffer, offset: Int), _ field: Int, _ value: UInt32) {
    if UInt32(entry.buffer.area.load16(entry.offset + field)) != value {
      entry.buffer.store(UInt16(truncatingIfNeeded: value), at: entry.offset + field)
    }
  }

  /// Makes a bitmap say what `isUsed` says, with ones behind the end; the number of zeros.
  private func fill(
    _ bitmap: Buffer, count: UInt32, _ report: inout CheckReport, _ isUsed: (UInt32) -> Bool
  ) -> UInt32 {
    var free: UInt32 = 0
    var isWrong = false
    for byte in 0..<geometry.blockSize {
      var value: UInt8 = 0
      for bit in 0..<8 as Range<UInt32> {
        let index = UInt32(byte) * 8 + bit
        if index >= count || isUsed(index) { value |= 1 << UInt8(bit) } else { free += 1 }
      }
      if bitmap.area.load8(byte) != value {
        bitmap.store(value, at: byte)
        isWrong = true
      }
    }
    if isWrong { report.wrongBitmaps += 1 }
    return free
  }
}
