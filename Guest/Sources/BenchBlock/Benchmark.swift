// Runs the cases: a vectored path that keeps `depth` requests in flight from one thread, and a path of `depth` threads with
// one blocking request each.

import BenchmarkCore
import BlockClient
import Pollux

struct Benchmark {
  private let plan: BenchmarkPlan
  private let report: Report
  private let endpoint: Endpoint
  private let geometry: BlockGeometry
  private let mode: BlockMode
  private let span: UInt64

  init(_ plan: BenchmarkPlan, _ report: Report) throws(BlockClientError) {
    self.plan = plan
    self.report = report
    do throws(SystemError) { endpoint = try Program.connect(plan.target) } catch { throw .kernel(error) }
    (geometry, mode) = try BlockDevice.describe(endpoint)
    let all = geometry.sectors * 512
    span = plan.span == 0 ? all : min(plan.span, all)
  }

  /// Runs all cases. False: there were errors or mismatches.
  func run() throws(BlockClientError) -> Bool {
    report.header()
    var isGood = true
    for number in plan.cases.indices {
      let test = plan.cases[number]
      let seed = (UInt64(number) + 1) &* 0x9e37_79b9_7f4a_7c15 ^ Clock.now
      guard test.size <= geometry.maximumTransfer,
        let places = RequestPlaces(span: span, size: test.size, isRandom: test.isRandom, seed: seed)
      else {
        report.failure("a request size does not fit the device")
        return false
      }
      if test.isWrite, geometry.isReadOnly {
        report.failure("the device is read-only")
        return false
      }
      var result: CaseResult
      switch plan.path {
      case .vectored: result = try runVectored(number, test, places, seed)
      case .threads: result = try runThreads(number, test, seed)
      }
      report.finished(number, mode, test, plan.path, result)
      if result.errors > 0 || result.verified == false { isGood = false }
      result.latencies.clear()
    }
    report.ended(plan.cases.count)
    return isGood
  }

  // MARK: One thread, many requests

  private func runVectored(
    _ number: Int, _ test: BenchmarkCase, _ places: RequestPlaces, _ seed: UInt64
  ) throws(BlockClientError) -> CaseResult {
    // Twice the depth: an entry is in use until the completion ring has repeated what was seen early.
    var entries = 4
    while entries < test.depth * 4 { entries *= 2 }
    let device = try BlockDevice(endpoint, entries: entries, regionSize: test.size * UInt64(test.depth))
    defer { device.close() }
    var driver = VectoredDriver(
      device: device, test: test, places: places, seed: seed, verifies: plan.verifies)
    try driver.run(ticks: Clock.ticks(microseconds: min(50_000, plan.milliseconds * 200)))
    driver.forget()
    report.started(number, mode, test)
    let doorbells = device.counter(.doorbells)
    let interrupts = device.counter(.interrupts)
    let calls = device.calls
    let busy = Self.busyTicks
    let looking = device.lookingTicks
    try driver.run(ticks: Clock.ticks(microseconds: plan.milliseconds * 1000))
    var result = driver.result
    result.busy = Self.busyTicks &- busy
    result.looking = device.lookingTicks - looking
    result.calls = device.calls - calls
    result.doorbells = device.counter(.doorbells) - doorbells
    result.interrupts = device.counter(.interrupts) - interrupts
    if test.isWrite, plan.verifies { result.verified = try driver.verify() }
    return result
  }

  /// Ticks that processors have run threads of any process: all but idling and what the kernel does meanwhile.
  private static var busyTicks: UInt64 {
    var records = [ProcessInfo](repeating: ProcessInfo(), count: 64)
    let count = records.withUnsafeMutableBufferPointer { Kernel.processes(from: 0, into: $0) }
    return records.prefix(count).reduce(0) { $0 &+ $1.processorTime }
  }

  // MARK: Many threads, one request each

  private func runThreads(_ number: Int, _ test: BenchmarkCase, _ seed: UInt64) throws(BlockClientError) -> CaseResult {
    let shared: SharedRun
    do throws(SystemError) { shared = try SharedRun() } catch { throw .kernel(error) }
    var workers: [Worker] = []
    for index in 0..<test.depth {
      guard
        let places = RequestPlaces(
          span: span, size: test.size, isRandom: test.isRandom, seed: seed &+ UInt64(index) &* 0x1234_5678_9abc_def1)
      else { throw .refused(.badMemory) }
      let device = try BlockDevice(endpoint, entries: 4, regionSize: test.size, watchesDevice: test.depth == 1)
      workers.append(
        Worker(
          VectoredDriver(
            device: device,
            test: BenchmarkCase(isWrite: test.isWrite, isRandom: test.isRandom, size: test.size, depth: 1),
            places: places, seed: seed, verifies: plan.verifies), shared))
    }
    report.started(number, mode, test)
    guard let first = workers.first else { throw .refused(.badMemory) }
    let doorbells = first.device.counter(.doorbells)
    let interrupts = first.device.counter(.interrupts)
    let ticks = Clock.ticks(microseconds: plan.milliseconds * 1000)
    let begin = Clock.now
    let busy = Self.busyTicks
    for worker in workers {
      do throws(SystemError) {
        try Thread.start(priority: 7) { worker.run(ticks) }
      } catch { throw .kernel(error) }
    }
    shared.wait(for: workers.count)
    var result = CaseResult()
    result.ticks = Clock.now - begin
    result.busy = Self.busyTicks &- busy
    for worker in workers {
      if let failure = worker.failure { throw failure }
      result.requests += worker.driver.result.requests
      result.errors += worker.driver.result.errors
      result.calls += worker.device.calls
      result.looking += worker.device.lookingTicks
      result.latencies.merge(worker.driver.result.latencies)
      result.doorbells = max(result.doorbells, worker.device.counter(.doorbells))
      result.interrupts = max(result.interrupts, worker.device.counter(.interrupts))
    }
    result.doorbells -= min(doorbells, result.doorbells)
    result.interrupts -= min(interrupts, result.interrupts)
    if test.isWrite, plan.verifies {
      var verified = true
      for worker in workers where try !worker.driver.verify() { verified = false }
      result.verified = verified
    }
    for worker in workers { worker.device.close() }
    return result
  }
}
