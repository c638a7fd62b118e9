// The benchmark without a virtual machine: plan, baseline, report lines, results, table, page, and a scripted guest.

import ArgumentParser
import Configuration
import Foundation
import Testing

@testable import castor

/// A folder that is gone at the end of the test.
final class TestFolder {
  let url: URL
  init() throws {
    url = FileManager.default.temporaryDirectory.appending(path: "castor-bench-test-\(UUID().uuidString)")
    try FileManager.default.createDirectory(at: url, withIntermediateDirectories: true)
  }
  deinit { try? FileManager.default.removeItem(at: url) }
  func path(_ name: String) -> String { url.appending(path: name).path() }

  /// A shell script in the folder; its path.
  func script(_ name: String, _ text: String) throws -> String {
    let path = path(name)
    // Another process writes the file: were it open here, a program that another test starts at that moment would keep it
    // open for writing, and starting the script would fail (ETXTBSY).
    let writer = Process()
    writer.executableURL = URL(filePath: "/bin/sh")
    writer.arguments = ["-c", #"printf '#!/bin/sh\n%s\n' "$1" >"$2" && chmod 700 "$2""#, "write", text, path]
    try writer.run()
    writer.waitUntilExit()
    return path
  }
}

@Suite struct BenchmarkPlanTests {
  @Test func theFullPlanIsTheProductOfItsLists() throws {
    let plan = try BenchmarkPlan(try BenchBlock.parse([]))
    #expect(plan.cases.count == 2 * 2 * 5 * 3)
    #expect(Set(plan.cases).count == plan.cases.count)
    #expect(plan.modes == BenchmarkMode.allCases)
    #expect(plan.diskSize == 1 << 30)
  }

  @Test func listsAreChosen() throws {
    let plan = try BenchmarkPlan(
      try BenchBlock.parse([
        "--quick", "--sizes", "4K,4096,8192", "--depths", "32", "--modes", "twin-poll", "--operations", "write",
      ]))
    #expect(plan.cases.map(\.name) == ["write/random/4096/32", "write/random/8192/32"])
    #expect(plan.modes == [.twinPoll])
    #expect(plan.writes)
  }

  @Test(arguments: [
    ["--sizes", "4K,"], ["--sizes", "100"], ["--sizes", "32M"], ["--depths", "0"], ["--depths", "33"],
    ["--modes", "triple"], ["--operations", ""], ["--disk-size", "1K"], ["--repeat", "0"], ["--milliseconds", "1"],
    ["--disk-size", "1M", "--sizes", "2M"],
  ])
  func badListsAreRefused(_ arguments: [String]) throws {
    let options = try BenchBlock.parse(arguments)
    let error = try #require(throws: ConfigurationError.self) { try BenchmarkPlan(options) }
    #expect(arguments.contains(error.key))
  }

  @Test func eachModeHasItsComposition() {
    #expect(BenchmarkMode.solo.services(.pollux, arguments: "").map(\.program) == ["block-container", "bench-block"])
    let twin = BenchmarkMode.twinPoll.services(.linux, arguments: "x")
    #expect(twin.map(\.program) == ["linux-container", "block-twin", "bench-block"])
    #expect(twin[0].mode == "twin-poll" && twin[0].device == "disk0" && twin[2].arguments == "x")
  }
}

@Suite struct HostBaselineTests {
  @Test(arguments: BenchmarkOperation.allCases, BenchmarkPattern.allCases)
  func aCaseIsMeasured(_ operation: BenchmarkOperation, _ pattern: BenchmarkPattern) throws {
    let folder = try TestFolder()
    let disk = try ScratchDisk(path: folder.path("disk.img"), size: 1 << 20, writes: true, overwrite: false)
    let path = try #require(disk.path)
    let baseline = try HostBaseline(path: path, span: disk.size, writable: true, stamps: false)
    let sample = try baseline.measure(
      BenchmarkCase(operation: operation, pattern: pattern, size: 65536, depth: 4), milliseconds: 20)
    #expect(sample.requests >= 4)
    #expect(sample.bytes == sample.requests * 65536)
    #expect(sample.nanoseconds > 0 && sample.p50 > 0 && sample.p50 <= sample.p99 && sample.p99 <= sample.nanoseconds)
    let contents = try #require(FileManager.default.contents(atPath: path))
    #expect(contents.count == 1 << 20)
    // Sequential writes of at least four blocks begin at the start; reads leave the file alone.
    #expect(
      (contents.prefix(65536) == Data(repeating: 0xa5, count: 65536)) == (operation == .write && pattern == .sequential)
        || pattern == .random)
    disk.remove()
    #expect(!FileManager.default.fileExists(atPath: path))
  }

