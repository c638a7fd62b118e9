// The virtio network device (virtio 1.2 §5.1): one pair of queues and the control queue.

import Glibc
import HostSystem
import NetworkLink
import Synchronization
import SystemPackage

/// A network interface.
public final class NetworkDevice: VirtioDevice, @unchecked Sendable {
  // @unchecked: the plain variables belong to the device's thread; the rest is immutable or Sendable.

  /// Feature bits of §5.1.3.
  enum Feature {
    static let checksum: UInt64 = 1 << 0
    static let guestChecksum: UInt64 = 1 << 1
    static let address: UInt64 = 1 << 5
    static let guestSegmentation4: UInt64 = 1 << 7
    static let guestSegmentation6: UInt64 = 1 << 8
    static let hostSegmentation4: UInt64 = 1 << 11
    static let hostSegmentation6: UInt64 = 1 << 12
    static let mergeableBuffers: UInt64 = 1 << 15
    static let status: UInt64 = 1 << 16
    static let controlQueue: UInt64 = 1 << 17
    static let controlReceive: UInt64 = 1 << 18
    static let controlReceiveExtra: UInt64 = 1 << 20
    static let controlAddress: UInt64 = 1 << 23
  }

  private static let receiveQueue = 0
  private static let transmitQueue = 1
  private static let controlQueue = 2
  private static let statusOffset = 6
  /// Packets received in one go before other queues are looked at again.
  private static let batch = 64

  public let deviceID: UInt32 = 1
  public let queueSizes: [UInt16]
  public let controlQueues = controlQueue..<controlQueue + 1
  public let features: UInt64
  public let configuration = ConfigurationSpace(count: 12)

  private let link: any PacketLink
  // Set once, before the device's thread runs.
  private weak var context: DeviceContext?
  private let linkIsUp = Atomic<Bool>(true)
  /// The interface's own address, which a reset restores; of the upper bits, 48 says that the filter has not followed it yet.
  private let ownAddress: Atomic<UInt64>
  private static let isNew: UInt64 = 1 << 48
  private var negotiated: UInt64 = 0
  private var filter: ReceiveFilter

  /// A receive buffer of the guest while a packet is spread over several.
  private final class Buffer { var chain = DescriptorChain() }
  private var buffers: [Buffer] = []
  private var chain = DescriptorChain(capacity: 20)

  /// Where packets arrive before it is known into how many of the guest's buffers they go.
  private let packet = UnsafeMutableRawBufferPointer.allocate(byteCount: largestPacket, alignment: 64)
  /// Length of the packet in `packet` that waits for guest buffers; 0: none.
  private var waiting = 0
  /// The loop watches the link.
  private var watching = true
  /// The link may have something.
  private var readable = false
  /// Transmit chains wait for room in the link.
  private var transmitFull = false

  /// An interface with the given 6-byte unicast MAC address, connected to `link`, which belongs to the device from then
  /// on.
  public init(link: any PacketLink, address: [UInt8], queueSize: UInt16 = 256) throws(Errno) {
    guard address.count == 6, address[0] & 1 == 0 else { throw .invalidArgument }
    self.link = link
    let number = ReceiveFilter.number(address)
    ownAddress = Atomic(number)
    filter = ReceiveFilter(address: number)
    queueSizes = [queueSize, queueSize, 64]
    var offered =
      Feature.address | Feature.status | Feature.mergeableBuffers | Feature.controlQueue | Feature.controlReceive
      | Feature.controlReceiveExtra | Feature.controlAddress | Feature.guestChecksum
    if link.offloads.contains(.checksum) { offered |= Feature.checksum }
    if link.offloads.contains(.segmentation4) { offered |= Feature.hostSegmentation4 | Feature.guestSegmentation4 }
    if link.offloads.contains(.segmentation6) { offered |= Feature.hostSegmentation6 | Feature.guestSegmentation6 }
    features = offered
    configuration.update(
      address.enumerated().map { ($0.offset, $0.element) } + [
        (Self.statusOffset, UInt16(1)), (8, UInt16(1)),
      ])
  }

