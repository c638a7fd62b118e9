// The virtio block device (virtio 1.2 §5.2).

import BlockStorage
import CLinux
import Glibc
import HostSystem
import Synchronization
import SystemPackage

/// What a block device is configured with.
public struct BlockDeviceOptions: Sendable {
  /// Request queues, 1 to 16.
  public var queueCount: Int
  /// Largest size of each, a power of two.
  public var queueSize: UInt16
  /// What get-id answers, at most 20 bytes.
  public var identifier: String
  /// Logical block size in bytes that the driver is told (§5.2.4, blk_size): a power of two from 512 to 4096.
  public var logicalBlockSize: UInt32 = 512
  public init(queueCount: Int = 1, queueSize: UInt16 = 256, identifier: String = "castor") {
    self.queueCount = min(max(queueCount, 1), BlockDevice.maximumQueues)
    self.queueSize = queueSize
    self.identifier = identifier
  }
}

/// A disk.
public final class BlockDevice: VirtioDevice, @unchecked Sendable {
  // @unchecked: the plain variables belong to the device's thread; the rest is immutable, atomic or Sendable.

  /// Feature bits of §5.2.3.
  enum Feature {
    static let segmentMaximum: UInt64 = 1 << 2
    static let readOnly: UInt64 = 1 << 5
    static let blockSize: UInt64 = 1 << 6
    static let flush: UInt64 = 1 << 9
    static let topology: UInt64 = 1 << 10
    static let configurableCache: UInt64 = 1 << 11
    static let multiQueue: UInt64 = 1 << 12
    static let discard: UInt64 = 1 << 13
    static let writeZeroes: UInt64 = 1 << 14
  }

  /// Request types of §5.2.6.
  enum RequestType {
    static let read: UInt32 = 0
    static let write: UInt32 = 1
    static let flush: UInt32 = 4
    static let identify: UInt32 = 8
    static let discard: UInt32 = 11
    static let writeZeroes: UInt32 = 13
  }

  /// Status bytes of §5.2.6.
  enum Status {
    static let ok: UInt8 = 0
    static let ioError: UInt8 = 1
    static let unsupported: UInt8 = 2
  }

  public static let maximumQueues = 16
  /// Longest range of one discard or write-zeroes: 2 GiB.
  private static let maximumRangeSectors: UInt32 = 1 << 22
  private static let writebackOffset = 32

  public let deviceID: UInt32 = 2
  public let queueSizes: [UInt16]
  public let features: UInt64
  public let configuration = ConfigurationSpace(count: 60)

  private let backend: any BlockBackend
  private let identifier: [UInt8]
  /// Completed writes may still be in a cache (§5.2.5: the writeback field).
  private let writeback = Atomic<Bool>(true)
  // Set once, before the device's thread runs.
  private weak var context: DeviceContext?
  private var capacitySectors: UInt64

  /// A request that was taken from a queue and not yet returned.
  private final class Slot {
    var chain = DescriptorChain(capacity: 8)
    var queue: VirtioQueue?
    var status: UnsafeMutablePointer<UInt8>?
    var operation = BlockOperation.read
    var sector: UInt64 = 0
    var count: UInt64 = 0
    var begin: UInt64 = 0
  }
  private var slots: [Slot] = []
  private var freeSlots: [Int] = []
  private var completions: [BlockCompletion] = []
  private var inFlight = 0
  private var inFlightOfQueue: [Int]
  /// Requests given to the back end and not yet committed.
  private var uncommitted = 0
  /// So many are committed at a time: the host has begun with the first ones while the others of a long batch are still taken
  /// from the queue. One at a time would cost a system call each.
  private static let commitSize = 2

  private var faults = BlockFaults()
  /// Completions held back by a fault, in the order of their time.
  private var held: [(due: UInt64, completion: BlockCompletion)] = []
  private let timer: OwnedDescriptor

