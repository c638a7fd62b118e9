import BlockStorage
import Glibc
import GuestMemory
import HostSystem
import Synchronization
import SystemPackage
import Testing

@testable import Virtio

/// Holds requests until the test completes them, and remembers what it was asked.
final class ManualBackend: BlockBackend, @unchecked Sendable {
  // @unchecked: the mutable parts are in a Mutex.
  struct State {
    var pending: [BlockRequest] = []
    var completed: [BlockCompletion] = []
    var seen: [BlockRequest] = []
    var byteCount: UInt64 = 1 << 20
  }
  let state = Mutex(State())
  let event: EventDescriptor
  let automatic: Bool
  var queueDepth: Int { 8 }
  var completionDescriptor: CInt? { event.fileDescriptor }
  var geometry: BlockGeometry { BlockGeometry(byteCount: state.withLock { $0.byteCount }) }

  init(automatic: Bool = true) throws {
    self.automatic = automatic
    event = try EventDescriptor()
  }
  func submit(_ request: BlockRequest) {
    state.withLock { state in
      state.seen.append(request)
      if automatic {
        state.completed.append(BlockCompletion(tag: request.tag))
      } else {
        state.pending.append(request)
      }
    }
  }
  func commit() { if automatic { event.signal() } }
  func complete(_ position: Int = 0, error: Errno? = nil) {
    state.withLock { state in
      state.completed.append(BlockCompletion(tag: state.pending.remove(at: position).tag, error: error))
    }
    event.signal()
  }
  func reap(into completions: inout [BlockCompletion]) {
    completions += state.withLock { state in
      defer { state.completed = [] }
      return state.completed
    }
  }
  func acknowledge() { event.drain() }
  func wait() { while state.withLock({ $0.completed.isEmpty }) { usleep(100) } }
  func resize(to byteCount: UInt64) { state.withLock { $0.byteCount = byteCount } }
}

/// A driver of a block device.
final class BlockDriver {
  let machine: TestMachine
  let device: BlockDevice

  init(_ backend: any BlockBackend, options: BlockDeviceOptions = BlockDeviceOptions(), without: UInt64 = 0) throws {
    device = try BlockDevice(backend: backend, options: options)
    machine = try TestMachine(device)
    try machine.initialize(without: without)
  }

  struct Pending {
    var head: UInt16
    var data: GuestAddress
    var count: Int
    var status: GuestAddress
  }

  /// Makes a request available.
  func add(
    _ type: UInt32, sector: UInt64 = 0, write bytes: [UInt8] = [], readCount: Int = 0, queue: Int = 0,
    indirect: Bool = false
  ) throws -> Pending {
    let driver = machine.drivers[queue]
    let (header, data, status) = (
      driver.allocate(16), driver.allocate(max(bytes.count, readCount)), driver.allocate(1, alignment: 1)
    )
    try machine.memory.write(type, at: header)
    try machine.memory.write(UInt32(0), at: GuestAddress(header.rawValue + 4))
    try machine.memory.write(sector, at: GuestAddress(header.rawValue + 8))
    try machine.memory.write(bytes: bytes, at: data)
    try machine.memory.write(UInt8(0xff), at: status)
    let head = try #require(
      try driver.add(
        readable: [(header, 16)] + (bytes.isEmpty ? [] : [(data, bytes.count)]),
        writable: (readCount == 0 ? [] : [(data, readCount)]) + [(status, 1)], indirect: indirect))
    return Pending(head: head, data: data, count: readCount, status: status)
  }

  /// Does one request; its status, the bytes read, and the used length.
  func perform(
    _ type: UInt32, sector: UInt64 = 0, write bytes: [UInt8] = [], readCount: Int = 0, queue: Int = 0,
    indirect: Bool = false
  ) throws -> (status: UInt8, bytes: [UInt8], written: UInt32) {
    let pending = try add(type, sector: sector, write: bytes, readCount: readCount, queue: queue, indirect: indirect)
    try machine.kick(queue)
    let used = try #require(try machine.used(queue))
    #expect(used.head == pending.head)
    return (
      try machine.memory.read(UInt8.self, at: pending.status),
      try machine.memory.readBytes(at: pending.data, count: pending.count), used.written
    )
  }

  func range(sector: UInt64, count: UInt32, flags: UInt32 = 0) -> [UInt8] {
    withUnsafeBytes(of: (sector, count, flags)) { Array($0) }
  }
}

