// The device's side of a split virtqueue (virtio 1.2 §2.7): take descriptor chains, return them, and decide who has to
// be notified. Everything that the driver wrote is checked here, once, where it enters.

import CLinux
import Glibc
import GuestMemory

/// Where a driver put a virtqueue (guest-physical), and how many descriptors it has.
public struct QueueLayout: Equatable, Sendable {
  /// Number of descriptors, a power of two.
  public var size: UInt16
  /// Descriptor table, 16 bytes a descriptor, 16-byte aligned.
  public var descriptorTable: GuestAddress
  /// Driver area (available ring), 6 + 2 × size bytes, 2-byte aligned.
  public var driverArea: GuestAddress
  /// Device area (used ring), 6 + 8 × size bytes, 4-byte aligned.
  public var deviceArea: GuestAddress

  public init(size: UInt16, descriptorTable: GuestAddress, driverArea: GuestAddress, deviceArea: GuestAddress) {
    self.size = size
    self.descriptorTable = descriptorTable
    self.driverArea = driverArea
    self.deviceArea = deviceArea
  }
}

/// The ring features that were negotiated.
public struct RingFeatures: OptionSet, Sendable {
  public let rawValue: UInt8
  public init(rawValue: UInt8) { self.rawValue = rawValue }
  /// VIRTIO_F_INDIRECT_DESC (§2.7.5.3)
  public static let indirect = RingFeatures(rawValue: 1)
  /// VIRTIO_F_EVENT_IDX (§2.7.7, §2.7.10)
  public static let eventIndex = RingFeatures(rawValue: 2)
}

/// The device's view of one live split virtqueue. Belongs to one thread.
///
/// The ring areas are checked against guest RAM when the queue is made; after that an index can only reach inside them,
/// because each is reduced modulo the queue size or compared with it.
public final class SplitQueue {
  /// Longest indirect table that is accepted: what one vectored host call can take (IOV_MAX).
  public static let maximumIndirectDescriptors = 1024

  public let size: UInt16
  private let memory: GuestMemory
  private let features: RingFeatures
  // Host addresses of the three areas. Safe: checked in `init` for their whole length; `memory` keeps them mapped.
  private let descriptors: UnsafeRawPointer
  private let available: UnsafeMutableRawPointer
  private let used: UnsafeMutableRawPointer
  private let mask: UInt16

  /// Next available-ring position to take (free running).
  private var nextAvailable: UInt16 = 0
  /// Available index as last read and checked.
  private var knownAvailable: UInt16 = 0
  /// Next used-ring position to fill (free running); positions from `publishedUsed` on are not yet visible.
  private var nextUsed: UInt16 = 0
  private var publishedUsed: UInt16 = 0
  /// Chains taken and not yet returned.
  public private(set) var outstanding: UInt16 = 0

  /// Checks the layout and takes the queue over from index zero, as a queue is after reset.
  public init(memory: GuestMemory, layout: QueueLayout, features: RingFeatures) throws(QueueError) {
    guard layout.size > 0, layout.size & (layout.size - 1) == 0, layout.size <= 32768 else {
      throw .invalidSize(layout.size)
    }
    let size = UInt64(layout.size)
    self.memory = memory
    self.features = features
    self.size = layout.size
    mask = layout.size - 1
    descriptors = UnsafeRawPointer(
      try Self.area(memory, layout.descriptorTable, count: 16 * size, alignment: 16))
    available = try Self.area(memory, layout.driverArea, count: 6 + 2 * size, alignment: 2)
    used = try Self.area(memory, layout.deviceArea, count: 6 + 8 * size, alignment: 4)
  }

  private static func area(_ memory: GuestMemory, _ address: GuestAddress, count: UInt64, alignment: UInt64)
    throws(QueueError) -> UnsafeMutableRawPointer
  {
    guard address.rawValue % alignment == 0 else { throw .misalignedArea(address) }
    return try buffer(memory, address, count: count)
  }

  private static func buffer(_ memory: GuestMemory, _ address: GuestAddress, count: UInt64) throws(QueueError)
    -> UnsafeMutableRawPointer
  {
    do {
      if let base = try memory.buffer(at: address, count: count).baseAddress { return base }
    } catch {}
    throw .outsideMemory(address, count: count)
  }

  // MARK: Taking chains

  /// Whether the driver has made chains available that were not taken. Reads one word of guest memory.
  public var hasAvailable: Bool { nextAvailable != castor_load_acquire_u16(available + 2) }

  /// Takes the next available chain into `chain`.
  /// - Returns: false when there is none.
  public func pop(into chain: inout DescriptorChain) throws(QueueError) -> Bool {
    if nextAvailable == knownAvailable {
      let index = castor_load_acquire_u16(available + 2)
      guard index != nextAvailable else { return false }
      guard index &- nextAvailable <= size else {
        throw .availableIndexTooFar(available: index, seen: nextAvailable)
      }
      knownAvailable = index
    }
    guard outstanding < size else { throw .tooManyOutstanding }
    let head = castor_load_acquire_u16(available + 4 + 2 * Int(nextAvailable & mask))
    guard head < size else { throw .descriptorOutOfRange(index: head, tableSize: Int(size)) }
    try collect(head: head, into: &chain)
    nextAvailable &+= 1
    outstanding += 1
    return true
  }

  /// Puts the last `count` chains taken back, unserved, so that `pop` gives them again.
  public func putBack(_ count: UInt16) {
    let count = min(count, outstanding)
    nextAvailable &-= count
    outstanding -= count
  }

  private struct Descriptor {
    let address: UInt64
    let length: UInt32
    let flags: UInt16
    let next: UInt16
    static let hasNext: UInt16 = 1
    static let writable: UInt16 = 2
    static let indirect: UInt16 = 4

