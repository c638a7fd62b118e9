// The memory that a block client and a block driver share: a submission ring, a completion ring and a header page.
//
// Layout, little endian, offsets in bytes. Indices run freely and are taken modulo the number of entries.
//   0x000  client: submission tail (u32)          0x040  driver: submission head (u32)
//   0x080  driver: completion tail (u32)          0x0c0  client: completion head (u32)
//   0x140  driver: counters, 64 bits each: doorbells, interrupts, polls that found nothing, requests, resets
//   0x1000 submission entries, 32 bytes: operation u8, 7 reserved, sector u64, region offset u64, length u32, tag u32
//   then   completion entries, 16 bytes: tag u32, status u32, bytes u32, reserved u32
//   then   driver: slot table, 1024 entries of 64 bits: tag | used index << 32 | 1 << 48 while the slot of the device's queue
//          holds the request with this tag
//
// Early completions. A twin may show its clients the device's used ring and status bytes, read-only (`DeviceView`). A
// client then sees in the used ring that a request is over without anybody having been called or woken: the slot table
// says which request a used element means. An element at index i means the request in the table if i is not before the
// used index noted there, which is how far the driver had come when it gave the slot to the request. The completion
// ring has the last word: each request appears there too, later, and the client skips what it has seen already.
//
// Sectors are 512 bytes. The data of a request lies in the client's region, a second memory object that the client grants
// to the driver; requests name it by offset, so a driver checks two numbers and adds a base. Neither side believes what
// the other writes: every entry is copied out once and then checked.

import DriverVirtqueue

/// What a request asks for.
public enum BlockOperation: UInt8, Sendable {
  case read = 0
  case write = 1
  /// Everything completed before is on stable storage when this completes.
  case flush = 2
  case discard = 3
  case writeZeroes = 4
}

/// How a request ended.
public enum BlockStatus: UInt32, Sendable {
  case success = 0
  /// The device reported an I/O error.
  case inputOutputError = 1
  /// The device cannot do this operation.
  case unsupported = 2
  /// The request is malformed: unknown operation, not whole sectors, data outside the region.
  case invalid = 3
  /// Sectors beyond the end of the device.
  case outOfRange = 4
  /// The device is read-only.
  case readOnly = 5
  /// The device has failed and could not be brought back.
  case deviceLost = 6
  /// The device did not answer in time, and not after a reset either.
  case timedOut = 7
}

/// One request.
public struct BlockRequest: Equatable, Sendable {
  public var operation: BlockOperation
  /// First sector, in units of 512 bytes.
  public var sector: UInt64
  /// Where the data begins in the client's region, in bytes.
  public var offset: UInt64
  /// Length of the data in bytes, a multiple of 512; 0 for flush.
  public var length: UInt32
  /// Comes back with the completion.
  public var tag: UInt32

  public init(operation: BlockOperation, sector: UInt64, offset: UInt64, length: UInt32, tag: UInt32) {
    self.operation = operation
    self.sector = sector
    self.offset = offset
    self.length = length
    self.tag = tag
  }
}

/// One finished request.
public struct BlockResult: Equatable, Sendable {
  public var tag: UInt32
  public var status: BlockStatus
  /// Bytes of data transferred.
  public var bytes: UInt32

  public init(tag: UInt32, status: BlockStatus, bytes: UInt32) {
    self.tag = tag
    self.status = status
    self.bytes = bytes
  }
}

/// Why the other side cannot be worked with any more.
public enum BlockInterfaceError: Error, Equatable, Sendable {
  /// A ring index moved further than the ring is long.
  case badIndex
  /// A completion has an unknown status.
  case badCompletion
  /// The submission ring is full.
  case full
}

/// Counters that the driver keeps for its clients to see.
public enum BlockCounter: Int, Sendable {
  case doorbells = 0
  case interrupts = 1
  case emptyPolls = 2
  case requests = 3
  case resets = 4
}

/// Where things lie in the shared memory.
public struct BlockRingLayout: Equatable, Sendable {
  public static let submissionTail = 0x000
  public static let submissionHead = 0x040
  public static let completionTail = 0x080
  public static let completionHead = 0x0c0
  public static let counters = 0x140
  public static let submissions = 0x1000
  /// Entries of each ring, a power of two.
  public let entries: Int

  /// Rings of `entries` entries each: a power of two, 2...1024.
  public init?(entries: Int) {
    guard (2...1024).contains(entries), entries & (entries - 1) == 0 else { return nil }
    self.entries = entries
  }

  public var completions: Int { Self.submissions + entries * 32 }
  public var slots: Int { completions + entries * 16 }
  public static let slotCount = 1024
  /// Bytes of the whole, without rounding to pages.
  public var byteCount: Int { slots + Self.slotCount * 8 }
}

/// The device's used ring and status bytes as a client sees them, read-only.
public struct DeviceView {
  let memory: RingMemory
  let size: Int
  let statuses: Int
  /// Elements before this index have been looked at.
  var seen: UInt16

