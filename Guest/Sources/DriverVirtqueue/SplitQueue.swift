// The driver's side of a virtio split virtqueue: virtio 1.2 §2.7, with indirect descriptors and EVENT_IDX.

/// What the device wrote into a ring that cannot be right. The queue is unusable until the device has been reset.
public enum QueueError: Error, Equatable, Sendable {
  /// The used index is further ahead than there are requests in flight (§2.7.8).
  case usedIndexOutOfRange(used: UInt16, inFlight: Int)
  /// A used element names no descriptor chain that is in flight.
  case unknownChain(id: UInt32)
  /// A used element claims more written bytes than the chain has writable.
  case lengthTooLong(id: UInt32, length: UInt32)
}

/// Why a request was not put into the queue. The queue is unharmed.
public enum SubmitError: Error, Equatable, Sendable {
  /// All slots are in flight.
  case full
  /// The request has more segments than a slot has descriptors, or an empty one.
  case badSegments
}

/// A physically contiguous piece of a request's memory.
public struct QueueSegment {
  /// Guest-physical address.
  public var address: UInt64
  /// Length in bytes.
  public var length: UInt32
  /// Whether the device writes to it.
  public var deviceWrites: Bool

  public init(address: UInt64, length: UInt32, deviceWrites: Bool) {
    self.address = address
    self.length = length
    self.deviceWrites = deviceWrites
  }
}

/// A chain that the device has used.
public struct UsedChain: Equatable, Sendable {
  /// The slot that `publish` was given.
  public let slot: Int
  /// Bytes that the device wrote.
  public let written: UInt32
  /// What `publish` was given.
  public let tag: UInt64
}

/// Where the parts of a queue lie in its memory, in bytes from the start (§2.7, alignment table).
public struct QueueLayout: Equatable, Sendable {
  public let size: Int
  /// Descriptors of each slot's table.
  public let tableEntries: Int
  public let descriptors = 0
  public let available: Int
  public let used: Int
  public let tables: Int
  /// Length in bytes of everything.
  public let byteCount: Int
  /// Length in bytes of descriptor table and available ring, which is all that must lie together.
  public var ringByteCount: Int { available + 6 + size * 2 }
  /// Length in bytes of the tables.
  public var tablesByteCount: Int { size * tableEntries * 16 }
  /// Length in bytes of the used ring.
  public var usedByteCount: Int { 6 + size * 8 }

  /// A queue of `size` entries, a power of two up to 1024, each with room for `tableEntries` segments (1...64).
  public init?(size: Int, tableEntries: Int) {
    guard size > 0, size <= 1024, size & (size - 1) == 0, (1...64).contains(tableEntries) else { return nil }
    self.size = size
    self.tableEntries = tableEntries
    available = size * 16
    used = (available + 6 + size * 2 + 3) & ~3
    tables = (used + 6 + size * 8 + 15) & ~15
    byteCount = tables + size * tableEntries * 16
  }
}

/// One split virtqueue. A request takes a *slot*: one ring descriptor with the slot's number that points to the slot's
/// own indirect table; without VIRTIO_F_INDIRECT_DESC a slot is a fixed run of ring descriptors instead.
///
/// Nothing the device writes is believed: `nextUsed` answers a typed error for an index, a chain or a length that
/// cannot be, after which the owner stops using the queue and reports the device.
public struct SplitQueue: ~Copyable {
  private let memory: RingMemory
  /// The used ring, which may lie in memory of its own: clients may be shown it without the descriptors.
  private let usedMemory: RingMemory
  /// The indirect tables, and where they begin in it.
  private let tableMemory: RingMemory
  private let tables: Int
  public let layout: QueueLayout
  private let indirect: Bool
  private let eventIndex: Bool

  /// How many requests fit at a time.
  public let slotCount: Int
  private var slots: [Slot]
  /// The slots that are free are the first `freeCount` of their numbers here, and the last of these is the next.
  private var freeSlots: [UInt16]
  private var freeCount = 0

  private struct Slot {
    /// Writable bytes of the chain in flight; `notInFlight` marks a free slot.
    var writable = notInFlight
    var tag: UInt64 = 0
    static let notInFlight = UInt64.max
  }

  private var availableIndex: UInt16 = 0
  /// The available index at the time of the last doorbell decision.
  private var announcedIndex: UInt16 = 0
  private var usedIndex: UInt16 = 0

