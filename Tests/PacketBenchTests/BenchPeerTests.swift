import PacketBench
import Testing

@Suite struct BenchPeerTests {
  private let client: UInt64 = 0x0200_0000_0007
  private let own: UInt64 = 0x0200_0000_0009

  private func frame(_ kind: BenchFrame, _ length: Int = TestFrame.shortest, spoiled: Bool = false) -> [UInt8] {
    var bytes = [UInt8](repeating: 0, count: length)
    bytes.withUnsafeMutableBytes { buffer in
      guard let base = buffer.baseAddress else { return }
      TestFrame.fill(base, length: length, number: kind.number, from: client, to: BenchFrame.everybody)
    }
    if spoiled { bytes[length - 1] ^= 1 }
    return bytes
  }

  private func give(_ peer: inout BenchPeer, _ bytes: [UInt8]) {
    bytes.withUnsafeBytes { buffer in
      if let base = buffer.baseAddress { peer.take(base, length: buffer.count) }
    }
  }

  /// The next frame that the peer sends, with its kind.
  private func take(_ peer: inout BenchPeer) -> (kind: BenchFrame?, bytes: [UInt8])? {
    var bytes = [UInt8](repeating: 0, count: BenchFrame.longest)
    let result = bytes.withUnsafeMutableBytes { buffer in
      buffer.baseAddress.flatMap { base in
        peer.next(into: base, from: own).map { (BenchFrame(number: TestFrame.number(base)), $0) }
      }
    }
    guard let (kind, length) = result else { return nil }
    return (kind, Array(bytes.prefix(length)))
  }

  @Test func everyKindSurvivesItsNumber() {
    let kinds: [BenchFrame] = [
      .hello, .here, .ping(7), .pong(0xffff_ffff), .data(9, wantsAcknowledgement: true),
      .data(1, wantsAcknowledgement: false), .acknowledge(5, count: 0xff_ffff), .pull(count: 100, length: 1514),
    ]
    for kind in kinds { #expect(BenchFrame(number: kind.number) == kind) }
    #expect(BenchFrame(number: 0) == nil)
    #expect(BenchFrame(number: 8 << 56) == nil)
  }

  @Test func aPingComesBackWithItsLengthAndADamagedOneDoesNot() throws {
    var peer = BenchPeer()
    give(&peer, frame(.hello))
    #expect(take(&peer)?.kind == .here)
    give(&peer, frame(.ping(3), 777))
    let pong = try #require(take(&peer))
    #expect(pong.kind == .pong(3) && pong.bytes.count == 777)
    pong.bytes.withUnsafeBytes { buffer in
      guard let base = buffer.baseAddress else { return }
      #expect(TestFrame.isIntact(base, length: 777))
      #expect(TestFrame.address(base) == client && TestFrame.address(base + 6) == own)
    }
    give(&peer, frame(.ping(4), 777, spoiled: true))
    #expect(take(&peer) == nil && peer.damaged == 1)
    // What is no frame of these, or too short to be one, is nothing.
    give(&peer, [UInt8](repeating: 0, count: 60))
    give(&peer, Array(frame(.ping(5)).prefix(30)))
    #expect(!peer.hasNext)
  }

  @Test func aStreamStopsAtTheWindowUntilItIsAcknowledged() {
    var peer = BenchPeer()
    give(&peer, frame(.hello))
    _ = take(&peer)
    give(&peer, frame(.pull(count: 100, length: 200)))
    var numbers: [UInt32] = []
    func drain() {
      while let (kind, bytes) = take(&peer) {
        guard case .data(let number, let wants)? = kind else { continue }
        #expect(bytes.count == 200)
        #expect(wants == BenchPeer.wantsAcknowledgement(number, end: 100))
        numbers.append(number)
      }
    }
    drain()
    #expect(numbers == Array(0..<64))
    give(&peer, frame(.acknowledge(15, count: 16)))
    drain()
    #expect(numbers == Array(0..<80))
    // Of a number that was never sent, and of an older one: nothing.
    give(&peer, frame(.acknowledge(99, count: 0)))
    give(&peer, frame(.acknowledge(7, count: 0)))
    drain()
    #expect(numbers.count == 80)
    give(&peer, frame(.acknowledge(79, count: 0)))
    drain()
    #expect(numbers == Array(0..<100))
    give(&peer, frame(.pull(count: 1 << 25, length: 200)))
    give(&peer, frame(.pull(count: 10, length: 59)))
    #expect(!peer.hasNext)
  }

  @Test func receivedFramesAreCountedAndAcknowledgedWhenAsked() {
    var peer = BenchPeer()
    give(&peer, frame(.hello))
    _ = take(&peer)
    for number in 0..<5 as Range<UInt32> { give(&peer, frame(.data(number, wantsAcknowledgement: false))) }
    #expect(!peer.hasNext)
    give(&peer, frame(.data(6, wantsAcknowledgement: true)))
    #expect(take(&peer)?.kind == .acknowledge(6, count: 6))
  }
}