  @Test func writesCarryTheNumbersOfTheirSectors() throws {
    let folder = try TestFolder()
    let disk = try ScratchDisk(path: folder.path("disk.img"), size: 1 << 20, writes: true, overwrite: false)
    defer { disk.remove() }
    let path = try #require(disk.path)
    let baseline = try HostBaseline(path: path, span: disk.size, writable: true)
    _ = try baseline.measure(
      BenchmarkCase(operation: .write, pattern: .sequential, size: 8192, depth: 2), milliseconds: 20)
    let contents = try #require(FileManager.default.contents(atPath: path))
    for sector in 0..<32 {
      let number = contents[(sector * 512)..<(sector * 512 + 8)].reversed().reduce(UInt64(0)) { $0 << 8 | UInt64($1) }
      #expect(number == UInt64(sector))
      #expect(contents[sector * 512 + 8] == 0xa5)
    }
  }

  @Test func aFileThatExistsIsNotOverwrittenUnasked() throws {
    let folder = try TestFolder()
    let path = folder.path("precious")
    try Data(repeating: 7, count: 2 << 20).write(to: URL(filePath: path))
    let error = try #require(throws: ConfigurationError.self) {
      try ScratchDisk(path: path, size: 1 << 20, writes: true, overwrite: false)
    }
    #expect(error.exitCode == .cannotCreate)
    let disk = try ScratchDisk(path: path, size: 1 << 30, writes: false, overwrite: false)
    #expect(disk.size == 2 << 20)
    disk.remove()
    #expect(FileManager.default.fileExists(atPath: path))
  }

  @Test func aMissingFileIsNamed() throws {
    let error = try #require(throws: ConfigurationError.self) {
      try HostBaseline(path: "/nonexistent/disk", span: 1 << 20, writable: false)
    }
    #expect(error.exitCode == .missingInput && error.value == "/nonexistent/disk")
  }
}

@Suite struct ReportReaderTests {
  @Test func reportsAreFoundAmongText() {
    var reader = ReportReader()
    let text = "hello\r\nprompt> \u{1e}{\"report\":\"a\"}\n\u{1e}cut off\u{1e}{\"report\":\"b\"}\r\nbye\n"
    var reports: [String] = []
    // Byte by byte, as a slow console gives them.
    for byte in text.utf8 { reports += reader.take([byte]).map { String(decoding: $0, as: UTF8.self) } }
    #expect(reports == ["{\"report\":\"a\"}", "{\"report\":\"b\"}"])
    #expect(reader.lastLines == ["hello", "prompt> ", "bye"])
  }

  @Test func anEndlessLineHasABound() {
    var reader = ReportReader()
    #expect(reader.take(Array(repeating: UInt8(ascii: "x"), count: 1 << 18)).isEmpty)
    _ = reader.take([0x0a])
    #expect(reader.lastLines.map(\.count) == [1 << 16])
  }
}

@Suite struct BenchmarkResultsTests {
  static func sample(_ megabytesPerSecond: UInt64) -> BenchmarkSample {
    BenchmarkSample(
      requests: megabytesPerSecond, bytes: megabytesPerSecond * 1_000_000, nanoseconds: 1_000_000_000, p50: 1000,
      p99: 2000, doorbells: 0.5, interrupts: 0.25)
  }
  static let one = BenchmarkCase(operation: .read, pattern: .random, size: 4096, depth: 8)
  static var results: BenchmarkResults {
    var results = BenchmarkResults()
    // The second repetition ran while the host was half as fast: the ratios do not change.
    for (host, solo, twin) in [(100, 20, 80), (50, 10, 40), (100, 20, 90)] as [(UInt64, UInt64, UInt64)] {
      results.add(sample(host), to: one, by: .host)
      results.add(sample(solo), to: one, by: .guest(.solo))
      results.add(sample(twin), to: one, by: .guest(.twin))
    }
    return results
  }

  @Test func mediansAndRatiosOfPairs() {
    let results = Self.results
    #expect(median([3, 1, 2]) == 2 && median([1, 2]) == 1.5 && median([]) == nil)
    #expect(results.value(.throughput, Self.one, .host) == 1e8)
    #expect(results.ratio(.throughput, Self.one, .guest(.twin), to: .host) == 0.8)
    #expect(results.ratio(.throughput, Self.one, .guest(.twin), to: .guest(.solo)) == 4)
    #expect(results.ratio(.throughput, Self.one, .host, to: .host) == nil)
  }