    /// Reads descriptor `index` of a table once, so that what was checked is what is used.
    init(_ table: UnsafeRawPointer, _ index: Int) {
      let entry = table + 16 * index
      // An indirect table may lie at any address (§2.7.5.3 names no alignment).
      if UInt(bitPattern: entry) & 7 == 0 {
        address = castor_load_acquire_u64(entry)
        let rest = castor_load_acquire_u64(entry + 8)
        length = UInt32(truncatingIfNeeded: rest)
        flags = UInt16(truncatingIfNeeded: rest >> 32)
        next = UInt16(truncatingIfNeeded: rest >> 48)
      } else {
        address = entry.loadUnaligned(as: UInt64.self)
        length = entry.loadUnaligned(fromByteOffset: 8, as: UInt32.self)
        flags = entry.loadUnaligned(fromByteOffset: 12, as: UInt16.self)
        next = entry.loadUnaligned(fromByteOffset: 14, as: UInt16.self)
      }
    }
  }

  private func collect(head: UInt16, into chain: inout DescriptorChain) throws(QueueError) {
    chain.removeAll(head: head)
    var table = descriptors
    var tableSize = Int(size)
    var index = head
    var visited = 0
    var inIndirectTable = false
    var total: UInt64 = 0
    while true {
      guard Int(index) < tableSize else { throw .descriptorOutOfRange(index: index, tableSize: tableSize) }
      visited += 1
      guard visited <= tableSize else { throw .descriptorLoop(head: head) }
      let descriptor = Descriptor(table, Int(index))
      if descriptor.flags & Descriptor.indirect != 0 {
        guard features.contains(.indirect) else { throw .indirectNotNegotiated(head: head) }
        guard !inIndirectTable, descriptor.flags & Descriptor.hasNext == 0 else { throw .indirectNesting(head: head) }
        let entries = Int(descriptor.length / 16)
        guard descriptor.length % 16 == 0, entries > 0, entries <= Self.maximumIndirectDescriptors else {
          throw .indirectTableLength(head: head, bytes: descriptor.length)
        }
        table = UnsafeRawPointer(
          try Self.buffer(memory, GuestAddress(descriptor.address), count: UInt64(descriptor.length)))
        (tableSize, index, visited, inIndirectTable) = (entries, 0, 0, true)
        continue
      }
      guard descriptor.length > 0 else { throw .emptyBuffer(head: head) }
      let writable = descriptor.flags & Descriptor.writable != 0
      guard writable || chain.writableCount == 0 else { throw .readableAfterWritable(head: head) }
      // §2.7.4.2 allows 2^32 bytes a chain; a signed 32-bit count is what one vectored host call can move.
      total += UInt64(descriptor.length)
      guard total <= UInt64(Int32.max) else { throw .chainTooLarge(head: head) }
      let base = try Self.buffer(memory, GuestAddress(descriptor.address), count: UInt64(descriptor.length))
      chain.append(base, count: Int(descriptor.length), writable: writable)
      guard descriptor.flags & Descriptor.hasNext != 0 else { return }
      index = descriptor.next
    }
  }

  // MARK: Returning chains

  /// Puts a chain into the used ring; the driver does not see it before `publish`.
  /// - Parameter written: bytes of the writable part that the device filled, from its start.
  public func push(head: UInt16, written: UInt32) {
    // Never more returns than takes, so that a used position is not overwritten before it is published.
    guard outstanding > 0 else { return }
    let element = used + 4 + 8 * Int(nextUsed & mask)
    element.storeBytes(of: UInt32(head), as: UInt32.self)
    element.storeBytes(of: written, toByteOffset: 4, as: UInt32.self)
    nextUsed &+= 1
    outstanding -= 1
  }

  /// What publishing used chains asks of the device.
  public enum Notification: Sendable { case nothingPublished, suppressed, needed }

  /// Shows all pushed chains to the driver by one store of the used index, and tells whether it wants to be interrupted
  /// (§2.7.7.2).
  public func publish() -> Notification {
    guard nextUsed != publishedUsed else { return .nothingPublished }
    let old = publishedUsed
    publishedUsed = nextUsed
    castor_store_release_u16(used + 2, nextUsed)
    // The index must be visible before the driver's wish is read, else both sides could wait for each other.
    castor_full_fence()
    if features.contains(.eventIndex) {
      let event = castor_load_acquire_u16(available + 4 + 2 * Int(size))
      return nextUsed &- event &- 1 < nextUsed &- old ? .needed : .suppressed
    }
    return castor_load_acquire_u16(available) & 1 == 0 ? .needed : .suppressed
  }

  // MARK: Doorbell suppression

  /// Asks the driver not to ring the doorbell while the device looks at the ring anyway (§2.7.10). A hint only.
  public func suppressDoorbells() {
    if !features.contains(.eventIndex) { castor_store_release_u16(used, 1) }
  }

  /// Asks the driver to ring the doorbell for the next chain.
  /// - Returns: true when chains are available already, for which no doorbell may come.
  public func requestDoorbell() -> Bool {
    if features.contains(.eventIndex) {
      // Not `nextAvailable`: chains that were left in the ring have had their doorbell, and the driver rings again only
      // when its index passes this one.
      castor_store_release_u16(used + 4 + 8 * Int(size), castor_load_acquire_u16(available + 2))
    } else {
      castor_store_release_u16(used, 0)
    }
    castor_full_fence()
    return hasAvailable
  }

  /// Free-running indices, for diagnosis: next to take, available, used.
  public var indices: (next: UInt16, available: UInt16, used: UInt16) {
    (nextAvailable, castor_load_acquire_u16(available + 2), publishedUsed)
  }
}