  /// A disk with the data of `backend`, which belongs to the device from then on.
  public init(backend: any BlockBackend, options: BlockDeviceOptions = BlockDeviceOptions()) throws(Errno) {
    self.backend = backend
    queueSizes = Array(repeating: options.queueSize, count: options.queueCount)
    inFlightOfQueue = Array(repeating: 0, count: options.queueCount)
    identifier = Array(Array(options.identifier.utf8).prefix(20))
    timer = try OwnedDescriptor { timerfd_create(CLOCK_MONOTONIC, CInt(TFD_NONBLOCK) | CInt(TFD_CLOEXEC)) }
    let geometry = backend.geometry
    capacitySectors = geometry.byteCount / 512
    var offered =
      Feature.segmentMaximum | Feature.blockSize | Feature.flush | Feature.topology | Feature.configurableCache
      | Feature.multiQueue
    offered |= geometry.isReadOnly ? Feature.readOnly : Feature.discard | Feature.writeZeroes
    features = offered
    let logical = min(max(options.logicalBlockSize, 512), 4096)
    let physical = max(geometry.physicalBlockSize, logical)
    configuration.update([
      (0, capacitySectors),
      // A chain has the header and the status byte besides its data (§5.2.5).
      (12, UInt32(max(1, Int(options.queueSize) - 2))),
      // Any 512-byte unit can be addressed all the same; the topology, in logical blocks, says which ones are cheap.
      (20, logical),
      (24, UInt8(physical.trailingZeroBitCount - logical.trailingZeroBitCount)),
      (26, UInt16(clamping: physical / logical)),
      (28, UInt32(0)),
      (Self.writebackOffset, UInt8(1)),
      (34, UInt16(options.queueCount)),
      (36, Self.maximumRangeSectors),
      (40, UInt32(1)),
      (44, max(geometry.discardGranularity, 512) / 512),
      (48, Self.maximumRangeSectors),
      (52, UInt32(1)),
      (56, UInt8(1)),
    ])
  }

  // MARK: Calls of the control thread

  /// Injects a fault, or clears all. Any thread.
  public func inject(_ fault: BlockFault) {
    guard let context else { return }
    switch fault {
    case .needsReset: context.needsReset("fault injected")
    case .spuriousInterrupt(let queue): context.spuriousInterrupt(queue: queue)
    case .wedge(let queue): context.wedge(queue: queue)
    case .clear:
      context.onDeviceThread { [self] in faults.apply(.clear) }
      context.wedge(queue: nil)
    default: context.onDeviceThread { [self] in faults.apply(fault) }
    }
  }

  /// Changes the capacity and tells the driver by a configuration interrupt. Any thread.
  public func resize(to byteCount: UInt64) throws(BlockStorageError) {
    let failure = Mutex<BlockStorageError?>(nil)
    let work: @Sendable () -> Void = { [self] in
      do throws(BlockStorageError) {
        // Nothing may be under way in a part that goes away.
        drain(nil)
        try backend.resize(to: byteCount)
        capacitySectors = backend.geometry.byteCount / 512
        configuration.update([(0, capacitySectors)])
        context?.configurationChanged()
        // What `drain` completed is shown to the driver now: nothing else may come that would have it shown.
        context?.publishAll()
      } catch {
        failure.withLock { $0 = error }
      }
    }
    if let context { context.onDeviceThread(work) } else { work() }
    if let failure = failure.withLock({ $0 }) { throw failure }
  }

  /// Capacity in bytes, as the driver sees it. Any thread.
  public var byteCount: UInt64 { configuration.read(at: 0, size: 8) &* 512 }

  // MARK: VirtioDevice

  public func writeConfiguration(at offset: Int, size: Int, value: UInt64) {
    guard offset == Self.writebackOffset, size == 1 else { return }
    setWriteback(value & 1 != 0)
  }

  private func setWriteback(_ on: Bool) {
    writeback.store(on, ordering: .releasing)
    configuration.update([(Self.writebackOffset, UInt8(on ? 1 : 0))])
  }

  public func attach(to context: DeviceContext) throws(Errno) {
    self.context = context
    if let descriptor = backend.completionDescriptor {
      try context.loop.add(descriptor, for: .readable) { [backend, unowned context] _ in
        backend.acknowledge()
        context.runPass()
      }
    }
    try context.loop.add(timer.rawValue, for: .readable) { [unowned self, unowned context] _ in
      var expirations: UInt64 = 0
      _ = Glibc.read(timer.rawValue, &expirations, 8)
      context.runPass()
    }
  }

