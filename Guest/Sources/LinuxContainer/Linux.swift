// Linux's side of the container, started: memory, callbacks, and the calls that the planes make.

import BlockInterface
import CLinuxContainer
import DriverContract
import LinuxModules
import NetInterface
import Pollux

/// What Linux's side calls has no argument to carry this. Set once, before the first call; one thread uses it.
nonisolated(unsafe) private var current: Linux?

final class Linux {
  private let entries: UnsafePointer<container_entries>
  private let host: UnsafeMutablePointer<container_host>
  /// Interrupts of the device, as bit 0; other bits belong to others.
  private let events: Notification
  /// The number under which Linux knows the device's interrupt.
  static let interruptNumber: Int32 = 1
  private static let pageStructSize: UInt64 = 64
  private static let roundsAtOnce = 1000

  private(set) var interrupts: UInt64 = 0
  /// What clients want to know of the devices; nil until `publishAttributes`.
  private var attributes: LinuxAttributes?
  /// Linux's direct map: what drivers allocate lies here.
  let memory: MemoryObject
  let physical: UInt64

  /// `memory` is what init keeps for the device: a driver of the next container gets its rings at the same addresses.
  init(_ modules: LoadedModules, events: Notification, memory: MemoryObject) throws(SystemError) {
    entries = modules.entries
    self.events = events
    self.memory = memory
    let memorySize = try memory.size()
    physical = try memory.physicalAddress()
    let mapping = try memory.map([.read, .write])
    let pages = try MemoryObject.create(memorySize / AddressSpace.pageSize * Self.pageStructSize)
    let structs = try pages.map([.read, .write])
    // Both stay for the life of the process, and so does the description of them, which Linux's side keeps.
    host = UnsafeMutablePointer<container_host>.allocate(capacity: 1)
    var description = container_host()
    description.memory = mapping.base
    description.memory_size = UInt(memorySize)
    description.memory_physical = UInt(physical)
    description.page_structs = structs.base
    container_set_callbacks(&description)
    host.initialize(to: description)
    current = self
    entries.pointee.start(host)
  }

  /// Has the interrupt handlers of drivers run, and the work that they put off.
  func handleInterrupt() {
    interrupts += 1
    entries.pointee.interrupt(Self.interruptNumber)
    runWork()
  }

  /// All of Linux's code sleeps until an interrupt or a time, in nanoseconds.
  fileprivate func wait(until end: UInt) {
    let now = linuxNow()
    let wait = min(end - min(end, now), 1_000_000_000)
    let bits = events.wait(until: Clock.now + Clock.ticks(microseconds: UInt64(wait / 1000 + 1)))
    // What is not the device's is for whoever waits next.
    if bits & ~1 != 0 { events.signal(bits & ~1) }
    if bits & 1 != 0 {
      interrupts += 1
      entries.pointee.interrupt(Self.interruptNumber)
    }
  }

  /// A device for drivers of the platform bus: `name` is what Linux's driver is called.
  func addDevice(_ name: StaticString, registers: UnsafeMutableRawPointer, physical: UInt64, size: UInt64) -> Bool {
    let device = container_device(
      name: UnsafePointer(OpaquePointer(name.utf8Start)), registers: registers, registers_physical: UInt(physical),
      registers_size: UInt(size), interrupt: Self.interruptNumber)
    return withUnsafePointer(to: device) { entries.pointee.add_device($0) == 0 }
  }

  /// Runs what was put off and is due, and tasks that can go on, and sees to it that this is called again when the next is.
  func runWork() {
    var next: UInt
    // Tasks that never sleep do not keep the program from its clients for longer than so many rounds.
    var rounds = 0
    repeat {
      while rounds < Self.roundsAtOnce, entries.pointee.run_work() != 0 { rounds += 1 }
      next = entries.pointee.next_work()
      rounds += 1
      // Due in between.
    } while next != UInt.max && next <= linuxNow() && rounds < Self.roundsAtOnce
    attributes?.work()
    guard next != UInt.max else { return }
    let wait = UInt64((next - min(next, linuxNow())) / 1000 + 1)
    alarm?.set(Clock.now + Clock.ticks(microseconds: wait))
  }

  /// From now on clients may read and write what sysfs would show of the devices.
  func publishAttributes() {
    do throws(SystemError) { attributes = try LinuxAttributes(entries, events: events) } catch {
      LinuxContainerProgram.complain("nobody will see the devices' attributes")
    }
  }

  /// Wakes the loop as an interrupt does; the drivers' handlers find no reason for it. Most drivers never put anything off.
  private lazy var alarm = AlarmClock.make(events, bits: ContainerEvent.device, for: "linux-container")

  /// Makes the virtio modules' functions known to Linux's side; after they have been loaded.
  func connect(_ modules: LoadedModules) throws(LoadFailure) {
    var functions = container_virtio()
    functions.virtqueue_get_desc_addr = try modules.address("virtqueue_get_desc_addr")
    functions.virtqueue_get_avail_addr = try modules.address("virtqueue_get_avail_addr")
    functions.virtqueue_get_used_addr = try modules.address("virtqueue_get_used_addr")
    functions.virtqueue_get_vring_size = try modules.address("virtqueue_get_vring_size")
    functions.virtio_config_changed = try modules.address("virtio_config_changed")
    functions.virtio_device_freeze = try modules.address("virtio_device_freeze")
    functions.virtio_device_restore = try modules.address("virtio_device_restore")
    withUnsafePointer(to: functions) { entries.pointee.connect($0) }
  }

  // MARK: The virtio device

  /// A queue as the driver set it up.
  func queue(_ index: Int) -> container_queue? {
    var queue = container_queue()
    return entries.pointee.queue(Int32(index), &queue) != 0 ? queue : nil
  }