  /// The completion memory of a queue of `queueSize` entries (a power of two); nil if the memory is too short.
  public init?(memory: RingMemory, queueSize: Int) {
    guard queueSize > 0, queueSize <= BlockRingLayout.slotCount, queueSize & (queueSize - 1) == 0 else { return nil }
    statuses = BlockQueueLayout.statuses(queueSize: queueSize)
    guard memory.byteCount >= statuses + queueSize else { return nil }
    self.memory = memory
    size = queueSize
    seen = memory.load16(2)
  }
}

/// The client's end of the rings.
public struct BlockClientRings: ~Copyable {
  private let memory: RingMemory
  private let layout: BlockRingLayout
  private var submissionTail: UInt32 = 0
  private var completionHead: UInt32 = 0

  /// What is behind a tag on the wire: entry number in the low 16 bits, use of the entry above.
  private struct Entry {
    var use: UInt16 = 0
    var state = State.free
    var tag: UInt32 = 0
    var length: UInt32 = 0
    enum State { case free, inFlight, early }
  }
  private var table: [Entry] = []
  /// The first `freeCount` are the numbers of free entries.
  private var free: [UInt16] = []
  private var freeCount = 0
  private var view: DeviceView?

  /// Requests submitted whose results have not been taken.
  public private(set) var inFlight = 0
  /// Requests whose results have been taken early, so that the completion ring has yet to repeat them.
  public private(set) var earlyCount = 0

  /// Rings in zeroed `memory`, which must be at least as long as the layout says.
  public init?(memory: RingMemory, layout: BlockRingLayout) {
    guard memory.byteCount >= layout.byteCount else { return nil }
    self.memory = memory
    self.layout = layout
    for index in 0..<layout.entries {
      table.append(Entry())
      free.append(UInt16(index))
    }
    freeCount = layout.entries
  }

  /// From now on looks at the device's used ring too.
  public mutating func use(_ view: DeviceView) { self.view = view }
  public var seesDevice: Bool { view != nil }

  public var hasRoom: Bool { freeCount > 0 }

  /// Puts a request into the submission ring; the driver sees it at its next look.
  public mutating func submit(_ request: BlockRequest) throws(BlockInterfaceError) {
    guard freeCount > 0 else { throw .full }
    freeCount -= 1
    let index = Int(free[freeCount])
    let use = table[index].use &+ 1
    table[index] = Entry(use: use, state: .inFlight, tag: request.tag, length: request.length)
    let wireTag = UInt64(index) | UInt64(use) << 16
    let entry = BlockRingLayout.submissions + (Int(submissionTail) & (layout.entries - 1)) * 32
    memory.store64(UInt64(request.operation.rawValue), at: entry)
    memory.store64(request.sector, at: entry + 8)
    memory.store64(request.offset, at: entry + 16)
    memory.store64(UInt64(request.length) | wireTag << 32, at: entry + 24)
    submissionTail &+= 1
    inFlight += 1
    memory.store32(submissionTail, at: BlockRingLayout.submissionTail)
  }

  /// The next finished request, or nil; needs no call.
  public mutating func nextResult() throws(BlockInterfaceError) -> BlockResult? {
    while true {
      let ready = memory.load32(BlockRingLayout.completionTail) &- completionHead
      guard ready != 0 else { break }
      guard Int(ready) <= inFlight + earlyCount else { throw .badIndex }
      let entry = layout.completions + (Int(completionHead) & (layout.entries - 1)) * 16
      let first = memory.load64(entry)
      let bytes = memory.load32(entry + 8)
      guard let status = BlockStatus(rawValue: UInt32(first >> 32)), let index = index(of: first) else {
        throw .badCompletion
      }
      completionHead &+= 1
      memory.store32(completionHead, at: BlockRingLayout.completionHead)
      let done = table[index]
      table[index].state = .free
      free[freeCount] = UInt16(index)
      freeCount += 1
      if done.state == .early {
        earlyCount -= 1
        continue
      }
      inFlight -= 1
      return BlockResult(tag: done.tag, status: status, bytes: bytes)
    }
    return nextEarly()
  }

  /// The table entry of a tag on the wire that is in use; nil for any other.
  private func index(of tag: UInt64) -> Int? {
    let index = Int(tag & 0xffff)
    guard index < table.count, table[index].state != .free, table[index].use == UInt16(tag >> 16 & 0xffff) else {
      return nil
    }
    return index
  }

  /// The next result that only the device's used ring shows so far.
  private mutating func nextEarly() -> BlockResult? {
    guard let view else { return nil }
    let device = view.memory
    var seen = view.seen
    while true {
      let current = device.load16(2)
      var place = seen
      if current == place { return nil }
      // Further behind than the ring is long: what has been overwritten comes by the completion ring.
      if Int(current &- place) > view.size { place = current &- UInt16(view.size) }
      seen = place &+ 1
      self.view?.seen = seen
      let slot = device.load32(4 + (Int(place) & (view.size - 1)) * 8)
      guard slot < UInt32(view.size) else { continue }
      let noted = memory.load64(layout.slots + Int(slot) * 8)
      guard noted >> 48 & 1 != 0, place &- UInt16(noted >> 32 & 0xffff) < 0x8000, let index = index(of: noted),
        case let entry = table[index], entry.state == .inFlight
      else { continue }
      let status = device.load8(view.statuses + Int(slot))
      // Still the same request, and the element not overwritten meanwhile: then the status is this request's.
      guard memory.load64(layout.slots + Int(slot) * 8) == noted, Int(device.load16(2) &- place) <= view.size,
        status <= 2
      else { continue }
      table[index].state = .early
      inFlight -= 1
      earlyCount += 1
      let result: BlockStatus = status == 0 ? .success : status == 1 ? .inputOutputError : .unsupported
      return BlockResult(tag: entry.tag, status: result, bytes: status == 0 ? entry.length : 0)
    }
  }

