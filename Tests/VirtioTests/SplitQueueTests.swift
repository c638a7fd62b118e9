import Glibc
import GuestMemory
import Testing

@testable import Virtio

/// A pseudo-random generator with a seed, so that a failing case can be run again.
struct SeededGenerator: RandomNumberGenerator {
  var state: UInt64
  mutating func next() -> UInt64 {
    state &+= 0x9e37_79b9_7f4a_7c15
    var z = state
    z = (z ^ (z >> 30)) &* 0xbf58_476d_1ce4_e5b9
    z = (z ^ (z >> 27)) &* 0x94d0_49bb_1331_11eb
    return z ^ (z >> 31)
  }
}

private func testMemory(_ count: UInt64 = 0x20000) throws -> GuestMemory {
  try GuestMemory(ranges: [0..<count], hugePages: false)
}

@Suite struct SplitQueueTests {
  @Test func chainArrivesWithItsBuffersInOrder() throws {
    let memory = try testMemory()
    let driver = TestDriver(memory: memory, size: 8)
    let queue = try SplitQueue(memory: memory, layout: driver.layout, features: [])
    let (a, b, c) = (driver.allocate(16), driver.allocate(100), driver.allocate(512))
    try memory.write(bytes: Array(1...16), at: a)
    let head = try #require(try driver.add(readable: [(a, 16), (b, 100)], writable: [(c, 512)]))
    var chain = DescriptorChain()
    #expect(try !queue.pop(into: &chain))
    try driver.publish()
    #expect(try queue.pop(into: &chain))
    #expect(chain.head == head)
    #expect(chain.readableCount == 116)
    #expect(chain.writableCount == 512)
    let value = chain.takeReadable(UInt32.self)
    #expect(value == 0x0403_0201)
    #expect(chain.readable.map(\.iov_len) == [12, 100])
    let last = chain.takeLastWritableByte()
    let status = try #require(last)
    status.pointee = 7
    #expect(try memory.read(UInt8.self, at: GuestAddress(c.rawValue + 511)) == 7)
    let put = [9, 8].withUnsafeBytes { chain.putWritable($0) }
    #expect(put == 16)
    #expect(chain.writable.map(\.iov_len) == [495])
    #expect(chain.readable.map(\.iov_len) == [12, 100])
    #expect(try driver.takeUsed() == nil)
    queue.push(head: chain.head, written: 17)
    #expect(try driver.takeUsed() == nil)
    #expect(queue.publish() == .needed)
    let used = try #require(try driver.takeUsed())
    #expect(used.head == head && used.written == 17)
    #expect(queue.publish() == .nothingPublished)
  }

  @Test func directDescriptorsMayEndInAnIndirectTable() throws {
    let memory = try testMemory()
    let driver = TestDriver(memory: memory, size: 4)
    let queue = try SplitQueue(memory: memory, layout: driver.layout, features: [.indirect])
    // An unaligned table is legal.
    let table: UInt64 = 0x8003
    try driver.set(0, TestDescriptor(address: 0x4000, length: 16, flags: TestDescriptor.next, next: 1))
    // The writable flag of a descriptor that names a table is to be ignored (§2.7.5.3.2).
    try driver.set(
      1, TestDescriptor(address: table, length: 32, flags: TestDescriptor.indirect | TestDescriptor.writable))
    try driver.write(
      TestDescriptor(address: 0x5000, length: 8, flags: TestDescriptor.next, next: 1), at: table)
    try driver.write(TestDescriptor(address: 0x6000, length: 1, flags: TestDescriptor.writable), at: table + 16)
    try driver.offer(head: 0)
    try driver.publish()
    var chain = DescriptorChain(capacity: 1)
    #expect(try queue.pop(into: &chain))
    #expect(chain.readable.map(\.iov_len) == [16, 8])
    #expect(chain.writable.map(\.iov_len) == [1])
  }

  @Test func ringsWrapAroundSixteenBits() throws {
    let memory = try testMemory(0x100000)
    let driver = TestDriver(memory: memory, size: 4, eventIndex: true)
    let queue = try SplitQueue(memory: memory, layout: driver.layout, features: [.eventIndex])
    let buffer = driver.allocate(64)
    var chain = DescriptorChain()
    for round in 0..<70_000 {
      guard try driver.add(writable: [(buffer, 64)]) != nil else {
        Issue.record("ring full in round \(round)")
        return
      }
      let rung = try driver.publish()
      guard try queue.pop(into: &chain) else {
        Issue.record("nothing to take in round \(round)")
        return
      }
      queue.push(head: chain.head, written: UInt32(round))
      let notification = queue.publish()
      let asked = queue.requestDoorbell()
      let used = try driver.takeUsed()
      if used?.written != UInt32(round) || !rung || notification != .needed || asked {
        Issue.record("round \(round): \(String(describing: used)) \(rung) \(notification) \(asked)")
        return
      }
    }
  }