@Suite struct BlockDeviceTests {
  @Test func configurationSpaceDescribesTheDisk() throws {
    let driver = try BlockDriver(
      try MemoryBackend(byteCount: 1 << 20), options: BlockDeviceOptions(queueCount: 4, queueSize: 128))
    #expect(driver.machine.transport.read(offset: 0x100, size: 8) == 2048)
    #expect(driver.machine.read(0x10c) == 126)
    #expect(driver.machine.read(0x114) == 512)
    #expect(driver.machine.transport.read(offset: 0x122, size: 2) == 4)
    #expect(driver.machine.transport.read(offset: 0x120, size: 1) == 1)
    #expect(driver.machine.offeredFeatures & BlockDevice.Feature.readOnly == 0)
    #expect(driver.machine.offeredFeatures & BlockDevice.Feature.discard != 0)
  }

  @Test(arguments: [false, true]) func whatIsWrittenIsReadBackOnEveryQueue(indirect: Bool) throws {
    let driver = try BlockDriver(
      try MemoryBackend(byteCount: 1 << 20), options: BlockDeviceOptions(queueCount: 16, queueSize: 64))
    for queue in 0..<16 {
      let bytes = (0..<4096).map { UInt8(truncatingIfNeeded: $0 + queue) }
      let write = try driver.perform(1, sector: UInt64(queue * 8), write: bytes, queue: queue, indirect: indirect)
      #expect(write.status == 0 && write.written == 1)
    }
    for queue in 0..<16 {
      let read = try driver.perform(
        0, sector: UInt64(queue * 8), readCount: 4096, queue: 15 - queue, indirect: indirect)
      #expect(read.status == 0 && read.written == 4097)
      #expect(read.bytes == (0..<4096).map { UInt8(truncatingIfNeeded: $0 + queue) })
    }
    let statistics = driver.machine.transport.statistics()
    #expect(statistics.map(\.requests) == Array(repeating: 2, count: 16))
    #expect(statistics.map(\.bytesToGuest) == Array(repeating: 4096, count: 16))
    #expect(statistics.map(\.bytesFromGuest) == Array(repeating: 4096, count: 16))
    #expect(statistics[3].latency.count == 2)
  }

