// virtio over MMIO, version 2 (virtio 1.2 §4.2), and Castor's message table, control page and doorbell pages (docs/platform.md).

import GuestMemory
import HostSystem
import Synchronization
import SystemPackage

/// Offsets in the register page (§4.2.2).
enum Register {
  static let magicValue: UInt64 = 0x000
  static let version: UInt64 = 0x004
  static let deviceID: UInt64 = 0x008
  static let vendorID: UInt64 = 0x00c
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
  static let queueDescriptorsLow: UInt64 = 0x080
  static let queueDescriptorsHigh: UInt64 = 0x084
  static let queueDriverLow: UInt64 = 0x090
  static let queueDriverHigh: UInt64 = 0x094
  static let queueDeviceLow: UInt64 = 0x0a0
  static let queueDeviceHigh: UInt64 = 0x0a4
  static let sharedMemoryLengthLow: UInt64 = 0x0b0
  static let sharedMemoryBaseHigh: UInt64 = 0x0bc
  static let queueReset: UInt64 = 0x0c0
  static let configurationGeneration: UInt64 = 0x0fc
  static let configuration: UInt64 = 0x100
}

/// One device's 256 KiB window. `read` and `write` may be called by any vCPU's thread.
public final class MMIOTransport: @unchecked Sendable {
  // @unchecked: what changes is in `registers`, behind a Mutex, or atomic in `context`.

  /// Bytes of guest-physical address space that a device takes.
  public static let windowSize: UInt64 = 0x4_0000
  /// Offset of the message table, 16 bytes a queue.
  public static let messageTable: UInt64 = 0x1000
  /// Offset of the control page: the register page once more, where QueueNotify takes the device's control queues only. Who has no more
  /// than this page cannot ring for a data queue.
  public static let controlPage: UInt64 = 0x2000
  /// Bytes of each of the register page, the message table and the control page.
  private static let pageSize: UInt64 = 0x1000
  /// Offset of the first doorbell page.
  public static let doorbells: UInt64 = 0x1_0000
  /// Distance between doorbell pages.
  public static let doorbellStride: UInt64 = 0x1000
  /// Offset of QueueNotify, for an ioeventfd with the queue's index as datamatch.
  public static let queueNotify: UInt64 = Register.queueNotify
  /// Doorbell pages that fit into the window.
  public static let maximumQueues = Int((windowSize - doorbells) / doorbellStride)

  private struct QueueRegisters {
    var size: UInt16
    var descriptorTable: UInt64 = 0
    var driverArea: UInt64 = 0
    var deviceArea: UInt64 = 0
    var ready = false
    var message: [UInt32] = [0, 0, 0, 0]
  }

  private struct Registers {
    var deviceFeaturesSelect: UInt32 = 0
    var driverFeaturesSelect: UInt32 = 0
    var driverFeatures: UInt64 = 0
    var queueSelect: UInt32 = 0
    var queues: [QueueRegisters]
  }

  private let registers: Mutex<Registers>
  /// Serialises writes, some of which wait for the device's thread; reads never wait for that.
  private let writing = Mutex(())
  private let memory: GuestMemory
  private let device: any VirtioDevice
  private let messages: any MessageRouter
  private let offered: UInt64
  /// The device's thread and queues.
  public let context: DeviceContext

  /// Starts the device's thread.
  /// - Parameters:
  ///   - name: names the thread and the device in log lines.
  ///   - line: the device's interrupt line (GSI), pulsed for configuration changes and for queues without a message.
  ///   - messages: routes the queues' message interrupts.
  public init(
    name: String, device: any VirtioDevice, memory: GuestMemory, line: any InterruptTrigger,
    messages: any MessageRouter, options: DeviceOptions = DeviceOptions()
  ) throws(Errno) {
    guard device.queueSizes.count <= Self.maximumQueues else { throw .invalidArgument }
    self.device = device
    self.memory = memory
    self.messages = messages
    offered = device.features | TransportFeature.all
    registers = Mutex(Registers(queues: device.queueSizes.map { QueueRegisters(size: $0) }))
    context = try DeviceContext(name: name, device: device, line: line, messages: messages, options: options)
  }

  deinit { context.end() }

