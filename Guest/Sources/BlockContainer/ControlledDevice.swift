// The control plane of a virtio block device over MMIO: virtio 1.2 §3.1.1 (initialisation), §4.2.2 (registers), §5.2.4
// (configuration), docs/platform.md (message table).

import BlockInterface
import DriverContract
import DriverControl
import DriverVirtqueue
import Pollux

/// Register offsets, §4.2.2 table 4.1.
private enum Register {
  static let magic: UInt64 = 0x000
  static let version: UInt64 = 0x004
  static let deviceType: UInt64 = 0x008
  static let deviceFeatures: UInt64 = 0x010
  static let deviceFeaturesSelect: UInt64 = 0x014
  static let driverFeatures: UInt64 = 0x020
  static let driverFeaturesSelect: UInt64 = 0x024
  static let queueSelect: UInt64 = 0x030
  static let queueSizeMaximum: UInt64 = 0x034
  static let queueSize: UInt64 = 0x038
  static let queueReady: UInt64 = 0x044
  static let queueNotify: UInt64 = 0x050
  static let interruptStatus: UInt64 = 0x060
  static let interruptAcknowledge: UInt64 = 0x064
  static let status: UInt64 = 0x070
  static let queueDescriptors: UInt64 = 0x080
  static let queueDriver: UInt64 = 0x090
  static let queueDevice: UInt64 = 0x0a0
  static let configurationGeneration: UInt64 = 0x0fc
  static let configuration: UInt64 = 0x100
}

/// Device status bits, §2.1.
private enum Status {
  static let acknowledge: UInt32 = 1
  static let driver: UInt32 = 2
  static let driverReady: UInt32 = 4
  static let featuresReady: UInt32 = 8
  static let needsReset: UInt32 = 64
  static let failed: UInt32 = 128
}

/// The device as its container holds it.
final class ControlledDevice: ControlPlane {
  private let registers: DeviceRegisters
  /// The message table, where the device has one; and the twin's notification, which messages signal.
  private let messages: Handle?
  private let dataEvents: Notification?
  private var message: Interrupt?
  private let isSolo: Bool
  /// Not yet set up, or reset and not yet set up again.
  private var isDown = true
  /// What init keeps for this device, for the rings: the same for every container.
  private let memory: MemoryObject

  private(set) var state = DeviceState()
  private var queueObject: MemoryObject?
  private(set) var queueRing: RingMemory?
  /// What the device writes: used ring and status bytes, apart from the rest so that clients may be shown it.
  private var completionObject: MemoryObject?
  private(set) var completionRing: RingMemory?

  /// The largest queue that is used.
  private static let largestQueue = 256
  /// What the driver wants a request to carry at least, in bytes.
  private static let wantedTransfer: UInt64 = 1 << 20

  init(_ start: StartBlock) throws(SystemError) {
    guard let page = start.handle("registers"), let memory = start.handle("memory") else { throw .notFound }
    self.memory = MemoryObject(Handle(memory))
    // Another container's generations are others.
    state.generation = Clock.now
    let mapping = try MemoryObject(Handle(page)).map([.read, .write])
    registers = DeviceRegisters(unsafeBase: mapping.address + (start.number("registers-offset") ?? 0))
    isSolo = start.text("mode")?.equals("solo") ?? false
    messages = start.handle("messages").map { Handle($0) }
    dataEvents = start.handle("data-events").map { Notification(Handle($0)) }
  }

  // The device has one queue.
  func queueMemory(_ queue: Int) -> MemoryObject? { queue == 0 ? queueObject : nil }
  func completionMemory(_ queue: Int) -> MemoryObject? { queue == 0 ? completionObject : nil }
  func messageInterrupt(_ queue: Int) -> Handle? { queue == 0 ? message?.handle : nil }
  func perform(_ command: UInt64, _ argument: UInt64) -> Bool { false }

  // MARK: Initialisation

  /// Sets the device up again if it was reset; for the twin's calls, while the twin waits for the reply.
  func bringUpIfDown() {
    if isDown { _ = bringUp() }
  }

  /// Resets the device and sets it up anew, with empty rings. False: it does not work; the state says lost.
  func bringUp() -> Bool {
    if setUp() { return true }
    ContainerProgram.complain("no working block device at these registers")
    return false
  }

