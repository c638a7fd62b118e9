// Reads one JSON text (RFC 8259) from bytes that anybody may have sent: strict, and bounded in depth.

/// Why a text is not JSON that we take.
public struct JSONError: Error, Equatable, Sendable, CustomStringConvertible {
  public enum Problem: Equatable, Sendable {
    case unexpectedEnd, unexpectedByte, trailingBytes
    /// Arrays and objects lie deeper in each other than `JSONValue.maximumDepth`.
    case tooDeep
    case invalidNumber, invalidEscape, invalidUTF8
    /// An object names a member twice.
    case duplicateName
  }
  public let problem: Problem
  /// Bytes from the beginning of the text.
  public let offset: Int

  public var description: String {
    let what =
      switch problem {
      case .unexpectedEnd: "ends too early"
      case .unexpectedByte: "unexpected character"
      case .trailingBytes: "something follows the value"
      case .tooDeep: "more than \(JSONValue.maximumDepth) levels"
      case .invalidNumber: "invalid number"
      case .invalidEscape: "invalid escape sequence"
      case .invalidUTF8: "invalid UTF-8"
      case .duplicateName: "a name occurs twice in an object"
      }
    return "JSON: \(what) (at byte \(offset))"
  }
}

extension JSONValue {
  /// How deep arrays and objects may lie in each other.
  public static let maximumDepth = 32

  /// Reads exactly one value, with white space around it.
  public init(parsing bytes: [UInt8]) throws(JSONError) {
    var reader = JSONReader(bytes: bytes)
    let value = try reader.readValue(depth: 0)
    reader.skipSpace()
    guard reader.position == bytes.count else { throw reader.failure(.trailingBytes) }
    self = value
  }

  public init(parsing text: String) throws(JSONError) { try self.init(parsing: Array(text.utf8)) }
}

private struct JSONReader {
  let bytes: [UInt8]
  var position = 0

  func failure(_ problem: JSONError.Problem) -> JSONError { JSONError(problem: problem, offset: position) }

  private var next: UInt8? { position < bytes.count ? bytes[position] : nil }

  mutating func skipSpace() {
    while let byte = next, byte == 0x20 || byte == 0x09 || byte == 0x0a || byte == 0x0d { position += 1 }
  }

  /// Steps over `byte` if it is next.
  private mutating func take(_ byte: Character) -> Bool {
    guard next == byte.asciiValue else { return false }
    position += 1
    return true
  }

  private func unexpected() -> JSONError { failure(next == nil ? .unexpectedEnd : .unexpectedByte) }

  mutating func readValue(depth: Int) throws(JSONError) -> JSONValue {
    skipSpace()
    switch next {
    case UInt8(ascii: "{"): return try readObject(depth: depth + 1)
    case UInt8(ascii: "["): return try readArray(depth: depth + 1)
    case UInt8(ascii: "\""): return .string(try readString())
    case UInt8(ascii: "t"): return try readWord("true", .boolean(true))
    case UInt8(ascii: "f"): return try readWord("false", .boolean(false))
    case UInt8(ascii: "n"): return try readWord("null", .null)
    default: return try readNumber()
    }
  }

  private mutating func readWord(_ word: String, _ value: JSONValue) throws(JSONError) -> JSONValue {
    for byte in word.utf8 {
      guard next == byte else { throw unexpected() }
      position += 1
    }
    return value
  }

  private mutating func readArray(depth: Int) throws(JSONError) -> JSONValue {
    guard depth <= JSONValue.maximumDepth else { throw failure(.tooDeep) }
    position += 1
    var elements: [JSONValue] = []
    skipSpace()
    if take("]") { return .array(elements) }
    while true {
      elements.append(try readValue(depth: depth))
      skipSpace()
      if take("]") { return .array(elements) }
      guard take(",") else { throw unexpected() }
    }
  }

  private mutating func readObject(depth: Int) throws(JSONError) -> JSONValue {
    guard depth <= JSONValue.maximumDepth else { throw failure(.tooDeep) }
    position += 1
    var members: [JSONValue.Member] = []
    var names: Set<String> = []
    skipSpace()
    if take("}") { return .object(members) }
    while true {
      skipSpace()
      let start = position
      guard next == UInt8(ascii: "\"") else { throw unexpected() }
      let name = try readString()
      guard names.insert(name).inserted else { throw JSONError(problem: .duplicateName, offset: start) }
      skipSpace()
      guard take(":") else { throw unexpected() }
      members.append(JSONValue.Member(name, try readValue(depth: depth)))
      skipSpace()
      if take("}") { return .object(members) }
      guard take(",") else { throw unexpected() }
    }
  }

