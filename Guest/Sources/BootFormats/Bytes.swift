// A read-only run of bytes whose every access is checked: what the readers of boot-time formats parse.

/// A borrowed, read-only run of bytes. No access outside it is possible; every load answers nil there.
///
/// The bytes are not owned: whoever makes one from a pointer promises that they stay mapped and unchanged as long as
/// any value derived from it is used. Boot archive and device tree stay mapped for the life of a process.
public struct Bytes {
  private let base: UnsafeRawPointer
  /// Length in bytes.
  public let count: Int

  /// Bytes `base ..< base + count`, which the caller keeps mapped and unchanged.
  public init(unsafeBase base: UnsafeRawPointer, count: Int) {
    self.base = base
    self.count = max(0, count)
  }

  /// The bytes of a string literal, without its terminator; they live for ever.
  public init(_ text: StaticString) {
    // A literal with a pointer representation is static data; the other form (one scalar) is not used here.
    base = UnsafeRawPointer(text.utf8Start)
    count = text.utf8CodeUnitCount
  }

  /// The first address, for mapping or copying: valid for `count` bytes.
  public var unsafeBase: UnsafeRawPointer { base }
  public var isEmpty: Bool { count == 0 }

  /// Whether `length` bytes at `offset` lie inside.
  public func holds(_ offset: Int, _ length: Int) -> Bool {
    offset >= 0 && length >= 0 && offset <= count && length <= count - offset
  }

  public func byte(_ offset: Int) -> UInt8? {
    guard holds(offset, 1) else { return nil }
    // In bounds by the check above.
    return base.load(fromByteOffset: offset, as: UInt8.self)
  }

  /// The fixed-width integer at `offset` in the memory order of this (little-endian) processor.
  public func little<T: FixedWidthInteger & BitwiseCopyable>(_ offset: Int, as type: T.Type) -> T? {
    guard holds(offset, MemoryLayout<T>.size) else { return nil }
    // In bounds by the check above; unaligned loads are allowed by this call.
    return T(littleEndian: base.loadUnaligned(fromByteOffset: offset, as: T.self))
  }

  /// The big-endian integer at `offset`.
  public func big<T: FixedWidthInteger & BitwiseCopyable>(_ offset: Int, as type: T.Type) -> T? {
    guard holds(offset, MemoryLayout<T>.size) else { return nil }
    // In bounds by the check above; unaligned loads are allowed by this call.
    return T(bigEndian: base.loadUnaligned(fromByteOffset: offset, as: T.self))
  }

  /// `length` bytes from `offset`, or nil where they do not all lie inside.
  public func slice(_ offset: Int, _ length: Int) -> Bytes? {
    guard holds(offset, length) else { return nil }
    return Bytes(unsafeBase: base + offset, count: length)
  }

  /// Everything from `offset`.
  public func suffix(from offset: Int) -> Bytes? {
    guard offset <= count else { return nil }
    return slice(offset, count - offset)
  }

  /// The bytes from `offset` up to the first zero byte, or nil where no zero byte follows.
  public func terminated(_ offset: Int) -> Bytes? {
    var end = offset
    while let value = byte(end) {
      if value == 0 { return slice(offset, end - offset) }
      end += 1
    }
    return nil
  }

  /// This string without what follows its first zero byte.
  public var upToZero: Bytes { terminated(0) ?? self }

  public func equals(_ other: Bytes) -> Bool { count == other.count && starts(with: other) }
  public func equals(_ text: StaticString) -> Bool { equals(Bytes(text)) }
  public func starts(with text: StaticString) -> Bool { starts(with: Bytes(text)) }

  public func starts(with prefix: Bytes) -> Bool {
    guard count >= prefix.count else { return false }
    var index = 0
    while index < prefix.count {
      // `index` is below both counts.
      if base.load(fromByteOffset: index, as: UInt8.self)
        != prefix.base.load(fromByteOffset: index, as: UInt8.self)
      {
        return false
      }
      index += 1
    }
    return true
  }

  /// The offset of the first `value` at or after `start`.
  public func firstIndex(of value: UInt8, from start: Int = 0) -> Int? {
    var index = max(0, start)
    while let candidate = byte(index) {
      if candidate == value { return index }
      index += 1
    }
    return nil
  }

  /// The unsigned number that the whole run spells: decimal, or hexadecimal after `0x`; nil for anything else, an empty
  /// run and a number beyond 64 bits.
  public var number: UInt64? {
    let hexadecimal = starts(with: "0x") || starts(with: "0X")
    let radix: UInt64 = hexadecimal ? 16 : 10
    var index = hexadecimal ? 2 : 0
    guard index < count else { return nil }
    var value: UInt64 = 0
    while let character = byte(index) {
      guard let digit = Self.digit(character), digit < radix else { return nil }
      let (product, overflow) = value.multipliedReportingOverflow(by: radix)
      let (sum, carry) = product.addingReportingOverflow(digit)
      guard !overflow, !carry else { return nil }
      value = sum
      index += 1
    }
    return value
  }

  /// The number with an optional suffix K, M or G (powers of 1024).
  public var size: UInt64? {
    guard let last = byte(count - 1) else { return nil }
    let shift: UInt64
    switch last {
    case 0x4b, 0x6b: shift = 10
    case 0x4d, 0x6d: shift = 20
    case 0x47, 0x67: shift = 30
    default: return number
    }
    guard let value = slice(0, count - 1)?.number, value <= UInt64.max >> shift else { return nil }
    return value << shift
  }

  private static func digit(_ character: UInt8) -> UInt64? {
    switch character {
    case 0x30...0x39: UInt64(character - 0x30)
    case 0x41...0x46: UInt64(character - 0x41 + 10)
    case 0x61...0x66: UInt64(character - 0x61 + 10)
    default: nil
    }
  }
}

/// Walks the parts of a run of bytes between separators; empty parts are skipped.
public struct Parts {
  private let bytes: Bytes
  private let separator: UInt8
  private var position = 0

  public init(of bytes: Bytes, separator: UInt8) {
    self.bytes = bytes
    self.separator = separator
  }

  /// The next non-empty part, or nil at the end.
  public mutating func next() -> Bytes? {
    while position < bytes.count {
      let end = bytes.firstIndex(of: separator, from: position) ?? bytes.count
      let part = bytes.slice(position, end - position)
      position = end + 1
      if let part, !part.isEmpty { return part }
    }
    return nil
  }
}