  private func setUp() -> Bool {
    state.isLost = true
    isDown = false
    guard registers.load(Register.magic) == 0x7472_6976, registers.load(Register.version) == 2,
      registers.load(Register.deviceType) == 2, reset()
    else { return false }
    registers.store(Status.acknowledge, at: Register.status)
    registers.store(Status.acknowledge | Status.driver, at: Register.status)
    guard let features = negotiate() else { return giveUp() }
    readGeometry(features)
    do throws(SystemError) { try setUpQueue(features) } catch { return giveUp() }
    registers.store(
      Status.acknowledge | Status.driver | Status.featuresReady | Status.driverReady, at: Register.status)
    guard registers.load(Register.status) & (Status.needsReset | Status.failed) == 0 else { return giveUp() }
    state.isLost = false
    state.generation += 1
    return true
  }

  private func giveUp() -> Bool {
    registers.store(Status.failed, at: Register.status)
    return false
  }

  /// §4.2.3.1: write 0 and wait until the device reads as 0.
  private func reset() -> Bool {
    message?.handle.close()
    message = nil
    registers.store(0, at: Register.status)
    let deadline = Clock.now + Clock.frequency
    while registers.load(Register.status) != 0 {
      if Clock.now > deadline { return false }
      Clock.sleep(microseconds: 1000)
    }
    return true
  }

  private func negotiate() -> UInt64? {
    registers.store(0, at: Register.deviceFeaturesSelect)
    var offered = UInt64(registers.load(Register.deviceFeatures))
    registers.store(1, at: Register.deviceFeaturesSelect)
    offered |= UInt64(registers.load(Register.deviceFeatures)) << 32
    let wanted =
      VirtioFeature.sizeMaximum | VirtioFeature.segmentMaximum | VirtioFeature.readOnly | VirtioFeature.blockSize
      | VirtioFeature.flush | VirtioFeature.discard | VirtioFeature.writeZeroes | VirtioFeature.indirectDescriptors
      | VirtioFeature.eventIndex | VirtioFeature.version1
    let features = offered & wanted
    guard features & VirtioFeature.version1 != 0 else { return nil }
    registers.store(0, at: Register.driverFeaturesSelect)
    registers.store(UInt32(truncatingIfNeeded: features), at: Register.driverFeatures)
    registers.store(1, at: Register.driverFeaturesSelect)
    registers.store(UInt32(features >> 32), at: Register.driverFeatures)
    let ready = Status.acknowledge | Status.driver | Status.featuresReady
    registers.store(ready, at: Register.status)
    return registers.load(Register.status) & Status.featuresReady != 0 ? features : nil
  }

  /// Reads the configuration until no change fell between (§2.5.1).
  private func readGeometry(_ features: UInt64) {
    var geometry = state.geometry
    var sizeMaximum: UInt32 = 0
    var segmentMaximum: UInt32 = 0
    for _ in 0..<16 {
      let generation = registers.load(Register.configurationGeneration)
      geometry.sectors =
        UInt64(registers.load(Register.configuration)) | UInt64(registers.load(Register.configuration + 4)) << 32
      sizeMaximum = registers.load(Register.configuration + 8)
      segmentMaximum = registers.load(Register.configuration + 12)
      geometry.blockSize =
        features & VirtioFeature.blockSize != 0 ? registers.load(Register.configuration + 20) : 512
      if registers.load(Register.configurationGeneration) == generation { break }
    }
    // No request may reach beyond what a signed byte offset can name.
    geometry.sectors = min(geometry.sectors, 1 << 54)
    if geometry.blockSize < 512 || geometry.blockSize % 512 != 0 { geometry.blockSize = 512 }
    geometry.isReadOnly = features & VirtioFeature.readOnly != 0
    geometry.canFlush = features & VirtioFeature.flush != 0
    geometry.canDiscard = features & VirtioFeature.discard != 0
    geometry.canWriteZeroes = features & VirtioFeature.writeZeroes != 0
    // Clients' memory is contiguous, so one segment does unless the device limits its length.
    var limit: UInt64 = 4 << 20
    if features & VirtioFeature.sizeMaximum != 0, sizeMaximum >= 512 { limit = min(limit, UInt64(sizeMaximum)) }
    var segments = (Self.wantedTransfer + limit - 1) / limit
    if features & VirtioFeature.segmentMaximum != 0, segmentMaximum > 0 {
      segments = min(segments, UInt64(segmentMaximum))
    }
    segments = min(max(segments, 1), 32)
    state.segmentLimit = UInt32(limit & ~511)
    state.dataSegments = Int(segments)
    geometry.maximumTransfer = UInt64(state.segmentLimit) * segments
    state.geometry = geometry
    state.features = features
  }

