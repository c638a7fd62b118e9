// Faults while data flows: an exerciser in the guest writes, reads back and checks blocks all the time, `castor ctl` breaks things, and
// afterwards every request has ended once, no byte is wrong, and the disk is as fast as before.

import Configuration
import Foundation
import Testing

/// Who drives the disk.
struct DriverSetup: CustomTestStringConvertible, Sendable {
  var program: String
  var mode: String
  var testDescription: String { "\(program) \(mode)" }

  /// The part of a service's description that names its device; QEMU's machine has only one.
  func device(on host: Host) -> String { host == .castor ? ",device=disk0" : "" }

  static let all: [DriverSetup] = (["block-container"] + (LinuxDrivers.arePresent ? ["linux-container"] : [])).flatMap {
    program in ["solo", "twin", "twin-poll"].map { DriverSetup(program: program, mode: $0) }
  }
}

/// Something that goes wrong, as words for `castor ctl`, and how many requests may fail by it.
enum Fault: String, CaseIterable, CustomTestStringConvertible, Sendable {
  case capacity, needsReset, oneError, burst, rangeOfErrors, delay, spuriousInterrupts, wedgedQueue, lateCompletions
  /// A client that looks at the device itself must not take what an old ring holds for its own.
  case manyResets

  /// What a driver gets over without a limit for requests, and what only such a limit ends.
  static let ordinary = allCases.filter { !timed.contains($0) }
  static let timed: [Fault] = [.wedgedQueue, .lateCompletions]

  var testDescription: String { rawValue }
  var begin: [[String]] {
    switch self {
    case .capacity: [["resize-disk", "disk0", "96M"], ["resize-disk", "disk0", "64M"]]
    case .needsReset: [["inject", "disk0", "needs-reset"]]
    case .oneError: [["inject", "disk0", "fail-next", "1"]]
    case .burst: [["inject", "disk0", "fail-next", "20"]]
    case .rangeOfErrors: [["inject", "disk0", "fail-sectors", "800-1599"]]
    case .delay: [["inject", "disk0", "delay", "300ms"]]
    case .spuriousInterrupts: [[String]](repeating: ["inject", "disk0", "spurious-interrupt"], count: 5)
    case .wedgedQueue: [["inject", "disk0", "wedge"]]
    case .manyResets: [[String]](repeating: ["inject", "disk0", "needs-reset"], count: 25)
    case .lateCompletions: [["inject", "disk0", "delay", "20s"]]
    }
  }
  var end: [[String]] {
    switch self {
    case .rangeOfErrors, .delay, .lateCompletions: [["inject", "disk0", "off"]]
    default: []
    }
  }
  /// How long it is there, in seconds.
  var duration: TimeInterval { self == .lateCompletions ? 1.5 : 0.35 }
  var errors: ClosedRange<Int> {
    switch self {
    case .oneError: 1...1
    case .burst: 20...20
    case .rangeOfErrors: 1...100_000
    // What is late twice fails, and so does what is sent after that until the fault ends. Of eight requests at a time no more than half are
    // done and wait to be taken when it begins.
    case .lateCompletions: 4...100_000
    default: 0...0
    }
  }
}

@Suite(.serialized) struct FaultTests {
  /// The exerciser's report of a time window, or of all.
  private struct Counts {
    var requests = 0
    var errors = 0
    var wrong = 0
    var unfinished = 0
    var reconnections = 0
    var gap = 0

    init(_ record: [String: Any]) {
      func number(_ key: String) -> Int { record[key] as? Int ?? -1 }
      requests = number("requests")
      errors = number("errors")
      wrong = number("wrong")
      unfinished = number("unfinished")
      reconnections = number("reconnections")
      gap = number("gap_ns")
    }
  }

  private static func median(_ values: some Collection<Int>) -> Int {
    values.isEmpty ? 0 : values.sorted()[values.count / 2]
  }

  @Test(.enabled(if: Host.castor.isAvailable), arguments: DriverSetup.all)
  func everyRequestEndsOnceAndNoByteIsWrong(setup: DriverSetup) throws {
    try Recovery.expect(after: Fault.ordinary) { try exercise(setup, with: $0) }
  }

  /// A device that does not answer is reset after the service's limit; what was in flight is done then, or fails if it is late again.
  @Test(.enabled(if: Host.castor.isAvailable), arguments: DriverSetup.all)
  func aDeviceThatDoesNotAnswerIsReset(setup: DriverSetup) throws {
    try Recovery.expect(after: Fault.timed) { try exercise(setup, with: $0, limit: 400) }
  }

