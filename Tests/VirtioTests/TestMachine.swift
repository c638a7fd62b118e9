// A transport with a driver in front of it and a recording interrupt controller behind it, without KVM.

import Glibc
import GuestMemory
import HostSystem
import Synchronization
import Testing

@testable import Virtio

/// Counts what a device sends.
final class RecordingInterrupts: InterruptTrigger, MessageRouter {
  struct Message: Equatable {
    var address: UInt64
    var data: UInt32
    var enabled: Bool
  }
  struct State {
    var line = 0
    var messages: [Int: Int] = [:]
    var entries: [Int: Message] = [:]
  }
  let state = Mutex(State())

  func trigger() { state.withLock { $0.line += 1 } }
  func trigger(queue: Int) { state.withLock { $0.messages[queue, default: 0] += 1 } }
  func setMessage(queue: Int, address: UInt64, data: UInt32, enabled: Bool) {
    state.withLock { $0.entries[queue] = Message(address: address, data: data, enabled: enabled) }
  }
  var line: Int { state.withLock { $0.line } }
  func messages(_ queue: Int) -> Int { state.withLock { $0.messages[queue, default: 0] } }
}

/// Waits until `condition` holds, at most five seconds.
func eventually(_ condition: () throws -> Bool) rethrows -> Bool {
  for _ in 0..<50_000 {
    if try condition() { return true }
    usleep(100)
  }
  return try condition()
}

/// What a guest's driver does to a device, by loads and stores of the window.
final class TestMachine {
  let memory: GuestMemory
  let transport: MMIOTransport
  let interrupts = RecordingInterrupts()
  private(set) var drivers: [TestDriver] = []

  init(_ device: any VirtioDevice, memory: GuestMemory? = nil, options: DeviceOptions = DeviceOptions()) throws {
    self.memory = try memory ?? GuestMemory(ranges: [0..<0x100_0000], hugePages: false)
    transport = try MMIOTransport(
      name: "test", device: device, memory: self.memory, line: interrupts, messages: interrupts, options: options)
  }

  func read(_ offset: UInt64) -> UInt32 { UInt32(truncatingIfNeeded: transport.read(offset: offset, size: 4)) }
  func write(_ offset: UInt64, _ value: UInt32) { transport.write(offset: offset, size: 4, value: UInt64(value)) }

  var status: UInt32 { read(Register.status) }

  var offeredFeatures: UInt64 {
    write(Register.deviceFeaturesSelect, 0)
    let low = UInt64(read(Register.deviceFeatures))
    write(Register.deviceFeaturesSelect, 1)
    return low | UInt64(read(Register.deviceFeatures)) << 32
  }

  func writeFeatures(_ features: UInt64) {
    write(Register.driverFeaturesSelect, 0)
    write(Register.driverFeatures, UInt32(truncatingIfNeeded: features))
    write(Register.driverFeaturesSelect, 1)
    write(Register.driverFeatures, UInt32(truncatingIfNeeded: features >> 32))
  }

  func setUp(queue: Int, layout: QueueLayout) {
    write(Register.queueSelect, UInt32(queue))
    write(Register.queueSize, UInt32(layout.size))
    write(Register.queueDescriptorsLow, UInt32(truncatingIfNeeded: layout.descriptorTable.rawValue))
    write(Register.queueDescriptorsHigh, UInt32(truncatingIfNeeded: layout.descriptorTable.rawValue >> 32))
    write(Register.queueDriverLow, UInt32(truncatingIfNeeded: layout.driverArea.rawValue))
    write(Register.queueDriverHigh, UInt32(truncatingIfNeeded: layout.driverArea.rawValue >> 32))
    write(Register.queueDeviceLow, UInt32(truncatingIfNeeded: layout.deviceArea.rawValue))
    write(Register.queueDeviceHigh, UInt32(truncatingIfNeeded: layout.deviceArea.rawValue >> 32))
    write(Register.queueReady, 1)
  }

  /// The whole initialisation of §3.1.1. Every queue gets a ring of `size` and a megabyte of its own for buffers.
  /// - Parameter without: features that the driver does not take although they are offered.
  func initialize(size: UInt16 = 16, without: UInt64 = 0) throws {
    write(Register.status, 0)
    write(Register.status, DeviceStatus.acknowledge)
    write(Register.status, DeviceStatus.acknowledge | DeviceStatus.driver)
    let features = offeredFeatures & ~without
    writeFeatures(features)
    let negotiated = DeviceStatus.acknowledge | DeviceStatus.driver | DeviceStatus.featuresOK
    write(Register.status, negotiated)
    try #require(status == negotiated)
    drivers = []
    for queue in transport.queueEvents.indices {
      let driver = TestDriver(
        memory: memory, base: UInt64(queue) << 20, size: size,
        eventIndex: features & TransportFeature.eventIndex != 0)
      driver.reset()
      drivers.append(driver)
      setUp(queue: queue, layout: driver.layout)
      try #require(read(Register.queueReady) == 1)
    }
    write(Register.status, negotiated | DeviceStatus.driverOK)
  }

  /// Publishes what was added to a queue and rings the doorbell if the device asked for it.
  func kick(_ queue: Int = 0) throws {
    if try drivers[queue].publish() { write(Register.queueNotify, UInt32(queue)) }
  }

  /// Waits for the next used element of a queue.
  func used(_ queue: Int = 0) throws -> (head: UInt16, written: UInt32)? {
    var element: (head: UInt16, written: UInt32)?
    _ = try eventually {
      element = try drivers[queue].takeUsed()
      return element != nil
    }
    return element
  }
}
