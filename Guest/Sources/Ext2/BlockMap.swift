// From a file's logical blocks to blocks of the disk: twelve direct pointers, then one, two and three levels of indirect blocks.

/// The pointers on the way to a logical block: the inode's, then one in each indirect block.
private struct PointerPath {
  /// Indirect blocks on the way.
  let levels: Int
  let first: Int
  /// Which of the blocks that `levels` levels reach, and how many each of the last level has.
  private let rest: UInt64
  private let pointers: UInt64

  /// nil beyond what three levels reach.
  init?(_ logical: UInt64, pointers: UInt64) {
    self.pointers = pointers
    if logical < 12 {
      (levels, first, rest) = (0, Int(logical), 0)
      return
    }
    var rest = logical - 12
    var span = pointers
    for level in 1...3 {
      if rest < span {
        (levels, first) = (level, 11 + level)
        self.rest = rest
        return
      }
      rest -= span
      span *= pointers
    }
    return nil
  }

  /// The pointer to follow in the indirect block of a level, 0 being the outermost.
  func index(_ level: Int) -> Int {
    var rest = rest
    for _ in level + 1..<max(level + 1, levels) { rest /= pointers }
    return Int(rest % pointers)
  }
}

extension Ext2 {
  private var sectorsPerBlock: UInt32 { UInt32(geometry.blockSize / 512) }

  /// The pointer for a logical block; nil in a hole without the indirect blocks for it.
  func slot(_ inode: Inode, _ logical: UInt64) throws(FileError) -> Slot? {
    guard let path = PointerPath(logical, pointers: geometry.pointers) else { throw .tooLarge }
    var slot = inode.slot(path.first)
    for level in 0..<path.levels {
      let block = slot.value
      if block == 0 { return nil }
      guard try isData(block) else { throw damaged() }
      slot = Slot(buffer: try buffers.buffer(block, .structure), offset: path.index(level) * 4)
    }
    return slot
  }

  /// The block of the disk behind a logical block; 0 for a hole.
  func block(_ inode: Inode, _ logical: UInt64) throws(FileError) -> UInt32 {
    guard let slot = try slot(inode, logical) else { return 0 }
    let block = slot.value
    if block != 0 {
      guard try isData(block) else { throw damaged() }
    }
    return block
  }

  /// The block behind a logical block, allocated where there was a hole.
  func ensureBlock(_ inode: Inode, _ logical: UInt64) throws(FileError) -> (block: UInt32, isNew: Bool) {
    guard let path = PointerPath(logical, pointers: geometry.pointers) else { throw .tooLarge }
    var slot = inode.slot(path.first)
    for level in 0..<path.levels {
      if slot.value == 0 {
        let block = try take(inode, goal: goal(inode, logical))
        _ = buffers.fresh(block, .structure)
        slot.value = block
      }
      guard try isData(slot.value) else { throw damaged() }
      slot = Slot(buffer: try buffers.buffer(slot.value, .structure), offset: path.index(level) * 4)
    }
    if slot.value != 0 {
      guard try isData(slot.value) else { throw damaged() }
      return (slot.value, false)
    }
    // The neighbour in the same indirect block tells best where to go on.
    let previous = path.levels > 0 && slot.offset >= 4 ? slot.buffer.area.load32(slot.offset - 4) : 0
    let block = try take(inode, goal: previous != 0 ? previous &+ 1 : goal(inode, logical))
    slot.value = block
    return (block, true)
  }

  private func take(_ inode: Inode, goal: UInt32) throws(FileError) -> UInt32 {
    let block = try allocateBlock(goal: goal)
    buffers.discard(block)
    inode.sectors += sectorsPerBlock
    return block
  }

  /// Where a block of this file would best lie: behind the one before it, else in the inode's group.
  private func goal(_ inode: Inode, _ logical: UInt64) -> UInt32 {
    if logical > 0, logical <= 12 {
      let previous = inode.slot(Int(logical) - 1).value
      if previous != 0 { return previous &+ 1 }
    }
    if logical == 12 || logical == 13, inode.slot(12).value != 0 { return inode.slot(12).value &+ 1 }
    return geometry.firstBlock(of: (inode.number - 1) / geometry.inodesPerGroup)
  }

  /// Gives up all blocks from logical block `keep` on; they become free at the next sync.
  func truncate(_ inode: Inode, toBlocks keep: UInt64) throws(FileError) {
    for index in 0..<12 where UInt64(index) >= keep {
      let slot = inode.slot(index)
      if slot.value != 0 {
        try giveUp(inode, slot.value)
        slot.value = 0
      }
    }
    var base: UInt64 = 12
    var span = geometry.pointers
    for level in 1...3 {
      let slot = inode.slot(11 + level)
      if slot.value != 0, try prune(inode, slot.value, level: level, base: base, span: span, keep: keep) {
        slot.value = 0
      }
      base += span
      span *= geometry.pointers
    }
  }

  private func giveUp(_ inode: Inode, _ block: UInt32) throws(FileError) {
    // More blocks than the disk has: indirect blocks that point at themselves.
    guard try isData(block), pendingBlocks.count < Int(geometry.blocks) else { throw damaged() }
    pendingBlocks.append(block)
    inode.sectors = inode.sectors >= sectorsPerBlock ? inode.sectors - sectorsPerBlock : 0
  }

  /// Gives up what the indirect block `block` holds from `keep` on; whether that was all, so that the block itself is given up too.
  /// `level` indirect blocks deep, it reaches logical blocks `base ..< base + span`.
  private func prune(
    _ inode: Inode, _ block: UInt32, level: Int, base: UInt64, span: UInt64, keep: UInt64
  ) throws(FileError) -> Bool {
    if base + span <= keep { return false }
    guard try isData(block) else { throw damaged() }
    let buffer = try buffers.buffer(block, .structure)
    let part = span / geometry.pointers
    let isWhole = base >= keep
    for index in 0..<Int(geometry.pointers) {
      let start = base + UInt64(index) * part
      let pointer = buffer.area.load32(index * 4)
      guard pointer != 0, start + part > keep else { continue }
      if level == 1 {
        try giveUp(inode, pointer)
      } else if try !prune(inode, pointer, level: level - 1, base: start, span: part, keep: keep) {
        continue
      }
      if !isWhole { buffer.store(UInt32(0), at: index * 4) }
    }
    if isWhole { try giveUp(inode, block) }
    return isWhole
  }
}