  /// Results that wait in the completion ring.
  public var readyCount: Int { Int(memory.load32(BlockRingLayout.completionTail) &- completionHead) }

  /// Whether `nextResult` may find something; cheap.
  public var mayHaveResults: Bool {
    if readyCount > 0 { return true }
    guard let view else { return false }
    return view.memory.load16(2) != view.seen
  }

  /// Whether the driver has yet to take submissions.
  public var hasUntaken: Bool { memory.load32(BlockRingLayout.submissionHead) != submissionTail }

  public func counter(_ counter: BlockCounter) -> UInt64 {
    memory.load64(BlockRingLayout.counters + counter.rawValue * 8)
  }
}

/// The driver's end of one client's rings. What the client wrote is copied out once and then checked.
public struct BlockDriverRings: ~Copyable {
  private let memory: RingMemory
  private let layout: BlockRingLayout
  private var submissionHead: UInt32 = 0
  private var completionTail: UInt32 = 0
  /// Requests taken from the client and not yet answered.
  public private(set) var inFlight = 0

  public init?(memory: RingMemory, layout: BlockRingLayout) {
    guard memory.byteCount >= layout.byteCount else { return nil }
    self.memory = memory
    self.layout = layout
  }

  /// What stands at the head of the submission ring.
  public enum Taken {
    case none
    case request(BlockRequest)
    /// Malformed: to be answered with `invalid`.
    case invalid(tag: UInt32)
  }

  /// Takes the next request. Takes none while as many are unanswered or untaken by the client as the completion ring
  /// holds, so that `complete` always finds room.
  public mutating func take() throws(BlockInterfaceError) -> Taken {
    let waiting = memory.load32(BlockRingLayout.submissionTail) &- submissionHead
    guard waiting != 0 else { return .none }
    guard Int(waiting) <= layout.entries else { throw .badIndex }
    let untaken = completionTail &- memory.load32(BlockRingLayout.completionHead)
    guard Int(untaken) <= layout.entries else { throw .badIndex }
    guard inFlight + Int(untaken) < layout.entries else { return .none }
    let entry = BlockRingLayout.submissions + (Int(submissionHead) & (layout.entries - 1)) * 32
    let operation = UInt8(truncatingIfNeeded: memory.load64(entry))
    let sector = memory.load64(entry + 8)
    let offset = memory.load64(entry + 16)
    let last = memory.load64(entry + 24)
    submissionHead &+= 1
    inFlight += 1
    memory.store32(submissionHead, at: BlockRingLayout.submissionHead)
    let tag = UInt32(last >> 32)
    guard let operation = BlockOperation(rawValue: operation) else { return .invalid(tag: tag) }
    return .request(
      BlockRequest(
        operation: operation, sector: sector, offset: offset, length: UInt32(truncatingIfNeeded: last), tag: tag))
  }

  /// Whether `take` would look at something.
  public var hasSubmissions: Bool { memory.load32(BlockRingLayout.submissionTail) != submissionHead }

  /// Answers one of the requests taken.
  public mutating func complete(_ result: BlockResult) {
    precondition(inFlight > 0)
    let entry = layout.completions + (Int(completionTail) & (layout.entries - 1)) * 16
    memory.store64(UInt64(result.tag) | UInt64(result.status.rawValue) << 32, at: entry)
    memory.store64(UInt64(result.bytes), at: entry + 8)
    completionTail &+= 1
    inFlight -= 1
    memory.store32(completionTail, at: BlockRingLayout.completionTail)
  }

  /// Notes that the device's slot holds the request with `tag`, submitted when completions up to `usedIndex` were taken.
  public func noteSlot(_ slot: Int, tag: UInt32, usedIndex: UInt16) {
    guard (0..<BlockRingLayout.slotCount).contains(slot) else { return }
    memory.store64(UInt64(tag) | UInt64(usedIndex) << 32 | 1 << 48, at: layout.slots + slot * 8)
  }

  /// The slot holds no request of this client any more: before it is given to another.
  public func clearSlot(_ slot: Int) {
    guard (0..<BlockRingLayout.slotCount).contains(slot) else { return }
    memory.store64(0, at: layout.slots + slot * 8)
  }

  /// Completions that the client has not taken yet; more than the ring holds if the client lies.
  public var untaken: Int { Int(completionTail &- memory.load32(BlockRingLayout.completionHead)) }

  public func setCounter(_ counter: BlockCounter, _ value: UInt64) {
    memory.store64(value, at: BlockRingLayout.counters + counter.rawValue * 8)
  }
}
