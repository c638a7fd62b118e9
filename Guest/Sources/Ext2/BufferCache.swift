// Blocks of metadata in memory: changed there, and written at a sync in an order that keeps the disk mendable.

/// What a block of metadata is, which decides when a sync writes it.
enum BufferKind {
  /// Bitmaps, inode tables, indirect blocks.
  case structure
  case directory
  /// Group descriptors, which only repeat what the bitmaps say.
  case summary
}

/// One block of metadata.
final class Buffer {
  let block: UInt32
  let content: ByteBlock
  var kind: BufferKind
  var isDirty = false
  /// Allocated since the last sync: nothing on the disk points to it yet.
  var isFresh = false
  /// A name has been taken out of this directory block since the last sync.
  var hasRemovals = false
  fileprivate var isTouched = true
  fileprivate var next: Buffer?

  init(_ block: UInt32, size: Int, _ kind: BufferKind) {
    self.block = block
    self.kind = kind
    content = ByteBlock(count: size)
  }

  var area: ByteArea { content.area }

  func store(_ value: UInt8, at offset: Int) {
    area.store(value, at: offset)
    isDirty = true
  }
  func store(_ value: UInt16, at offset: Int) {
    area.store(value, at: offset)
    isDirty = true
  }
  func store(_ value: UInt32, at offset: Int) {
    area.store(value, at: offset)
    isDirty = true
  }
}

/// All buffers of one file system.
final class BufferCache<Store: BlockStore> {
  private let store: Store
  private let blockSize: Int
  private var buckets: [Buffer?]
  private(set) var count = 0
  /// Reads that found their block here, and those that did not.
  private(set) var hits: UInt64 = 0
  private(set) var misses: UInt64 = 0

  init(_ store: Store, blockSize: Int) {
    self.store = store
    self.blockSize = blockSize
    buckets = [Buffer?](repeating: nil, count: 256)
  }

  private func bucket(_ block: UInt32) -> Int { Int(block % UInt32(buckets.count)) }

  private func find(_ block: UInt32) -> Buffer? {
    var candidate = buckets[bucket(block)]
    while let buffer = candidate {
      if buffer.block == block { return buffer }
      candidate = buffer.next
    }
    return nil
  }

  private func insert(_ buffer: Buffer) {
    let index = bucket(buffer.block)
    buffer.next = buckets[index]
    buckets[index] = buffer
    count += 1
  }

  /// The block's content, read if need be.
  func buffer(_ block: UInt32, _ kind: BufferKind) throws(FileError) -> Buffer {
    if let found = find(block) {
      found.isTouched = true
      hits += 1
      return found
    }
    misses += 1
    let buffer = Buffer(block, size: blockSize, kind)
    try store.read(UInt64(block) * UInt64(blockSize), into: buffer.area)
    insert(buffer)
    return buffer
  }

  /// A zeroed buffer for a block that has just been allocated.
  func fresh(_ block: UInt32, _ kind: BufferKind) -> Buffer {
    discard(block)
    let buffer = Buffer(block, size: blockSize, kind)
    buffer.isDirty = true
    buffer.isFresh = true
    insert(buffer)
    return buffer
  }

  /// Forgets a block that is free now.
  func discard(_ block: UInt32) {
    let index = bucket(block)
    var previous: Buffer?
    var candidate = buckets[index]
    while let buffer = candidate {
      if buffer.block == block {
        if let previous { previous.next = buffer.next } else { buckets[index] = buffer.next }
        buffer.next = nil
        buffer.isDirty = false
        count -= 1
        return
      }
      previous = buffer
      candidate = buffer.next
    }
  }

  /// Drops unchanged buffers not used since the last trim, while there are more than `limit`. Between operations only: a buffer in use
  /// must stay the one that others find.
  func trim(limit: Int) {
    guard count > limit else { return }
    for index in buckets.indices {
      var kept: Buffer?
      var candidate = buckets[index]
      while let buffer = candidate {
        candidate = buffer.next
        if buffer.isDirty || buffer.isTouched {
          buffer.isTouched = false
          buffer.next = kept
          kept = buffer
        } else {
          buffer.next = nil
          count -= 1
        }
      }
      buckets[index] = kept
    }
  }

  /// How many buffers differ from the disk.
  var dirtyCount: Int {
    var result = 0
    forEach { if $0.isDirty { result += 1 } }
    return result
  }

  private func forEach(_ body: (Buffer) -> Void) {
    for head in buckets {
      var candidate = head
      while let buffer = candidate {
        body(buffer)
        candidate = buffer.next
      }
    }
  }

  /// Writes the changed buffers that `include` picks, by ascending block; whether there were any.
  func write(_ include: (Buffer) -> Bool) throws(FileError) -> Bool {
    var chosen: [Buffer] = []
    forEach { if $0.isDirty, include($0) { chosen.append($0) } }
    Self.sort(&chosen)
    for buffer in chosen {
      try store.write(UInt64(buffer.block) * UInt64(blockSize), from: buffer.area)
      buffer.isDirty = false
      buffer.isFresh = false
      buffer.hasRemovals = false
    }
    return !chosen.isEmpty
  }

  private static func sort(_ buffers: inout [Buffer]) { buffers.sort { $0.block < $1.block } }
}
