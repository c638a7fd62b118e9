// The driver's ring against a model device that follows virtio 1.2, and against one that does not.

import Testing

@testable import DriverVirtqueue

/// `#require` for a value that cannot be copied.
func unwrap<T: ~Copyable>(_ value: consuming T?) throws -> T {
  guard let value else { throw Missing() }
  return value
}
struct Missing: Error {}

/// Ring memory of a test; the "physical" addresses are offsets plus a base.
final class TestMemory {
  static let physicalBase: UInt64 = 0x10_0000
  let base: UnsafeMutableRawPointer
  let count: Int
  init(_ count: Int) {
    self.count = count
    base = .allocate(byteCount: count, alignment: 4096)
    base.initializeMemory(as: UInt8.self, repeating: 0xa5, count: count)
  }
  deinit { base.deallocate() }
  var ring: RingMemory { RingMemory(unsafeBase: base, byteCount: count, physical: Self.physicalBase) }
  func at<T: BitwiseCopyable>(_ physical: UInt64, as type: T.Type) -> T {
    base.loadUnaligned(fromByteOffset: Int(physical - Self.physicalBase), as: T.self)
  }
}

/// One descriptor as the device sees it.
struct SeenSegment: Equatable {
  var address: UInt64
  var length: UInt32
  var writable: Bool
}

/// A device that reads chains as §2.7.5–§2.7.8 say and uses them in an order of its choice.
struct ModelDevice {
  let memory: TestMemory
  let layout: QueueLayout
  var lastAvailable: UInt16 = 0
  var usedIndex: UInt16 = 0
  let usedRing: Int

  /// `used`: where the used ring lies, if not where the layout says.
  init(_ memory: TestMemory, _ layout: QueueLayout, used: Int? = nil) {
    self.memory = memory
    self.layout = layout
    usedRing = used ?? layout.used
  }

  mutating func nextChain() -> (head: UInt16, segments: [SeenSegment])? {
    let ring = memory.ring
    guard ring.load16(layout.available + 2) != lastAvailable else { return nil }
    let head = ring.load16(layout.available + 4 + Int(lastAvailable) % layout.size * 2)
    lastAvailable &+= 1
    var segments: [SeenSegment] = []
    func walk(_ table: UInt64, _ first: UInt16) {
      var index: UInt16? = first
      while let current = index {
        let at = table + UInt64(current) * 16
        let flags = memory.at(at + 12, as: UInt16.self)
        let address = memory.at(at, as: UInt64.self)
        let length = memory.at(at + 8, as: UInt32.self)
        if flags & 4 != 0 {
          #expect(length % 16 == 0)
          walk(address, 0)
          return
        }
        segments.append(SeenSegment(address: address, length: length, writable: flags & 2 != 0))
        index = flags & 1 != 0 ? memory.at(at + 14, as: UInt16.self) : nil
      }
    }
    walk(TestMemory.physicalBase, head)
    return (head, segments)
  }

  mutating func use(_ id: UInt32, written: UInt32) {
    let element = usedRing + 4 + Int(usedIndex) % layout.size * 8
    memory.ring.store32(id, at: element)
    memory.ring.store32(written, at: element + 4)
    usedIndex &+= 1
    memory.ring.store16(usedIndex, at: usedRing + 2)
  }
}

struct Random: RandomNumberGenerator {
  var state: UInt64
  mutating func next() -> UInt64 {
    state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
    return (state ^ state >> 29) &* 0xbf58_476d_1ce4_e5b9
  }
}