  @Test func eventIndexAsksForExactlyTheWantedInterrupt() throws {
    let memory = try testMemory()
    // All positions of used_event against all batch sizes of a ring of eight, from a start just before the wrap.
    for wanted in 0..<8 as Range<UInt16> {
      for batch in 1...8 as ClosedRange<UInt16> {
        let driver = TestDriver(memory: memory, size: 8, eventIndex: true)
        driver.reset()
        let queue = try SplitQueue(memory: memory, layout: driver.layout, features: [.eventIndex])
        var chain = DescriptorChain()
        for _ in 0..<batch {
          _ = try driver.add(writable: [(GuestAddress(0x4000), 8)])
          try driver.publish()
          #expect(try queue.pop(into: &chain))
          queue.push(head: chain.head, written: 0)
        }
        try driver.setUsedEvent(wanted)
        #expect(queue.publish() == (wanted < batch ? .needed : .suppressed))
      }
    }
  }

  @Test func withoutEventIndexTheFlagsSuppressBothDirections() throws {
    let memory = try testMemory()
    let driver = TestDriver(memory: memory, size: 4)
    let queue = try SplitQueue(memory: memory, layout: driver.layout, features: [])
    var chain = DescriptorChain()
    queue.suppressDoorbells()
    _ = try driver.add(writable: [(GuestAddress(0x4000), 8)])
    #expect(try !driver.publish())
    #expect(queue.requestDoorbell())
    #expect(try queue.pop(into: &chain))
    try driver.setInterruptsSuppressed(true)
    queue.push(head: chain.head, written: 0)
    #expect(queue.publish() == .suppressed)
    _ = try driver.add(writable: [(GuestAddress(0x4000), 8)])
    #expect(try driver.publish())
  }

  @Test func doorbellIsRungForTheNextChainWhenSomeWereLeftInTheRing() throws {
    let memory = try testMemory()
    let driver = TestDriver(memory: memory, size: 8, eventIndex: true)
    let queue = try SplitQueue(memory: memory, layout: driver.layout, features: [.eventIndex])
    for _ in 0..<2 { _ = try driver.add(writable: [(GuestAddress(0x4000), 8)]) }
    try driver.publish()
    // Not enough for the device: it takes none, and wants to hear of more.
    #expect(queue.requestDoorbell())
    for _ in 0..<2 {
      _ = try driver.add(writable: [(GuestAddress(0x4000), 8)])
      #expect(try driver.publish())
      #expect(queue.requestDoorbell())
    }
  }

