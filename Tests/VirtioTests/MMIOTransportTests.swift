import Foundation
import GuestMemory
import Synchronization
import SystemPackage
import Testing

@testable import Virtio

/// Copies each request's readable part to its writable part.
final class EchoDevice: VirtioDevice {
  let deviceID: UInt32 = 42
  let queueSizes: [UInt16]
  let features: UInt64 = 1 << 3
  let configuration = ConfigurationSpace(count: 16)
  let started = Mutex<[UInt64]>([])
  let written = Mutex<[[Int]]>([])
  /// As a device whose back end fails while it is reset.
  let breaksAtStop = Mutex(false)
  nonisolated(unsafe) private var chain = DescriptorChain()
  nonisolated(unsafe) private(set) var context: DeviceContext?

  let controlQueues: Range<Int>

  init(queues: Int = 2, controlQueues: Range<Int> = 0..<0) {
    queueSizes = Array(repeating: 64, count: queues)
    self.controlQueues = controlQueues
  }
  func attach(to context: DeviceContext) { self.context = context }
  func writeConfiguration(at offset: Int, size: Int, value: UInt64) {
    written.withLock { $0.append([offset, size, Int(truncatingIfNeeded: value)]) }
  }
  func start(features: UInt64) { started.withLock { $0.append(features) } }
  func serve(_ queue: VirtioQueue) throws(QueueError) -> Bool {
    var any = false
    while try queue.pop(into: &chain) {
      any = true
      let count = min(chain.readableCount, chain.writableCount)
      let head = chain.head
      let written = withUnsafeTemporaryAllocation(byteCount: count, alignment: 8) { bytes in
        _ = chain.takeReadable(into: bytes)
        return chain.putWritable(UnsafeRawBufferPointer(bytes))
      }
      queue.push(head: head, written: UInt32(written))
    }
    return any
  }
  func poll() -> Bool { false }
  func wantsDoorbell(_ queue: VirtioQueue) -> Bool { true }
  func drain(_ queue: VirtioQueue?) {}
  func stop() { if breaksAtStop.withLock({ $0 }) { context?.needsReset("test") } }
}

