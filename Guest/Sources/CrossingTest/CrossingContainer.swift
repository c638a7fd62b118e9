// The control plane, which has the registers and wants the doorbell. It sets a queue up and puts a request into it that is as good as any,
// so that only the doorbell is missing.

import DriverVirtqueue
import Pollux

final class CrossingContainer {
  private let registers: DeviceRegisters
  private let page: Handle
  private let address: UInt64
  private let events: Notification
  private let endpoint: Handle
  private var queue: BlockQueue
  private let status: RingMemory

  private static let queueSize = 8

  /// Sets the device up: virtio 1.2 §3.1.1, §4.2.3.
  init(_ start: StartBlock) throws(SystemError) {
    guard let page = start.handle("registers"), let memory = start.handle("memory"),
      let events = start.handle("line-events"), let endpoint = start.handle("service")
    else { throw .notFound }
    self.page = Handle(page)
    self.events = Notification(Handle(events))
    self.endpoint = Handle(endpoint)
    let object = MemoryObject(Handle(memory))
    let mapping = try object.map([.read, .write])
    // Behind the memory, so the registers are at an address that the twin has not mapped.
    address = try MemoryObject(self.page).map([.read, .write]).address + (start.number("registers-offset") ?? 0)
    registers = DeviceRegisters(unsafeBase: address)
    let whole = RingMemory(
      unsafeBase: mapping.base, byteCount: mapping.size, physical: try object.physicalAddress())
    status = whole.part(0x2_0000, 0x1000)
    guard let layout = BlockQueueLayout(size: Self.queueSize, dataSegments: 1) else { throw .badArgument }
    let rings = whole.part(0, layout.byteCount)
    let completions = whole.part(0x1_0000, layout.completionByteCount)
    guard
      let queue = BlockQueue(
        memory: rings, completions: completions, layout: layout, features: VirtioFeature.version1, segmentLimit: 4096)
    else { throw .badArgument }
    self.queue = queue
    registers.store(0, at: 0x70)
    registers.store(3, at: 0x70)
    // DriverFeatures: VERSION_1 alone.
    registers.store(0, at: 0x24)
    registers.store(0, at: 0x20)
    registers.store(1, at: 0x24)
    registers.store(1, at: 0x20)
    registers.store(11, at: 0x70)
    registers.store(0, at: 0x30)
    registers.store(UInt32(Self.queueSize), at: 0x38)
    let places: [(register: UInt64, address: UInt64)] = [
      (0x80, rings.physical + UInt64(layout.queue.descriptors)),
      (0x90, rings.physical + UInt64(layout.queue.available)),
      (0xa0, completions.physical),
    ]
    for place in places {
      registers.store(UInt32(truncatingIfNeeded: place.address), at: place.register)
      registers.store(UInt32(place.address >> 32), at: place.register + 4)
    }
    registers.store(1, at: 0x44)
    registers.store(15, at: 0x70)
    guard registers.load(0x70) == 15 else { throw .unsupported }
  }

  func run() throws(SystemError) {
    CrossingTest.expect("the container is given the doorbell page", Program.start.handle("doorbell") == nil)
    CrossingTest.reachBeyond(page)
    do throws(SubmitError) {
      try queue.submit(.read, sector: 0, address: status.physical, length: 512, tag: 1)
    } catch { throw .badArgument }
    // QueueNotify, as Linux's virtio_mmio writes it.
    registers.store(0, at: 0x50)
    CrossingTest.expect("the container rings by QueueNotify of its page", !isDone(within: 300_000))
    try Endpoint(endpoint).bind(events)
    var server = Server(endpoint)
    var message = Message()
    var doorbell: UInt64 = 0
    while true {
      switch try server.replyReceive(&message) {
      case .notification(let bits):
        message = Message()
        guard bits & 2 != 0, doorbell != 0 else { continue }
        // The twin has died. Its doorbell, at its address: it ends this process.
        DeviceRegisters(unsafeBase: doorbell).store(0, at: 0)
        CrossingTest.expect("the container writes to the doorbell page", false)
      case .call:
        switch message[0] {
        case CrossingCall.registers: message = Message(address)
        case CrossingCall.rung: message = Message(isDone(within: 1_000_000) ? 1 : 0)
        default:
          doorbell = message[1]
          message = Message()
        }
      }
    }
  }

  /// Whether the device uses the request's chain within so many µs.
  private func isDone(within microseconds: UInt64) -> Bool {
    let end = Clock.now + Clock.ticks(microseconds: microseconds)
    while !queue.hasUsed {
      if Clock.now > end { return false }
      Clock.sleep(microseconds: 1000)
    }
    return true
  }
}