  /// One eventfd a queue. The machine registers each as ioeventfd of QueueNotify (datamatch: the queue) and of the
  /// queue's doorbell page.
  public var queueEvents: [EventDescriptor] { context.queueEvents }

  /// Finishes what is in flight and takes nothing more until `resume`.
  public func pause() { context.pause() }
  /// Goes on after `pause`.
  public func resume() { context.resume() }
  /// Finishes what is in flight and ends the device's thread.
  public func shutdown() { context.end() }

  /// What each queue has done so far.
  public func statistics() -> [QueueStatistics] {
    let result = Mutex<[QueueStatistics]>([])
    context.onDeviceThread { [context] in
      let copy = context.queues.map(\.statistics)
      result.withLock { $0 = copy }
    }
    return result.withLock { $0 }
  }

  /// A line a queue for `monitor virtq`: size, areas and indices.
  public func describeQueues() -> [String] {
    let layouts = registers.withLock { $0.queues }
    let result = Mutex<[String]>([])
    context.onDeviceThread { [context] in
      let lines = zip(context.queues, layouts).map { queue, layout in
        guard let ring = queue.ring else { return "queue \(queue.index): not enabled" }
        let indices = ring.indices
        return "queue \(queue.index): size \(ring.size), table \(GuestAddress(layout.descriptorTable)), driver area "
          + "\(GuestAddress(layout.driverArea)), device area \(GuestAddress(layout.deviceArea)), available "
          + "\(indices.available), next \(indices.next), used \(indices.used), in flight \(ring.outstanding)"
      }
      result.withLock { $0 = lines }
    }
    return result.withLock { $0 }
  }

  // MARK: Reads

  /// A guest's load of `size` bytes at `offset` in the window. What the specification does not define reads as zero.
  public func read(offset: UInt64, size: Int) -> UInt64 {
    switch offset {
    case Register.configuration..<Self.messageTable:
      return device.configuration.read(at: Int(offset - Register.configuration), size: size)
    case Self.controlPage..<Self.controlPage + Self.pageSize:
      return read(offset: offset - Self.controlPage, size: size)
    case Self.messageTable..<Self.controlPage:
      guard size == 4, offset % 4 == 0 else { return 0 }
      let entry = Int((offset - Self.messageTable) / 16)
      return registers.withLock { state in
        state.queues.indices.contains(entry) ? UInt64(state.queues[entry].message[Int(offset % 16 / 4)]) : 0
      }
    case 0..<Register.configuration:
      guard size == 4, offset % 4 == 0 else { return 0 }
      return UInt64(readRegister(offset))
    default: return 0
    }
  }

  private func readRegister(_ offset: UInt64) -> UInt32 {
    switch offset {
    case Register.magicValue: return 0x7472_6976
    case Register.version: return 2
    case Register.deviceID: return device.deviceID
    case Register.vendorID: return 0x5254_5343  // "CSTR"
    case Register.interruptStatus: return context.interruptStatus.load(ordering: .acquiring)
    case Register.status: return context.status.load(ordering: .acquiring)
    case Register.configurationGeneration: return device.configuration.generation
    // There is no shared memory region: length and base read as all ones (§4.2.2.2).
    case Register.sharedMemoryLengthLow...Register.sharedMemoryBaseHigh: return .max
    // A queue reset is over when the write that asked for it is (§2.6.1).
    case Register.queueReset: return 0
    default: break
    }
    return registers.withLock { state in
      switch offset {
      case Register.deviceFeatures:
        switch state.deviceFeaturesSelect {
        case 0: return UInt32(truncatingIfNeeded: offered)
        case 1: return UInt32(truncatingIfNeeded: offered >> 32)
        default: return 0
        }
      case Register.queueSizeMaximum:
        let queue = Int(state.queueSelect)
        return device.queueSizes.indices.contains(queue) ? UInt32(device.queueSizes[queue]) : 0
      case Register.queueReady:
        let queue = Int(state.queueSelect)
        return state.queues.indices.contains(queue) && state.queues[queue].ready ? 1 : 0
      default: return 0
      }
    }
  }

  // MARK: Writes