  // MARK: Numbers (section 6)

  private mutating func readDigits() -> Int {
    let start = position
    while let byte = next, (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(byte) { position += 1 }
    return position - start
  }

  private mutating func readNumber() throws(JSONError) -> JSONValue {
    let start = position
    _ = take("-")
    let firstDigit = next
    let digits = readDigits()
    guard digits > 0 else { throw position == start ? unexpected() : failure(.invalidNumber) }
    guard digits == 1 || firstDigit != UInt8(ascii: "0") else { throw failure(.invalidNumber) }
    var isInteger = true
    if take(".") {
      isInteger = false
      guard readDigits() > 0 else { throw failure(.invalidNumber) }
    }
    if take("e") || take("E") {
      isInteger = false
      if !take("+") { _ = take("-") }
      guard readDigits() > 0 else { throw failure(.invalidNumber) }
    }
    let text = String(decoding: bytes[start..<position], as: UTF8.self)
    if isInteger, let value = Int64(text) { return .integer(value) }
    guard let value = Double(text), value.isFinite else { throw failure(.invalidNumber) }
    return .number(value)
  }

  // MARK: Strings (section 7)

  private mutating func readString() throws(JSONError) -> String {
    position += 1
    var content: [UInt8] = []
    let start = position
    while let byte = next {
      switch byte {
      case UInt8(ascii: "\""):
        position += 1
        guard let string = String(validating: content, as: UTF8.self) else {
          throw JSONError(problem: .invalidUTF8, offset: start)
        }
        return string
      case UInt8(ascii: "\\"):
        position += 1
        try readEscape(into: &content)
      case 0..<0x20: throw failure(.unexpectedByte)
      default:
        content.append(byte)
        position += 1
      }
    }
    throw failure(.unexpectedEnd)
  }

  private mutating func readEscape(into content: inout [UInt8]) throws(JSONError) {
    guard let byte = next else { throw failure(.unexpectedEnd) }
    switch byte {
    case UInt8(ascii: "\""), UInt8(ascii: "\\"), UInt8(ascii: "/"): content.append(byte)
    case UInt8(ascii: "b"): content.append(0x08)
    case UInt8(ascii: "f"): content.append(0x0c)
    case UInt8(ascii: "n"): content.append(0x0a)
    case UInt8(ascii: "r"): content.append(0x0d)
    case UInt8(ascii: "t"): content.append(0x09)
    case UInt8(ascii: "u"):
      position += 1
      return try readUnicodeEscape(into: &content)
    default: throw failure(.invalidEscape)
    }
    position += 1
  }

  private mutating func readUnicodeEscape(into content: inout [UInt8]) throws(JSONError) {
    var value = UInt32(try readFourHexDigits())
    if (0xd800..<0xdc00).contains(value) {
      guard take("\\"), take("u") else { throw failure(.invalidEscape) }
      let low = UInt32(try readFourHexDigits())
      guard (0xdc00..<0xe000).contains(low) else { throw failure(.invalidEscape) }
      value = 0x10000 + (value - 0xd800) << 10 + (low - 0xdc00)
    }
    guard let scalar = Unicode.Scalar(value) else { throw failure(.invalidEscape) }
    content += Array(String(Character(scalar)).utf8)
  }

  private mutating func readFourHexDigits() throws(JSONError) -> UInt16 {
    var value: UInt16 = 0
    for _ in 0..<4 {
      guard let byte = next else { throw failure(.unexpectedEnd) }
      let digit: UInt8
      switch byte {
      case UInt8(ascii: "0")...UInt8(ascii: "9"): digit = byte - UInt8(ascii: "0")
      case UInt8(ascii: "a")...UInt8(ascii: "f"): digit = byte - UInt8(ascii: "a") + 10
      case UInt8(ascii: "A")...UInt8(ascii: "F"): digit = byte - UInt8(ascii: "A") + 10
      default: throw failure(.invalidEscape)
      }
      value = value << 4 | UInt16(digit)
      position += 1
    }
    return value
  }
}