@Suite struct SplitQueueTests {
  /// Small rings of every kind, thousands of requests finished in random order: the device sees exactly the segments
  /// submitted, the driver gets every chain back once, and the indices wrap.
  @Test(arguments: [1, 2, 4, 8, 16], [true, false])
  func everyRequestArrivesAndReturnsOnce(_ size: Int, _ indirect: Bool) throws {
    for tableEntries in 1...4 where indirect || tableEntries <= size {
      let layout = try #require(QueueLayout(size: size, tableEntries: tableEntries))
      let memory = TestMemory(layout.byteCount)
      var queue = try unwrap(SplitQueue(memory: memory.ring, layout: layout, indirect: indirect, eventIndex: true))
      var device = ModelDevice(memory, layout)
      var random = Random(state: UInt64(size * 10 + tableEntries))
      var pending: [(head: UInt16, writable: UInt32)] = []
      var inFlight: Set<Int> = []
      var finished = 0
      while finished < 70_000 / 16 {
        if Bool.random(using: &random), queue.hasRoom {
          let count = Int.random(in: 1...tableEntries, using: &random)
          let segments = (0..<count).map {
            SeenSegment(address: UInt64($0 + finished) << 12, length: UInt32($0 + 1), writable: $0 == count - 1)
          }
          let slot = try queue.publish(count: count) {
            QueueSegment(
              address: segments[$0].address, length: segments[$0].length, deviceWrites: segments[$0].writable)
          }
          #expect(inFlight.insert(slot).inserted)
          let chain = try unwrap(device.nextChain())
          #expect(chain.segments == segments)
          pending.append((chain.head, UInt32(count)))
        } else if !pending.isEmpty {
          let chosen = pending.remove(at: Int.random(in: pending.indices, using: &random))
          device.use(UInt32(chosen.head), written: chosen.writable)
          let used = try unwrap(try queue.nextUsed())
          #expect(used.written == chosen.writable)
          #expect(inFlight.remove(used.slot) != nil)
          finished += 1
        }
        let seen1 = queue.inFlight
        #expect(seen1 == inFlight.count)
      }
      let seen2 = try queue.nextUsed()
      #expect(seen2 == nil || !pending.isEmpty)
    }
  }

  /// Every combination of event index and batch on a small window: the doorbell rings exactly when §2.7.10 says.
  @Test func doorbellFollowsTheEventIndex() throws {
    for batch in 1...4 {
      for event in 0...12 {
        let layout = try #require(QueueLayout(size: 4, tableEntries: 1))
        let memory = TestMemory(layout.byteCount)
        var queue = try unwrap(SplitQueue(memory: memory.ring, layout: layout, indirect: true, eventIndex: true))
        var device = ModelDevice(memory, layout)
        var published = 0
        for _ in 0..<3 {
          for _ in 0..<batch {
            _ = try queue.publish(count: 1) { _ in QueueSegment(address: 0, length: 1, deviceWrites: true) }
          }
          memory.ring.store16(UInt16(event), at: layout.used + 4 + layout.size * 8)
          // The device wants a doorbell when the entry number `event` is added.
          let seen3 = queue.needsNotification()
          #expect(seen3 == (event >= published && event < published + batch))
          let seen4 = queue.needsNotification()
          #expect(!seen4)
          published += batch
          while let chain = device.nextChain() { device.use(UInt32(chain.head), written: 1) }
          while try queue.nextUsed() != nil {}
        }
      }
    }
  }

  @Test func withoutEventIndexFlagsDecide() throws {
    let layout = try #require(QueueLayout(size: 2, tableEntries: 1))
    let memory = TestMemory(layout.byteCount)
    var queue = try unwrap(SplitQueue(memory: memory.ring, layout: layout, indirect: true, eventIndex: false))
    _ = try queue.publish(count: 1) { _ in QueueSegment(address: 0, length: 1, deviceWrites: true) }
    memory.ring.store16(1, at: layout.used)
    let seen5 = queue.needsNotification()
    #expect(!seen5)
    _ = try queue.publish(count: 1) { _ in QueueSegment(address: 0, length: 1, deviceWrites: true) }
    memory.ring.store16(0, at: layout.used)
    let seen6 = queue.needsNotification()
    #expect(seen6)
    queue.disarmInterrupt()
    #expect(memory.ring.load16(layout.available) == 1)
    let seen7 = queue.armInterrupt(after: 1)
    #expect(!seen7)
    #expect(memory.ring.load16(layout.available) == 0)
  }