@Suite struct MMIOTransportTests {
  @Test func identityRegistersReadAsSpecified() throws {
    let machine = try TestMachine(EchoDevice())
    #expect(machine.read(0x000) == 0x7472_6976)
    #expect(machine.read(0x004) == 2)
    #expect(machine.read(0x008) == 42)
    #expect(machine.read(Register.queueSizeMaximum) == 64)
    machine.write(Register.queueSelect, 2)
    #expect(machine.read(Register.queueSizeMaximum) == 0)
    for offset in stride(from: 0xb0 as UInt64, through: 0xbc, by: 4) { #expect(machine.read(offset) == .max) }
    #expect(machine.offeredFeatures == 1 << 3 | 1 << 28 | 1 << 29 | 1 << 32 | 1 << 40)
    machine.write(Register.deviceFeaturesSelect, 2)
    #expect(machine.read(Register.deviceFeatures) == 0)
  }

  @Test(arguments: [1 << 32 | 1 << 5, 1 << 3, 1 << 32 | 1 << 41] as [UInt64])
  func featuresNotOfferedOrWithoutVersion1AreRefused(features: UInt64) throws {
    let machine = try TestMachine(EchoDevice())
    machine.write(Register.status, 3)
    machine.writeFeatures(features)
    machine.write(Register.status, 11)
    #expect(machine.status == 3)
    machine.write(Register.status, 7)
    #expect(machine.status == 3)
  }

  @Test func requestGoesThroughWithAnInterruptOnTheLine() throws {
    let device = EchoDevice()
    let machine = try TestMachine(device)
    try machine.initialize()
    #expect(device.started.withLock { $0 } == [machine.offeredFeatures])
    for queue in 0..<2 {
      let driver = machine.drivers[queue]
      let (from, to) = (driver.allocate(64), driver.allocate(64))
      try machine.memory.write(bytes: Array(1...64), at: from)
      let head = try driver.add(readable: [(from, 64)], writable: [(to, 64)], indirect: queue == 1)
      try machine.kick(queue)
      let used = try #require(try machine.used(queue))
      #expect(used.head == head && used.written == 64)
      #expect(try machine.memory.readBytes(at: to, count: 64) == Array(1...64))
    }
    #expect(eventually { machine.interrupts.line == 2 })
    #expect(machine.read(Register.interruptStatus) == 1)
    machine.write(Register.interruptAcknowledge, 1)
    #expect(machine.read(Register.interruptStatus) == 0)
    let statistics = machine.transport.statistics()
    #expect(statistics.map(\.requests) == [1, 1])
    #expect(statistics.map(\.doorbells) == [1, 1])
    #expect(statistics.map(\.interrupts) == [1, 1])
  }

  @Test func doorbellPageRingsItsQueue() throws {
    let machine = try TestMachine(EchoDevice())
    try machine.initialize()
    let buffer = machine.drivers[1].allocate(8)
    _ = try machine.drivers[1].add(writable: [(buffer, 8)])
    try machine.drivers[1].publish()
    machine.write(MMIOTransport.doorbells + MMIOTransport.doorbellStride, 0xffff_ffff)
    #expect(try machine.used(1) != nil)
    // Doorbells of queues that do not exist, and notifications of them, do nothing.
    machine.write(MMIOTransport.doorbells + 7 * MMIOTransport.doorbellStride, 0)
    machine.write(Register.queueNotify, 99)
  }

  /// The control page is the register page, but for the doorbell of queues that carry data.
  @Test func controlPageRingsForControlQueuesOnly() throws {
    let machine = try TestMachine(EchoDevice(controlQueues: 1..<2))
    try machine.initialize()
    #expect(machine.read(MMIOTransport.controlPage + Register.magicValue) == 0x7472_6976)
    #expect(machine.read(MMIOTransport.controlPage + Register.status) == 15)
    for queue in [0, 1] {
      let buffer = machine.drivers[queue].allocate(8)
      _ = try machine.drivers[queue].add(writable: [(buffer, 8)])
      try machine.drivers[queue].publish()
      machine.write(MMIOTransport.controlPage + Register.queueNotify, UInt32(queue))
      usleep(50_000)
      // A device that has been woken looks at all of its queues.
      #expect(machine.transport.statistics().map(\.requests) == (queue == 0 ? [0, 0] : [1, 1]))
    }
    machine.write(MMIOTransport.controlPage + Register.queueNotify, .max)
    machine.write(MMIOTransport.controlPage + Register.status, 0)
    #expect(machine.status == 0)
  }

  @Test func enabledMessageReplacesTheLineUntilReset() throws {
    let machine = try TestMachine(EchoDevice())
    try machine.initialize()
    let entry = MMIOTransport.messageTable + 16
    machine.write(entry, 0xfee0_1000)
    machine.write(entry + 4, 0)
    machine.write(entry + 8, 0x55)
    #expect(machine.interrupts.state.withLock { $0.entries[1]?.enabled } != true)
    machine.write(entry + 12, 1)
    #expect(
      machine.interrupts.state.withLock { $0.entries[1] }
        == RecordingInterrupts.Message(address: 0xfee0_1000, data: 0x55, enabled: true))
    #expect(machine.read(entry) == 0xfee0_1000 && machine.read(entry + 12) == 1)
    let buffer = machine.drivers[1].allocate(8)
    _ = try machine.drivers[1].add(writable: [(buffer, 8)])
    try machine.kick(1)
    #expect(try machine.used(1) != nil)
    #expect(eventually { machine.interrupts.messages(1) == 1 })
    #expect(machine.interrupts.line == 0)
    #expect(machine.read(Register.interruptStatus) == 0)
    machine.write(Register.status, 0)
    #expect(machine.interrupts.state.withLock { $0.entries[1]?.enabled } == false)
    #expect(machine.read(entry + 12) == 0)
  }

