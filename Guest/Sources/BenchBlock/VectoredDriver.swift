// Keeps a number of requests in flight on one session for a time, counts and checks.

import BenchmarkCore
import BlockClient
import Pollux
import Synchronization

struct VectoredDriver {
  let device: BlockDevice
  private let test: BenchmarkCase
  private var places: RequestPlaces
  private let seed: UInt64
  /// Writes are told apart by the numbers of their sectors, and some of them read back.
  private let verifies: Bool
  private(set) var result = CaseResult()
  /// When each slot's request was submitted.
  private var begun: [UInt64]
  /// Places of some of the writes that succeeded, for the verification.
  private var written: [UInt64] = []
  private var inSlot: [UInt64]
  private var sampleEvery: UInt64 = 1

  private static let samples = 128

  init(device: BlockDevice, test: BenchmarkCase, places: RequestPlaces, seed: UInt64, verifies: Bool) {
    self.verifies = verifies
    self.device = device
    self.test = test
    self.places = places
    self.seed = seed
    begun = [UInt64](repeating: 0, count: test.depth)
    inSlot = begun
    SectorPattern.fill(device.region, count: Int(test.size) * test.depth, seed: seed)
  }

  /// Starts counting anew, after a warm-up.
  mutating func forget() {
    result = CaseResult()
    written = []
  }

  private mutating func submit(_ slot: Int) throws(BlockClientError) {
    let sector = places.nextSector()
    let offset = UInt64(slot) * test.size
    inSlot[slot] = sector
    if test.isWrite, verifies {
      SectorPattern.stamp(device.region + Int(offset), count: Int(test.size), firstSector: sector)
    }
    begun[slot] = Clock.now
    try device.submit(
      BlockRequest(
        operation: test.isWrite ? .write : .read, sector: sector, offset: offset, length: UInt32(test.size),
        tag: UInt32(slot)))
  }

  /// Runs for `ticks`, then waits for what is in flight; all of it counts, and so does the time.
  mutating func run(ticks: UInt64) throws(BlockClientError) {
    let start = Clock.now
    let deadline = start + ticks
    let calls = device.calls
    for slot in 0..<test.depth { try submit(slot) }
    let batch = max(1, test.depth / 4)
    var isOver = false
    while device.inFlight > 0 {
      try device.advance(waitFor: isOver ? device.inFlight : batch)
      while let completion = try device.nextResult() {
        let slot = Int(completion.tag)
        guard slot < test.depth else { throw .interface(.badCompletion) }
        let now = Clock.now
        result.latencies.add(now - begun[slot])
        result.requests += 1
        if completion.status != .success { result.errors += 1 } else if test.isWrite { sample(inSlot[slot]) }
        isOver = isOver || now >= deadline
        if !isOver { try submit(slot) }
      }
    }
    result.ticks += Clock.now - start
    result.calls += device.calls - calls
  }

  /// Keeps a thinning sample of the places written.
  private mutating func sample(_ sector: UInt64) {
    guard result.requests % sampleEvery == 0 else { return }
    if written.count == Self.samples {
      var kept: [UInt64] = []
      for index in stride(from: 0, to: written.count, by: 2) { kept.append(written[index]) }
      written = kept
      sampleEvery *= 2
    }
    written.append(sector)
  }

  /// Reads the sampled places back and compares.
  mutating func verify() throws(BlockClientError) -> Bool {
    for sector in written {
      device.region.initializeMemory(as: UInt8.self, repeating: 0xee, count: Int(test.size))
      guard try device.perform(.read, sector: sector, length: UInt32(test.size)) == .success else {
        result.errors += 1
        return false
      }
      if !SectorPattern.matches(device.region, count: Int(test.size), firstSector: sector, seed: seed) { return false }
    }
    SectorPattern.fill(device.region, count: Int(test.size), seed: seed)
    return true
  }
}

/// Where the threads of a case meet.
final class SharedRun {
  private let notification: Notification
  private let finished = Atomic<Int>(0)

  init() throws(SystemError) { notification = try Notification.create() }

  func finish() {
    finished.wrappingAdd(1, ordering: .acquiringAndReleasing)
    notification.signal(1)
  }

  func wait(for count: Int) {
    while finished.load(ordering: .acquiring) < count {
      _ = notification.wait(until: Clock.now + Clock.frequency)
    }
    notification.handle.close()
  }
}

/// One thread's part. Touched by its thread until `finish`, then by the thread that waited.
final class Worker {
  var driver: VectoredDriver
  var failure: BlockClientError?
  private let shared: SharedRun

  init(_ driver: VectoredDriver, _ shared: SharedRun) {
    self.driver = driver
    self.shared = shared
  }

  var device: BlockDevice { driver.device }

  func run(_ ticks: UInt64) {
    do throws(BlockClientError) { try driver.run(ticks: ticks) } catch { failure = error }
    shared.finish()
  }
}
