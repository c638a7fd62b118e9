// Client and driver ends of the block interface work together, and each survives an other that lies.

import BlockInterface
import DriverVirtqueue
import Testing

/// `#require` for a value that cannot be copied.
func unwrap<T: ~Copyable>(_ value: consuming T?) throws -> T {
  guard let value else { throw Missing() }
  return value
}
struct Missing: Error {}

final class SharedMemory {
  let base: UnsafeMutableRawPointer
  let count: Int
  init(_ layout: BlockRingLayout) {
    count = layout.byteCount
    base = .allocate(byteCount: count, alignment: 4096)
    base.initializeMemory(as: UInt8.self, repeating: 0, count: count)
  }
  deinit { base.deallocate() }
  var ring: RingMemory { RingMemory(unsafeBase: base, byteCount: count, physical: 0) }
}

@Suite struct BlockRingsTests {
  @Test(arguments: [2, 4, 32])
  func requestsGoThereAndResultsComeBack(_ entries: Int) throws {
    let layout = try #require(BlockRingLayout(entries: entries))
    let memory = SharedMemory(layout)
    var client = try unwrap(BlockClientRings(memory: memory.ring, layout: layout))
    var driver = try unwrap(BlockDriverRings(memory: memory.ring, layout: layout))
    var sent: UInt32 = 0
    var received: UInt32 = 0
    while received < 1000 {
      while client.hasRoom {
        try client.submit(
          BlockRequest(
            operation: .write, sector: UInt64(sent) << 33, offset: UInt64(sent) << 9, length: sent, tag: sent))
        sent += 1
      }
      #expect(throws: BlockInterfaceError.full) {
        try client.submit(BlockRequest(operation: .read, sector: 0, offset: 0, length: 0, tag: 0))
      }
      var taken = 0
      while case .request(let request) = try driver.take() {
        let expected = received + UInt32(taken)
        #expect(
          request
            == BlockRequest(
              operation: .write, sector: UInt64(expected) << 33, offset: UInt64(expected) << 9, length: expected,
              tag: expected))
        taken += 1
        driver.complete(BlockResult(tag: request.tag, status: .success, bytes: request.length))
      }
      #expect(taken == entries && client.readyCount == entries)
      while let result = try client.nextResult() {
        #expect(result == BlockResult(tag: received, status: .success, bytes: received))
        received += 1
      }
    }
  }

  @Test func driverTakesNoMoreThanItCanAnswer() throws {
    let layout = try #require(BlockRingLayout(entries: 2))
    let memory = SharedMemory(layout)
    var driver = try unwrap(BlockDriverRings(memory: memory.ring, layout: layout))
    // A client that never takes its results but goes on submitting.
    memory.ring.store32(2, at: BlockRingLayout.submissionTail)
    _ = try driver.take()
    _ = try driver.take()
    driver.complete(BlockResult(tag: 0, status: .success, bytes: 0))
    memory.ring.store32(3, at: BlockRingLayout.submissionTail)
    guard case .none = try driver.take() else {
      Issue.record("took a request it has no room to answer")
      return
    }
    memory.ring.store32(1, at: BlockRingLayout.completionHead)
    guard case .request = try driver.take() else {
      Issue.record("took nothing although there is room")
      return
    }
  }

  @Test func lyingClientsAreTypedErrors() throws {
    let layout = try #require(BlockRingLayout(entries: 4))
    for (offset, value) in [(BlockRingLayout.submissionTail, UInt32(5)), (BlockRingLayout.submissionTail, .max)] {
      let memory = SharedMemory(layout)
      var driver = try unwrap(BlockDriverRings(memory: memory.ring, layout: layout))
      memory.ring.store32(value, at: offset)
      #expect(throws: BlockInterfaceError.badIndex) { _ = try driver.take() }
    }
    let memory = SharedMemory(layout)
    var driver = try unwrap(BlockDriverRings(memory: memory.ring, layout: layout))
    memory.ring.store32(1, at: BlockRingLayout.submissionTail)
    memory.ring.store32(9, at: BlockRingLayout.completionHead)
    #expect(throws: BlockInterfaceError.badIndex) { _ = try driver.take() }
    memory.ring.store32(0, at: BlockRingLayout.completionHead)
    memory.ring.store64(200, at: BlockRingLayout.submissions)
    guard case .invalid(let tag) = try driver.take() else {
      Issue.record("an unknown operation was accepted")
      return
    }
    #expect(tag == 0)
  }

  @Test func lyingDriversAreTypedErrors() throws {
    let layout = try #require(BlockRingLayout(entries: 4))
    let memory = SharedMemory(layout)
    var client = try unwrap(BlockClientRings(memory: memory.ring, layout: layout))
    memory.ring.store32(1, at: BlockRingLayout.completionTail)
    #expect(throws: BlockInterfaceError.badIndex) { _ = try client.nextResult() }
    try client.submit(BlockRequest(operation: .read, sector: 0, offset: 0, length: 512, tag: 0))
    memory.ring.store64(99 << 32, at: layout.completions)
    #expect(throws: BlockInterfaceError.badCompletion) { _ = try client.nextResult() }
  }
}

@Suite struct BlockGeometryTests {
  private var geometry: BlockGeometry {
    var geometry = BlockGeometry(sectors: 100, blockSize: 512, maximumTransfer: 8192)
    geometry.canFlush = true
    return geometry
  }

  @Test(arguments: [
    (BlockOperation.read, UInt64(0), UInt64(0), UInt32(512), nil),
    (.read, 99, 4096 - 512, 512, nil),
    (.write, 84, 0, 4096, nil),
    (.read, 99, 0, 1024, BlockStatus.outOfRange),
    (.read, 100, 0, 512, .outOfRange),
    (.read, .max, 0, 512, .outOfRange),
    (.read, 0, 0, 0, .invalid),
    (.read, 0, 0, 513, .invalid),
    (.read, 0, 1, 512, .invalid),
    (.read, 0, 4096, 512, .invalid),
    (.read, 0, .max - 511, 512, .invalid),
    (.read, 0, 0, 8192 + 512, .invalid),
    (.flush, 0, 0, 0, nil),
    (.flush, 0, 0, 512, .invalid),
    (.discard, 0, 0, 512, .unsupported),
  ])
  func checksRequests(
    _ operation: BlockOperation, _ sector: UInt64, _ offset: UInt64, _ length: UInt32, _ refusal: BlockStatus?
  ) {
    let request = BlockRequest(operation: operation, sector: sector, offset: offset, length: length, tag: 0)
    #expect(geometry.refusal(request, regionSize: 4096) == refusal)
  }

  @Test func readOnlyRefusesWritesOnly() {
    var geometry = geometry
    geometry.flags |= 1
    let write = BlockRequest(operation: .write, sector: 0, offset: 0, length: 512, tag: 0)
    #expect(geometry.refusal(write, regionSize: 4096) == .readOnly)
    let read = BlockRequest(operation: .read, sector: 0, offset: 0, length: 512, tag: 0)
    #expect(geometry.refusal(read, regionSize: 4096) == nil)
  }
}
