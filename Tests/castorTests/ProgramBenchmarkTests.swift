// The benchmarks of guest programs without a virtual machine: arguments, scripted guests, results, table, page.

import ArgumentParser
import Configuration
import Foundation
import Testing

@testable import castor

@Suite struct ProgramRunnerTests {
  static func runner(_ folder: TestFolder, _ script: String) throws -> ProgramRunner {
    ProgramRunner(
      machine: .kvm, monitor: try folder.script("monitor", script), kernel: "/k", archive: nil, cpus: 1, isQuick: true)
  }

  @Test func reportsAreCollectedUntilTheEnd() throws {
    let folder = try TestFolder()
    let runner = try Self.runner(
      folder,
      #"""
      for argument; do case "$argument" in service=name=bench*program=bench-rpc*quick=on*) echo booting;; esac; done
      printf '\036{"report":"bench-figure","name":"a","unit":"ns","value":10,"samples":[9,10,11]}\n'
      printf '\036{"report":"something-else"}\n'
      printf '\036{"report":"bench-absent","name":"b","remark":"no keys"}\n'
      printf '\036{"report":"bench-end","figures":1}\n'
      exec sleep 60
      """#)
    let reports = try runner.run(.rpc, ProgramBenchmark.rpc.forms[0])
    #expect(reports.map(\.name) == ["a", "b"] && reports[0].value == 10 && reports[1].remark == "no keys")
  }

  @Test(arguments: [
    (#"echo "panic: no memory"; exit 101"#, Configuration.ExitCode.guestFailure, "panic: no memory"),
    (#"printf '\036{"report":"bench-error","message":"no service"}\n'; sleep 60"#, .guestFailure, "no service"),
    (#"echo "init: bench died of exception 14"; sleep 60"#, .guestFailure, "exception 14"),
    (#"echo "init: queue: not in the boot archive: bench-rpc"; sleep 60"#, .guestFailure, "queue"),
    (#"printf '\036{"report":"bench-end","figures":2}\n'; sleep 60"#, .protocolError, "0 of 2"),
    (#"printf '\036{"report":"bench-figure","name":"a"}\n'; sleep 60"#, .protocolError, "not complete"),
    (#"printf '\036not JSON\n'; sleep 60"#, .protocolError, "not JSON"),
  ])
  func aFailingGuestIsExplained(_ script: String, _ code: Configuration.ExitCode, _ text: String) throws {
    let folder = try TestFolder()
    let runner = try Self.runner(folder, script)
    let failure = try #require(throws: CommandFailure.self) { try runner.run(.rpc, ProgramBenchmark.rpc.forms[0]) }
    #expect(failure.exitCode == code && failure.message.contains(text), "\(failure.message)")
  }

  /// A machine started by a script goes with the script.
  @Test func whatAMachineStartedEndsWithIt() throws {
    let folder = try TestFolder()
    let runner = try Self.runner(
      folder,
      "sleep 60 & echo $! >'\(folder.path("pid"))'; printf '\\036{\"report\":\"bench-end\",\"figures\":0}\\n'; wait")
    _ = try runner.run(.tokens, ProgramBenchmark.tokens.forms[0])
    let text = try String(contentsOf: folder.url.appending(path: "pid"), encoding: .utf8)
    let child = try #require(pid_t(text.trimmingCharacters(in: .whitespacesAndNewlines)))
    // It has been killed, but a busy host takes its time, and whoever adopted it may not have reaped it yet.
    var state: String?
    for _ in 0..<1000 {
      state = FileManager.default.contents(atPath: "/proc/\(child)/stat").map { String(decoding: $0, as: UTF8.self) }
      if state?.contains(") Z ") ?? true { break }
      usleep(10_000)
    }
    #expect(state?.contains(") Z ") ?? true, "\(state ?? "")")
  }

  @Test func aServiceIsAWordOfTheCommandLine() {
    var service = ServiceConfiguration(name: "vfs", program: "file-system")
    service.isolationClass = "ic1"
    service.arguments = "a=1,2 b=3"
    #expect(
      QEMUMachine.word(service) == "pollux.service=\"name=vfs,program=file-system,class=ic1,arguments=a=1,2 b=3\"")
  }

  @Test(arguments: [
    (["--machine", "bochs"], Configuration.ExitCode.usage, "bochs"), (["--repeat", "0"], .invalidConfiguration, "0"),
    (["--repeat", "x"], .usage, "'x'"), (["--cpus", "0"], .invalidConfiguration, "0"),
    (["--cpus", "9"], .invalidConfiguration, "9"), (["--json"], .usage, "--json"),
    (["--json", "/nonexistent/x"], .cannotCreate, "/nonexistent/x"), (["--html", "/proc"], .cannotCreate, "/proc"),
    (["--json", "one", "--html", "./one"], .usage, "./one"), (["rows"], .usage, "rows"),
    (["--rows", "3"], .usage, "--rows"),
    (["--kernel", "/nonexistent"], .missingInput, "/nonexistent"), (["--archive", "none"], .missingInput, "none"),
  ])
  func badArgumentsAreRefused(_ arguments: [String], _ code: Configuration.ExitCode, _ culprit: String) throws {
    let program = ["rpc", "composition", "tokens", "paging"].randomElement() ?? ""
    // QEMU, so that it is the same where there is no KVM: nothing is started.
    let machine = arguments.contains("--machine") ? [] : ["--machine", "qemu"]
    try BadInputTests.check(["bench", program] + machine + arguments, code, names: culprit)
  }
}

@Suite struct FigureResultsTests {
  static func figure(_ name: String, _ value: Double, _ baseline: String? = nil, unit: String = "ns") -> FigureReport {
    FigureReport(report: "bench-figure", name: name, unit: unit, value: value, samples: [value], baseline: baseline)
  }
  static var results: FigureResults {
    var results = FigureResults()
    // The second machine ran while the host was half as fast: the ratio does not change.
    for factor in [1.0, 2, 1] {
      results.add([
        figure("capability", 500 * factor), figure("token", 5 * factor, "capability"), figure("held", 8192, unit: "B"),
        FigureReport(report: "bench-absent", name: "ic1", remark: "no PKS"),
      ])
    }
    return results
  }

  @Test func ratiosAreThoseOfTheSameMachine() throws {
    let entries = Self.results.entries
    #expect(entries.map(\.name) == ["capability", "token", "held"])
    let token = entries[1]
    #expect(token.value == 5 && token.baseline == 500 && token.ratio == 0.01 && token.baselineName == "capability")
    #expect(token.samples == [5, 10, 5] && entries[0].ratio == nil)
    #expect(Self.results.absences == [.init(name: "ic1", remark: "no PKS")])
  }

  @Test func formsAreComparedWithTheFirst() throws {
    var results = FigureResults()
    results.add([Self.figure("fault", 8)], label: "split", first: "split")
    results.add([Self.figure("fault", 4), Self.figure("other", 1, "fault")], label: "shared", first: "split")
    let entries = results.entries
    #expect(entries.map(\.name) == ["split/fault", "shared/fault", "shared/other"])
    #expect(entries[0].ratio == nil && entries[1].ratio == 0.5 && entries[2].baselineName == "shared/fault")
  }

  @Test(arguments: [
    (352_094.0, "ns", "352.1 µs"), (6.25, "ns", "6.25 ns"), (1.5e9, "B/s", "1.50 GB/s"), (8192, "B", "8.00 KiB"),
    (91.375, "instructions", "91.4 instr"), (3, "1", "3"), (0, "ns", "0.00 ns"),
  ])
  func valuesHaveUnitsThatSuit(_ value: Double, _ unit: String, _ text: String) {
    #expect(FigureResults.text(value, unit) == text)
  }

  @Test(arguments: [(4.393, "4.39"), (0.1444, "0.14"), (0.0435, "0.043"), (1.0 / 131_000, "7.6e-06"), (0, "0.000")])
  func aRatioIsNeverRoundedAway(_ ratio: Double, _ text: String) { #expect(FigureResults.ratioText(ratio) == text) }

  @Test func tableAndPageShowEverything() throws {
    let lines = Self.results.table.split(separator: "\n").map(String.init)
    #expect(lines.count == 5 && lines[4].contains("no PKS") && lines[2].contains("0.010"))
    var context = BenchmarkContext.current(machine: "kvm", repetitions: 3)
    context.cpus = 1
    let html = PageParts.page([
      FigurePage(benchmark: .tokens, results: Self.results, context: context).section
    ])
    #expect(!html.contains("http") && !html.contains("<script") && html.contains("no PKS"))
    BenchmarkSchema.expectWellFormed(html)
    let document = BenchmarkDocument(
      benchmark: "tokens", context: context, results: Self.results.entries, absent: Self.results.absences)
    let object = try #require(try JSONSerialization.jsonObject(with: try document.encoded()) as? [String: Any])
    #expect(Set(object.keys) == ["schema", "benchmark", "context", "results", "absent"])
    #expect(
      Set(try #require(object["context"] as? [String: Any]).keys)
        == ["machine", "repetitions", "processor", "kernel", "time", "cpus"])
  }
}