  /// A queue in `memory`, which must be as long as the layout says, with its used ring in `usedMemory` (nil: at its place
  /// in `memory`) and its tables in `tableMemory` (nil: likewise; else `memory` needs to be `ringByteCount` long only). Descriptor table
  /// and rings are cleared.
  public init?(
    memory: RingMemory, usedMemory: RingMemory? = nil, tableMemory: RingMemory? = nil, layout: QueueLayout,
    indirect: Bool, eventIndex: Bool
  ) {
    let slots = indirect ? layout.size : layout.size / layout.tableEntries
    guard slots > 0, memory.byteCount >= (tableMemory == nil ? layout.byteCount : layout.ringByteCount),
      tableMemory == nil || usedMemory != nil, (tableMemory?.byteCount ?? .max) >= layout.tablesByteCount
    else { return nil }
    let used = usedMemory ?? memory.part(layout.used, layout.usedByteCount)
    guard used.byteCount >= layout.usedByteCount else { return nil }
    self.tableMemory = tableMemory ?? memory
    tables = tableMemory == nil ? layout.tables : 0
    self.memory = memory
    self.usedMemory = used
    self.layout = layout
    self.indirect = indirect
    self.eventIndex = eventIndex
    slotCount = slots
    self.slots = []
    freeSlots = []
    reset()
  }

  /// Guest-physical addresses of descriptor table, available ring and used ring, for the QueueDesc… registers.
  public var addresses: (descriptors: UInt64, available: UInt64, used: UInt64) {
    (
      memory.physical, memory.physical + UInt64(layout.available),
      usedMemory.physical
    )
  }

  /// Forgets everything in flight and clears the rings: only after the device or the queue has been reset.
  public mutating func reset() {
    memory.clear(0, layout.ringByteCount)
    usedMemory.clear(0, layout.usedByteCount)
    freeSlots.removeAll(keepingCapacity: true)
    slots.removeAll(keepingCapacity: true)
    var slot = slotCount
    while slot > 0 {
      slot -= 1
      freeSlots.append(UInt16(slot))
      slots.append(Slot())
    }
    freeCount = slotCount
    availableIndex = 0
    announcedIndex = 0
    usedIndex = 0
  }

  /// Requests that the device has and has not been seen to finish.
  public var inFlight: Int { slotCount - freeCount }
  public var hasRoom: Bool { freeCount > 0 }

  /// The slot that the next `publish` takes; what belongs to the slot (a request header) may be filled in before.
  public var nextSlot: Int? { freeCount > 0 ? Int(freeSlots[freeCount - 1]) : nil }

  // MARK: Submission

  /// Puts the chain of `count` segments into the ring: device-readable ones first (§2.7.4.2). The device may see it at
  /// once; `needsNotification` then says whether to ring the doorbell. `tag` comes back with the used chain.
  public mutating func publish(
    count: Int, tag: UInt64 = 0, segment: (Int) -> QueueSegment
  ) throws(SubmitError) -> Int {
    guard let slot = nextSlot else { throw .full }
    guard count > 0, count <= layout.tableEntries else { throw .badSegments }
    let first = (indirect ? tables : 0) + slot * layout.tableEntries * 16
    let place = indirect ? tableMemory : memory
    var writableBytes: UInt64 = 0
    var index = 0
    while index < count {
      let part = segment(index)
      guard part.length > 0 else { throw .badSegments }
      let isLast = index == count - 1
      if part.deviceWrites { writableBytes += UInt64(part.length) }
      let flags: UInt16 = (isLast ? 0 : 1) | (part.deviceWrites ? 2 : 0)
      let next = indirect ? index + 1 : slot * layout.tableEntries + index + 1
      Self.writeDescriptor(
        place, first + index * 16, part.address, part.length, flags: flags, next: isLast ? 0 : UInt16(next))
      index += 1
    }
    let head: Int
    if indirect {
      head = slot
      let table = tableMemory.physical + UInt64(first)
      Self.writeDescriptor(memory, slot * 16, table, UInt32(count * 16), flags: 4, next: 0)
    } else {
      head = slot * layout.tableEntries
    }
    makeAvailable(slot, head: head, Slot(writable: writableBytes, tag: tag))
    return slot
  }