  @Test func fileGetsWhatTheDriverWrote() throws {
    var template = Array("/var/tmp/castor-virtio-XXXXXX".utf8CString)
    let descriptor = mkstemp(&template)
    let path = template.withUnsafeBufferPointer { String(cString: $0.baseAddress!) }
    defer {
      unlink(path)
      close(descriptor)
    }
    ftruncate(descriptor, 1 << 20)
    let driver = try BlockDriver(try FileBackend(path: path))
    var model = [UInt8](repeating: 0, count: 1 << 20)
    var random = SeededGenerator(state: 4)
    // Batches of up to seven requests on disjoint ranges, reads checked against an array.
    for _ in 0..<40 {
      var batch: [(BlockDriver.Pending, ClosedRange<Int>?)] = []
      for lane in 0..<Int(1 + random.next() % 5) {
        let count = 512 * Int(1 + random.next() % 16)
        let sector = lane * 256 + Int(random.next() % 200)
        let range = sector * 512...sector * 512 + count - 1
        if random.next() % 2 == 0 {
          let bytes = (0..<count).map { _ in UInt8(truncatingIfNeeded: random.next()) }
          batch.append((try driver.add(1, sector: UInt64(sector), write: bytes), nil))
          model.replaceSubrange(range, with: bytes)
        } else {
          batch.append((try driver.add(0, sector: UInt64(sector), readCount: count), range))
        }
      }
      try driver.machine.kick()
      for _ in batch { #expect(try driver.machine.used() != nil) }
      for (pending, range) in batch {
        #expect(try driver.machine.memory.read(UInt8.self, at: pending.status) == 0)
        guard let range else { continue }
        #expect(try driver.machine.memory.readBytes(at: pending.data, count: pending.count) == Array(model[range]))
      }
    }
    #expect(try driver.perform(4).status == 0)
    var bytes = [UInt8](repeating: 0, count: 1 << 20)
    #expect(pread(descriptor, &bytes, bytes.count, 0) == bytes.count)
    #expect(bytes == model)
  }

  @Test func headerMaySpanDescriptorsAndStatusMayShareTheDataBuffer() throws {
    let driver = try BlockDriver(try MemoryBackend(byteCount: 1 << 20))
    let ring = driver.machine.drivers[0]
    let buffer = ring.allocate(4096)
    try driver.machine.memory.write(bytes: [UInt8](repeating: 0, count: 16), at: buffer)
    let data = ring.allocate(513)
    try driver.machine.memory.write(bytes: [UInt8](repeating: 7, count: 513), at: data)
    _ = try ring.add(
      readable: [(buffer, 3), (GuestAddress(buffer.rawValue + 3), 13)],
      writable: [(data, 100), (GuestAddress(data.rawValue + 100), 413)])
    try driver.machine.kick()
    #expect(try driver.machine.used()?.written == 513)
    #expect(try driver.machine.memory.readBytes(at: data, count: 513).allSatisfy { $0 == 0 })
  }

  @Test func identifierIsPaddedWithZeroes() throws {
    let driver = try BlockDriver(NullBackend(byteCount: 4096), options: BlockDeviceOptions(identifier: "disk-7"))
    let answer = try driver.perform(8, readCount: 20)
    #expect(answer.status == 0 && answer.written == 21)
    #expect(answer.bytes == Array("disk-7".utf8) + [UInt8](repeating: 0, count: 14))
  }

  @Test func discardAndWriteZeroesReachTheirRange() throws {
    let driver = try BlockDriver(try MemoryBackend(byteCount: 1 << 20))
    #expect(try driver.perform(1, sector: 0, write: [UInt8](repeating: 9, count: 16384)).status == 0)
    #expect(try driver.perform(13, write: driver.range(sector: 2, count: 3)).status == 0)
    #expect(try driver.perform(13, write: driver.range(sector: 8, count: 8, flags: 1)).status == 0)
    #expect(try driver.perform(11, write: driver.range(sector: 24, count: 8)).status == 0)
    let bytes = try driver.perform(0, readCount: 16384).bytes
    let zeroes = (0..<32).filter { sector in bytes[sector * 512..<sector * 512 + 512].allSatisfy { $0 == 0 } }
    #expect(zeroes == [2, 3, 4] + Array(8..<16) + Array(24..<32))
  }

  @Test func wrongRequestsGetTheStatusOfTheSpecification() throws {
    let driver = try BlockDriver(try MemoryBackend(byteCount: 1 << 20))
    #expect(try driver.perform(99).status == 2)
    #expect(try driver.perform(0, sector: 2047, readCount: 1024).status == 1)
    #expect(try driver.perform(0, sector: .max, readCount: 512).status == 1)
    #expect(try driver.perform(0, sector: .max - 1, readCount: 1024).status == 1)
    #expect(try driver.perform(1, sector: 0, write: [1, 2, 3]).status == 1)
    #expect(try driver.perform(0, sector: 2047, readCount: 512).status == 0)
    // Discard: unknown flags, unmap, no range, half a range, two ranges, beyond the end, too long.
    #expect(try driver.perform(11, write: driver.range(sector: 0, count: 1, flags: 2)).status == 2)
    #expect(try driver.perform(11, write: driver.range(sector: 0, count: 1, flags: 1)).status == 2)
    #expect(try driver.perform(11, write: Array(driver.range(sector: 0, count: 1).prefix(8))).status == 1)
    #expect(
      try driver.perform(13, write: driver.range(sector: 0, count: 1) + driver.range(sector: 1, count: 1)).status == 2)
    #expect(try driver.perform(13, write: driver.range(sector: 2047, count: 2)).status == 1)
    #expect(try driver.perform(13, write: driver.range(sector: 0, count: .max)).status == 1)
    #expect(driver.machine.status & DeviceStatus.needsReset == 0)
    #expect(driver.machine.transport.statistics()[0].errors == 11)
  }