  /// A new configuration, where the interrupt has been acknowledged by somebody else.
  func configurationChanged() {
    entries.pointee.configuration_changed()
    runWork()
  }

  /// The driver resets its device and gives its queues back. False: it refused.
  func suspend() -> Bool { entries.pointee.suspend() == 0 }

  /// The driver sets device and queues up again.
  func resume() -> Bool {
    let result = entries.pointee.resume()
    runWork()
    return result == 0
  }

  /// Whether the queues are a twin's: then the driver refuses what it would need them for.
  func handOver(_ isHandedOver: Bool) { entries.pointee.hand_over(isHandedOver ? 1 : 0) }

  // MARK: The disk

  /// What of `geometry` Linux's driver knows.
  func readGeometry(_ geometry: inout BlockGeometry) -> Bool {
    guard let disk else { return false }
    geometry = BlockGeometry(
      sectors: UInt64(disk.sectors), blockSize: disk.block_size, maximumTransfer: UInt64(disk.maximum_transfer))
    geometry.isReadOnly = disk.read_only != 0
    geometry.canFlush = disk.can_flush != 0
    geometry.canDiscard = disk.can_discard != 0
    geometry.canWriteZeroes = disk.can_write_zeroes != 0
    return true
  }

  var disk: container_disk? {
    var disk = container_disk()
    return entries.pointee.disk(&disk) != 0 ? disk : nil
  }

  func submit(
    _ token: Int, _ operation: container_operation, sector: UInt64, physical: UInt64, length: UInt32
  ) -> container_submission {
    entries.pointee.submit(UInt(token), operation, UInt(sector), UInt(physical), length)
  }

  func commit() { entries.pointee.commit() }

  func nextCompletion() -> (token: Int, status: container_status)? {
    var token: UInt = 0
    var status = CONTAINER_SUCCESS
    return entries.pointee.completion(&token, &status) != 0 ? (Int(token), status) : nil
  }

  // MARK: The generator of random bytes

  /// Random bytes from the device into the start of `buffer`; their number, or a negative error number.
  func readRandom(into buffer: UnsafeMutableRawBufferPointer) -> Int {
    entries.pointee.random(buffer.baseAddress, UInt(buffer.count))
  }

  // MARK: The network interface

  private var interface: container_interface? {
    var interface = container_interface()
    return entries.pointee.interface(&interface) != 0 ? interface : nil
  }

  /// The interface as its driver sees it; nil: there is none.
  var link: NetLink? {
    interface.map { NetLink(address: UInt64($0.address), mtu: $0.mtu, isUp: $0.is_up != 0) }
  }

  /// Packets that came and found no room in the container.
  var droppedPackets: UInt64 { interface.map { UInt64($0.dropped) } ?? 0 }

  /// Has the driver start receiving, or stop. False: it refused.
  func openInterface(_ up: Bool) -> Bool {
    let result = entries.pointee.interface_open(up ? 1 : 0)
    runWork()
    return result == 0
  }

  func setAddress(_ address: UInt64) -> Bool { entries.pointee.interface_address(UInt(address)) == 0 }

  /// Has the driver take the address that the device's configuration has now.
  func followAddress() { entries.pointee.interface_follow() }

  /// Sends `length` bytes at the guest-physical address; `header` is the packet's virtio header.
  func transmit(
    _ token: Int, header: UnsafeMutableRawPointer, physical: UInt64, length: UInt32, more: Bool
  ) -> container_submission {
    entries.pointee.transmit(UInt(token), header, UInt(physical), length, more ? 1 : 0)
  }

  func nextSent() -> Int? {
    var token: UInt = 0
    return entries.pointee.sent(&token) != 0 ? Int(token) : nil
  }

  var hasArrived: Bool { entries.pointee.has_arrived() != 0 }

  /// Copies the next packet with its virtio header; its length.
  func receive(into buffer: UnsafeMutableRawPointer, size: UInt32) -> UInt32 {
    UInt32(entries.pointee.receive(buffer, size))
  }
}

@c(container_program_print)
public func linuxPrint(_ text: UnsafePointer<CChar>, _ length: UInt) {
  var line = Text("linux: ")
  // Linux's side says how many bytes there are.
  line.add(Bytes(unsafeBase: UnsafeRawPointer(text), count: Int(length)))
  line.print()
  line.log()
}

@c(container_program_wait)
public func linuxWait(_ until: UInt) { current?.wait(until: until) }

/// Stacks of kthreads that have ended, for the next ones.
nonisolated(unsafe) private var unusedStacks: [UnsafeMutableRawPointer] = []
private let stackSize: UInt64 = 32 << 10

@c(container_program_stack)
public func linuxStack(_ top: UnsafeMutablePointer<UnsafeMutableRawPointer?>) -> UnsafeMutableRawPointer? {
  var stack = unusedStacks.popLast()
  // Addresses are given out in steps of 2 MiB, so nothing is mapped below it.
  if stack == nil { stack = (try? MemoryObject.create(stackSize).map([.read, .write]))?.base }
  // The stack has this size.
  top.pointee = stack.map { $0 + Int(stackSize) }
  return stack
}

@c(container_program_stack_free)
public func linuxStackFree(_ stack: UnsafeMutableRawPointer) { unusedStacks.append(stack) }

@c(container_program_fail)
public func linuxFail() { Kernel.exit(3) }

@c(container_program_now)
public func linuxNow() -> UInt {
  let ticks = Clock.now
  let frequency = max(1, Clock.frequency)
  // In two parts, so that it does not overflow after some minutes.
  return UInt(ticks / frequency * 1_000_000_000 + ticks % frequency * 1_000_000_000 / frequency)
}