  deinit { packet.deallocate() }

  // MARK: Calls of the control thread

  /// Plugs the cable in or pulls it, and tells the driver by a configuration interrupt. Any thread.
  public func setLink(up: Bool) {
    guard linkIsUp.exchange(up, ordering: .acquiringAndReleasing) != up else { return }
    configuration.update([(Self.statusOffset, UInt16(up ? 1 : 0))])
    context?.configurationChanged()
  }

  /// Whether the cable is plugged in. Any thread.
  public var isLinkUp: Bool { linkIsUp.load(ordering: .acquiring) }

  /// Gives the interface another address, a 6-byte unicast one, and tells the driver by a configuration interrupt. What the guest has set
  /// itself gives way. Any thread.
  public func setAddress(_ address: [UInt8]) throws(Errno) {
    guard address.count == 6, address[0] & 1 == 0 else { throw .invalidArgument }
    ownAddress.store(ReceiveFilter.number(address) | Self.isNew, ordering: .releasing)
    configuration.update(address.enumerated().map { ($0.offset, $0.element) })
    context?.configurationChanged()
  }

  /// Device thread only.
  private func followOwnAddress() {
    let address = ownAddress.load(ordering: .acquiring)
    guard address & Self.isNew != 0 else { return }
    // Where it has changed again meanwhile, the next packet follows that.
    _ = ownAddress.compareExchange(expected: address, desired: address & ~Self.isNew, ordering: .acquiringAndReleasing)
    filter.address = address & ~Self.isNew
  }

  // MARK: VirtioDevice

  public func writeConfiguration(at offset: Int, size: Int, value: UInt64) {}

  public func attach(to context: DeviceContext) throws(Errno) {
    self.context = context
    try context.loop.add(link.descriptor, for: .readable) { [unowned self, unowned context] _ in
      readable = true
      // Level-triggered: what nobody takes now would keep the loop awake.
      if context.isServing { context.runPass() } else { watch(false) }
    }
  }

  public func start(features: UInt64) {
    negotiated = features
    var accepted: LinkOffloads = []
    if features & Feature.guestChecksum != 0 { accepted.insert(.checksum) }
    if features & Feature.guestSegmentation4 != 0 { accepted.insert(.segmentation4) }
    if features & Feature.guestSegmentation6 != 0 { accepted.insert(.segmentation6) }
    link.accept(accepted)
    readable = true
  }

  public func wantsDoorbell(_ queue: VirtioQueue) -> Bool {
    // The driver refills the receive queue all the time, which only matters when a packet waits for it.
    queue.index != Self.receiveQueue || waiting > 0
  }

  public func serve(_ queue: VirtioQueue) throws(QueueError) -> Bool {
    switch queue.index {
    case Self.transmitQueue: try transmit(queue)
    case Self.controlQueue: try control(queue)
    default: waiting > 0 ? try receive(queue) : false
    }
  }

  public func poll() throws(QueueError) -> Bool {
    guard readable || !watching, waiting == 0, let queue = context?.queues[Self.receiveQueue] else { return false }
    return try receive(queue)
  }

  /// Packets are copied within `serve` and `poll`, so there is never one in flight.
  public func drain(_ queue: VirtioQueue?) {}

  public func stop() {
    let address = ownAddress.load(ordering: .acquiring) & ~Self.isNew
    filter = ReceiveFilter(address: address)
    // The guest's own address goes with its driver.
    configuration.update((0..<6).map { ($0, UInt8(truncatingIfNeeded: address >> UInt64(40 - 8 * $0))) })
    negotiated = 0
    waiting = 0
    transmitFull = false
    link.accept([])
  }

  private func watch(_ on: Bool) {
    guard watching != on, let context else { return }
    watching = on
    try? context.loop.modify(link.descriptor, for: on ? .readable : [])
  }

