// How the arguments of a packet are read: hexadecimal numbers, thread identifiers and separators, from bytes that a
// debugger, or anyone who found the port, has sent. Everything returns nil rather than trap.

/// Hexadecimal digits, as the remote protocol uses them for numbers and for bytes.
enum Hexadecimal {
  /// The value of a digit, or nil.
  static func value(_ digit: UInt8) -> UInt8? {
    switch digit {
    case UInt8(ascii: "0")...UInt8(ascii: "9"): digit - UInt8(ascii: "0")
    case UInt8(ascii: "a")...UInt8(ascii: "f"): digit - UInt8(ascii: "a") + 10
    case UInt8(ascii: "A")...UInt8(ascii: "F"): digit - UInt8(ascii: "A") + 10
    default: nil
    }
  }

  /// Two digits a byte.
  static func encode(_ bytes: some Sequence<UInt8>) -> [UInt8] {
    var digits: [UInt8] = []
    digits.reserveCapacity(bytes.underestimatedCount * 2)
    for byte in bytes {
      digits.append(digit(byte >> 4))
      digits.append(digit(byte & 15))
    }
    return digits
  }

  /// The bytes of an even number of digits, or nil.
  static func decode(_ digits: some Collection<UInt8>) -> [UInt8]? {
    guard digits.count % 2 == 0 else { return nil }
    var bytes: [UInt8] = []
    bytes.reserveCapacity(digits.count / 2)
    var high: UInt8?
    for digit in digits {
      guard let value = value(digit) else { return nil }
      if let first = high {
        bytes.append(first << 4 | value)
        high = nil
      } else {
        high = value
      }
    }
    return bytes
  }

  /// A number without leading zeros.
  static func text(_ number: some BinaryInteger) -> String { String(number, radix: 16) }

  private static func digit(_ value: UInt8) -> UInt8 {
    value < 10 ? UInt8(ascii: "0") + value : UInt8(ascii: "a") + value - 10
  }
}

/// Which threads a packet means.
enum ThreadSelection: Equatable {
  case all
  case any
  case one(ThreadIdentifier)
}

/// A cursor over a packet's bytes.
struct PacketReader {
  private(set) var rest: ArraySlice<UInt8>

  init(_ bytes: some Collection<UInt8>) { rest = ArraySlice(Array(bytes)) }

  var isAtEnd: Bool { rest.isEmpty }

  /// Takes this character if it comes next.
  mutating func take(_ character: Unicode.Scalar) -> Bool {
    guard let next = rest.first, UInt32(next) == character.value else { return false }
    rest.removeFirst()
    return true
  }

  /// Takes this text if it comes next.
  mutating func take(prefix text: String) -> Bool {
    guard rest.starts(with: text.utf8) else { return false }
    rest.removeFirst(text.utf8.count)
    return true
  }

  /// Takes one byte.
  mutating func byte() -> UInt8? { rest.popFirst() }

  /// Takes a hexadecimal number of at least one digit that fits in 64 bits.
  mutating func number() -> UInt64? {
    var value: UInt64 = 0
    var any = false
    while let next = rest.first, let digit = Hexadecimal.value(next) {
      guard value >> 60 == 0 else { return nil }
      value = value << 4 | UInt64(digit)
      rest.removeFirst()
      any = true
    }
    return any ? value : nil
  }

  /// Takes `address,count`.
  mutating func addressAndCount() -> (address: UInt64, count: Int)? {
    guard let address = number(), take(","), let count = number(), count <= UInt64(Int32.max) else { return nil }
    return (address, Int(count))
  }

  /// Takes a thread identifier: a number, `0`, `-1`, or the multiprocess form `pPID.TID`.
  mutating func thread() -> ThreadSelection? {
    if take("p") {
      if take("-") { return take("1") ? .all : nil }
      guard number() != nil else { return nil }
      guard take(".") else { return .all }
    }
    if take("-") { return take("1") ? .all : nil }
    guard let value = number(), value <= UInt64(UInt32.max) else { return nil }
    return value == 0 ? .any : .one(ThreadIdentifier(rawValue: UInt32(value)))
  }

  /// Takes everything up to a separator, which is consumed, or to the end.
  mutating func field(upTo separator: Unicode.Scalar) -> ArraySlice<UInt8> {
    let end = rest.firstIndex { UInt32($0) == separator.value } ?? rest.endIndex
    let field = rest[..<end]
    rest = end < rest.endIndex ? rest[(end + 1)...] : []
    return field
  }
}
