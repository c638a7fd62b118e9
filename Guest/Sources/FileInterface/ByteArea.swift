// A fixed run of writable bytes whose every access is checked: blocks of a disk, pages of a cache, a client's window.

/// Writable memory of a fixed length. An access outside it ends the program; numbers from a disk or a client are checked before
/// they come here, so that is the last line of defence.
///
/// The memory is not owned: whoever makes an area from a pointer promises that it stays mapped as long as the area is used.
public struct ByteArea {
  private let base: UnsafeMutableRawPointer
  /// Length in bytes.
  public let count: Int

  /// Bytes `base ..< base + count`, which the caller keeps mapped.
  public init(unsafeBase base: UnsafeMutableRawPointer, count: Int) {
    precondition(count >= 0)
    self.base = base
    self.count = count
  }

  /// The first address: valid for `count` bytes.
  public var unsafeBase: UnsafeMutableRawPointer { base }

  @inline(__always)
  private func place(_ offset: Int, _ length: Int) -> UnsafeMutableRawPointer {
    precondition(offset >= 0 && length >= 0 && offset <= count && length <= count - offset)
    return base + offset
  }

  // In bounds by `place`; unaligned access is allowed by these calls. Numbers are little endian, as is the processor.
  public func load8(_ offset: Int) -> UInt8 { place(offset, 1).load(as: UInt8.self) }
  public func load16(_ offset: Int) -> UInt16 { place(offset, 2).loadUnaligned(as: UInt16.self) }
  public func load32(_ offset: Int) -> UInt32 { place(offset, 4).loadUnaligned(as: UInt32.self) }
  public func load64(_ offset: Int) -> UInt64 { place(offset, 8).loadUnaligned(as: UInt64.self) }
  public func store(_ value: UInt8, at offset: Int) { place(offset, 1).storeBytes(of: value, as: UInt8.self) }
  public func store(_ value: UInt16, at offset: Int) { place(offset, 2).storeBytes(of: value, as: UInt16.self) }
  public func store(_ value: UInt32, at offset: Int) { place(offset, 4).storeBytes(of: value, as: UInt32.self) }
  public func store(_ value: UInt64, at offset: Int) { place(offset, 8).storeBytes(of: value, as: UInt64.self) }

  /// `length` bytes from `offset`, which must lie inside.
  public func slice(_ offset: Int, _ length: Int) -> ByteArea {
    ByteArea(unsafeBase: place(offset, length), count: length)
  }

  /// Fills everything with `value`.
  public func fill(_ value: UInt8 = 0) { base.initializeMemory(as: UInt8.self, repeating: value, count: count) }

  /// Copies all of `source` to `offset`; the two may overlap.
  public func copy(_ source: ByteArea, at offset: Int = 0) {
    place(offset, source.count).copyMemory(from: source.base, byteCount: source.count)
  }

  /// Whether the bytes are the same as those of `other`.
  public func equals(_ other: ByteArea) -> Bool {
    guard count == other.count else { return false }
    var index = 0
    while index + 8 <= count {
      if load64(index) != other.load64(index) { return false }
      index += 8
    }
    while index < count {
      if load8(index) != other.load8(index) { return false }
      index += 1
    }
    return true
  }
}

/// Owned memory for one block or page.
public final class ByteBlock {
  public let area: ByteArea

  /// `count` zeroed bytes on a 4 KiB boundary.
  public init(count: Int) {
    area = ByteArea(unsafeBase: .allocate(byteCount: max(1, count), alignment: 4096), count: count)
    area.fill()
  }

  deinit { area.unsafeBase.deallocate() }
}

extension ByteArea {
  /// The same memory, read-only.
  public var bytes: Bytes { Bytes(unsafeBase: UnsafeRawPointer(unsafeBase), count: count) }
}

extension Bytes {
  /// The same memory as an area to copy from.
  public var area: ByteArea { ByteArea(unsafeBase: UnsafeMutableRawPointer(mutating: unsafeBase), count: count) }

  /// A copy of the bytes.
  public var array: [UInt8] {
    var result: [UInt8] = []
    result.reserveCapacity(count)
    var index = 0
    while let byte = byte(index) {
      result.append(byte)
      index += 1
    }
    return result
  }
}