  /// Puts the chain that slot `nextSlot` had last into the ring again, with nothing changed but where its segment `index` is and how long. Only
  /// with indirect tables. `writable`: bytes of the chain that the device may write.
  public mutating func publishAgain(
    _ slot: Int, segment index: Int, _ part: QueueSegment, writable: UInt64, tag: UInt64
  ) {
    // One descriptor of the table; the flags and the link are in it. The ring's own descriptor still points to the table.
    let place = tables + (slot * layout.tableEntries + index) * 16
    tableMemory.store64(part.address, at: place)
    tableMemory.store32(part.length, at: place + 8)
    makeAvailable(slot, head: slot, Slot(writable: writable, tag: tag))
  }

  @inline(__always)
  private mutating func makeAvailable(_ slot: Int, head: Int, _ state: Slot) {
    freeCount -= 1
    slots[slot] = state
    memory.store16(UInt16(truncatingIfNeeded: head), at: layout.available + 4 + (Int(availableIndex) & indexMask) * 2)
    availableIndex &+= 1
    // The release store makes descriptors and ring entry visible before the index (§2.7.13.3).
    memory.store16(availableIndex, at: layout.available + 2)
  }

  /// A queue's size is a power of two.
  private var indexMask: Int { layout.size - 1 }

  private static func writeDescriptor(
    _ memory: RingMemory, _ offset: Int, _ address: UInt64, _ length: UInt32, flags: UInt16, next: UInt16
  ) {
    memory.store64(address, at: offset)
    memory.store64(UInt64(length) | UInt64(flags) << 32 | UInt64(next) << 48, at: offset + 8)
  }

  /// Whether the device wants a doorbell for what was published since the last call (§2.7.10, §2.7.13.3.1).
  public mutating func needsNotification() -> Bool {
    let old = announcedIndex
    guard old != availableIndex else { return false }
    RingMemory.fullFence()
    announcedIndex = availableIndex
    if eventIndex {
      let event = usedMemory.load16(4 + layout.size * 8)
      return availableIndex &- event &- 1 < availableIndex &- old
    }
    return usedMemory.load16(0) & 1 == 0
  }

  /// The used index up to which completions have been taken.
  public var takenIndex: UInt16 { usedIndex }

  // MARK: Completion

  /// Whether the device has finished something that `nextUsed` would return; reads one word.
  public var hasUsed: Bool { usedMemory.load16(2) != usedIndex }

  /// The next finished request, in the device's order, or nil.
  public mutating func nextUsed() throws(QueueError) -> UsedChain? {
    let current = usedMemory.load16(2)
    let ready = current &- usedIndex
    guard ready != 0 else { return nil }
    guard Int(ready) <= inFlight else { throw .usedIndexOutOfRange(used: current, inFlight: inFlight) }
    let element = 4 + (Int(usedIndex) & indexMask) * 8
    let id = usedMemory.load32(element)
    let length = usedMemory.load32(element + 4)
    let slot = indirect ? Int(id) : Int(id) / layout.tableEntries
    guard slot < slotCount, indirect || Int(id) % layout.tableEntries == 0 else { throw .unknownChain(id: id) }
    let state = slots[slot]
    guard state.writable != Slot.notInFlight else { throw .unknownChain(id: id) }
    guard UInt64(length) <= state.writable else { throw .lengthTooLong(id: id, length: length) }
    slots[slot].writable = Slot.notInFlight
    freeSlots[freeCount] = UInt16(slot)
    freeCount += 1
    usedIndex &+= 1
    return UsedChain(slot: slot, written: length, tag: state.tag)
  }

  /// Asks for an interrupt once `count` more requests are used, counted from those already taken. True: that many are
  /// there already (look again before sleeping; the interrupt may not come).
  public mutating func armInterrupt(after count: Int) -> Bool {
    let wanted = UInt16(truncatingIfNeeded: max(1, min(count, max(1, inFlight))))
    if eventIndex {
      memory.store16(usedIndex &+ wanted &- 1, at: layout.available + 4 + layout.size * 2)
    } else {
      memory.store16(0, at: layout.available)
    }
    RingMemory.fullFence()
    let ready = usedMemory.load16(2) &- usedIndex
    return ready >= (eventIndex ? wanted : 1)
  }

  /// Asks for no interrupts: the driver polls. With EVENT_IDX that is an event index as far away as can be.
  public mutating func disarmInterrupt() {
    if eventIndex {
      memory.store16(usedIndex &- 1 &+ 0x8000, at: layout.available + 4 + layout.size * 2)
    } else {
      memory.store16(1, at: layout.available)
    }
  }
}
