import Testing

@testable import GDBRemote

@Suite struct PacketDecoderTests {
  private func events(_ bytes: [UInt8], verifiesChecksum: Bool = true) -> [PacketEvent] {
    var decoder = PacketDecoder()
    decoder.verifiesChecksum = verifiesChecksum
    return bytes.compactMap { decoder.feed($0) }
  }

  @Test func everyByteValueSurvivesEncodingAndDecoding() {
    let data = Array(0...255 as ClosedRange<UInt8>)
    #expect(events(PacketEncoder.encode(data)) == [.packet(data)])
  }

  @Test func checksumOfAKnownPacketIsTheOneOfTheManual() {
    #expect(PacketEncoder.encode("OK".utf8) == Array("$OK#9a".utf8))
    #expect(PacketEncoder.encode("".utf8) == Array("$#00".utf8))
  }

  @Test func acknowledgementsAndInterruptAreEventsOutsidePacketsOnly() {
    #expect(events(Array("+-".utf8) + [3]) == [.acknowledged, .retransmit, .interrupt])
    #expect(events([UInt8(ascii: "$"), 3, UInt8(ascii: "+")] + Array("#2e".utf8)) == [.packet([3, 0x2b])])
  }

  @Test func wrongChecksumIsReportedWithBothValues() {
    #expect(events(Array("$OK#00".utf8)) == [.malformed(.checksum(expected: 0x9a, received: 0))])
    #expect(events(Array("$OK#zz".utf8)) == [.malformed(.badChecksumDigits)])
    #expect(events(Array("$OK#00".utf8), verifiesChecksum: false) == [.packet(Array("OK".utf8))])
  }

  @Test func dollarInsideAPacketStartsItAgain() {
    #expect(events(Array("$m12$g#67".utf8)) == [.packet(Array("g".utf8))])
  }

  @Test func escapeAtTheEndIsRefused() {
    #expect(events(Array("$}#7d".utf8)) == [.malformed(.truncatedEscape)])
  }

  @Test func packetOfExactlyThePacketSizePassesAndOneByteMoreIsRefused() {
    let largest = [UInt8](repeating: 0x61, count: PacketDecoder.packetSize)
    #expect(events(PacketEncoder.encode(largest)) == [.packet(largest)])
    #expect(events(PacketEncoder.encode(largest + [0x61])) == [.malformed(.tooLong(limit: PacketDecoder.packetSize))])
  }

  @Test func decoderGoesOnAfterAnyGarbage() {
    var random = SystemRandomNumberGenerator()
    for _ in 0..<2000 {
      var decoder = PacketDecoder()
      for _ in 0..<Int.random(in: 0...64, using: &random) {
        // Mostly bytes that mean something to the decoder.
        let byte =
          Bool.random(using: &random) ? Array("$#}*+-0aZ\u{3}".utf8).randomElement() : UInt8.random(in: 0...255)
        _ = decoder.feed(byte ?? 0)
      }
      // Whatever state it is in, a `$` and a packet come through after at most two digits of an old checksum.
      for byte in "##00".utf8 { _ = decoder.feed(byte) }
      let events = PacketEncoder.encode("g".utf8).compactMap { decoder.feed($0) }
      #expect(events == [.packet([0x67])])
    }
  }
}

@Suite struct PacketReaderTests {
  @Test(arguments: [("0", 0 as UInt64?), ("ffffffffffffffff", .max), ("1ffffffffffffffff", nil), ("", nil), ("x", nil)])
  func numbersAreReadUpTo64Bits(text: String, value: UInt64?) {
    var reader = PacketReader(text.utf8)
    #expect(reader.number() == value)
  }

  @Test func addressAndCountRefusesCountsBeyond31Bits() {
    var reader = PacketReader("1000,80000000".utf8)
    #expect(reader.addressAndCount() == nil)
    reader = PacketReader("1000,7fffffff".utf8)
    #expect(reader.addressAndCount()?.count == 0x7fff_ffff)
  }

  @Test(arguments: [
    ("0", ThreadSelection.any), ("-1", .all), ("2", .one(ThreadIdentifier(rawValue: 2))),
    ("p1.2", .one(ThreadIdentifier(rawValue: 2))), ("p1.-1", .all), ("p-1", .all), ("p1", .all),
  ])
  func threadIdentifiersOfBothFormsAreRead(text: String, selection: ThreadSelection) {
    var reader = PacketReader(text.utf8)
    #expect(reader.thread() == selection)
    #expect(reader.isAtEnd)
  }

  @Test func oddOrForeignDigitsAreNotBytes() {
    #expect(Hexadecimal.decode("0aFf".utf8) == [0x0a, 0xff])
    #expect(Hexadecimal.decode("0aF".utf8) == nil)
    #expect(Hexadecimal.decode("0g".utf8) == nil)
  }
}
