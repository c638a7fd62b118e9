// The kernel's own test (Guest/Sources/KernelTest) on each host: every check holds, and the lengths of the kernel's paths, counted
// by QEMU as instructions, stay within their budgets.

import Testing

/// What the program said.
private struct KernelTestReport {
  var failures: [String]
  var notes: [String: Int]
  var reachedItsEnd: Bool

  init(_ run: GuestRun) {
    failures = run.lines.filter { $0.hasPrefix("FAILED") || $0.contains("panic") }
    notes = [:]
    for line in run.lines where line.hasPrefix("note ") {
      let words = line.split(separator: " ")
      if words.count == 3, let value = Int(words[2]) { notes[String(words[1])] = value }
    }
    reachedItsEnd = run.lines.contains("ok the test reached its end")
  }
}

@Suite(.serialized) struct KernelTests {
  @Test(arguments: Host.available, [1, 2])
  func everyCheckOfTheKernelTestHolds(on host: Host, cpus: Int) throws {
    let description = GuestDescription(memory: "128M", cpus: cpus, archive: "kernel-test.tar")
    let run = try description.start(on: host).finish(seconds: 240)
    let report = KernelTestReport(run)
    #expect(report.failures.isEmpty)
    #expect(report.reachedItsEnd, "\(run.console)\(run.errors)")
    #expect(report.notes["processors"] == cpus)
    #expect(run.exitCode == 0)
  }

  @Test(.enabled(if: Host.qemu.isAvailable))
  func bootAndSystemCallsStayWithinTheirInstructionBudgets() throws {
    var description = GuestDescription(memory: "128M", archive: "kernel-test.tar")
    description.extra = ["-icount", "shift=0"]
    let run = try description.start(on: .qemu).finish(seconds: 240)
    let report = KernelTestReport(run)
    #expect(report.reachedItsEnd, "\(run.console)\(run.errors)")
    // One tick of the time-stamp counter is one instruction. The contract for the boot is 150,000.
    let boot = try #require(report.notes["boot-ticks"])
    print("Instructions from the kernel's entry to init's first: \(boot)")
    #expect(boot < 30_000)
    let null = try #require(report.notes["null-call-ticks"])
    let signal = try #require(report.notes["signal-and-poll-ticks"])
    let call = try #require(report.notes["call-ticks"])
    let rpc = try #require(report.notes["rpc-stub-ticks"])
    print(
      "Instructions, with the caller's own: null call \(null), signal and poll \(signal), call and reply \(call), "
        + "RPC with both stubs \(rpc)")
    // The budget for a round trip between two address spaces is 200.
    #expect(rpc < 140)
    #expect(null < 90)
    #expect(signal < 260)
    #expect(call < 480)
  }
}