  public func start(features: UInt64) {
    // Without FLUSH the driver cannot make a cache safe, so there is none (§5.2.6.2).
    setWriteback(features & Feature.flush != 0)
  }

  public func wantsDoorbell(_ queue: VirtioQueue) -> Bool { true }

  public func serve(_ queue: VirtioQueue) throws(QueueError) -> Bool {
    var any = false
    var now: UInt64 = 0
    while inFlight < backend.queueDepth {
      if freeSlots.isEmpty {
        freeSlots.append(slots.count)
        slots.append(Slot())
      }
      let tag = freeSlots[freeSlots.count - 1]
      let slot = slots[tag]
      guard try queue.pop(into: &slot.chain) else { break }
      freeSlots.removeLast()
      if now == 0 { now = monotonicNanoseconds() }
      slot.begin = now
      slot.queue = queue
      inFlight += 1
      inFlightOfQueue[queue.index] += 1
      any = true
      try begin(tag, slot)
    }
    return any
  }

  public func poll() throws(QueueError) -> Bool {
    commit()
    completions.removeAll(keepingCapacity: true)
    backend.reap(into: &completions)
    if faults.delay > 0 || !held.isEmpty { holdBack() }
    guard !completions.isEmpty else { return false }
    let now = monotonicNanoseconds()
    for completion in completions { complete(completion, now) }
    return true
  }

  public func drain(_ queue: VirtioQueue?) {
    while queue.map({ inFlightOfQueue[$0.index] }) ?? inFlight > 0 {
      completions.removeAll(keepingCapacity: true)
      if held.isEmpty {
        commit()
        backend.wait()
        backend.reap(into: &completions)
      } else {
        // Nobody waits longer for a reset because of an injected delay.
        completions += held.map(\.completion)
        held.removeAll()
      }
      let now = monotonicNanoseconds()
      for completion in completions { complete(completion, now) }
    }
  }

  public func stop() { setWriteback(true) }

  // MARK: Requests

  /// Checks a request and starts it.
  private func begin(_ tag: Int, _ slot: Slot) throws(QueueError) {
    struct Header {
      var type: UInt32
      var reserved: UInt32
      var sector: UInt64
    }
    slot.sector = 0
    slot.count = 0
    guard let header = slot.chain.takeReadable(Header.self), let status = slot.chain.takeLastWritableByte() else {
      // There is no place for an answer; the slot is free again, the chain is lost until the driver resets the device.
      release(tag, slot)
      throw .malformedRequest(head: slot.chain.head)
    }
    slot.status = status
    slot.sector = header.sector
    switch header.type {
    case RequestType.read:
      slot.operation = .read
      slot.count = UInt64(slot.chain.writableCount)
      submit(tag, slot, segments: slot.chain.writable)
    case RequestType.write:
      slot.operation = .write
      slot.count = UInt64(slot.chain.readableCount)
      submit(tag, slot, segments: slot.chain.readable)
    case RequestType.flush:
      slot.operation = .flush
      slot.sector = 0
      submit(tag, slot)
    case RequestType.identify:
      let bytes = identifier + [UInt8](repeating: 0, count: 20 - identifier.count)
      let written = bytes.withUnsafeBytes { slot.chain.putWritable($0) }
      finish(tag, slot, Status.ok, written: written)
    case RequestType.discard, RequestType.writeZeroes:
      beginRange(tag, slot, discard: header.type == RequestType.discard)
    default: finish(tag, slot, Status.unsupported)
    }
  }

  /// Discard and write-zeroes: the data are ranges, of which the configuration space allows one a request.
  private func beginRange(_ tag: Int, _ slot: Slot, discard: Bool) {
    struct Range {
      var sector: UInt64
      var count: UInt32
      var flags: UInt32
    }
    guard !backend.geometry.isReadOnly else { return finish(tag, slot, Status.ioError) }
    guard slot.chain.readableCount == 16, let range = slot.chain.takeReadable(Range.self) else {
      return finish(tag, slot, slot.chain.readableCount % 16 == 0 ? Status.unsupported : Status.ioError)
    }
    // Flag bit 0 is unmap, which a discard must not have (§5.2.6.2).
    guard range.flags & ~1 == 0, !discard || range.flags == 0 else { return finish(tag, slot, Status.unsupported) }
    guard range.count <= Self.maximumRangeSectors else { return finish(tag, slot, Status.ioError) }
    slot.operation = discard ? .discard : .writeZeroes
    slot.sector = range.sector
    slot.count = UInt64(range.count) * 512
    submit(tag, slot, mayUnmap: range.flags & 1 != 0)
  }