  @Test func readOnlyDiskRefusesEveryChange() throws {
    let driver = try BlockDriver(try MemoryBackend(byteCount: 1 << 20, readOnly: true))
    #expect(driver.machine.offeredFeatures & BlockDevice.Feature.readOnly != 0)
    #expect(driver.machine.offeredFeatures & BlockDevice.Feature.discard == 0)
    #expect(try driver.perform(1, write: [UInt8](repeating: 9, count: 512)).status == 1)
    #expect(try driver.perform(11, write: driver.range(sector: 0, count: 1)).status == 1)
    #expect(try driver.perform(4).status == 0)
    #expect(try driver.perform(0, readCount: 512).bytes == [UInt8](repeating: 0, count: 512))
  }

  @Test func writesAreDurableInWritethroughModeOnly() throws {
    let backend = try ManualBackend()
    let driver = try BlockDriver(backend)
    let sector = [UInt8](repeating: 1, count: 512)
    #expect(driver.machine.transport.read(offset: 0x120, size: 1) == 1)
    _ = try driver.perform(1, write: sector)
    driver.machine.transport.write(offset: 0x120, size: 1, value: 0)
    #expect(driver.machine.transport.read(offset: 0x120, size: 1) == 0)
    _ = try driver.perform(1, write: sector)
    driver.machine.transport.write(offset: 0x120, size: 1, value: 1)
    _ = try driver.perform(1, write: sector)
    #expect(backend.state.withLock { $0.seen.map(\.durable) } == [false, true, false])
    // A driver that does not know FLUSH.
    try driver.machine.initialize(without: BlockDevice.Feature.flush | BlockDevice.Feature.configurableCache)
    _ = try driver.perform(1, write: sector)
    #expect(backend.state.withLock { $0.seen.last?.durable } == true)
  }

  @Test func chainIsUsedOnlyAfterItsDataIsThere() throws {
    let backend = try ManualBackend(automatic: false)
    let driver = try BlockDriver(backend)
    let (first, second) = (try driver.add(0, readCount: 512), try driver.add(0, sector: 1, readCount: 512))
    try driver.machine.kick()
    #expect(eventually { backend.state.withLock { $0.pending.count } == 2 })
    #expect(try driver.machine.drivers[0].takeUsed() == nil)
    // Completion out of order, and with an error.
    backend.complete(1, error: .ioError)
    #expect(try driver.machine.used()?.head == second.head)
    #expect(try driver.machine.memory.read(UInt8.self, at: second.status) == 1)
    #expect(try driver.machine.memory.read(UInt8.self, at: first.status) == 0xff)
    backend.complete()
    #expect(try driver.machine.used()?.head == first.head)
    #expect(try driver.machine.memory.read(UInt8.self, at: first.status) == 0)
    #expect(driver.machine.status & DeviceStatus.needsReset == 0)
  }

