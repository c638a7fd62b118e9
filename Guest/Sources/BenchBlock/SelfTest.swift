// A test of a block service through its interface: what is written is read back, and bad requests are refused.

import BenchmarkCore
import BlockClient
import Pollux
import Synchronization

struct SelfTest {
  private let endpoint: Endpoint
  private let name: Bytes

  init(_ plan: BenchmarkPlan) throws(BlockClientError) {
    name = plan.target
    do throws(SystemError) { endpoint = try Program.connect(plan.target) } catch { throw .kernel(error) }
  }

  private func check(_ what: StaticString, _ isGood: Bool, _ failures: inout Int) {
    var line = Text("self test: ")
    line.add(what)
    line.pad(to: 52)
    line.add(isGood ? "ok\n" : "FAILED\n")
    line.print()
    if !isGood { failures += 1 }
  }

  func run() throws(BlockClientError) -> Bool {
    var failures = 0
    let device = try BlockDevice(endpoint, entries: 16, regionSize: 64 << 10)
    defer { device.close() }
    let geometry = device.geometry
    let size = 16384
    let sectors = UInt64(size / 512)
    guard geometry.sectors >= 3 * sectors, !geometry.isReadOnly else {
      check("the device is large enough and writable", false, &failures)
      return false
    }
    // First, last and a middle place.
    for (number, sector) in [0, geometry.sectors - sectors, geometry.sectors / 2 & ~7].enumerated() {
      let seed = UInt64(number) &+ Clock.now
      SectorPattern.fill(device.region, count: size, seed: seed)
      SectorPattern.stamp(device.region, count: size, firstSector: sector)
      var isGood = try device.perform(.write, sector: sector, length: UInt32(size)) == .success
      device.region.initializeMemory(as: UInt8.self, repeating: 0, count: size)
      isGood = try device.perform(.read, sector: sector, length: UInt32(size)) == .success && isGood
      check(
        "write and read back",
        isGood && SectorPattern.matches(device.region, count: size, firstSector: sector, seed: seed), &failures)
    }
    // One sector in the middle of what was written last must not disturb its neighbours.
    let sector = geometry.sectors / 2 & ~7
    device.region.initializeMemory(as: UInt8.self, repeating: 0x5a, count: 512)
    var isGood = try device.perform(.write, sector: sector + 3, length: 512) == .success
    isGood = try device.perform(.read, sector: sector, offset: 4096, length: 4096) == .success && isGood
    for index in 0..<8 where index != 3 {
      let word = device.region.load(fromByteOffset: 4096 + index * 512, as: UInt64.self)
      if word != sector + UInt64(index) { isGood = false }
    }
    isGood = isGood && device.region.load(fromByteOffset: 4096 + 3 * 512, as: UInt64.self) == 0x5a5a_5a5a_5a5a_5a5a
    check("one sector changes, neighbours do not", isGood, &failures)
    if geometry.canFlush {
      check("flush", try device.perform(.flush, sector: 0, length: 0) == .success, &failures)
    }
    check(
      "a read beyond the end is refused",
      try device.perform(.read, sector: geometry.sectors, length: 512) == .outOfRange, &failures)
    check(
      "data outside the region is refused",
      try device.perform(.read, sector: 0, offset: 64 << 10, length: 512) == .invalid, &failures)
    check("half a sector is refused", try device.perform(.read, sector: 0, length: 256) == .invalid, &failures)
    // A full ring of requests comes back, each with its tag.
    var tags: UInt64 = 0
    for tag in 0..<8 {
      try device.submit(
        BlockRequest(
          operation: .read, sector: UInt64(tag) * 8, offset: UInt64(tag) * 4096, length: 4096, tag: UInt32(tag)))
    }
    while device.inFlight > 0 {
      try device.advance(waitFor: device.inFlight)
      while let result = try device.nextResult() {
        if result.status == .success, result.tag < 8 { tags |= 1 << UInt64(result.tag) }
      }
    }
    check("eight requests at once", tags == 0xff, &failures)
    check("refused sessions leave nothing behind", try refusedSessions(), &failures)
    check("two sessions, each is told of its end", try twoSessions(), &failures)
    do throws(SystemError) {
      if let attributes = try? DeviceAttributes.connect(to: name) {
        defer { attributes.handle.close() }
        check("attribute calls that make no sense are refused", try senselessAttributeCalls(attributes), &failures)
      }
    } catch { throw .kernel(error) }
    return failures == 0
  }

