// Names of modules, sections and symbols, and lines of text made of them, without the standard library's strings.

import BootFormats

/// A name out of a module file, copied, so that it outlives the file.
public struct Name: Equatable, Comparable, Sendable {
  /// The name's bytes without a terminator; UTF-8 in sound files, anything in damaged ones.
  public let bytes: [UInt8]

  public init(_ text: Bytes) {
    var copy: [UInt8] = []
    copy.reserveCapacity(text.count)
    var index = 0
    while let byte = text.byte(index) {
      copy.append(byte)
      index += 1
    }
    bytes = copy
  }

  public init(_ text: StaticString) { self.init(Bytes(text)) }

  private init(copied bytes: [UInt8]) { self.bytes = bytes }

  public static let none = Name("")
  public var isEmpty: Bool { bytes.isEmpty }

  /// The name of a module as Linux compares it: `-` and `_` are the same.
  public var normalised: Name { Name(copied: bytes.map { $0 == 0x2d ? 0x5f : $0 }) }

  /// Byte by byte, shorter first.
  public static func < (left: Name, right: Name) -> Bool {
    var index = 0
    while index < left.bytes.count, index < right.bytes.count {
      if left.bytes[index] != right.bytes[index] { return left.bytes[index] < right.bytes[index] }
      index += 1
    }
    return left.bytes.count < right.bytes.count
  }
}

/// A line of text that grows.
struct Line {
  private(set) var bytes: [UInt8] = []

  mutating func append(_ text: StaticString) { bytes += Name(text).bytes }
  /// A name, with what is not printable ASCII as `?`: it may come from a damaged file.
  mutating func append(_ name: Name) {
    for byte in name.bytes { bytes.append(byte >= 0x20 && byte < 0x7f ? byte : 0x3f) }
  }

  mutating func append(hexadecimal value: UInt64) {
    append("0x")
    var shift: UInt64 = 60
    while shift > 0, value >> shift == 0 { shift -= 4 }
    while true {
      let digit = UInt8(value >> shift & 15)
      bytes.append(digit < 10 ? 0x30 + digit : 0x61 + digit - 10)
      if shift == 0 { return }
      shift -= 4
    }
  }
}
