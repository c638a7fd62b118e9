// The benchmark's report lines: JSON text sequences for programs, a table for people.

import BenchmarkCore
import BlockClient
import Pollux

/// What a case's timed part gave.
struct CaseResult {
  var requests: UInt64 = 0
  var ticks: UInt64 = 0
  var errors: UInt64 = 0
  var latencies = LatencyHistogram()
  var doorbells: UInt64 = 0
  var interrupts: UInt64 = 0
  /// Ticks that processors ran threads, of all processes.
  var busy: UInt64 = 0
  /// Of these, in which clients looked for results that the device had not got yet.
  var looking: UInt64 = 0
  var calls: UInt64 = 0
  var verified: Bool?
}

struct Report {
  let isForPeople: Bool

  private static func begin(_ kind: StaticString) -> Text {
    var line = Text()
    line.add(byte: 0x1e)
    line.add("{\"report\":\"")
    line.add(kind)
    line.add("\"")
    return line
  }

  private static func end(_ line: Text) {
    var line = line
    line.add("}\n")
    line.print()
  }

  private static func member(_ line: inout Text, _ name: StaticString, _ value: UInt64) {
    line.add(",\"")
    line.add(name)
    line.add("\":")
    line.add(value)
  }

  private static func member(_ line: inout Text, _ name: StaticString, _ value: StaticString) {
    line.add(",\"")
    line.add(name)
    line.add("\":\"")
    line.add(value)
    line.add("\"")
  }

  private static func name(_ mode: BlockMode) -> StaticString {
    switch mode {
    case .memory: "memory"
    case .solo: "solo"
    case .twin, .twinUnsplit: "twin"
    case .twinPoll, .twinPollUnsplit: "twin-poll"
    }
  }

  private static func members(_ line: inout Text, _ number: Int, _ mode: BlockMode, _ test: BenchmarkCase) {
    member(&line, "case", UInt64(number))
    member(&line, "mode", name(mode))
    if mode == .twinUnsplit || mode == .twinPollUnsplit { line.add(",\"split\":false") }
    member(&line, "operation", test.isWrite ? "write" : "read")
    member(&line, "pattern", test.isRandom ? "random" : "sequential")
    member(&line, "size", test.size)
    member(&line, "depth", UInt64(test.depth))
  }

  func header() {
    guard isForPeople else { return }
    Console.write("OPERATION  PATTERN        SIZE  DEPTH       IOPS      MB/s  P50/us  P99/us  VERIFIED\n")
  }

  func started(_ number: Int, _ mode: BlockMode, _ test: BenchmarkCase) {
    guard !isForPeople else { return }
    var line = Self.begin("bench-start")
    Self.members(&line, number, mode, test)
    Self.end(line)
  }

  func finished(
    _ number: Int, _ mode: BlockMode, _ test: BenchmarkCase, _ path: BenchmarkPlan.Path, _ result: CaseResult
  ) {
    let nanoseconds = max(1, Clock.nanoseconds(result.ticks))
    if isForPeople {
      table(test, result, nanoseconds)
      return
    }
    var line = Self.begin("bench-result")
    Self.members(&line, number, mode, test)
    Self.member(&line, "path", path == .threads ? "threads" : "vectored")
    Self.member(&line, "requests", result.requests)
    Self.member(&line, "bytes", result.requests * test.size)
    Self.member(&line, "nanoseconds", nanoseconds)
    Self.member(&line, "p50", Clock.nanoseconds(result.latencies.percentile(thousandths: 500)))
    Self.member(&line, "p99", Clock.nanoseconds(result.latencies.percentile(thousandths: 990)))
    Self.member(&line, "errors", result.errors)
    if let verified = result.verified { line.add(verified ? ",\"verified\":true" : ",\"verified\":false") }
    Self.member(&line, "doorbells", result.doorbells)
    Self.member(&line, "interrupts", result.interrupts)
    Self.member(&line, "calls", result.calls)
    Self.member(&line, "busy", result.busy)
    Self.member(&line, "looking", result.looking)
    Self.end(line)
  }

  private func table(_ test: BenchmarkCase, _ result: CaseResult, _ nanoseconds: UInt64) {
    var line = Text()
    line.add(test.isWrite ? "write" : "read")
    line.pad(to: 11)
    line.add(test.isRandom ? "random" : "sequential")
    func right(_ value: UInt64, _ column: Int) {
      var digits = 1
      var rest = value
      while rest >= 10 {
        rest /= 10
        digits += 1
      }
      line.pad(to: column - digits)
      line.add(value)
    }
    right(test.size, 30)
    right(UInt64(test.depth), 37)
    right(Self.perSecond(result.requests, nanoseconds), 48)
    right(Self.perSecond(result.requests * test.size, nanoseconds) / 1_000_000, 58)
    right(Clock.nanoseconds(result.latencies.percentile(thousandths: 500)) / 1000, 66)
    right(Clock.nanoseconds(result.latencies.percentile(thousandths: 990)) / 1000, 74)
    line.add("  ")
    line.add(result.errors > 0 ? "ERRORS" : result.verified == nil ? "-" : result.verified == true ? "yes" : "MISMATCH")
    line.add("\n")
    line.print()
  }

  private static func perSecond(_ amount: UInt64, _ nanoseconds: UInt64) -> UInt64 {
    // Microseconds are exact enough and keep the product inside 64 bits for years of traffic.
    let microseconds = max(1, nanoseconds / 1000)
    return amount / microseconds * 1_000_000 + amount % microseconds * 1_000_000 / microseconds
  }

  func flushed(_ sector: UInt64, _ sectors: UInt64) {
    var line = Self.begin("flushed")
    Self.member(&line, "sector", sector)
    Self.member(&line, "sectors", sectors)
    Self.end(line)
  }

  /// One time window of an exercise.
  func exercising(_ counts: ExerciseCounts) { exercise("exercise", counts) }
  func exercised(_ counts: ExerciseCounts) { exercise("exercise-end", counts) }

  private func exercise(_ kind: StaticString, _ counts: ExerciseCounts) {
    var line = Self.begin(kind)
    Self.member(&line, "requests", counts.requests)
    Self.member(&line, "errors", counts.errors)
    Self.member(&line, "wrong", counts.wrong)
    Self.member(&line, "unfinished", counts.unfinished)
    Self.member(&line, "reconnections", counts.reconnections)
    Self.member(&line, "gap_ns", Clock.nanoseconds(counts.longestGap))
    Self.end(line)
  }

  func ended(_ cases: Int) {
    guard !isForPeople else { return }
    var line = Self.begin("bench-end")
    Self.member(&line, "cases", UInt64(cases))
    Self.end(line)
  }

  func failure(_ message: StaticString) {
    if isForPeople {
      var line = Text("bench-block: ")
      line.add(message)
      line.add("\n")
      line.print()
      return
    }
    var line = Self.begin("bench-error")
    Self.member(&line, "message", message)
    Self.end(line)
  }
}
