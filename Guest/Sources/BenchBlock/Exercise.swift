// Keeps a block service busy for a while with blocks that are read back and checked, whatever happens to device and driver meanwhile, and
// accounts for every request: what docs/block-driver.md promises of faults is tested with this.

import BenchmarkCore
import BlockClient
import Pollux

struct Exercise {
  private static let size: UInt32 = 4096
  private static let sectorsPerBlock: UInt64 = 8
  private static let blockCount = 512
  /// Time between two lines of the report, in microseconds.
  private static let window: UInt64 = 100_000

  /// What a block may hold: after a failed write the old or the new.
  private struct Block {
    /// Seeds of patterns; 0: nothing is known yet.
    var holds: UInt64 = 0
    var orHolds: UInt64 = 0
    var isBusy = false
  }
  private struct Request {
    var block = 0
    /// The seed that is written; 0: a read.
    var seed: UInt64 = 0
    var isInFlight = false
  }

  private let plan: BenchmarkPlan
  private let report: Report
  private let depth: Int
  private var device: BlockDevice
  private var blocks = [Block](repeating: Block(), count: Self.blockCount)
  private var requests: [Request]
  private var dice: UInt64 = Clock.now | 1
  private var seeds: UInt64 = 0
  private var totals = ExerciseCounts()
  private var now = ExerciseCounts()
  private var lastCompletion = Clock.now

  init(_ plan: BenchmarkPlan, _ report: Report) throws(BlockClientError) {
    self.plan = plan
    self.report = report
    depth = plan.cases.first?.depth ?? 8
    requests = [Request](repeating: Request(), count: depth)
    device = try Self.open(plan, depth)
  }

  private static func open(_ plan: BenchmarkPlan, _ depth: Int) throws(BlockClientError) -> BlockDevice {
    let endpoint: Endpoint
    do throws(SystemError) { endpoint = try Program.connect(plan.target) } catch { throw .kernel(error) }
    var entries = 1
    // A result that the device has shown keeps its entry until the driver has told of it too.
    while entries < 2 * depth { entries *= 2 }
    return try BlockDevice(endpoint, entries: entries, regionSize: UInt64(depth) * UInt64(size))
  }

  /// True: no byte was wrong, no request is missing, none came twice.
  mutating func run() throws(BlockClientError) -> Bool {
    guard device.geometry.sectors >= UInt64(Self.blockCount) * Self.sectorsPerBlock else { return false }
    let end = Clock.now + Clock.ticks(microseconds: plan.milliseconds * 1000)
    var windowEnd = Clock.now + Clock.ticks(microseconds: Self.window)
    lastCompletion = Clock.now
    while Clock.now < end {
      do throws(BlockClientError) { try step(submitting: true) } catch { try reconnect(error, until: end) }
      if Clock.now >= windowEnd { closeWindow(&windowEnd) }
    }
    let patience = Clock.now + Clock.frequency * 20
    while device.inFlight > 0, Clock.now < patience {
      do throws(BlockClientError) { try step(submitting: false) } catch { try reconnect(error, until: patience) }
    }
    closeWindow(&windowEnd)
    for request in requests where request.isInFlight { totals.unfinished += 1 }
    report.exercised(totals)
    return totals.wrong == 0 && totals.unfinished == 0
  }

  private mutating func closeWindow(_ windowEnd: inout UInt64) {
    let late = Clock.now &- lastCompletion
    now.longestGap = max(now.longestGap, late)
    report.exercising(now)
    totals.add(now)
    now = ExerciseCounts()
    windowEnd = Clock.now + Clock.ticks(microseconds: Self.window)
  }

  private mutating func roll(_ sides: UInt64) -> UInt64 {
    // xorshift64*
    dice ^= dice >> 12
    dice ^= dice << 25
    dice ^= dice >> 27
    return (dice &* 0x2545_f491_4f6c_dd1d).multipliedFullWidth(by: sides).high
  }

  private mutating func step(submitting: Bool) throws(BlockClientError) {
    if submitting {
      for tag in 0..<depth where !requests[tag].isInFlight { try submit(tag) }
    }
    try device.advance(waitFor: max(1, device.inFlight / 2))
    while let result = try device.nextResult() { finish(result) }
  }

