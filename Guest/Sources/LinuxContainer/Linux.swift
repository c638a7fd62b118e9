// Linux's side of the container, started: memory, callbacks, and the calls that the planes make.

import CLinuxContainer
import LinuxModules
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
  private static let memorySize: UInt64 = 4 << 20
  private static let pageStructSize: UInt64 = 64

  private(set) var interrupts: UInt64 = 0

  init(_ modules: LoadedModules, events: Notification) throws(SystemError) {
    entries = modules.entries
    self.events = events
    let memory = try MemoryObject.create(Self.memorySize)
    let mapping = try memory.map([.read, .write])
    let pages = try MemoryObject.create(Self.memorySize / AddressSpace.pageSize * Self.pageStructSize)
    let structs = try pages.map([.read, .write])
    // Both stay for the life of the process, and so does the description of them, which Linux's side keeps.
    host = UnsafeMutablePointer<container_host>.allocate(capacity: 1)
    var description = container_host()
    description.memory = mapping.base
    description.memory_size = UInt(Self.memorySize)
    description.memory_physical = UInt(try memory.physicalAddress())
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
    while entries.pointee.run_work() != 0 {}
  }

  /// Linux's code waits for something that only an interrupt brings.
  fileprivate func wait() {
    let bits = events.wait(until: Clock.now + Clock.frequency)
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

  func runWork() { while entries.pointee.run_work() != 0 {} }

  // MARK: The disk

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
public func linuxWait() { current?.wait() }

@c(container_program_fail)
public func linuxFail() { Kernel.exit(3) }