  @Test func armingTellsOfCompletionsThatAreThereAlready() throws {
    let layout = try #require(QueueLayout(size: 4, tableEntries: 1))
    let memory = TestMemory(layout.byteCount)
    var queue = try unwrap(SplitQueue(memory: memory.ring, layout: layout, indirect: true, eventIndex: true))
    var device = ModelDevice(memory, layout)
    for _ in 0..<4 { _ = try queue.publish(count: 1) { _ in QueueSegment(address: 0, length: 1, deviceWrites: true) } }
    for expected in [false, false, false, true] {
      let seen8 = queue.armInterrupt(after: 3)
      #expect(seen8 == expected)
      #expect(memory.ring.load16(layout.available + 4 + layout.size * 2) == 2)
      if let chain = device.nextChain() { device.use(UInt32(chain.head), written: 0) }
    }
  }

  @Test func refusesWhatDoesNotFit() throws {
    #expect(QueueLayout(size: 3, tableEntries: 1) == nil)
    #expect(QueueLayout(size: 0, tableEntries: 1) == nil)
    let layout = try #require(QueueLayout(size: 2, tableEntries: 2))
    let memory = TestMemory(layout.byteCount)
    let refused9 = SplitQueue(memory: memory.ring.part(0, 64), layout: layout, indirect: true, eventIndex: true) == nil
    #expect(refused9)
    var queue = try unwrap(SplitQueue(memory: memory.ring, layout: layout, indirect: true, eventIndex: true))
    func submit(_ count: Int, _ length: UInt32) -> SubmitError? {
      do throws(SubmitError) {
        _ = try queue.publish(count: count) { _ in QueueSegment(address: 0, length: length, deviceWrites: true) }
        return nil
      } catch { return error }
    }
    #expect(submit(3, 1) == .badSegments)
    #expect(submit(0, 1) == .badSegments)
    #expect(submit(1, 0) == .badSegments)
    #expect(submit(1, 1) == nil)
    #expect(submit(1, 1) == nil)
    #expect(submit(1, 1) == .full)
  }

  @Test func hostileUsedElementsAreTypedErrors() throws {
    for indirect in [true, false] {
      let layout = try #require(QueueLayout(size: 4, tableEntries: 2))
      func fresh() throws -> (TestMemory, ModelDevice) {
        let memory = TestMemory(layout.byteCount)
        return (memory, ModelDevice(memory, layout))
      }
      func failure(_ id: UInt32, _ written: UInt32, moved: UInt16 = 1) throws -> QueueError? {
        var (memory, device) = try fresh()
        var queue = try unwrap(
          SplitQueue(memory: memory.ring, layout: layout, indirect: indirect, eventIndex: true))
        _ = try queue.publish(count: 1) { _ in QueueSegment(address: 0, length: 8, deviceWrites: true) }
        device.use(id, written: written)
        memory.ring.store16(moved, at: layout.used + 2)
        do throws(QueueError) {
          _ = try queue.nextUsed()
          return nil
        } catch { return error }
      }
      #expect(try failure(0, 8) == nil)
      #expect(try failure(0, 9) == .lengthTooLong(id: 0, length: 9))
      #expect(try failure(1, 0) == .unknownChain(id: 1))
      #expect(try failure(0xffff_ffff, 0) == .unknownChain(id: 0xffff_ffff))
      #expect(try failure(0, 0, moved: 2) == .usedIndexOutOfRange(used: 2, inFlight: 1))
      #expect(try failure(0, 0, moved: 0xffff) == .usedIndexOutOfRange(used: 0xffff, inFlight: 1))
    }
  }