  @Test func chainsPutBackComeAgain() throws {
    let memory = try testMemory()
    let driver = TestDriver(memory: memory, size: 4)
    let queue = try SplitQueue(memory: memory, layout: driver.layout, features: [])
    var chain = DescriptorChain()
    var heads: [UInt16] = []
    for _ in 0..<3 { heads.append(try #require(try driver.add(writable: [(GuestAddress(0x4000), 8)]))) }
    try driver.publish()
    for _ in 0..<3 { #expect(try queue.pop(into: &chain)) }
    queue.putBack(2)
    #expect(queue.outstanding == 1)
    #expect(try queue.pop(into: &chain))
    #expect(chain.head == heads[1])
  }

  @Test(arguments: [0, 3, 6, 65535] as [UInt16])
  func sizeThatIsNoPowerOfTwoIsRefused(size: UInt16) throws {
    let memory = try testMemory()
    let layout = QueueLayout(
      size: size, descriptorTable: GuestAddress(0), driverArea: GuestAddress(0x1000), deviceArea: GuestAddress(0x2000))
    #expect(throws: QueueError.invalidSize(size)) {
      try SplitQueue(memory: memory, layout: layout, features: [])
    }
  }

  @Test(arguments: [
    (0x1fff0, 0x1000, 0x2000), (0, 0x1fff8, 0x2000), (0, 0x1000, 0x1ffe0), (8, 0x1000, 0x2000), (0, 0x1001, 0x2000),
    (0, 0x1000, 0x2002), (UInt64.max - 15, 0x1000, 0x2000),
  ])
  func areaOutsideMemoryOrMisalignedIsRefused(areas: (UInt64, UInt64, UInt64)) throws {
    let memory = try testMemory()
    let layout = QueueLayout(
      size: 8, descriptorTable: GuestAddress(areas.0), driverArea: GuestAddress(areas.1),
      deviceArea: GuestAddress(areas.2))
    #expect(throws: QueueError.self) { try SplitQueue(memory: memory, layout: layout, features: []) }
  }

  @Test func availableIndexBeyondOneRingIsRefused() throws {
    let memory = try testMemory()
    for index in UInt16.min...UInt16.max where index > 8 {
      try memory.write(index, at: GuestAddress(0x1002))
      let layout = QueueLayout(
        size: 8, descriptorTable: GuestAddress(0), driverArea: GuestAddress(0x1000), deviceArea: GuestAddress(0x2000))
      let queue = try SplitQueue(memory: memory, layout: layout, features: [])
      var chain = DescriptorChain()
      do throws(QueueError) {
        _ = try queue.pop(into: &chain)
        Issue.record("index \(index) was accepted")
      } catch {
        if error != .availableIndexTooFar(available: index, seen: 0) { Issue.record("\(error)") }
      }
    }
  }

  @Test func headOfferedTwiceCannotOutgrowTheRing() throws {
    let memory = try testMemory()
    let driver = TestDriver(memory: memory, size: 4)
    let queue = try SplitQueue(memory: memory, layout: driver.layout, features: [])
    try driver.set(0, TestDescriptor(address: 0x4000, length: 8))
    var chain = DescriptorChain()
    for _ in 0..<4 {
      try driver.offer(head: 0)
      try driver.publish()
      #expect(try queue.pop(into: &chain))
    }
    try driver.offer(head: 0)
    try driver.publish()
    #expect(throws: QueueError.tooManyOutstanding) { _ = try queue.pop(into: &chain) }
  }

  // MARK: Every small ring

  /// What a chain should give, computed the slow way from the specification's text.
  private enum Expected: Equatable {
    case refused
    case buffers([[UInt64]])
  }

  private func reference(_ ring: [TestDescriptor], head: Int, memoryCount: UInt64, indirect: Bool) -> Expected {
    var table = ring
    var index = head
    var seen: Set<Int> = []
    var result: [[UInt64]] = []
    var nested = false
    var writableSeen = false
    while true {
      guard table.indices.contains(index), seen.insert(index).inserted else { return .refused }
      let entry = table[index]
      if entry.flags & TestDescriptor.indirect != 0 {
        // The only table in these rings is the ring itself, read as an indirect table of two entries at address 0.
        // An indirect table elsewhere is zero: a first descriptor of no bytes.
        guard indirect, !nested, entry.flags & TestDescriptor.next == 0, entry.length == 32 || entry.length == 16,
          entry.address == 0
        else { return .refused }
        nested = true
        table = Array(ring.prefix(Int(entry.length / 16)))
        index = 0
        seen = []
        continue
      }
      let writable = entry.flags & TestDescriptor.writable != 0
      let (end, overflow) = entry.address.addingReportingOverflow(UInt64(entry.length))
      guard entry.length > 0, !overflow, end <= memoryCount, writable || !writableSeen else { return .refused }
      writableSeen = writable
      result.append([entry.address, UInt64(entry.length), writable ? 1 : 0])
      guard entry.flags & TestDescriptor.next != 0 else { return .buffers(result) }
      index = Int(entry.next)
    }
  }

  @Test(arguments: [false, true])
  func everyRingOfTwoDescriptorsGivesItsBuffersOrATypedError(indirect: Bool) throws {
    let count: UInt64 = 0x4000
    let memory = try GuestMemory(ranges: [0..<count], hugePages: false)
    let host = UInt64(UInt(bitPattern: try memory.buffer(at: GuestAddress(0), count: 1).baseAddress))
    let driver = TestDriver(memory: memory, size: 2)
    var choices: [TestDescriptor] = []
    for (address, length) in [(0, 16), (0, 32), (0, 0), (0x2000, 32), (count - 16, 16), (count - 16, 17)]
      as [(UInt64, UInt32)]
    {
      for flags in 0..<8 as Range<UInt16> {
        for next in 0..<3 as Range<UInt16> {
          choices.append(TestDescriptor(address: address, length: length, flags: flags, next: next))
        }
      }
    }
    choices.append(TestDescriptor(address: .max, length: .max))
    choices.append(TestDescriptor(address: .max - 15, length: 16, flags: TestDescriptor.indirect))
    try memory.write(UInt16(1), at: GuestAddress(driver.layout.driverArea.rawValue + 2))
    var chain = DescriptorChain()
    var accepted = 0
    for first in choices {
      try driver.set(0, first)
      for second in choices {
        try driver.set(1, second)
        for head in 0..<3 as Range<UInt16> {
          try memory.write(head, at: GuestAddress(driver.layout.driverArea.rawValue + 4))
          let queue = try SplitQueue(memory: memory, layout: driver.layout, features: indirect ? [.indirect] : [])
          var got = Expected.refused
          do throws(QueueError) {
            if try queue.pop(into: &chain) {
              got = .buffers(
                chain.readable.map { [UInt64(UInt(bitPattern: $0.iov_base)) - host, UInt64($0.iov_len), 0] }
                  + chain.writable.map { [UInt64(UInt(bitPattern: $0.iov_base)) - host, UInt64($0.iov_len), 1] })
              accepted += 1
            }
          } catch {}
          let expected = reference([first, second], head: Int(head), memoryCount: count, indirect: indirect)
          if got != expected { Issue.record("\(first) \(second) head \(head): \(got), expected \(expected)") }
        }
      }
    }
    #expect(accepted > 1000)
  }

  // MARK: A driver that writes anything

  @Test(arguments: 0..<8 as Range<UInt64>)
  func randomDriverNeverReachesBeyondMemory(seed: UInt64) throws {
    var random = SeededGenerator(state: seed)
    let count: UInt64 = 0x3000
    let memory = try GuestMemory(ranges: [0..<count], hugePages: false)
    let bytes = try memory.buffer(at: GuestAddress(0), count: count)
    let low = UInt(bitPattern: bytes.baseAddress)
    var chain = DescriptorChain()
    var taken = 0
    var refused = 0
    for _ in 0..<400 {
      for word in 0..<Int(count / 8) {
        // Mostly small numbers, so that many chains are nearly right.
        let value: UInt64 =
          switch random.next() % 4 {
          case 0: random.next()
          case 1: random.next() % count
          case 2: 0x0003_0002_0001_0000 &+ random.next() % 8
          default: (random.next() % 64) | (random.next() % 8) << 32 | (random.next() % 16) << 48
          }
        bytes.storeBytes(of: value, toByteOffset: word * 8, as: UInt64.self)
      }
      let layout = QueueLayout(
        size: UInt16(1) << (random.next() % 7), descriptorTable: GuestAddress(random.next() % count & ~15),
        driverArea: GuestAddress(random.next() % count & ~1), deviceArea: GuestAddress(random.next() % count & ~3))
      guard
        let queue = try? SplitQueue(
          memory: memory, layout: layout, features: random.next() % 2 == 0 ? [] : [.indirect, .eventIndex])
      else { continue }
      for index in 0..<layout.size {
        let descriptor = layout.descriptorTable.rawValue + 16 * UInt64(index)
        guard random.next() % 8 != 0 else { continue }
        try? memory.write(random.next() % (count + 8), at: GuestAddress(descriptor))
        try? memory.write(UInt32(truncatingIfNeeded: random.next() % 64), at: GuestAddress(descriptor + 8))
      }
      for _ in 0..<64 {
        let ahead = UInt16(truncatingIfNeeded: random.next() % UInt64(layout.size + 1))
        try? memory.write(queue.indices.next &+ ahead, at: GuestAddress(layout.driverArea.rawValue + 2))
        do throws(QueueError) {
          guard try queue.pop(into: &chain) else { continue }
          taken += 1
          for segment in Array(chain.readable) + Array(chain.writable) {
            let start = UInt(bitPattern: segment.iov_base)
            if start < low || start + UInt(segment.iov_len) > low + UInt(count) { Issue.record("outside memory") }
          }
          _ = chain.takeReadable(UInt64.self)
          if let status = chain.takeLastWritableByte() { status.pointee = 1 }
          if random.next() % 2 == 0 { queue.push(head: chain.head, written: 1) }
          _ = queue.publish()
          _ = queue.requestDoorbell()
        } catch {
          refused += 1
        }
      }
    }
    #expect(refused > 1000)
    #expect(taken > 100)
  }
}