  /// §4.2.3.2.
  private func setUpQueue(_ features: UInt64) throws(SystemError) {
    registers.store(0, at: Register.queueSelect)
    guard registers.load(Register.queueReady) == 0 else { throw .exists }
    let offered = Int(min(registers.load(Register.queueSizeMaximum), 1024))
    var size = 1
    while size * 2 <= min(offered, Self.largestQueue) { size *= 2 }
    guard offered > 0, let layout = BlockQueueLayout(size: size, dataSegments: state.dataSegments) else {
      throw .unsupported
    }
    if queueObject == nil {
      // For the largest queue, so that a device that comes back with another size finds room.
      guard let largest = BlockQueueLayout(size: Self.largestQueue, dataSegments: 32) else { throw .badArgument }
      let split = (UInt64(largest.byteCount) + AddressSpace.pageSize - 1) & ~(AddressSpace.pageSize - 1)
      let rest = (UInt64(largest.completionByteCount) + AddressSpace.pageSize - 1) & ~(AddressSpace.pageSize - 1)
      (queueObject, queueRing) = try part(0, split)
      (completionObject, completionRing) = try part(split, rest)
    }
    guard let ring = queueRing, let completions = completionRing, layout.byteCount <= ring.byteCount,
      layout.completionByteCount <= completions.byteCount
    else { throw .noMemory }
    ring.clear(0, layout.byteCount)
    completions.clear(0, layout.completionByteCount)
    state.queueSize = size
    state.queueAddress = ring.physical
    state.completionAddress = completions.physical
    registers.store(UInt32(size), at: Register.queueSize)
    store64(ring.physical + UInt64(layout.queue.descriptors), at: Register.queueDescriptors)
    store64(ring.physical + UInt64(layout.queue.available), at: Register.queueDriver)
    store64(completions.physical, at: Register.queueDevice)
    // The device forgets its message table at a reset; in solo mode it stays off, and completions use the line.
    if let messages, let dataEvents, !isSolo {
      message = try Interrupt.message(
        table: messages, entry: 0, notification: dataEvents, bits: TwinEvent.device)
    }
    registers.store(1, at: Register.queueReady)
  }

  private func part(_ offset: UInt64, _ size: UInt64) throws(SystemError) -> (MemoryObject?, RingMemory?) {
    let memory = try memory.slice(offset, size)
    let mapping = try memory.map([.read, .write])
    let ring = RingMemory(
      unsafeBase: mapping.base, byteCount: mapping.size, physical: try memory.physicalAddress())
    return (memory, ring)
  }

  private func store64(_ value: UInt64, at offset: UInt64) {
    registers.store(UInt32(truncatingIfNeeded: value), at: offset)
    registers.store(UInt32(value >> 32), at: offset + 4)
  }

  // MARK: While it runs

  func takeConfigurationInterrupt() -> Bool {
    // The reason is not asked where a twin shares the line and has acknowledged it already.
    _ = takeInterrupt()
    return configurationChanged()
  }

  /// Takes the line's reasons: InterruptStatus, acknowledged (§4.2.2). Bit 0: used buffers; bit 1: configuration.
  func takeInterrupt() -> UInt32 {
    let reasons = registers.load(Register.interruptStatus)
    if reasons != 0 { registers.store(reasons, at: Register.interruptAcknowledge) }
    return reasons
  }

  func notifyQueue() { registers.store(0, at: Register.queueNotify) }

  /// Follows a configuration change. True: something that the data plane must know has changed.
  func configurationChanged() -> Bool {
    if registers.load(Register.status) & Status.needsReset != 0 {
      ContainerProgram.complain("the device asks for a reset")
      if isSolo {
        _ = bringUp()
      } else {
        // Quiet from here on; set up again when the twin calls, so that it touches no ring meanwhile.
        isDown = true
        if !reset() { ContainerProgram.complain("the device does not reset") }
      }
      return true
    }
    let before = state.geometry
    readGeometry(state.features)
    if state.geometry.sectors != before.sectors {
      var line = Text("block-container: capacity is now ")
      line.add(state.geometry.sectors)
      line.add(" sectors\n")
      line.print()
      line.log()
    }
    return state.geometry != before
  }

  func suspend() {
    if !reset() { ContainerProgram.complain("the device does not reset") }
    isDown = true
  }
  var remark: StaticString { "control plane: registers and configuration interrupt" }

  /// Resets the device because nobody drives it any more: it must not write into memory that its users give away.
  func stop() {
    ContainerProgram.complain(reset() ? "the twin has ended; the device is stopped" : "the device does not reset")
    isDown = true
  }

  /// Tells the twin to fetch the state.
  func signalTwin() { dataEvents?.signal(TwinEvent.control) }
}