  /// A guest's store at `offset` in the window. What the specification does not define is ignored.
  public func write(offset: UInt64, size: Int, value: UInt64) {
    switch offset {
    case Register.queueNotify: notify(value)
    case Self.doorbells..<Self.windowSize:
      guard offset % Self.doorbellStride == 0 else { return }
      notify((offset - Self.doorbells) / Self.doorbellStride)
    case Self.controlPage + Register.queueNotify:
      if device.controlQueues.contains(Int(clamping: value)) { notify(value) }
    case Self.controlPage..<Self.controlPage + Self.pageSize:
      write(offset: offset - Self.controlPage, size: size, value: value)
    case Register.configuration..<Self.messageTable:
      let position = Int(offset - Register.configuration)
      writing.withLock { _ in device.writeConfiguration(at: position, size: size, value: value) }
    case Self.messageTable..<Self.controlPage:
      guard size == 4, offset % 4 == 0 else { return }
      writing.withLock { _ in writeMessage(offset - Self.messageTable, UInt32(truncatingIfNeeded: value)) }
    case 0..<Register.configuration:
      guard size == 4, offset % 4 == 0 else { return }
      let value = UInt32(truncatingIfNeeded: value)
      if offset == Register.interruptAcknowledge {
        context.interruptStatus.bitwiseAnd(~value, ordering: .acquiringAndReleasing)
      } else {
        writing.withLock { _ in writeRegister(offset, value) }
      }
    default: return
    }
  }

  private func notify(_ queue: UInt64) {
    guard queue < UInt64(queueEvents.count) else { return }
    queueEvents[Int(queue)].signal()
  }

  private func writeMessage(_ offset: UInt64, _ value: UInt32) {
    let queue = Int(offset / 16)
    let word = Int(offset % 16 / 4)
    let entry: [UInt32]? = registers.withLock { state in
      guard state.queues.indices.contains(queue) else { return nil }
      state.queues[queue].message[word] = word == 3 ? value & 1 : value
      return state.queues[queue].message
    }
    guard let entry else { return }
    let enabled = entry[3] & 1 != 0
    // Changes of an entry that is off take effect when it is switched on.
    guard word == 3 || enabled else { return }
    setMessage(queue, entry)
  }

  private func setMessage(_ queue: Int, _ entry: [UInt32]) {
    let bit: UInt64 = 1 << UInt64(queue)
    let enabled = entry[3] & 1 != 0
    if !enabled { context.enabledMessages.bitwiseAnd(~bit, ordering: .acquiringAndReleasing) }
    messages.setMessage(
      queue: queue, address: UInt64(entry[0]) | UInt64(entry[1]) << 32, data: entry[2], enabled: enabled)
    if enabled { context.enabledMessages.bitwiseOr(bit, ordering: .acquiringAndReleasing) }
  }

  /// Changes the selected queue's registers, which only count while it is not enabled (§4.2.2.2).
  private func changeQueue(_ change: (inout QueueRegisters) -> Void) {
    registers.withLock { state in
      let queue = Int(state.queueSelect)
      guard state.queues.indices.contains(queue), !state.queues[queue].ready else { return }
      change(&state.queues[queue])
    }
  }

  private func writeRegister(_ offset: UInt64, _ value: UInt32) {
    func low(_ field: inout UInt64) { field = field & 0xffff_ffff_0000_0000 | UInt64(value) }
    func high(_ field: inout UInt64) { field = field & 0xffff_ffff | UInt64(value) << 32 }
    switch offset {
    case Register.deviceFeaturesSelect: registers.withLock { $0.deviceFeaturesSelect = value }
    case Register.driverFeaturesSelect: registers.withLock { $0.driverFeaturesSelect = value }
    case Register.driverFeatures:
      // Not after FEATURES_OK (§3.1.1).
      guard context.status.load(ordering: .acquiring) & DeviceStatus.featuresOK == 0 else { return }
      registers.withLock { state in
        switch state.driverFeaturesSelect {
        case 0: low(&state.driverFeatures)
        case 1: high(&state.driverFeatures)
        default: break
        }
      }
    case Register.queueSelect: registers.withLock { $0.queueSelect = value }
    case Register.queueSize: changeQueue { $0.size = UInt16(clamping: value) }
    case Register.queueDescriptorsLow: changeQueue { low(&$0.descriptorTable) }
    case Register.queueDescriptorsHigh: changeQueue { high(&$0.descriptorTable) }
    case Register.queueDriverLow: changeQueue { low(&$0.driverArea) }
    case Register.queueDriverHigh: changeQueue { high(&$0.driverArea) }
    case Register.queueDeviceLow: changeQueue { low(&$0.deviceArea) }
    case Register.queueDeviceHigh: changeQueue { high(&$0.deviceArea) }
    case Register.queueReady: setReady(value & 1 != 0)
    case Register.queueReset: if value == 1 { resetQueue() }
    case Register.status: writeStatus(value)
    default: break
    }
  }