  private mutating func submit(_ tag: Int) throws(BlockClientError) {
    let block = Int(roll(UInt64(Self.blockCount)))
    guard !blocks[block].isBusy, device.hasRoom else { return }
    let isWrite = blocks[block].holds == 0 || roll(2) == 0
    let sector = UInt64(block) * Self.sectorsPerBlock
    let buffer = device.region + tag * Int(Self.size)
    var seed: UInt64 = 0
    if isWrite {
      seeds += 1
      seed = seeds
      SectorPattern.fill(buffer, count: Int(Self.size), seed: seed)
      SectorPattern.stamp(buffer, count: Int(Self.size), firstSector: sector)
    } else {
      // What is there now must not be taken for what will be read.
      buffer.storeBytes(of: 0, toByteOffset: Int(Self.size) - 8, as: UInt64.self)
    }
    requests[tag] = Request(block: block, seed: seed, isInFlight: true)
    blocks[block].isBusy = true
    try device.submit(
      BlockRequest(
        operation: isWrite ? .write : .read, sector: sector, offset: UInt64(tag) * UInt64(Self.size), length: Self.size,
        tag: UInt32(tag)))
  }

  private mutating func finish(_ result: BlockResult) {
    let tag = Int(result.tag)
    guard tag < depth, requests[tag].isInFlight else {
      now.wrong += 1
      return
    }
    let time = Clock.now
    now.longestGap = max(now.longestGap, time &- lastCompletion)
    lastCompletion = time
    let request = requests[tag]
    requests[tag].isInFlight = false
    blocks[request.block].isBusy = false
    guard result.status == .success else {
      now.errors += 1
      if request.seed != 0 { mayHold(request) }
      return
    }
    now.requests += 1
    if request.seed != 0 {
      blocks[request.block].holds = request.seed
      blocks[request.block].orHolds = request.seed
    } else if !isRight(request, device.region + tag * Int(Self.size)) {
      now.wrong += 1
    }
  }

  /// A write that failed, or whose end was not seen, has happened or not.
  private mutating func mayHold(_ request: Request) {
    if blocks[request.block].holds == 0 { return }
    // After two in a row any of three could be there; then nothing is known until the next write.
    blocks[request.block].holds =
      blocks[request.block].holds == blocks[request.block].orHolds ? blocks[request.block].holds : 0
    blocks[request.block].orHolds = request.seed
  }

  private func isRight(_ request: Request, _ buffer: UnsafeMutableRawPointer) -> Bool {
    let sector = UInt64(request.block) * Self.sectorsPerBlock
    // The buffer belongs to this request's tag.
    return SectorPattern.matches(buffer, count: Int(Self.size), firstSector: sector, seed: blocks[request.block].holds)
      || SectorPattern.matches(buffer, count: Int(Self.size), firstSector: sector, seed: blocks[request.block].orHolds)
  }

  /// The service has died: every request ended with an error, and once somebody has started it again, work goes on.
  private mutating func reconnect(_ error: BlockClientError, until end: UInt64) throws(BlockClientError) {
    guard case .kernel(let reason) = error, reason == .peerClosed || reason == .notFound || reason == .aborted else {
      throw error
    }
    now.reconnections += 1
    for tag in 0..<depth where requests[tag].isInFlight {
      requests[tag].isInFlight = false
      blocks[requests[tag].block].isBusy = false
      now.errors += 1
      if requests[tag].seed != 0 { mayHold(requests[tag]) }
    }
    device.close()
    while true {
      do throws(BlockClientError) {
        device = try Self.open(plan, depth)
        return
      } catch {
        if Clock.now > end { throw error }
        Clock.sleep(microseconds: 5000)
      }
    }
  }
}

/// What happened in a time.
struct ExerciseCounts {
  var requests: UInt64 = 0
  var errors: UInt64 = 0
  /// Reads of other bytes than were written, and results of requests that are not in flight.
  var wrong: UInt64 = 0
  var unfinished: UInt64 = 0
  var reconnections: UInt64 = 0
  /// The longest time without a completion, in ticks.
  var longestGap: UInt64 = 0

  mutating func add(_ other: ExerciseCounts) {
    requests += other.requests
    errors += other.errors
    wrong += other.wrong
    reconnections += other.reconnections
    longestGap = max(longestGap, other.longestGap)
  }
}
