// Which physical memory is free: never-used RAM, which is zero by the boot contract, is handed out by advancing a boundary;
// returned extents are kept in a list, sorted by address and merged, whose links lie in the free memory itself.

/// Physical memory as KernelCore sees it: 64-bit words at 8-aligned guest-physical addresses.
public protocol PhysicalMemory {
  func load(_ address: UInt64) -> UInt64
  func store(_ address: UInt64, _ value: UInt64)
  /// Makes bytes zero; both numbers are multiples of 8.
  func clear(_ address: UInt64, size: UInt64)
}

/// Allocates contiguous extents in units of 4 KiB, always zero.
public struct FrameAllocator<Memory: PhysicalMemory> {
  public static var frameSize: UInt64 { 4096 }
  private let memory: Memory
  /// Never-used ranges, each from a boundary to an end.
  private var fresh: InlineArray<8, (start: UInt64, end: UInt64)> = InlineArray(repeating: (0, 0))
  private var freshCount = 0
  /// First free extent, or 0. An extent's first words: address of the next extent or 0, size.
  private var firstFree: UInt64 = 0
  public private(set) var freeBytes: UInt64 = 0
  public private(set) var totalBytes: UInt64 = 0

  public init(memory: Memory) { self.memory = memory }

  /// Adds a range of RAM that was never used. Partial frames at its ends are left out. More than eight ranges: the smaller
  /// ones that came late are ignored.
  public mutating func addFresh(start: UInt64, end: UInt64) {
    let first = (start &+ 4095) & ~4095
    let last = end & ~4095
    guard first < last, freshCount < fresh.count else { return }
    fresh[freshCount] = (first, last)
    freshCount += 1
    freeBytes += last - first
  }

  /// Counts RAM that exists, whether or not it is ever free.
  public mutating func countMemory(bytes: UInt64) { totalBytes += bytes }

  /// A zero extent of `size` bytes (a multiple of 4 KiB, not 0) at a multiple of `alignment` (a power of two, at least
  /// 4 KiB), or nil.
  public mutating func allocate(size: UInt64, alignment: UInt64 = 4096) -> UInt64? {
    for index in 0..<freshCount {
      let (start, end) = fresh[index]
      let aligned = (start + (alignment - 1)) & ~(alignment - 1)
      guard aligned < end, end - aligned >= size else { continue }
      fresh[index].start = aligned + size
      freeBytes -= size
      if aligned > start {
        freeBytes -= aligned - start
        release(start, size: aligned - start)
      }
      return aligned
    }
    guard let reused = takeFree(size: size, alignment: alignment) else { return nil }
    memory.clear(reused, size: size)
    return reused
  }

  private mutating func takeFree(size: UInt64, alignment: UInt64) -> UInt64? {
    var previous: UInt64 = 0
    var extent = firstFree
    while extent != 0 {
      let next = memory.load(extent)
      let extentSize = memory.load(extent + 8)
      let aligned = (extent + (alignment - 1)) & ~(alignment - 1)
      let skipped = aligned - extent
      if skipped < extentSize, extentSize - skipped >= size {
        let rest = extentSize - skipped - size
        var after = next
        if rest != 0 {
          after = aligned + size
          memory.store(after, next)
          memory.store(after + 8, rest)
        }
        if skipped != 0 {
          memory.store(extent, after)
          memory.store(extent + 8, skipped)
        } else if previous == 0 {
          firstFree = after
        } else {
          memory.store(previous, after)
        }
        freeBytes -= size
        return aligned
      }
      previous = extent
      extent = next
    }
    return nil
  }

  /// Takes an extent back. It must have come from `allocate`, whole or in part, and be returned once.
  public mutating func release(_ start: UInt64, size: UInt64) {
    var previous: UInt64 = 0
    var next = firstFree
    while next != 0, next < start {
      previous = next
      next = memory.load(next)
    }
    freeBytes += size
    var mergedSize = size
    if next != 0, start + size == next {
      mergedSize += memory.load(next + 8)
      next = memory.load(next)
    }
    if previous != 0 {
      let previousSize = memory.load(previous + 8)
      if previous + previousSize == start {
        memory.store(previous, next)
        memory.store(previous + 8, previousSize + mergedSize)
        return
      }
      memory.store(previous, start)
    } else {
      firstFree = start
    }
    memory.store(start, next)
    memory.store(start + 8, mergedSize)
  }
}