  // MARK: Guest to host

  private func transmit(_ queue: VirtioQueue) throws(QueueError) -> Bool {
    // The link's descriptor says when there is room again, and is reset by trying.
    if transmitFull, !readable { return false }
    transmitFull = false
    var any = false
    while try queue.pop(into: &chain) {
      let count = chain.readableCount
      guard count >= packetHeaderSize, chain.writableCount == 0 else { throw .malformedRequest(head: chain.head) }
      var result = SendResult.dropped
      if isLinkUp, count > packetHeaderSize + 14, count <= largestPacket { result = link.send(chain.readable) }
      switch result {
      case .sent: queue.statistics.bytesFromGuest &+= UInt64(count - packetHeaderSize)
      case .dropped: queue.statistics.errors &+= 1
      case .full:
        queue.putBack(1)
        transmitFull = true
        return any
      }
      queue.push(head: chain.head, written: 0)
      any = true
    }
    return any
  }

  // MARK: Host to guest

  private func receive(_ queue: VirtioQueue) throws(QueueError) -> Bool {
    var any = false
    for _ in 0..<Self.batch {
      if waiting == 0 {
        guard let count = link.receive(into: packet) else {
          readable = false
          watch(true)
          return any
        }
        guard isLinkUp, isWanted(count) else { continue }
        waiting = count
      }
      guard try deliver(queue) else {
        // Nothing more is fetched before the driver has given buffers: its doorbell is asked for meanwhile.
        watch(false)
        return any
      }
      waiting = 0
      any = true
    }
    return true
  }

  /// Whether the packet in `packet` is for this driver; completes its checksum if the driver cannot.
  private func isWanted(_ count: Int) -> Bool {
    guard count >= packetHeaderSize + 14, let bytes = packet.baseAddress else { return false }
    followOwnAddress()
    if negotiated & Feature.controlReceive != 0,
      !filter.admits(ReceiveFilter.number(UnsafeRawBufferPointer(start: bytes + packetHeaderSize, count: 6)))
    {
      return false
    }
    let segmentation = packet[1] & 0x7f
    let ability = segmentation == 1 ? Feature.guestSegmentation4 : Feature.guestSegmentation6
    guard segmentation == 0 || segmentation == 1 || segmentation == 4 else { return false }
    guard segmentation == 0 || negotiated & ability != 0 else { return false }
    if negotiated & Feature.guestChecksum == 0 {
      if packet[0] & 1 != 0, !Self.completeChecksum(UnsafeMutableRawBufferPointer(rebasing: packet[..<count])) {
        return false
      }
      for position in 0..<packetHeaderSize { packet[position] = 0 }
    }
    return true
  }

  /// Fills in the checksum that the header says is missing (§5.1.6.2); false when the header makes no sense.
  static func completeChecksum(_ packet: UnsafeMutableRawBufferPointer) -> Bool {
    let start = packetHeaderSize + Int(packet.loadUnaligned(fromByteOffset: 6, as: UInt16.self))
    let place = start + Int(packet.loadUnaligned(fromByteOffset: 8, as: UInt16.self))
    guard place + 2 <= packet.count else { return false }
    // The place holds the pseudo-header's sum already.
    var sum: UInt32 = 0
    var position = start
    while position + 1 < packet.count {
      sum &+= UInt32(packet[position]) << 8 | UInt32(packet[position + 1])
      position += 2
    }
    if position < packet.count { sum &+= UInt32(packet[position]) << 8 }
    while sum >> 16 != 0 { sum = sum & 0xffff &+ sum >> 16 }
    let checksum = sum == 0xffff ? 0xffff : ~UInt16(truncatingIfNeeded: sum)
    packet[place] = UInt8(truncatingIfNeeded: checksum >> 8)
    packet[place + 1] = UInt8(truncatingIfNeeded: checksum)
    return true
  }