  /// Lets `faults` happen one after the other while blocks are written, read and checked; those after which the driver was never again
  /// as fast as before. `limit`: the service's for requests, in ms.
  private func exercise(_ setup: DriverSetup, with faults: [Fault], limit: Int? = nil) throws -> [Fault] {
    let scratch = try ScratchFolder()
    let control = CastorControl(socket: "\(scratch.path)/control.sock")
    var description = GuestDescription()
    description.disk = try scratch.file("disk.img", bytes: 64 << 20)
    // The time after each fault, and at the end for the last one's recovery on a machine with other work.
    let rest = 0.85
    let seconds = 2 + faults.reduce(0) { $0 + $1.duration + rest } + 3
    description.services = [
      "name=block,program=\(setup.program),mode=\(setup.mode),device=disk0"
        + (limit.map { ",arguments=timeout=\($0)" } ?? ""),
      "name=bench,program=bench-block,arguments=exercise=on depths=8 milliseconds=\(Int(seconds * 1000)) exit=on",
    ]
    description.extra = ["control=\(control.socket)"]
    let guest = try description.start(on: .castor)
    #expect(guest.waitFor("\"report\":\"exercise\""), "\(guest.console)")
    Thread.sleep(forTimeInterval: 1)
    var marks: [(fault: Fault, window: Int)] = []
    for fault in faults {
      marks.append((fault, guest.console.components(separatedBy: "\"report\":\"exercise\"").count - 1))
      for words in fault.begin { #expect(try control(words).code == 0, "\(fault)") }
      Thread.sleep(forTimeInterval: fault.duration)
      for words in fault.end { #expect(try control(words).code == 0, "\(fault)") }
      Thread.sleep(forTimeInterval: rest)
    }
    let run = guest.finish(seconds: seconds + 60)
    let windows = run.records.filter { $0["report"] as? String == "exercise" }.map { Counts($0) }
    let total = Counts(try #require(run.records.first { $0["report"] as? String == "exercise-end" }, "\(run.console)"))
    #expect(total.wrong == 0 && total.unfinished == 0 && total.reconnections == 0, "\(run.console)")
    #expect(run.exitCode == 0, "\(run.console)\(run.errors)")
    // What fails while a fault is there belongs to it: errors of the windows up to the next fault.
    let before = Self.median(windows.prefix(marks.first?.window ?? 0).dropFirst().map(\.requests))
    var slow: [Fault] = []
    var lines = [
      "\(setup): \(before * 10) requests/s before; fault, errors, longest time without a completion, 95 % of the speed again after"
    ]
    for (index, mark) in marks.enumerated() {
      let end = index + 1 < marks.count ? marks[index + 1].window : windows.count
      let own = windows[min(mark.window, windows.count)..<min(max(mark.window, end), windows.count)]
      let errors = own.reduce(0) { $0 + $1.errors }
      #expect(mark.fault.errors.contains(errors), "\(mark.fault): \(errors) errors")
      let later = windows.dropFirst(min(mark.window + 4, windows.count)).map(\.requests)
      let recovered = later.firstIndex { Recovery.isComplete($0, of: before) }
      let again = recovered.map { "\(($0 - later.startIndex) * 100) ms" } ?? "never"
      lines.append("  \(mark.fault) \(errors) \((own.map(\.gap).max() ?? 0) / 1_000_000) ms \(again)")
      // Nothing waits for the next fault to be woken up.
      let longest = mark.fault == .lateCompletions ? 2_500 : 1_000
      #expect((own.map(\.gap).max() ?? 0) < longest * 1_000_000, "\(mark.fault)")
      let fastest = later.max() ?? 0
      if !Recovery.isComplete(fastest, of: before) {
        slow.append(mark.fault)
        lines.append("  \(mark.fault): at most \(fastest * 10) requests/s after it")
      }
    }
    print(lines.joined(separator: "\n"))
    return slow
  }

  @Test(arguments: Host.available, DriverSetup.all)
  func requestsWaitForASuspendedDevice(host: Host, setup: DriverSetup) throws {
    try Recovery.expect { try suspendAndResume(setup, on: host) }
  }

  /// Suspends a device and resumes it while blocks are written, read and checked; whether it was as fast as before again.
  private func suspendAndResume(_ setup: DriverSetup, on host: Host) throws -> Bool {
    let scratch = try ScratchFolder()
    var description = GuestDescription()
    description.disk = try scratch.file("disk.img", bytes: 64 << 20)
    let services = [
      "name=console,program=console",
      // A suspension of more than three times the limit is nobody's fault.
      "name=block,program=\(setup.program),mode=\(setup.mode)\(setup.device(on: host)),arguments=timeout=200",
      "name=bench,program=bench-block,arguments=exercise=on depths=8 milliseconds=4500 exit=on",
    ]
    description.compose(services, on: host)
    let guest = try description.start(on: host)
    #expect(guest.waitFor("\"report\":\"exercise\""), "\(guest.console)")
    Thread.sleep(forTimeInterval: 0.7)
    let before = guest.console.components(separatedBy: "\"report\":\"exercise\"").count - 1
    guest.type("resume block\r")
    #expect(guest.waitFor("resume: exists already"), "\(guest.console)")
    guest.type("suspend block\r")
    Thread.sleep(forTimeInterval: 0.8)
    guest.type("services\r")
    #expect(guest.waitFor("suspended"), "\(guest.console)")
    guest.type("resume block\r")
    let run = guest.finish(seconds: 60)
    let total = Counts(try #require(run.records.first { $0["report"] as? String == "exercise-end" }, "\(run.console)"))
    #expect(
      total.wrong == 0 && total.unfinished == 0 && total.errors == 0 && total.reconnections == 0, "\(run.console)")
    #expect((700_000_000...2_000_000_000).contains(total.gap), "\(run.console)")
    #expect(!run.console.contains("in time; it is reset"), "\(run.console)")
    #expect(run.exitCode == 0, "\(run.console)\(run.errors)")
    let windows = run.records.filter { $0["report"] as? String == "exercise" }.map { Counts($0) }
    let speed = Self.median(windows.prefix(before).dropFirst().map(\.requests))
    let after = windows.dropLast().suffix(10).map(\.requests).max() ?? 0
    print(
      "\(setup) on \(host), suspended for 800 ms: \(total.gap / 1_000_000) ms without a completion, then up to \(after * 100 / max(1, speed)) %"
    )
    return Recovery.isComplete(after, of: speed, on: host)
  }

  /// Parts of a driver that end by force, in this order, while data flows.
  static let victims: [(setup: DriverSetup, kill: [String])] = DriverSetup.all.flatMap { setup in
    setup.mode == "solo"
      ? [(setup, ["block"])]
      : setup.mode == "twin"
        ? [(setup, ["block.container"]), (setup, ["block"]), (setup, ["block", "block.container"])] : []
  }

  @Test(arguments: Host.available, victims) func killedDriversAreStartedAgainAndDataFlowsOn(
    host: Host, victim: (setup: DriverSetup, kill: [String])
  ) throws {
    try Recovery.expect { try exercise(victim.setup, on: host, killing: victim.kill) }
  }

  /// Kills parts of a driver while blocks are written, read and checked; whether it was as fast as before again.
  private func exercise(_ setup: DriverSetup, on host: Host, killing kill: [String]) throws -> Bool {
    let scratch = try ScratchFolder()
    var description = GuestDescription()
    description.disk = try scratch.file("disk.img", bytes: 64 << 20)
    let services = [
      "name=console,program=console",
      "name=block,program=\(setup.program),mode=\(setup.mode)\(setup.device(on: host)),restart=on-failure",
      "name=bench,program=bench-block,arguments=exercise=on depths=8 milliseconds=4000 exit=on",
    ]
    description.compose(services, on: host)
    let guest = try description.start(on: host)
    #expect(guest.waitFor("\"report\":\"exercise\""), "\(guest.console)")
    Thread.sleep(forTimeInterval: 0.7)
    for name in kill {
      guest.type("kill \(name)\r")
      #expect(guest.waitFor("init: \(name): started again"), "\(guest.console)")
    }
    let run = guest.finish(seconds: 60)
    let total = Counts(try #require(run.records.first { $0["report"] as? String == "exercise-end" }, "\(run.console)"))
    #expect(total.wrong == 0 && total.unfinished == 0, "\(run.console)")
    #expect(run.exitCode == 0, "\(run.console)\(run.errors)")
    // Who serves the clients takes their requests with it, and they connect again; of the container they notice a pause only.
    let serverDies = kill.contains("block")
    #expect(serverDies ? (1...8).contains(total.errors) && total.reconnections > 0 : total.errors == 0)
    let windows = run.records.filter { $0["report"] as? String == "exercise" }.map { Counts($0) }
    let before = Self.median(windows.dropFirst().prefix(5).map(\.requests))
    let after = windows.dropLast().suffix(10).map(\.requests).max() ?? 0
    print(
      "\(setup) on \(host), kill \(kill.joined(separator: " and ")): \(total.gap / 1_000_000) ms without a completion, then up to \(after * 100 / max(1, before)) %"
    )
    return Recovery.isComplete(after, of: before, on: host)
  }
}