  @Test func theJSONFormIsStable() throws {
    let context = BenchmarkContext.current(
      machine: "kvm", backend: "file", path: "vectored", direct: true, milliseconds: 1, repetitions: 3, diskBytes: 1)
    let data = try BenchmarkDocument(context: context, results: Self.results.entries).encoded()
    let object = try #require(try JSONSerialization.jsonObject(with: data) as? [String: Any])
    #expect(Set(object.keys) == ["schema", "benchmark", "context", "results"])
    let entries = try #require(object["results"] as? [[String: Any]])
    let twin = try #require(entries.first { $0["name"] as? String == "read/random/4096/8/twin/throughput" })
    #expect(Set(twin.keys) == ["name", "unit", "value", "baseline", "ratio", "samples"])
    #expect(twin["unit"] as? String == "B/s")
    #expect(twin["ratio"] as? Double == 0.8)
    #expect((twin["samples"] as? [Double])?.count == 3)
    #expect(entries.contains { $0["name"] as? String == "read/random/4096/8/twin/throughput-to-solo" })
    #expect(try JSONDecoder().decode(BenchmarkDocument.self, from: data).results == Self.results.entries)
  }

  @Test func theTableIsAligned() {
    let lines = BenchmarkTable.text(Self.results).split(separator: "\n").map(String.init)
    #expect(lines.count == 4)
    #expect(Set(lines.map(\.count)).count == 1)
    #expect(lines[0].hasPrefix("case"))
    #expect(lines[3].contains("80.0") && lines[3].hasSuffix("0.80    4.00"))
  }

  @Test func thePageNeedsNoNetworkAndIsWellFormed() throws {
    let context = BenchmarkContext.current(
      machine: "kvm<&", backend: "file", path: "vectored", direct: true, milliseconds: 1, repetitions: 3, diskBytes: 1)
    let html = PageParts.page([BenchmarkPage(results: Self.results, context: context).section])
    #expect(!html.contains("http") && !html.contains("<script") && !html.contains("url("))
    #expect(html.contains("kvm&lt;&amp;"))
    BenchmarkSchema.expectWellFormed(html)
  }

  @Test(arguments: [(1.0, 1.0), (1.1, 2.0), (2.1, 2.5), (260.0, 500.0), (0.03, 0.05), (9.9, 10.0)])
  func axesEndAtRoundFigures(_ value: Double, _ ceiling: Double) {
    #expect(abs(BenchmarkPage.niceCeiling(value) - ceiling) < ceiling * 1e-9)
  }
}

@Suite struct GuestRunnerTests {
  /// A runner whose machine is a shell script.
  static func runner(_ folder: TestFolder, _ script: String) throws -> GuestRunner {
    GuestRunner(
      machine: .kvm, disk: ScratchDisk(nullOfSize: 1 << 20), monitor: try folder.script("monitor", script),
      kernel: "/k",
      archive: nil, cpus: 1, milliseconds: 10, verify: true, path: .vectored, driver: .pollux,
      countsInstructions: false)
  }

  @Test func aReportBecomesASample() throws {
    let folder = try TestFolder()
    let runner = try Self.runner(
      folder,
      #"""
      for argument; do case "$argument" in service=name=bench*sizes=4096*) echo "booting";; esac; done
      printf '\036{"report":"bench-start","case":0}\n'
      printf '\036{"report":"bench-result","requests":200,"bytes":819200,"nanoseconds":1000000,"p50":10,"p99":20,'
      printf '"errors":0,"verified":true,"doorbells":100,"interrupts":50}\n'
      exec sleep 60
      """#)
    let sample = try runner.measure(BenchmarkResultsTests.one, .twin)
    #expect(
      sample
        == BenchmarkSample(
          requests: 200, bytes: 819200, nanoseconds: 1_000_000, p50: 10, p99: 20, doorbells: 0.5, interrupts: 0.25))
  }

  @Test(arguments: [
    (#"echo "panic: no disk"; echo "trap" >&2; exit 70"#, Configuration.ExitCode.guestFailure, "code 70"),
    (#"printf '\036{"report":"bench-error","message":"no device"}\n'; sleep 60"#, .guestFailure, "no device"),
    (#"printf '\036{"report":"bench-result"}\n'; sleep 60"#, .protocolError, "not complete"),
    (
      #"printf '\036{"report":"bench-result","requests":1,"bytes":1,"nanoseconds":1,"p50":1,"p99":1,"verified":false}\n'; sleep 60"#,
      .checkFailed, "read back"
    ),
    (
      #"printf '\036{"report":"bench-result","requests":1,"bytes":1,"nanoseconds":1,"p50":1,"p99":1,"errors":3}\n'; sleep 60"#,
      .inputOutputError, "3 requests"
    ),
  ])
  func aFailingGuestIsExplained(_ script: String, _ code: Configuration.ExitCode, _ text: String) throws {
    let folder = try TestFolder()
    let runner = try Self.runner(folder, script)
    let failure = try #require(throws: CommandFailure.self) {
      try runner.measure(BenchmarkResultsTests.one, .solo)
    }
    #expect(failure.exitCode == code)
    #expect(failure.message.contains(text))
    if text == "code 70" { #expect(failure.message.contains("panic: no disk") && failure.message.contains("trap")) }
  }
}