  /// Copies the waiting packet into guest buffers; false when there are not enough.
  private func deliver(_ queue: VirtioQueue) throws(QueueError) -> Bool {
    let mergeable = negotiated & Feature.mergeableBuffers != 0
    var room = 0
    var used = 0
    while room < waiting {
      if used == buffers.count { buffers.append(Buffer()) }
      guard used == 0 || mergeable else {
        // The one buffer that a packet may have without merging is too small: the packet is lost (§5.1.6.3.2).
        queue.putBack(1)
        queue.statistics.errors &+= 1
        return true
      }
      guard try queue.pop(into: &buffers[used].chain) else {
        queue.putBack(used)
        return false
      }
      let chain = buffers[used].chain.writableCount
      guard buffers[used].chain.readableCount == 0, chain >= packetHeaderSize else {
        throw .malformedRequest(head: buffers[used].chain.head)
      }
      room += chain
      used += 1
    }
    // num_buffers, which is 1 without merging too (§5.1.6.4.1).
    packet.storeBytes(of: UInt16(used), toByteOffset: 10, as: UInt16.self)
    var position = 0
    for buffer in buffers[..<used] {
      let part = UnsafeRawBufferPointer(rebasing: packet[position..<waiting])
      let count = buffer.chain.putWritable(part)
      queue.push(head: buffer.chain.head, written: UInt32(count))
      position += count
    }
    queue.statistics.bytesToGuest &+= UInt64(waiting - packetHeaderSize)
    return true
  }

  // MARK: Control queue (§5.1.6.5)

  private func control(_ queue: VirtioQueue) throws(QueueError) -> Bool {
    var any = false
    while try queue.pop(into: &chain) {
      any = true
      guard let kind = chain.takeReadable(UInt16.self), chain.writableCount > 0 else {
        throw .malformedRequest(head: chain.head)
      }
      let done = command(class: UInt8(truncatingIfNeeded: kind), number: UInt8(truncatingIfNeeded: kind >> 8))
      if !done { queue.statistics.errors &+= 1 }
      var acknowledgement: UInt8 = done ? 0 : 1
      withUnsafeBytes(of: &acknowledgement) { _ = chain.putWritable($0) }
      queue.push(head: chain.head, written: 1)
    }
    return any
  }

  private func command(class kind: UInt8, number: UInt8) -> Bool {
    switch (kind, number) {
    case (0, _):
      guard let value = chain.takeReadable(UInt8.self) else { return false }
      let on = value != 0
      switch number {
      case 0: filter.promiscuous = on
      case 1: filter.allMulticast = on
      case 2: filter.allUnicast = on
      case 3: filter.noMulticast = on
      case 4: filter.noUnicast = on
      case 5: filter.noBroadcast = on
      default: return false
      }
      return true
    case (1, 0):
      guard let unicast = takeAddresses(), let multicast = takeAddresses() else { return false }
      filter.unicast = unicast
      filter.multicast = multicast
      return true
    case (1, 1):
      guard let address = takeAddress(), address >> 40 & 1 == 0 else { return false }
      followOwnAddress()
      filter.address = address
      configuration.update((0..<6).map { ($0, UInt8(truncatingIfNeeded: address >> UInt64(40 - 8 * $0))) })
      return true
    default: return false
    }
  }

  private func takeAddress() -> UInt64? {
    withUnsafeTemporaryAllocation(byteCount: 6, alignment: 1) { bytes in
      chain.takeReadable(into: bytes) ? ReceiveFilter.number(bytes) : nil
    }
  }

  /// One table of the MAC_TABLE_SET command. Longer ones than a chain's bytes hold are refused by running out of them.
  private func takeAddresses() -> Set<UInt64>? {
    guard let count = chain.takeReadable(UInt32.self), count <= 4096 else { return nil }
    var addresses: Set<UInt64> = []
    for _ in 0..<count {
      guard let address = takeAddress() else { return nil }
      addresses.insert(address)
    }
    return addresses
  }
}
