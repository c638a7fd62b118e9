// Ordered access to memory that a device or another process writes at the same time.

import Synchronization

/// A run of shared memory with an address of its own for the device. The memory is not owned; the maker promises that
/// `byteCount` bytes at `base` stay mapped, writable and 8-byte aligned as long as the value or a copy is used. Offsets
/// given to the accessors are the module's own computations, never a peer's: an offset outside is a programming error.
public struct RingMemory {
  private let base: UnsafeMutableRawPointer
  /// Length in bytes.
  public let byteCount: Int
  /// Guest-physical address of the first byte; the memory is physically contiguous.
  public let physical: UInt64

  /// `byteCount` is at least 8, the largest size of an access.
  public init(unsafeBase base: UnsafeMutableRawPointer, byteCount: Int, physical: UInt64) {
    precondition(byteCount >= 8)
    self.base = base
    self.byteCount = byteCount
    self.physical = physical
  }

  /// The first address, for mapping or copying.
  public var unsafeBase: UnsafeMutableRawPointer { base }

  @inline(__always)
  private func address(_ offset: Int, _ size: Int) -> UnsafeMutableRawPointer {
    // One comparison: a negative offset is a large number. There are dozens of these on a request's path.
    precondition(UInt(bitPattern: offset) <= UInt(bitPattern: byteCount &- size))
    return base + offset
  }

  /// Loads that other agents' stores may race with are single atomic accesses. The rebound pointers are in bounds and
  /// aligned (base is 8-aligned, callers use multiples of the size), and `Atomic` has its value's layout.
  @inline(__always)
  public func load16(_ offset: Int) -> UInt16 {
    address(offset, 2).assumingMemoryBound(to: Atomic<UInt16>.self).pointee.load(ordering: .acquiring)
  }
  @inline(__always)
  public func load32(_ offset: Int) -> UInt32 {
    address(offset, 4).assumingMemoryBound(to: Atomic<UInt32>.self).pointee.load(ordering: .acquiring)
  }
  @inline(__always)
  public func load64(_ offset: Int) -> UInt64 {
    address(offset, 8).assumingMemoryBound(to: Atomic<UInt64>.self).pointee.load(ordering: .acquiring)
  }
  @inline(__always)
  public func load8(_ offset: Int) -> UInt8 {
    address(offset, 1).assumingMemoryBound(to: Atomic<UInt8>.self).pointee.load(ordering: .acquiring)
  }
  @inline(__always)
  public func store8(_ value: UInt8, at offset: Int) {
    address(offset, 1).assumingMemoryBound(to: Atomic<UInt8>.self).pointee.store(value, ordering: .releasing)
  }
  @inline(__always)
  public func store16(_ value: UInt16, at offset: Int) {
    address(offset, 2).assumingMemoryBound(to: Atomic<UInt16>.self).pointee.store(value, ordering: .releasing)
  }
  @inline(__always)
  public func store32(_ value: UInt32, at offset: Int) {
    address(offset, 4).assumingMemoryBound(to: Atomic<UInt32>.self).pointee.store(value, ordering: .releasing)
  }
  @inline(__always)
  public func store64(_ value: UInt64, at offset: Int) {
    address(offset, 8).assumingMemoryBound(to: Atomic<UInt64>.self).pointee.store(value, ordering: .releasing)
  }

  /// Zeroes `count` bytes at `offset`.
  public func clear(_ offset: Int, _ count: Int) {
    guard count > 0 else { return }
    precondition(count <= byteCount)
    address(offset, count).initializeMemory(as: UInt8.self, repeating: 0, count: count)
  }

  /// `count` bytes at `offset` as memory of its own.
  public func part(_ offset: Int, _ count: Int) -> RingMemory {
    precondition(count <= byteCount)
    return RingMemory(unsafeBase: address(offset, count), byteCount: count, physical: physical + UInt64(offset))
  }

  /// Orders a store before a later load of memory that the other side writes (virtio 1.2 §2.7.13.3.1, §2.7.10).
  @inline(__always)
  public static func fullFence() { atomicMemoryFence(ordering: .sequentiallyConsistent) }
}