  private func setReady(_ ready: Bool) {
    let (index, queue, features) = registers.withLock { state in
      let index = Int(state.queueSelect)
      return (index, state.queues.indices.contains(index) ? state.queues[index] : nil, state.driverFeatures)
    }
    guard let queue, queue.ready != ready else { return }
    guard ready else {
      context.onDeviceThread { [context] in context.disable(index) }
      registers.withLock { $0.queues[index].ready = false }
      return
    }
    // Queues are set up between FEATURES_OK and use (§3.1.1).
    guard context.status.load(ordering: .acquiring) & DeviceStatus.featuresOK != 0 else { return }
    do throws(QueueError) {
      guard queue.size <= device.queueSizes[index] else { throw .invalidSize(queue.size) }
      var ringFeatures: RingFeatures = []
      if features & TransportFeature.indirectDescriptors != 0 { ringFeatures.insert(.indirect) }
      if features & TransportFeature.eventIndex != 0 { ringFeatures.insert(.eventIndex) }
      // The ring is made here and then given to the device's thread, which alone uses it from then on.
      nonisolated(unsafe) let ring = try SplitQueue(
        memory: memory,
        layout: QueueLayout(
          size: queue.size, descriptorTable: GuestAddress(queue.descriptorTable),
          driverArea: GuestAddress(queue.driverArea), deviceArea: GuestAddress(queue.deviceArea)),
        features: ringFeatures)
      registers.withLock { $0.queues[index].ready = true }
      context.onDeviceThread { [context] in context.enable(index, ring: ring) }
    } catch {
      context.needsReset("queue \(index): \(error)")
    }
  }

  /// §2.6.1: the queue is as after a device reset; its message entry is kept, for it is not part of the queue.
  private func resetQueue() {
    let (index, ready, negotiated) = registers.withLock { state in
      let index = Int(state.queueSelect)
      return (
        index, state.queues.indices.contains(index) && state.queues[index].ready,
        state.driverFeatures & TransportFeature.ringReset != 0
      )
    }
    guard ready, negotiated else { return }
    context.onDeviceThread { [context] in context.disable(index) }
    registers.withLock { state in
      let message = state.queues[index].message
      state.queues[index] = QueueRegisters(size: device.queueSizes[index])
      state.queues[index].message = message
    }
  }

  private func writeStatus(_ value: UInt32) {
    guard value & 0xff != 0 else { return reset() }
    let old = context.status.load(ordering: .acquiring)
    // The driver only ever adds bits (§2.1.1), and NEEDS_RESET is the device's.
    var added = value & 0xff & ~old & ~DeviceStatus.needsReset
    let features = registers.withLock { $0.driverFeatures }
    if added & DeviceStatus.featuresOK != 0 {
      // Refused by leaving the bit clear (§3.1.1 step 6).
      let acceptable = features & ~offered == 0 && features & TransportFeature.version1 != 0
      if !acceptable { added &= ~DeviceStatus.featuresOK }
    }
    if added & DeviceStatus.driverOK != 0, (old | added) & DeviceStatus.featuresOK == 0 {
      context.log.write(.warning, "DRIVER_OK before FEATURES_OK is ignored")
      added &= ~DeviceStatus.driverOK
    }
    context.status.bitwiseOr(added, ordering: .acquiringAndReleasing)
    if added & DeviceStatus.driverOK != 0 {
      context.onDeviceThread { [context] in context.start(features: features) }
    }
  }

  /// Returns when nothing of the device touches guest memory any more, for not every driver waits until the status reads
  /// as zero.
  private func reset() {
    context.onDeviceThread { [context] in context.reset() }
    for queue in device.queueSizes.indices { setMessage(queue, [0, 0, 0, 0]) }
    registers.withLock { state in
      state = Registers(queues: device.queueSizes.map { QueueRegisters(size: $0) })
    }
  }
}
