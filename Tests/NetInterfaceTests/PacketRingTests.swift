import DriverVirtqueue
import NetInterface
import Testing

@Suite struct PacketRingTests {
  /// Zeroed memory that both ends see.
  private final class Shared {
    let bytes: UnsafeMutableRawPointer
    let memory: RingMemory
    init(_ count: Int) {
      bytes = .allocate(byteCount: count, alignment: 64)
      bytes.initializeMemory(as: UInt8.self, repeating: 0, count: count)
      memory = RingMemory(unsafeBase: bytes, byteCount: count, physical: 0)
    }
    deinit { bytes.deallocate() }
  }

  private func ends(
    receive: Int = 8, transmit: Int = 4
  ) throws -> (Shared, PacketClientRings, PacketDriverRings) {
    let layout = try #require(PacketRingLayout(receive: receive, transmit: transmit))
    let shared = Shared(layout.byteCount)
    return (
      shared, try #require(PacketClientRings(memory: shared.memory, layout: layout)),
      try #require(PacketDriverRings(memory: shared.memory, layout: layout))
    )
  }

  @Test func layoutsNeedPowersOfTwo() {
    #expect(PacketRingLayout(receive: 3, transmit: 4) == nil)
    #expect(PacketRingLayout(receive: 4, transmit: 2048) == nil)
    #expect(PacketRingLayout(receive: 1, transmit: 4) == nil)
    #expect(PacketRingLayout(receive: 1024, transmit: 2) != nil)
  }

  @Test func memoryThatIsTooShortIsRefused() throws {
    let layout = try #require(PacketRingLayout(receive: 8, transmit: 8))
    let shared = Shared(layout.byteCount - 16)
    #expect(PacketClientRings(memory: shared.memory, layout: layout) == nil)
    #expect(PacketDriverRings(memory: shared.memory, layout: layout) == nil)
  }

  @Test func whatGoesInComesOutInOrderAroundTheRings() throws {
    var (shared, client, driver) = try ends()
    for round in UInt32(0)..<50 {
      for part in UInt32(0)..<3 {
        client.submit(PacketEntry(offset: round, length: part + 1, tag: 10 * round + part))
        client.post(PacketEntry(offset: 7 * round, length: 2048, tag: part))
      }
      #expect(client.hasUntaken && driver.hasSubmissions)
      for part in UInt32(0)..<3 {
        let submitted = try #require(try driver.nextSubmission())
        #expect(submitted == PacketEntry(offset: round, length: part + 1, tag: 10 * round + part))
        driver.complete(sent: submitted)
        let posted = try #require(try driver.nextPost())
        #expect(posted == PacketEntry(offset: 7 * round, length: 2048, tag: part))
        driver.complete(received: PacketEntry(length: round, tag: posted.tag))
      }
      #expect(try driver.nextSubmission() == nil)
      #expect(driver.untakenSent == 3 && client.receivedCount == 3)
      for part in UInt32(0)..<3 {
        #expect(try client.nextSent()?.tag == 10 * round + part)
        #expect(try client.nextReceived() == PacketEntry(length: round, tag: part))
      }
      #expect(!client.hasUntaken && driver.untakenReceived == 0)
    }
    _ = shared
  }

  @Test func linkAndCountersAreShown() throws {
    let (shared, client, driver) = try ends()
    let link = NetLink(address: 0x5254_0012_3456, mtu: 9000, isUp: true)
    driver.show(link)
    driver.setCounter(.withoutBuffer, 17)
    #expect(client.link == link)
    #expect(client.counter(.withoutBuffer) == 17)
    _ = shared
  }

  /// An index that a peer cannot have reached is an error, not a walk through memory.
  @Test func indicesThatCannotBeAreRefused() throws {
    var (shared, client, driver) = try ends()
    shared.memory.store32(5, at: 0x000)
    #expect(throws: PacketRingError.badIndex) { try driver.nextSubmission() }
    shared.memory.store32(9, at: 0x100)
    #expect(throws: PacketRingError.badIndex) { try driver.nextPost() }
    shared.memory.store32(0x8000_0000, at: 0x180)
    #expect(throws: PacketRingError.badIndex) { try client.nextReceived() }
  }
}
