// The virtio block request format on a split queue, driver's side: virtio 1.2 §5.2.6.

/// Feature bits that this driver knows (§5.2.3, §6).
public enum VirtioFeature {
  public static let sizeMaximum: UInt64 = 1 << 1
  public static let segmentMaximum: UInt64 = 1 << 2
  public static let readOnly: UInt64 = 1 << 5
  public static let blockSize: UInt64 = 1 << 6
  public static let flush: UInt64 = 1 << 9
  public static let topology: UInt64 = 1 << 10
  public static let multiQueue: UInt64 = 1 << 12
  public static let discard: UInt64 = 1 << 13
  public static let writeZeroes: UInt64 = 1 << 14
  public static let indirectDescriptors: UInt64 = 1 << 28
  public static let eventIndex: UInt64 = 1 << 29
  public static let version1: UInt64 = 1 << 32
  public static let ringReset: UInt64 = 1 << 40
}

/// A block request's type field.
public enum BlockRequestType: UInt32, Sendable {
  case read = 0
  case write = 1
  case flush = 4
  case getIdentity = 8
  case discard = 11
  case writeZeroes = 13
}

/// A finished block request.
public struct BlockCompletion: Equatable, Sendable {
  /// What `submit` was given.
  public let tag: UInt64
  /// VIRTIO_BLK_S_: 0 OK, 1 I/O error, 2 unsupported; a device that wrote no status counts as an I/O error.
  public let status: UInt8
  /// Data bytes that the device wrote to memory.
  public let written: UInt32
}

/// Memory of a block queue: the virtqueue with the slots' request headers, and apart from it what the device writes: used
/// ring and status bytes. The second part names no addresses or sectors, so clients may be shown it read-only. Where somebody else made
/// the rings, tables and headers lie in a third part, the work memory.
public struct BlockQueueLayout {
  public let queue: QueueLayout
  /// Offset of the slots' headers: 16 bytes header, 16 bytes range (discard), padding; 64 bytes each.
  public let headers: Int
  public let byteCount: Int
  /// The same in work memory, which begins with the tables.
  public var workHeaders: Int { (queue.tablesByteCount + 63) & ~63 }
  public var workByteCount: Int { workHeaders + queue.size * 64 }
  /// The completion memory: used ring, then from here one status byte a slot.
  public var statuses: Int { Self.statuses(queueSize: queue.size) }
  public var completionByteCount: Int { statuses + queue.size }

  /// Offset of the status bytes in the completion memory of a queue of this size.
  public static func statuses(queueSize: Int) -> Int { (6 + queueSize * 8 + 63) & ~63 }

  /// `dataSegments` is how many pieces the data of one request may have.
  public init?(size: Int, dataSegments: Int) {
    guard let queue = QueueLayout(size: size, tableEntries: dataSegments + 2) else { return nil }
    self.queue = queue
    headers = (queue.byteCount + 63) & ~63
    byteCount = headers + size * 64
  }
}

/// A virtio-blk request queue. Data is not copied: the device reads and writes the physical range that `submit` gives.
public struct BlockQueue: ~Copyable {
  private var queue: SplitQueue
  private let memory: RingMemory
  private let completions: RingMemory
  /// Where the headers are, and where they begin in it.
  private let headerMemory: RingMemory
  private let headers: Int
  private let layout: BlockQueueLayout
  /// Data segments of the read or write that each slot's table is made for; 0: another kind of request, or none yet.
  private var shapes: [UInt8]
  private let canRepeat: Bool
  /// The longest data segment that the device takes, in bytes (SIZE_MAX).
  private let segmentLimit: UInt32

  /// A queue in `memory` and `completions`, both as long as the layout says; the rings in them are cleared. With `work` memory, `memory`
  /// holds descriptor table and available ring alone.
  public init?(
    memory: RingMemory, completions: RingMemory, work: RingMemory? = nil, layout: BlockQueueLayout, features: UInt64,
    segmentLimit: UInt32
  ) {
    guard memory.byteCount >= (work == nil ? layout.byteCount : layout.queue.ringByteCount),
      completions.byteCount >= layout.completionByteCount, (work?.byteCount ?? .max) >= layout.workByteCount,
      segmentLimit >= 512,
      let queue = SplitQueue(
        memory: memory, usedMemory: completions, tableMemory: work, layout: layout.queue,
        indirect: features & VirtioFeature.indirectDescriptors != 0,
        eventIndex: features & VirtioFeature.eventIndex != 0)
    else { return nil }
    self.queue = queue
    self.memory = memory
    self.completions = completions
    headerMemory = work ?? memory
    headers = work == nil ? layout.headers : layout.workHeaders
    self.layout = layout
    self.segmentLimit = segmentLimit
    shapes = [UInt8](repeating: 0, count: layout.queue.size)
    canRepeat = features & VirtioFeature.indirectDescriptors != 0
  }