  /// Calls of a driver's attributes as no honest client makes them; afterwards honest ones are answered.
  private func senselessAttributeCalls(_ attributes: Connection) throws(SystemError) -> Bool {
    let memory = try MemoryObject.create(AttributeCall.pages * AddressSpace.pageSize)
    let mapping = try memory.map([.read, .write])
    defer {
      mapping.unmap()
      memory.handle.close()
    }
    // A path without an end.
    mapping.base.initializeMemory(as: UInt8.self, repeating: 0x61, count: Int(AddressSpace.pageSize))
    func answer(_ number: UInt64, _ word: UInt64, pages: UInt64, writable: Bool = true) throws(SystemError) -> Int64 {
      var message = Message(number, word)
      if pages > 0 { message.grant(Grant(address: mapping.address, pages: pages, writable: writable)) }
      try attributes.call(&message)
      return Int64(bitPattern: message[0])
    }
    let read = AttributeCall.read.rawValue
    let noSuchEntry: Int64 = -2
    guard try answer(99, 0, pages: 2) == AttributeCall.malformed,
      try answer(read, 0, pages: 0) == AttributeCall.malformed,
      try answer(read, 0, pages: 1) == AttributeCall.malformed,
      try answer(read, 0, pages: 2, writable: false) == AttributeCall.malformed,
      Int64(bitPattern: try attributes.call(read).0) == AttributeCall.malformed,
      try answer(read, 0, pages: 2) == noSuchEntry,
      try answer(AttributeCall.write.rawValue, .max, pages: 2) == noSuchEntry,
      try answer(AttributeCall.name.rawValue, .max, pages: 2) == noSuchEntry
    else { return false }
    return try answer(AttributeCall.name.rawValue, 0, pages: 2) > 0
  }

  /// As many sessions as there can be, and then more attempts, each of which would leave memory and perhaps a session.
  private func refusedSessions() throws(BlockClientError) -> Bool {
    var devices: [BlockDevice] = []
    defer { for device in devices { device.close() } }
    func isRefused() throws(BlockClientError) -> Bool {
      do throws(BlockClientError) {
        devices.append(try BlockDevice(endpoint, entries: 2, regionSize: 4096, watchesDevice: false))
        return false
      } catch {
        // Too many of them, or of what the driver has to hold for each.
        guard case .refused = error else { throw error }
        return true
      }
    }
    while try !isRefused() { if devices.count > 200 { return false } }
    for _ in 0..<60 { guard try isRefused() else { return false } }
    guard let device = devices.last else { return false }
    return try device.perform(.read, sector: 0, length: 512) == .success
  }

  /// Both have one request in flight that only the driver waits for; the end of one leaves the other to wait for its own.
  private func twoSessions() throws(BlockClientError) -> Bool {
    let device = try BlockDevice(endpoint, entries: 2, regionSize: 4096, watchesDevice: false)
    defer { device.close() }
    let length = UInt32(min(128 << 10, device.geometry.maximumTransfer, device.geometry.sectors * 512))
    let other = try BlockDevice(endpoint, entries: 2, regionSize: UInt64(length), watchesDevice: false)
    let neighbour: Neighbour
    do throws(SystemError) {
      neighbour = try Neighbour(other, length)
      // This thread is the less urgent one, so that the neighbour's request goes first.
      try Thread.start(priority: 8) { neighbour.run() }
    } catch { throw .kernel(error) }
    Thread.setPriority(7)
    defer { Thread.setPriority(8) }
    for _ in 0..<Neighbour.rounds {
      neighbour.start.signal(1)
      guard try device.perform(.read, sector: 0, length: 512) == .success else { return false }
      guard neighbour.done.wait(until: Clock.now + Clock.frequency * 5) != 0 else { return false }
    }
    return neighbour.succeeded.load(ordering: .acquiring) == Neighbour.rounds
  }
}

/// A thread with a session of its own, which reads as much as fits into its region whenever it is told.
private final class Neighbour: Sendable {
  static let rounds = 16
  let start: Notification
  let done: Notification
  let succeeded = Atomic<Int>(0)
  /// Used by the neighbour's thread alone.
  nonisolated(unsafe) private let device: BlockDevice
  private let length: UInt32

  init(_ device: BlockDevice, _ length: UInt32) throws(SystemError) {
    self.device = device
    self.length = length
    start = try Notification.create()
    done = try Notification.create()
  }

  func run() {
    for _ in 0..<Self.rounds {
      _ = start.wait()
      do throws(BlockClientError) {
        if try device.perform(.read, sector: 0, length: length) == .success {
          succeeded.wrappingAdd(1, ordering: .acquiringAndReleasing)
        }
      } catch {}
      done.signal(1)
    }
    device.close()
  }
}
