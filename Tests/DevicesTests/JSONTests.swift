import Testing

@testable import Devices

@Suite struct JSONTests {
  static let valid: [(String, JSONValue)] = [
    ("null", JSONValue.null), (" true ", true), ("\t[ ]\r\n", []), ("{}", [:]), ("-0", .integer(0)),
    ("9223372036854775807", .integer(.max)), ("-9223372036854775808", .integer(.min)),
    ("9223372036854775808", .number(9_223_372_036_854_775_808)), ("1.5e3", .number(1500)), ("1E-2", .number(0.01)),
    (#""a\"\\\/\b\f\n\r\t\u00e9\ud83d\ude00\u0000""#, .string("a\"\\/\u{8}\u{c}\n\r\té😀\0")), (#""é😀""#, "é😀"),
    (#"{"b":[1,{"a":null}],"a":"x"}"#, ["b": [1, ["a": .null]], "a": "x"]),
  ]

  @Test(arguments: valid)
  func validTextIsRead(text: String, value: JSONValue) throws {
    #expect(try JSONValue(parsing: text) == value)
  }

  static let invalid: [(String, JSONError.Problem, Int)] = [
    ("", JSONError.Problem.unexpectedEnd, 0), ("  ", .unexpectedEnd, 2), ("nul", .unexpectedEnd, 3),
    ("nulx", .unexpectedByte, 3), ("[1,]", .unexpectedByte, 3), ("[1 2]", .unexpectedByte, 3), ("[", .unexpectedEnd, 1),
    ("{\"a\"}", .unexpectedByte, 4), ("{a:1}", .unexpectedByte, 1), ("{\"a\":1,}", .unexpectedByte, 7),
    ("{} x", .trailingBytes, 3), ("01", .invalidNumber, 2), ("-", .invalidNumber, 1), ("1.", .invalidNumber, 2),
    ("1e", .invalidNumber, 2), ("+1", .unexpectedByte, 0), (".5", .unexpectedByte, 0), ("1e999", .invalidNumber, 5),
    ("\"a", .unexpectedEnd, 2), ("\"\u{1}\"", .unexpectedByte, 1), (#""\x""#, .invalidEscape, 2),
    (#""\ud800""#, .invalidEscape, 7), (#""\ud800\u0041""#, .invalidEscape, 13), (#""\udc00""#, .invalidEscape, 7),
    (#""\u12g4""#, .invalidEscape, 5), (#"{"a":1,"a":2}"#, .duplicateName, 7), ("'a'", .unexpectedByte, 0),
    ("NaN", .unexpectedByte, 0), ("// x", .unexpectedByte, 0),
  ]

  @Test(arguments: invalid)
  func invalidTextIsRefusedWithItsPlace(text: String, problem: JSONError.Problem, offset: Int) {
    #expect(throws: JSONError(problem: problem, offset: offset)) { try JSONValue(parsing: text) }
  }

  @Test func invalidUTF8IsRefused() {
    for bytes in [[0xff], [0xc0, 0x80], [0xed, 0xa0, 0x80], [0xf5, 0x80, 0x80, 0x80], [0xe2, 0x82]] as [[UInt8]] {
      #expect(throws: JSONError(problem: .invalidUTF8, offset: 1)) { try JSONValue(parsing: [0x22] + bytes + [0x22]) }
    }
  }

  @Test func depthIsBounded() throws {
    let limit = JSONValue.maximumDepth
    let nest = { (depth: Int) in String(repeating: "[", count: depth) + String(repeating: "]", count: depth) }
    _ = try JSONValue(parsing: nest(limit))
    #expect(throws: JSONError(problem: .tooDeep, offset: limit)) { try JSONValue(parsing: nest(limit + 1)) }
    let objects = String(repeating: "{\"a\":", count: 100_000)
    #expect(throws: JSONError(problem: .tooDeep, offset: limit * 5)) { try JSONValue(parsing: objects) }
  }

  @Test func textIsOneLineAndEscapesWhatItMust() {
    let value: JSONValue = ["a\n\"\\\u{1f}\u{7f}": [true, .null, .number(.infinity), .number(0.5), .counter(.max)]]
    #expect(value.text == #"{"a\n\"\\\u001f\u007f":[true,null,null,0.5,9223372036854775807]}"#)
  }

  @Test(arguments: 0..<20 as Range<UInt64>)
  func writtenValuesAreReadBack(seed: UInt64) throws {
    var random = SplitMix(state: seed)
    for _ in 0..<200 {
      let value = randomValue(depth: 0, &random)
      #expect(try JSONValue(parsing: value.text) == value)
      #expect(!value.text.utf8.contains(0x0a))
    }
  }

  @Test(arguments: 0..<20 as Range<UInt64>)
  func damagedTextNeverTrapsAndWhatIsReadCanBeWritten(seed: UInt64) {
    var random = SplitMix(state: seed)
    let alphabet = Array("{}[]\",:\\u0123456789eE+-.truefalsn \u{0}é😀".utf8)
    for _ in 0..<2000 {
      var bytes = Array(randomValue(depth: 0, &random).text.utf8)
      for _ in 0..<Int.random(in: 1...6, using: &random) {
        let place = Int.random(in: 0...bytes.count, using: &random)
        switch Int.random(in: 0..<3, using: &random) {
        case 0 where place < bytes.count: bytes.remove(at: place)
        case 1 where place < bytes.count: bytes[place] = UInt8.random(in: 0...255, using: &random)
        default: bytes.insert(alphabet.randomElement(using: &random) ?? 0, at: place)
        }
      }
      if let value = try? JSONValue(parsing: bytes) { #expect((try? JSONValue(parsing: value.text)) == value) }
    }
  }

  private func randomValue(depth: Int, _ random: inout SplitMix) -> JSONValue {
    switch Int.random(in: 0..<(depth < 4 ? 7 : 5), using: &random) {
    case 0: return .null
    case 1: return .boolean(Bool.random(using: &random))
    case 2: return .integer(Int64(bitPattern: random.next() >> UInt64.random(in: 0..<64, using: &random)))
    case 3: return .number(Double.random(in: -1e9...1e9, using: &random) + 0.123)
    case 4: return .string(randomString(&random))
    case 5:
      return .array((0..<Int.random(in: 0..<4, using: &random)).map { _ in randomValue(depth: depth + 1, &random) })
    default:
      return .object(
        (0..<Int.random(in: 0..<4, using: &random)).map {
          .init("\($0)" + randomString(&random), randomValue(depth: depth + 1, &random))
        })
    }
  }

  private func randomString(_ random: inout SplitMix) -> String {
    let scalars = (0..<Int.random(in: 0..<8, using: &random)).compactMap { _ in
      Unicode.Scalar(UInt32.random(in: 0...0x10ffff, using: &random) >> UInt32.random(in: 0..<21, using: &random))
    }
    return String(String.UnicodeScalarView(scalars))
  }
}