  @Test func moreRequestsThanTheBackEndTakesWaitInTheRing() throws {
    let backend = try ManualBackend(automatic: false)
    let driver = try BlockDriver(backend)
    var pending = 0
    var done = 0
    while done < 40 {
      while pending < 12 {
        _ = try driver.add(0, readCount: 512, indirect: true)
        pending += 1
      }
      try driver.machine.kick()
      #expect(eventually { backend.state.withLock { !$0.pending.isEmpty } })
      #expect(backend.state.withLock { $0.pending.count } <= 8)
      backend.complete()
      #expect(try driver.machine.used() != nil)
      pending -= 1
      done += 1
    }
    // Resetting would wait for the rest.
    while backend.state.withLock({ !$0.pending.isEmpty }) {
      backend.complete()
      _ = try driver.machine.used()
    }
  }

  @Test func resetWaitsForWhatIsInFlight() throws {
    let backend = try ManualBackend(automatic: false)
    let driver = try BlockDriver(backend)
    _ = try driver.add(0, readCount: 512)
    try driver.machine.kick()
    #expect(eventually { backend.state.withLock { $0.pending.count } == 1 })
    let begin = monotonicNanoseconds()
    let helper = try HostThread(name: "completer") {
      usleep(20_000)
      backend.complete()
    }
    driver.machine.write(Register.status, 0)
    #expect(monotonicNanoseconds() - begin >= 15_000_000)
    helper.join()
    try driver.machine.initialize()
    #expect(try driver.machine.drivers[0].takeUsed() == nil)
  }

  @Test func resizeTellsTheDriver() throws {
    let driver = try BlockDriver(try MemoryBackend(byteCount: 1 << 20))
    let generation = driver.machine.read(Register.configurationGeneration)
    try driver.device.resize(to: 2 << 20)
    #expect(driver.machine.interrupts.line == 1)
    #expect(driver.machine.read(Register.interruptStatus) == 2)
    #expect(driver.machine.read(Register.configurationGeneration) != generation)
    #expect(driver.machine.transport.read(offset: 0x100, size: 8) == 4096)
    #expect(try driver.perform(0, sector: 4095, readCount: 512).status == 0)
    #expect(throws: BlockStorageError.self) { try driver.device.resize(to: .max) }
    #expect(try driver.perform(0, sector: 4095, readCount: 512).status == 0)
  }

  @Test func injectedErrorsHitExactlyWhatTheyName() throws {
    let driver = try BlockDriver(try MemoryBackend(byteCount: 1 << 20))
    func status(_ sector: UInt64, _ sectors: Int = 1) throws -> UInt8 {
      try driver.perform(0, sector: sector, readCount: 512 * sectors).status
    }
    driver.device.inject(.failNext(2))
    #expect(try [status(0), status(0), status(0)] == [1, 1, 0])
    driver.device.inject(.failSectors(100..<102))
    #expect(try [status(99), status(99, 2), status(101), status(102), status(0, 200)] == [0, 1, 1, 0, 1])
    driver.device.inject(.clear)
    #expect(try status(100) == 0)
    driver.device.inject(.failRate(1))
    #expect(try status(5) == 1)
    driver.device.inject(.failRate(0.5))
    var failures = 0
    for _ in 0..<200 { failures += Int(try status(7)) }
    #expect((50...150).contains(failures))
    driver.device.inject(.failRate(.nan))
    #expect(try status(5) == 0)
  }

  @Test func injectedDelayHoldsCompletionsBack() throws {
    let driver = try BlockDriver(NullBackend(byteCount: 1 << 20))
    driver.device.inject(.delay(nanoseconds: 30_000_000))
    let begin = monotonicNanoseconds()
    #expect(try driver.perform(0, readCount: 512).status == 0)
    #expect(monotonicNanoseconds() - begin >= 30_000_000)
    // A reset does not wait for it.
    driver.device.inject(.delay(nanoseconds: 3_600_000_000_000))
    _ = try driver.add(0, readCount: 512)
    try driver.machine.kick()
    try driver.machine.initialize()
    driver.device.inject(.clear)
    #expect(try driver.perform(0, readCount: 512).status == 0)
  }