  public var addresses: (descriptors: UInt64, available: UInt64, used: UInt64) { queue.addresses }
  public var inFlight: Int { queue.inFlight }
  public var hasRoom: Bool { queue.hasRoom }
  public var slotCount: Int { queue.slotCount }
  public var hasUsed: Bool { queue.hasUsed }

  /// The used index up to which completions have been taken.
  public var takenIndex: UInt16 { queue.takenIndex }

  /// The longest data that one request can carry, in bytes.
  public var maximumTransfer: UInt64 { UInt64(segmentLimit) * UInt64(layout.queue.tableEntries - 2) }

  /// Puts a request into the ring: `length` bytes at guest-physical `address`, from `sector` (512 bytes each) on. Returns
  /// the slot it took.
  @discardableResult
  public mutating func submit(
    _ type: BlockRequestType, sector: UInt64, address: UInt64, length: UInt32, tag: UInt64
  ) throws(SubmitError) -> Int {
    guard let slot = queue.nextSlot else { throw .full }
    let header = headers + slot * 64
    completions.store8(0xff, at: layout.statuses + slot)
    headerMemory.store64(UInt64(type.rawValue), at: header)
    // Most requests are like the last one in the slot, reads and writes of one segment: only its place changes then.
    if length <= segmentLimit, length > 0, type == .read || type == .write {
      headerMemory.store64(sector, at: header + 8)
      let shape: UInt8 = type == .read ? Self.readOfOne : Self.writeOfOne
      let data = QueueSegment(address: address, length: length, deviceWrites: type == .read)
      if shapes[slot] == shape {
        queue.publishAgain(slot, segment: 1, data, writable: type == .read ? UInt64(length) + 1 : 1, tag: tag)
        return slot
      }
      try publish(slot, tag, pieces: 1) { _ in data }
      if canRepeat { shapes[slot] = shape }
      return slot
    }
    shapes[slot] = 0
    try submitOther(slot, type, sector, address, length, tag)
    return slot
  }

  private static var readOfOne: UInt8 { 1 }
  private static var writeOfOne: UInt8 { 2 }

  /// A request of no or several segments, or of a range of sectors.
  private mutating func submitOther(
    _ slot: Int, _ type: BlockRequestType, _ sector: UInt64, _ address: UInt64, _ length: UInt32, _ tag: UInt64
  ) throws(SubmitError) {
    guard UInt64(length) <= maximumTransfer else { throw .badSegments }
    let header = headers + slot * 64
    if type == .discard || type == .writeZeroes {
      // §5.2.6.1: one range of sectors, no unmap flag; the device reads 16 bytes.
      headerMemory.store64(0, at: header + 8)
      headerMemory.store64(sector, at: header + 16)
      headerMemory.store64(UInt64(length / 512), at: header + 24)
      let range = headerMemory.physical + UInt64(header + 16)
      try publish(slot, tag, pieces: 1) { _ in QueueSegment(address: range, length: 16, deviceWrites: false) }
      return
    }
    headerMemory.store64(sector, at: header + 8)
    let limit = segmentLimit
    let deviceWrites = type == .read || type == .getIdentity
    try publish(slot, tag, pieces: Int((UInt64(length) + UInt64(limit) - 1) / UInt64(limit))) { index in
      let start = UInt32(index) * limit
      return QueueSegment(
        address: address + UInt64(start), length: min(limit, length - start), deviceWrites: deviceWrites)
    }
  }

  /// Publishes header, `pieces` segments and status byte of a slot.
  private mutating func publish(
    _ slot: Int, _ tag: UInt64, pieces: Int, piece: (Int) -> QueueSegment
  ) throws(SubmitError) {
    let header = headerMemory.physical + UInt64(headers + slot * 64)
    let status = completions.physical + UInt64(layout.statuses + slot)
    _ = try queue.publish(count: pieces + 2, tag: tag) { index in
      if index == 0 { return QueueSegment(address: header, length: 16, deviceWrites: false) }
      if index == pieces + 1 { return QueueSegment(address: status, length: 1, deviceWrites: true) }
      return piece(index - 1)
    }
  }

  /// Whether to ring the doorbell for what was submitted since the last call.
  public mutating func needsNotification() -> Bool { queue.needsNotification() }

  /// The next finished request, or nil.
  public mutating func nextCompletion() throws(QueueError) -> BlockCompletion? {
    guard let chain = try queue.nextUsed() else { return nil }
    let status = completions.load8(layout.statuses + chain.slot)
    return BlockCompletion(
      tag: chain.tag, status: status <= 2 ? status : 1, written: chain.written == 0 ? 0 : chain.written - 1)
  }

  public mutating func armInterrupt(after count: Int) -> Bool { queue.armInterrupt(after: count) }
  public mutating func disarmInterrupt() { queue.disarmInterrupt() }

  /// Forgets everything in flight: only after the device has been reset.
  public mutating func reset() {
    queue.reset()
    for slot in shapes.indices { shapes[slot] = 0 }
  }
}