  @Test func ringResetGivesTheQueueBackForAnotherSize() throws {
    let machine = try TestMachine(EchoDevice())
    try machine.initialize(size: 16)
    machine.write(Register.queueSelect, 1)
    machine.write(Register.queueReset, 1)
    #expect(machine.read(Register.queueReset) == 0)
    #expect(machine.read(Register.queueReady) == 0)
    // What was available in the ring that is gone is not touched.
    let old = machine.drivers[1]
    _ = try old.add(writable: [(old.allocate(8), 8)])
    try machine.kick(1)
    let driver = TestDriver(memory: machine.memory, base: 5 << 20, size: 32, eventIndex: true)
    driver.reset()
    let buffer = driver.allocate(8)
    _ = try driver.add(writable: [(buffer, 8)])
    try driver.publish()
    // Enabled again while the device runs: what is available then is served without a doorbell.
    machine.setUp(queue: 1, layout: driver.layout)
    #expect(try eventually { try driver.takeUsed() != nil })
    #expect(try old.takeUsed() == nil)
  }

  @Test func nothingIsServedBeforeDriverOK() throws {
    let machine = try TestMachine(EchoDevice(queues: 1))
    machine.write(Register.status, 3)
    machine.writeFeatures(TransportFeature.version1)
    machine.write(Register.status, 11)
    let driver = TestDriver(memory: machine.memory, size: 8)
    machine.setUp(queue: 0, layout: driver.layout)
    _ = try driver.add(writable: [(driver.allocate(8), 8)])
    try driver.publish()
    machine.write(Register.queueNotify, 0)
    _ = machine.transport.statistics()
    #expect(try driver.takeUsed() == nil)
    machine.write(Register.status, 15)
    #expect(try eventually { try driver.takeUsed() != nil })
  }

  @Test func badRingSetsNeedsResetAndResetHeals() throws {
    let machine = try TestMachine(EchoDevice())
    try machine.initialize()
    try machine.drivers[0].setAvailableIndex(500)
    machine.write(Register.queueNotify, 0)
    #expect(eventually { machine.status & DeviceStatus.needsReset != 0 })
    #expect(eventually { machine.interrupts.line == 1 })
    #expect(machine.read(Register.interruptStatus) == 2)
    // The other queue is dead until reset, too.
    _ = try machine.drivers[1].add(writable: [(machine.drivers[1].allocate(8), 8)])
    try machine.kick(1)
    _ = machine.transport.statistics()
    #expect(try machine.drivers[1].takeUsed() == nil)
    try machine.initialize()
    #expect(machine.status & DeviceStatus.needsReset == 0)
    _ = try machine.drivers[0].add(writable: [(machine.drivers[0].allocate(8), 8)])
    try machine.kick(0)
    #expect(try machine.used(0) != nil)
  }

  /// Nobody could be told when it happened.
  @Test func aDeviceThatBreaksBeforeDriverOKSaysSoThen() throws {
    let machine = try TestMachine(EchoDevice(queues: 1))
    machine.write(Register.status, 3)
    machine.writeFeatures(TransportFeature.version1)
    machine.write(Register.status, 11)
    machine.setUp(queue: 0, layout: TestDriver(memory: machine.memory, size: 8).layout)
    machine.transport.context.needsReset("test")
    #expect(machine.interrupts.line == 0)
    #expect(machine.status == 11 | DeviceStatus.needsReset)
    machine.write(Register.status, 15)
    #expect(machine.status == 15 | DeviceStatus.needsReset)
    #expect(machine.interrupts.line == 1)
    #expect(machine.read(Register.interruptStatus) == 2)
  }

  /// A device that breaks while it is reset either needs another one, and says so, or works.
  @Test func breakingDuringAResetIsNeverSilent() throws {
    let device = EchoDevice(queues: 1)
    let machine = try TestMachine(device)
    for round in 0..<100 {
      device.breaksAtStop.withLock { $0 = true }
      machine.write(Register.status, 0)
      device.breaksAtStop.withLock { $0 = false }
      // What the device's thread had still to do.
      _ = machine.transport.statistics()
      if machine.status & DeviceStatus.needsReset != 0 { machine.write(Register.status, 0) }
      for status in [3, 11] as [UInt32] {
        if status == 11 { machine.writeFeatures(TransportFeature.version1) }
        machine.write(Register.status, status)
      }
      let driver = TestDriver(memory: machine.memory, size: 8)
      driver.reset()
      machine.setUp(queue: 0, layout: driver.layout)
      machine.write(Register.status, 15)
      _ = try driver.add(writable: [(driver.allocate(8), 8)])
      if try driver.publish() { machine.write(Register.queueNotify, 0) }
      try #require(eventually { try driver.takeUsed() != nil }, "round \(round), status \(machine.status)")
    }
  }

