// How single values are written: sizes with units, whole numbers in a range, switches, MAC addresses.

import Glibc

/// Sizes in bytes with binary units.
public enum ByteSize {
  /// Reads "512M", "2GiB", "4096", "64 KiB": a whole number and an optional unit K, M, G, T, each 1024 times the one
  /// before, with an optional "iB". Nil when the text is anything else or does not fit in 64 bits.
  public static func parse(_ text: String) -> UInt64? {
    let digits = text.prefix { $0.isASCII && $0.isNumber }
    guard let number = UInt64(digits) else { return nil }
    var unit = text.dropFirst(digits.count).drop { $0 == " " }.lowercased()
    if unit.hasSuffix("ib") { unit.removeLast(2) }
    let shift: UInt64
    switch unit {
    case "", "b": shift = 0
    case "k": shift = 10
    case "m": shift = 20
    case "g": shift = 30
    case "t": shift = 40
    default: return nil
    }
    let (product, overflow) = number.multipliedReportingOverflow(by: 1 << shift)
    return overflow ? nil : product
  }

  /// The shortest exact form: "128M", "1G", "1000".
  public static func format(_ bytes: UInt64) -> String {
    for (shift, unit) in [(40, "T"), (30, "G"), (20, "M"), (10, "K")] as [(UInt64, String)]
    where bytes > 0 && bytes % (1 << shift) == 0 {
      return "\(bytes >> shift)\(unit)"
    }
    return "\(bytes)"
  }
}

/// An Ethernet address (IEEE 802, 48 bits).
public struct MACAddress: Hashable, Sendable, CustomStringConvertible {
  /// The six bytes in transmission order.
  public let bytes: [UInt8]

  /// Reads "52:54:00:12:34:56". Nil for other forms and for group addresses, which no interface may have.
  public init?(_ text: String) {
    let parts = text.split(separator: ":", omittingEmptySubsequences: false)
    guard parts.count == 6 else { return nil }
    var bytes: [UInt8] = []
    for part in parts {
      guard part.count == 2, let byte = UInt8(part, radix: 16) else { return nil }
      bytes.append(byte)
    }
    guard bytes[0] & 1 == 0 else { return nil }
    self.bytes = bytes
  }

  /// A locally administered address that depends on the machine's name and the interface's index only, so that it
  /// stays the same from run to run and differs between machines (FNV-1a hash).
  public init(machine: String, index: Int) {
    var hash: UInt64 = 0xcbf2_9ce4_8422_2325
    for byte in "\(machine)/\(index)".utf8 { hash = (hash ^ UInt64(byte)) &* 0x100_0000_01b3 }
    bytes = [0x52, 0x54] + (0..<4).map { UInt8(truncatingIfNeeded: hash >> (8 * $0)) }
  }

  public var description: String {
    bytes.map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined(separator: ":")
  }
}

/// Readers of one value; each throws a `ConfigurationError` that says what is allowed.
enum Value {
  static func size(_ key: String, _ text: String) throws(ConfigurationError) -> UInt64 {
    guard let bytes = ByteSize.parse(text) else {
      throw ConfigurationError(key: key, value: text, expected: "not a size; write 4096, 512K, 128M or 2GiB")
    }
    return bytes
  }

  static func number(_ key: String, _ text: String, in range: ClosedRange<Int>) throws(ConfigurationError) -> Int {
    guard let number = Int(text), range.contains(number) else {
      throw ConfigurationError(
        key: key, value: text, expected: "must be a whole number from \(range.lowerBound) to \(range.upperBound)")
    }
    return number
  }

  static func flag(_ key: String, _ text: String) throws(ConfigurationError) -> Bool {
    switch text.lowercased() {
    case "on", "true", "yes": return true
    case "off", "false", "no": return false
    default: throw ConfigurationError(key: key, value: text, expected: "must be on or off")
    }
  }

  static func choice<Choice: RawRepresentable<String> & CaseIterable>(
    _ key: String, _ text: String, _ type: Choice.Type = Choice.self
  ) throws(ConfigurationError) -> Choice {
    guard let choice = Choice(rawValue: text) else {
      let names = Choice.allCases.map(\.rawValue).joined(separator: ", ")
      throw ConfigurationError(key: key, value: text, expected: "must be one of \(names)")
    }
    return choice
  }

  /// A path: not empty, no NUL byte.
  static func path(_ key: String, _ text: String) throws(ConfigurationError) -> String {
    guard !text.isEmpty, !text.utf8.contains(0) else {
      throw ConfigurationError(key: key, value: text, expected: "must be the path of a file")
    }
    return text
  }

  /// A path of a Unix socket, which must fit in sockaddr_un (unix(7)).
  static func socketPath(_ key: String, _ text: String) throws(ConfigurationError) -> String {
    let path = try path(key, text)
    guard path.utf8.count < 108 else {
      throw ConfigurationError(key: key, value: text, expected: "a Unix socket's path has at most 107 bytes")
    }
    return path
  }

  static func word(_ flag: Bool) -> String { flag ? "on" : "off" }
}