  /// A device that writes random words anywhere in the used ring: never a trap, and never more chains than were sent.
  @Test func randomDeviceNeverTraps() throws {
    var random = Random(state: 7)
    var errors = 0
    for round in 0..<2000 {
      let layout = try #require(QueueLayout(size: 8, tableEntries: 2))
      let memory = TestMemory(layout.byteCount)
      var queue = try unwrap(
        SplitQueue(memory: memory.ring, layout: layout, indirect: round % 2 == 0, eventIndex: round % 3 == 0))
      var sent = 0
      var taken = 0
      do throws(QueueError) {
        for _ in 0..<50 {
          if queue.hasRoom {
            _ = try? queue.publish(count: 2) { QueueSegment(address: 0, length: 8, deviceWrites: $0 == 1) }
            sent += 1
          }
          let offset = layout.used + Int.random(in: 0..<(6 + 64) / 2, using: &random) * 2
          memory.ring.store16(UInt16.random(in: 0...10, using: &random), at: offset)
          _ = queue.needsNotification()
          _ = queue.armInterrupt(after: Int.random(in: 0...9, using: &random))
          while try queue.nextUsed() != nil { taken += 1 }
        }
      } catch { errors += 1 }
      #expect(taken <= sent)
    }
    #expect(errors > 100)
  }
}

@Suite struct BlockQueueTests {
  @Test func requestsHaveTheFormatOfTheSpecification() throws {
    let layout = try #require(BlockQueueLayout(size: 4, dataSegments: 3))
    let memory = TestMemory(layout.byteCount + layout.completionByteCount + 64)
    let completionPlace = (layout.byteCount + 63) & ~63
    var queue = try unwrap(
      BlockQueue(
        memory: memory.ring.part(0, layout.byteCount),
        completions: memory.ring.part(completionPlace, layout.completionByteCount), layout: layout,
        features: VirtioFeature.indirectDescriptors | VirtioFeature.eventIndex, segmentLimit: 4096))
    var device = ModelDevice(memory, layout.queue, used: completionPlace)

    try queue.submit(.read, sector: 77, address: 0x5000, length: 10_240, tag: 9)
    var chain = try unwrap(device.nextChain())
    #expect(chain.segments.map(\.writable) == [false, true, true, true, true])
    #expect(chain.segments.map(\.length) == [16, 4096, 4096, 2048, 1])
    #expect(chain.segments.map(\.address)[1...3] == [0x5000, 0x6000, 0x7000])
    #expect(memory.at(chain.segments[0].address, as: UInt32.self) == 0)
    #expect(memory.at(chain.segments[0].address + 8, as: UInt64.self) == 77)
    memory.ring.store8(0, at: Int(chain.segments[4].address - TestMemory.physicalBase))
    device.use(UInt32(chain.head), written: 10_241)
    let seen10 = try queue.nextCompletion()
    #expect(seen10 == BlockCompletion(tag: 9, status: 0, written: 10_240))

    try queue.submit(.discard, sector: 5, address: 0, length: 1024, tag: 1)
    chain = try unwrap(device.nextChain())
    #expect(chain.segments.map(\.length) == [16, 16, 1])
    #expect(memory.at(chain.segments[1].address, as: UInt64.self) == 5)
    #expect(memory.at(chain.segments[1].address + 8, as: UInt32.self) == 2)
    // The device forgets to write a status: an I/O error.
    device.use(UInt32(chain.head), written: 1)
    let seen11 = try queue.nextCompletion()
    #expect(seen11?.status == 1)

    try queue.submit(.flush, sector: 0, address: 0, length: 0, tag: 2)
    chain = try unwrap(device.nextChain())
    #expect(chain.segments.map(\.length) == [16, 1])
    #expect(memory.at(chain.segments[0].address, as: UInt32.self) == 4)
    #expect(throws: SubmitError.badSegments) {
      try queue.submit(.write, sector: 0, address: 0, length: 4096 * 3 + 512, tag: 3)
    }
  }
}