  @Test func queueThatLiesOutsideMemoryNeedsReset() throws {
    let machine = try TestMachine(EchoDevice())
    machine.write(Register.status, 3)
    machine.writeFeatures(TransportFeature.version1)
    machine.write(Register.status, 11)
    machine.setUp(
      queue: 0,
      layout: QueueLayout(
        size: 8, descriptorTable: GuestAddress(0xffff_ffff_ffff_fff0), driverArea: GuestAddress(0),
        deviceArea: GuestAddress(0)))
    #expect(machine.read(Register.queueReady) == 0)
    #expect(machine.status == 11 | DeviceStatus.needsReset)
  }

  @Test func configurationIsReadAtAnyWidthAndItsGenerationMoves() throws {
    let device = EchoDevice()
    let machine = try TestMachine(device)
    let before = machine.read(Register.configurationGeneration)
    device.configuration.update([(0, 0x1122_3344_5566_7788 as UInt64), (8, 0xabcd as UInt16)])
    #expect(machine.read(Register.configurationGeneration) != before)
    #expect(machine.transport.read(offset: 0x100, size: 8) == 0x1122_3344_5566_7788)
    #expect(machine.transport.read(offset: 0x101, size: 1) == 0x77)
    #expect(machine.transport.read(offset: 0x108, size: 2) == 0xabcd)
    #expect(machine.transport.read(offset: 0xff8, size: 8) == 0)
    machine.transport.write(offset: 0x104, size: 2, value: 9)
    #expect(device.written.withLock { $0 } == [[4, 2, 9]])
    // No interrupt for a driver that is not there yet.
    device.context?.configurationChanged()
    #expect(machine.interrupts.line == 0)
    try machine.initialize()
    device.context?.configurationChanged()
    #expect(machine.interrupts.line == 1)
    #expect(machine.read(Register.interruptStatus) == 2)
  }

  @Test func pausedDeviceTakesNothingUntilItResumes() throws {
    let machine = try TestMachine(EchoDevice())
    try machine.initialize()
    machine.transport.pause()
    _ = try machine.drivers[0].add(writable: [(machine.drivers[0].allocate(8), 8)])
    try machine.kick()
    _ = machine.transport.statistics()
    #expect(try machine.drivers[0].takeUsed() == nil)
    machine.transport.resume()
    #expect(try machine.used() != nil)
  }

  @Test func accessAfterShutdownDoesNotHang() throws {
    let machine = try TestMachine(EchoDevice())
    try machine.initialize()
    machine.transport.shutdown()
    machine.transport.shutdown()
    machine.write(Register.status, 0)
    #expect(machine.status == 0)
    #expect(machine.transport.statistics().count == 2)
  }

  @Test(arguments: 0..<6 as Range<UInt64>)
  func randomRegisterAccessesNeverTrap(seed: UInt64) throws {
    var random = SeededGenerator(state: seed)
    let machine = try TestMachine(EchoDevice())
    let areas: [Range<UInt64>] = [
      0..<0x140, 0x40..<0xc8, 0x70..<0x74, 0x1000..<0x1040, 0x2000..<0x2140, 0x1_0000..<0x4_0000,
    ]
    for _ in 0..<3000 {
      let area = areas[Int(random.next() % UInt64(areas.count))]
      var offset = area.lowerBound + random.next() % UInt64(area.count)
      if random.next() % 8 != 0 { offset &= ~3 }
      let size = random.next() % 8 == 0 ? [1, 2, 8][Int(random.next() % 3)] : 4
      let value = random.next() % 2 == 0 ? random.next() % 64 : random.next()
      if random.next() % 4 == 0 {
        _ = machine.transport.read(offset: offset, size: size)
      } else {
        machine.transport.write(offset: offset, size: size, value: value)
      }
    }
    try machine.initialize()
    #expect(machine.status == 15)
  }
}
