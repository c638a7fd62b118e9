// The driver's side of a split virtqueue over plain guest memory, for tests of the device side.

import GuestMemory

@testable import Virtio

/// One descriptor as a test writes it.
struct TestDescriptor {
  var address: UInt64
  var length: UInt32
  var flags: UInt16 = 0
  var next: UInt16 = 0
  static let next: UInt16 = 1
  static let writable: UInt16 = 2
  static let indirect: UInt16 = 4
}

/// A driver of one ring. Lays the ring out from `base`, gives buffers out of the memory after it, and does what a
/// conforming driver does, or writes whatever a test wants.
final class TestDriver {
  let memory: GuestMemory
  let layout: QueueLayout
  let eventIndex: Bool
  private(set) var nextAvailable: UInt16 = 0
  private var nextUsed: UInt16 = 0
  private var freeHeads: [UInt16]
  private var chains: [UInt16: [UInt16]] = [:]
  private var bump: UInt64
  private let start: UInt64

  init(memory: GuestMemory, base: UInt64 = 0, size: UInt16, eventIndex: Bool = false) {
    self.memory = memory
    self.eventIndex = eventIndex
    let table = base
    let driver = table + 16 * UInt64(size)
    let device = (driver + 6 + 2 * UInt64(size) + 3) & ~3
    layout = QueueLayout(
      size: size, descriptorTable: GuestAddress(table), driverArea: GuestAddress(driver),
      deviceArea: GuestAddress(device))
    freeHeads = Array((0..<size).reversed())
    start = (device + 6 + 8 * UInt64(size) + 4095) & ~4095
    bump = start
  }

  /// Forgets the ring's state, as a driver does after a reset, and clears the ring areas.
  func reset() {
    nextAvailable = 0
    nextUsed = 0
    freeHeads = Array((0..<layout.size).reversed())
    chains = [:]
    let bytes = [UInt8](repeating: 0, count: Int(start - layout.descriptorTable.rawValue))
    try? memory.write(bytes: bytes, at: layout.descriptorTable)
  }

  /// Guest memory for a buffer, never used before by this driver.
  func allocate(_ count: Int, alignment: UInt64 = 512) -> GuestAddress {
    bump = (bump + alignment - 1) / alignment * alignment
    defer { bump += UInt64(count) }
    return GuestAddress(bump)
  }

  func write(_ descriptor: TestDescriptor, at address: UInt64) throws {
    try memory.write(descriptor.address, at: GuestAddress(address))
    try memory.write(descriptor.length, at: GuestAddress(address + 8))
    try memory.write(descriptor.flags, at: GuestAddress(address + 12))
    try memory.write(descriptor.next, at: GuestAddress(address + 14))
  }

  /// Writes descriptor `index` of the table.
  func set(_ index: UInt16, _ descriptor: TestDescriptor) throws {
    try write(descriptor, at: layout.descriptorTable.rawValue + 16 * UInt64(index))
  }

  /// Puts a head into the available ring without publishing it.
  func offer(head: UInt16) throws {
    let slot = UInt64(nextAvailable & (layout.size - 1))
    try memory.write(head, at: GuestAddress(layout.driverArea.rawValue + 4 + 2 * slot))
    nextAvailable &+= 1
  }

  /// Publishes the available index; true when the device asked for a doorbell.
  @discardableResult
  func publish() throws -> Bool {
    let old = try memory.loadAcquire(at: GuestAddress(layout.driverArea.rawValue + 2))
    try memory.storeRelease(nextAvailable, at: GuestAddress(layout.driverArea.rawValue + 2))
    GuestMemory.fullFence()
    if eventIndex {
      let event = try memory.loadAcquire(at: GuestAddress(layout.deviceArea.rawValue + 4 + 8 * UInt64(layout.size)))
      return nextAvailable &- event &- 1 < nextAvailable &- old
    }
    return try memory.loadAcquire(at: layout.deviceArea) & 1 == 0
  }

  func setAvailableIndex(_ index: UInt16) throws {
    try memory.storeRelease(index, at: GuestAddress(layout.driverArea.rawValue + 2))
  }

  /// EVENT_IDX: interrupt when the used index passes `index`.
  func setUsedEvent(_ index: UInt16) throws {
    try memory.storeRelease(index, at: GuestAddress(layout.driverArea.rawValue + 4 + 2 * UInt64(layout.size)))
  }

  func setInterruptsSuppressed(_ suppressed: Bool) throws {
    try memory.storeRelease(suppressed ? 1 : 0, at: layout.driverArea)
  }

  /// Makes one chain of the given buffers available (not published) and returns its head, or nil when the ring is full.
  func add(readable: [(GuestAddress, Int)] = [], writable: [(GuestAddress, Int)] = [], indirect: Bool = false) throws
    -> UInt16?
  {
    let buffers = readable.map { ($0.0, $0.1, UInt16(0)) } + writable.map { ($0.0, $0.1, TestDescriptor.writable) }
    let needed = indirect ? 1 : buffers.count
    guard freeHeads.count >= needed, needed > 0 else { return nil }
    let indices = (0..<needed).map { _ in freeHeads.removeLast() }
    if indirect {
      let table = allocate(16 * buffers.count, alignment: 16)
      for (position, buffer) in buffers.enumerated() {
        let last = position + 1 == buffers.count
        try write(
          TestDescriptor(
            address: buffer.0.rawValue, length: UInt32(buffer.1), flags: buffer.2 | (last ? 0 : TestDescriptor.next),
            next: last ? 0 : UInt16(position + 1)), at: table.rawValue + 16 * UInt64(position))
      }
      try set(
        indices[0],
        TestDescriptor(
          address: table.rawValue, length: UInt32(16 * buffers.count), flags: TestDescriptor.indirect))
    } else {
      for (position, buffer) in buffers.enumerated() {
        let last = position + 1 == buffers.count
        try set(
          indices[position],
          TestDescriptor(
            address: buffer.0.rawValue, length: UInt32(buffer.1), flags: buffer.2 | (last ? 0 : TestDescriptor.next),
            next: last ? 0 : indices[position + 1]))
      }
    }
    chains[indices[0]] = indices
    try offer(head: indices[0])
    return indices[0]
  }

  /// Whether the device has returned something that was not taken.
  func hasUsed() throws -> Bool {
    try memory.loadAcquire(at: GuestAddress(layout.deviceArea.rawValue + 2)) != nextUsed
  }

  /// The next used element, and its descriptors freed; nil when the device has returned nothing new.
  func takeUsed() throws -> (head: UInt16, written: UInt32)? {
    let index = try memory.loadAcquire(at: GuestAddress(layout.deviceArea.rawValue + 2))
    guard index != nextUsed else { return nil }
    let element = layout.deviceArea.rawValue + 4 + 8 * UInt64(nextUsed & (layout.size - 1))
    let head = UInt16(truncatingIfNeeded: try memory.read(UInt32.self, at: GuestAddress(element)))
    let written = try memory.read(UInt32.self, at: GuestAddress(element + 4))
    nextUsed &+= 1
    if eventIndex { try setUsedEvent(nextUsed) }
    freeHeads += chains.removeValue(forKey: head) ?? []
    return (head, written)
  }
}
