// The page that a program finds through argument 0 at its start: the handles, numbers and texts its parent gave it.
//
// Layout, little endian: magic u32, length of everything u32, then records, each 8-byte aligned: kind u16 (1 handle, 2
// number, 3 text), key length u16, text length u32, value u64, key bytes, text bytes.

private let startMagic: UInt32 = 0x5453_5850  // "PXST"
private let startCapacity = 4096
private let handleKind: UInt16 = 1
private let numberKind: UInt16 = 2
private let textKind: UInt16 = 3

/// Writes a start block.
public struct StartBlockBuilder {
  private var bytes: [UInt8]

  public init() {
    bytes = []
    bytes.reserveCapacity(startCapacity)
    append(UInt64(startMagic), 4)
    append(8, 4)
  }

  private mutating func append(_ value: UInt64, _ size: Int) {
    var shift: UInt64 = 0
    while shift < UInt64(size) * 8 {
      bytes.append(UInt8(truncatingIfNeeded: value >> shift))
      shift += 8
    }
  }

  private mutating func append(_ text: Bytes) {
    var index = 0
    while let byte = text.byte(index) {
      bytes.append(byte)
      index += 1
    }
  }

  private mutating func add(_ kind: UInt16, _ key: StaticString, _ value: UInt64, _ text: Bytes) -> Bool {
    let key = Bytes(key)
    guard bytes.count + 16 + key.count + text.count + 7 <= startCapacity else { return false }
    append(UInt64(kind), 2)
    append(UInt64(key.count), 2)
    append(UInt64(text.count), 4)
    append(value, 8)
    append(key)
    append(text)
    while bytes.count % 8 != 0 { bytes.append(0) }
    bytes[4] = UInt8(truncatingIfNeeded: bytes.count)
    bytes[5] = UInt8(truncatingIfNeeded: bytes.count >> 8)
    return true
  }

  /// Adds a handle of the new process; false: the page is full. Likewise the others.
  public mutating func add(_ key: StaticString, handle: UInt64) -> Bool { add(handleKind, key, handle, Bytes("")) }
  public mutating func add(_ key: StaticString, number: UInt64) -> Bool { add(numberKind, key, number, Bytes("")) }
  public mutating func add(_ key: StaticString, text: Bytes) -> Bool { add(textKind, key, 0, text) }

  /// The page, filled with zeroes.
  public var contents: [UInt8] {
    var page = bytes
    while page.count < startCapacity { page.append(0) }
    return page
  }
}

/// Reads a start block.
public struct StartBlock {
  private let bytes: Bytes

  /// A block in mapped memory; one without the magic number is read as empty.
  public init(_ page: Bytes) {
    let length = page.little(4, as: UInt32.self) ?? 0
    bytes = page.little(0, as: UInt32.self) == startMagic ? page.slice(0, Int(length)) ?? Bytes("") : Bytes("")
  }

  private func find(_ kind: UInt16, _ key: StaticString) -> (value: UInt64, text: Bytes)? {
    var offset = 8
    while let candidate = bytes.little(offset, as: UInt16.self),
      let keyLength = bytes.little(offset + 2, as: UInt16.self),
      let textLength = bytes.little(offset + 4, as: UInt32.self), let value = bytes.little(offset + 8, as: UInt64.self),
      let name = bytes.slice(offset + 16, Int(keyLength)),
      let text = bytes.slice(offset + 16 + Int(keyLength), Int(textLength))
    {
      if candidate == kind, name.equals(key) { return (value, text) }
      offset = (offset + 16 + Int(keyLength) + Int(textLength) + 7) & ~7
    }
    return nil
  }

  public func handle(_ key: StaticString) -> UInt64? { find(handleKind, key)?.value }
  public func number(_ key: StaticString) -> UInt64? { find(numberKind, key)?.value }
  public func text(_ key: StaticString) -> Bytes? { find(textKind, key)?.text }
}
