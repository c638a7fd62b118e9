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
        // The tag on the wire is the interface's own; everything else arrives as sent, in order.
        let expected = received + UInt32(taken)
        #expect(request.operation == .write && request.length == expected)
        #expect(request.sector == UInt64(expected) << 33 && request.offset == UInt64(expected) << 9)
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

@Suite struct EarlyCompletionTests {
  /// A device that finishes requests in random order, a driver that repeats them late, and a client that watches the device:
  /// every request is delivered exactly once, with its own tag, whether early or late.
  @Test(arguments: [1 as UInt64, 2, 3, 4, 5, 6])
  func everyRequestIsDeliveredOnce(_ seed: UInt64) throws {
    let layout = try #require(BlockRingLayout(entries: 16))
    let memory = SharedMemory(layout)
    var client = try unwrap(BlockClientRings(memory: memory.ring, layout: layout))
    var driver = try unwrap(BlockDriverRings(memory: memory.ring, layout: layout))
    let queueSize = 8
    let statuses = BlockQueueLayout.statuses(queueSize: queueSize)
    let deviceBase = UnsafeMutableRawPointer.allocate(byteCount: statuses + queueSize, alignment: 64)
    defer { deviceBase.deallocate() }
    deviceBase.initializeMemory(as: UInt8.self, repeating: 0, count: statuses + queueSize)
    let device = RingMemory(unsafeBase: deviceBase, byteCount: statuses + queueSize, physical: 0)
    client.use(try unwrap(DeviceView(memory: device, queueSize: queueSize)))

    var random = SystemRandom(state: seed)
    var slots: [UInt32?] = Array(repeating: nil, count: queueSize)  // wire tag by slot
    var working: [Int] = []
    var usedIndex: UInt16 = 0
    var takenIndex: UInt16 = 0
    var sent: UInt32 = 0
    var delivered: Set<UInt32> = []
    var early = 0
    while delivered.count < 5000 {
      switch random.next(below: 5) {
      case 0:
        if client.hasRoom {
          try client.submit(BlockRequest(operation: .read, sector: 0, offset: 0, length: 512, tag: sent))
          sent += 1
        }
      case 1:
        guard let slot = slots.firstIndex(of: nil), case .request(let request) = try driver.take() else { continue }
        slots[slot] = request.tag
        device.store8(0xff, at: statuses + slot)
        driver.noteSlot(slot, tag: request.tag, usedIndex: takenIndex)
        working.append(slot)
      case 2:
        guard !working.isEmpty else { continue }
        let slot = working.remove(at: random.next(below: working.count))
        device.store8(0, at: statuses + slot)
        device.store32(UInt32(slot), at: 4 + Int(usedIndex) % queueSize * 8)
        usedIndex &+= 1
        device.store16(usedIndex, at: 2)
      case 3:
        // The driver takes one completion: the slot becomes free before the client may have looked.
        guard takenIndex != usedIndex, random.next(below: 3) == 0 else { continue }
        let slot = Int(device.load32(4 + Int(takenIndex) % queueSize * 8))
        takenIndex &+= 1
        driver.clearSlot(slot)
        if let tag = slots[slot] { driver.complete(BlockResult(tag: tag, status: .success, bytes: 512)) }
        slots[slot] = nil
      default:
        let before = client.earlyCount
        if let result = try client.nextResult() {
          #expect(result.status == .success && result.bytes == 512)
          #expect(result.tag < sent && delivered.insert(result.tag).inserted)
          if client.earlyCount > before { early += 1 }
        }
      }
    }
    #expect(early > 500)
  }
}

/// A small generator with a seed, so that a failure can be repeated.
struct SystemRandom {
  var state: UInt64
  mutating func next(below bound: Int) -> Int {
    state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
    return Int((state >> 33) % UInt64(bound))
  }
}

@Suite struct BlockGeometryTests {
  private var geometry: BlockGeometry {
    var geometry = BlockGeometry(sectors: 100, blockSize: 512, maximumTransfer: 8192)
    geometry.canFlush = true
    return geometry
  }

  /// Operation, sector, offset, length, and the refusal that is expected. The type is written out because inferring it
  /// takes the compiler minutes.
  private typealias RequestCase = (BlockOperation, UInt64, UInt64, UInt32, BlockStatus?)
  private static let requestCases: [RequestCase] = [
    (.read, 0, 0, 512, nil),
    (.read, 99, 4096 - 512, 512, nil),
    (.write, 84, 0, 4096, nil),
    (.read, 99, 0, 1024, .outOfRange),
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
  ]

  @Test(arguments: requestCases)
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
