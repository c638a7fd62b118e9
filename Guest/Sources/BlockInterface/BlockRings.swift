// The memory that a block client and a block driver share: a submission ring, a completion ring and a header page.
//
// Layout, little endian, offsets in bytes. Indices run freely and are taken modulo the number of entries.
//   0x000  client: submission tail (u32)          0x040  driver: submission head (u32)
//   0x080  driver: completion tail (u32)          0x0c0  client: completion head (u32)
//   0x100  driver: state (u32, `BlockDriverState`)
//   0x140  driver: counters, 64 bits each: doorbells, interrupts, polls that found nothing, requests, resets
//   0x1000 submission entries, 32 bytes: operation u8, 7 reserved, sector u64, region offset u64, length u32, tag u32
//   then   completion entries, 16 bytes: tag u32, status u32, bytes u32, reserved u32
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
}

/// What the driver is doing, for clients that would like to save a call.
public enum BlockDriverState {
  /// Only a call makes the driver look at the submission ring.
  public static let needsCall: UInt32 = 0
  /// The driver watches the submission ring: no call is needed while this stands.
  public static let polling: UInt32 = 1
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
  public static let state = 0x100
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
  /// Bytes of the whole, without rounding to pages.
  public var byteCount: Int { completions + entries * 16 }
}

/// The client's end of the rings.
public struct BlockClientRings: ~Copyable {
  private let memory: RingMemory
  private let layout: BlockRingLayout
  private var submissionTail: UInt32 = 0
  private var completionHead: UInt32 = 0
  /// Requests submitted and not yet taken back.
  public private(set) var inFlight = 0

  /// Rings in zeroed `memory`, which must be at least as long as the layout says.
  public init?(memory: RingMemory, layout: BlockRingLayout) {
    guard memory.byteCount >= layout.byteCount else { return nil }
    self.memory = memory
    self.layout = layout
  }

  public var hasRoom: Bool { inFlight < layout.entries }

  /// Puts a request into the submission ring; the driver sees it at its next look.
  public mutating func submit(_ request: BlockRequest) throws(BlockInterfaceError) {
    guard hasRoom else { throw .full }
    let entry = BlockRingLayout.submissions + Int(submissionTail) % layout.entries * 32
    memory.store64(UInt64(request.operation.rawValue), at: entry)
    memory.store64(request.sector, at: entry + 8)
    memory.store64(request.offset, at: entry + 16)
    memory.store64(UInt64(request.length) | UInt64(request.tag) << 32, at: entry + 24)
    submissionTail &+= 1
    inFlight += 1
    memory.store32(submissionTail, at: BlockRingLayout.submissionTail)
  }

  /// The next finished request, or nil; needs no call.
  public mutating func nextResult() throws(BlockInterfaceError) -> BlockResult? {
    let ready = memory.load32(BlockRingLayout.completionTail) &- completionHead
    guard ready != 0 else { return nil }
    guard Int(ready) <= inFlight else { throw .badIndex }
    let entry = layout.completions + Int(completionHead) % layout.entries * 16
    let first = memory.load64(entry)
    let bytes = memory.load32(entry + 8)
    guard let status = BlockStatus(rawValue: UInt32(first >> 32)) else { throw .badCompletion }
    completionHead &+= 1
    inFlight -= 1
    memory.store32(completionHead, at: BlockRingLayout.completionHead)
    return BlockResult(tag: UInt32(truncatingIfNeeded: first), status: status, bytes: bytes)
  }

  /// Results that wait in the ring.
  public var readyCount: Int { Int(memory.load32(BlockRingLayout.completionTail) &- completionHead) }

  /// Whether the driver will see submissions without a call. Ordered after the submission.
  public var driverIsPolling: Bool {
    RingMemory.fullFence()
    return memory.load32(BlockRingLayout.state) == BlockDriverState.polling
  }

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
    let entry = BlockRingLayout.submissions + Int(submissionHead) % layout.entries * 32
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
    let entry = layout.completions + Int(completionTail) % layout.entries * 16
    memory.store64(UInt64(result.tag) | UInt64(result.status.rawValue) << 32, at: entry)
    memory.store64(UInt64(result.bytes), at: entry + 8)
    completionTail &+= 1
    inFlight -= 1
    memory.store32(completionTail, at: BlockRingLayout.completionTail)
  }

  /// Completions that the client has not taken yet; more than the ring holds if the client lies.
  public var untaken: Int { Int(completionTail &- memory.load32(BlockRingLayout.completionHead)) }

  public func setState(_ state: UInt32) {
    memory.store32(state, at: BlockRingLayout.state)
    RingMemory.fullFence()
  }

  public func setCounter(_ counter: BlockCounter, _ value: UInt64) {
    memory.store64(value, at: BlockRingLayout.counters + counter.rawValue * 8)
  }
}