  @Test func injectedResetAndSpuriousInterrupt() throws {
    let driver = try BlockDriver(NullBackend(byteCount: 1 << 20))
    driver.device.inject(.spuriousInterrupt(queue: 0))
    #expect(driver.machine.interrupts.line == 1)
    #expect(try driver.machine.drivers[0].takeUsed() == nil)
    driver.device.inject(.spuriousInterrupt(queue: 77))
    driver.device.inject(.needsReset)
    #expect(driver.machine.status & DeviceStatus.needsReset != 0)
    #expect(driver.machine.read(Register.interruptStatus) & 2 != 0)
    try driver.machine.initialize()
    #expect(try driver.perform(4).status == 0)
  }

  @Test func wedgedQueueShowsNothingUntilAResetOrTheEnd() throws {
    let driver = try BlockDriver(try MemoryBackend(byteCount: 1 << 20))
    driver.device.inject(.wedge(queue: 0))
    _ = try driver.add(0, readCount: 512, indirect: true)
    try driver.machine.kick()
    usleep(20_000)
    #expect(try !driver.machine.drivers[0].hasUsed())
    #expect(driver.machine.status & DeviceStatus.needsReset == 0)
    driver.device.inject(.clear)
    #expect(try driver.machine.used() != nil)
    driver.device.inject(.wedge(queue: 0))
    _ = try driver.add(0, readCount: 512, indirect: true)
    try driver.machine.kick()
    try driver.machine.initialize()
    #expect(try driver.perform(4).status == 0)
  }

  @Test func requestWithoutHeaderOrStatusBreaksTheDeviceUntilReset() throws {
    let driver = try BlockDriver(try MemoryBackend(byteCount: 1 << 20))
    for readable in [15, 16] {
      let ring = driver.machine.drivers[0]
      let buffer = ring.allocate(64)
      _ = try ring.add(
        readable: [(buffer, readable)], writable: readable == 16 ? [] : [(GuestAddress(buffer.rawValue + 32), 1)])
      try driver.machine.kick()
      #expect(eventually { driver.machine.status & DeviceStatus.needsReset != 0 })
      try driver.machine.initialize()
      #expect(try driver.perform(4).status == 0)
    }
  }

  @Test(arguments: 0..<4 as Range<UInt64>) func randomRequestsNeverTrap(seed: UInt64) throws {
    var random = SeededGenerator(state: seed)
    let driver = try BlockDriver(try MemoryBackend(byteCount: 1 << 20))
    var answered = 0
    for _ in 0..<300 {
      let ring = driver.machine.drivers[0]
      let type = [0, 1, 4, 8, 11, 13, UInt32(truncatingIfNeeded: random.next())][Int(random.next() % 7)]
      let sector = random.next() % 3 == 0 ? random.next() : random.next() % 2100
      let area = ring.allocate(16384, alignment: 1)
      try driver.machine.memory.write(type, at: area)
      try driver.machine.memory.write(sector, at: GuestAddress(area.rawValue + 8))
      for word in 2..<8 as Range<UInt64> {
        try driver.machine.memory.write(random.next() % 4096, at: GuestAddress(area.rawValue + word * 8))
      }
      func pieces(_ start: UInt64) -> [(GuestAddress, Int)] {
        var position = start
        return (0..<random.next() % 4).map { _ in
          let count = [1, 16, 32, 512, 1000, 4096][Int(random.next() % 6)]
          defer { position += UInt64(count) }
          return (GuestAddress(position), count)
        }
      }
      guard
        try ring.add(readable: [(area, 16)] + pieces(area.rawValue + 16), writable: pieces(area.rawValue + 16)) != nil
      else { continue }
      try driver.machine.kick()
      var done = false
      _ = try eventually {
        if driver.machine.status & DeviceStatus.needsReset != 0 { return true }
        done = try ring.takeUsed() != nil
        return done
      }
      if done { answered += 1 } else { try driver.machine.initialize() }
    }
    #expect(answered > 100)
  }
}