  private func submit(
    _ tag: Int, _ slot: Slot, segments: UnsafeMutableBufferPointer<iovec> = .init(start: nil, count: 0),
    mayUnmap: Bool = false
  ) {
    let sectors = slot.count / 512
    guard slot.count % 512 == 0, slot.sector <= capacitySectors, sectors <= capacitySectors - slot.sector else {
      return finish(tag, slot, Status.ioError)
    }
    // A driver that writes to a disk it was told is read-only.
    guard slot.operation != .write || !backend.geometry.isReadOnly else { return finish(tag, slot, Status.ioError) }
    if faults.isActive, faults.hits(slot.sector..<slot.sector + sectors) {
      return finish(tag, slot, Status.ioError)
    }
    // A disk opened read-only has nothing to flush.
    if slot.count == 0, slot.operation != .flush || backend.geometry.isReadOnly {
      return finish(tag, slot, Status.ok)
    }
    var request = BlockRequest(slot.operation, tag: tag)
    request.offset = slot.sector * 512
    request.count = slot.count
    request.segments = segments
    request.durable = !writeback.load(ordering: .acquiring)
    request.mayUnmap = mayUnmap
    backend.submit(request)
    uncommitted += 1
    if uncommitted == Self.commitSize { commit() }
  }

  private func commit() {
    guard uncommitted > 0 else { return }
    uncommitted = 0
    backend.commit()
  }

  private func complete(_ completion: BlockCompletion, _ now: UInt64) {
    let slot = slots[completion.tag]
    guard let queue = slot.queue else { return }
    queue.statistics.latency.record(now &- slot.begin)
    if let error = completion.error {
      context?.log.write(
        .error, "\(slot.operation) of \(slot.count) bytes at sector \(slot.sector) failed: \(error)")
      return finish(completion.tag, slot, Status.ioError)
    }
    switch slot.operation {
    case .read: queue.statistics.bytesToGuest &+= slot.count
    case .write: queue.statistics.bytesFromGuest &+= slot.count
    case .flush, .discard, .writeZeroes: break
    }
    finish(completion.tag, slot, Status.ok, written: slot.operation == .read ? Int(slot.count) : 0)
  }

  /// Writes the status byte and puts the chain into the used ring.
  /// - Parameter written: bytes of the writable part before the status byte that were filled.
  private func finish(_ tag: Int, _ slot: Slot, _ status: UInt8, written: Int = 0) {
    // Safe: a byte of a segment that was checked to be guest RAM, which stays mapped.
    slot.status?.pointee = status
    slot.status = nil
    if let queue = slot.queue {
      if status != Status.ok { queue.statistics.errors &+= 1 }
      queue.push(head: slot.chain.head, written: UInt32(clamping: written + 1))
    }
    release(tag, slot)
  }

  private func release(_ tag: Int, _ slot: Slot) {
    if let queue = slot.queue { inFlightOfQueue[queue.index] -= 1 }
    slot.queue = nil
    inFlight -= 1
    freeSlots.append(tag)
  }

  /// Moves new completions behind those that wait for their time, and takes out those whose time has come.
  private func holdBack() {
    let now = monotonicNanoseconds()
    held += completions.map { (now &+ faults.delay, $0) }
    completions.removeAll(keepingCapacity: true)
    // After the delay was shortened an earlier completion may be due later than its successors; they wait for it.
    let due = held.prefix { $0.due <= now }
    completions += due.map(\.completion)
    held.removeFirst(due.count)
    guard let next = held.first else { return }
    var time = itimerspec()
    let wait = max(1, next.due &- now)
    time.it_value.tv_sec = Int(wait / 1_000_000_000)
    time.it_value.tv_nsec = Int(wait % 1_000_000_000)
    timerfd_settime(timer.rawValue, 0, &time, nil)
  }
}
