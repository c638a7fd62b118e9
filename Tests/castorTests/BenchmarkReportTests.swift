// `castor bench report`: results of several benchmarks as tables and on one page.

import Configuration
import Foundation
import Testing

@testable import castor

@Suite struct BenchmarkReportTests {
  /// A document of each of the five benchmarks.
  private static func documents() throws -> [(name: String, data: Data)] {
    var context = BenchmarkContext.current(
      machine: "kvm", backend: "file", path: "vectored", direct: true, milliseconds: 1, repetitions: 3, diskBytes: 1)
    let block = BenchmarkDocument(context: context, results: BenchmarkResultsTests.results.entries)
    context = BenchmarkContext.current(machine: "qemu", repetitions: 3)
    let programs = ProgramBenchmark.all.map { program in
      BenchmarkDocument(
        benchmark: program.name, context: context, results: FigureResultsTests.results.entries,
        absent: FigureResultsTests.results.absences)
    }
    return try ([block] + programs).map { ($0.benchmark + ".json", try $0.encoded()) }
  }

  @Test func allBenchmarksAreOnOnePage() throws {
    let folder = try TestFolder()
    let documents = try Self.documents()
    for (name, data) in documents { try data.write(to: folder.url.appending(path: name)) }
    let run = try CastorRun(["bench", "report"] + documents.map(\.name) + ["--html", "page.html"], in: folder)
    #expect(run.exitCode == 0 && run.errors.isEmpty, "\(run.errors)")
    let html = try String(contentsOf: folder.url.appending(path: "page.html"), encoding: .utf8)
    BenchmarkSchema.expectWellFormed(html)
    for (index, name) in [
      "block (kvm)", "rpc (qemu)", "composition (qemu)", "tokens (qemu)", "paging (qemu)", "net (qemu)",
    ].enumerated() {
      #expect(html.contains("<h2 id=\"bench\(index)\">castor bench \(name)</h2>"))
      #expect(html.contains("<a href=\"#bench\(index)\">") && run.output.contains("castor bench \(name)\n"))
    }
    #expect(html.matches(of: #/<h3>All figures/#).count == 6 && html.matches(of: #/<svg /#).count == 3 + 5 * 2)
    // What stands there is what the benchmark itself would have shown.
    #expect(run.output.contains(BenchmarkTable.text(BenchmarkResultsTests.results)))
    #expect(run.output.components(separatedBy: FigureResultsTests.results.table).count == 6)
  }

  @Test func resultsSurviveTheirFile() throws {
    let results = BenchmarkResultsTests.results
    let again = try BenchmarkResults(results.entries)
    #expect(again.entries == results.entries && again.cases == results.cases && again.runners == results.runners)
    let figures = FigureResultsTests.results
    var document = BenchmarkDocument(
      benchmark: "tokens", context: .current(machine: "kvm", repetitions: 3), results: figures.entries,
      absent: figures.absences)
    document = try JSONDecoder().decode(BenchmarkDocument.self, from: try document.encoded())
    #expect(FigureResults(document).entries == figures.entries && FigureResults(document).rows == figures.rows)
  }

  private static let refusals: [(String?, String, Configuration.ExitCode)] = [
    ("{}", "--json", .invalidConfiguration), ("[1", "--json", .invalidConfiguration),
    (#"{"schema":2}"#, "the form 2", .invalidConfiguration), (nil, "No such file", .missingInput),
    (document("block", "read/random/4096/8/twin/colour"), "colour", .invalidConfiguration),
    (document("block", "read/random/0/8/twin/iops"), "read/random/0", .invalidConfiguration),
    (document("cooking", "a"), "cooking", .invalidConfiguration),
  ]

  @Test(arguments: refusals)
  func whatIsNoResultIsRefused(_ text: String?, _ culprit: String, _ code: Configuration.ExitCode) throws {
    let files = text.map { ["a.json": Data($0.utf8)] } ?? [:]
    try BadInputTests.check(["bench", "report", "a.json"], code, names: "a.json", files: files)
    try BadInputTests.check(["bench", "report", "a.json"], code, names: culprit, files: files)
  }

  private static func document(_ benchmark: String, _ name: String) -> String {
    """
    {"schema":1,"benchmark":"\(benchmark)","context":{"machine":"kvm","repetitions":1,"processor":"","kernel":"","time":0},
    "results":[{"name":"\(name)","unit":"1/s","value":1,"samples":[1]}]}
    """
  }

  @Test(arguments: [
    ("/dev/full", Configuration.ExitCode.inputOutputError), ("/nonexistent/page", .cannotCreate), ("./a.json", .usage),
  ])
  func aPageThatCannotBeWrittenIsNamed(_ path: String, _ code: Configuration.ExitCode) throws {
    let data = try Self.documents()[1].data
    try BadInputTests.check(
      ["bench", "report", "a.json", "--html", path], code, names: path, files: ["a.json": data])
  }

  @Test func standardOutputThatIsFullIsAnError() throws {
    let folder = try TestFolder()
    try Self.documents()[1].data.write(to: folder.url.appending(path: "a.json"))
    let run = try CastorRun(["bench", "report", "a.json"], in: folder, output: "/dev/full")
    #expect(run.exitCode == Configuration.ExitCode.inputOutputError.rawValue)
    #expect(run.errors == "castor: standard output: cannot be written: No space left on device\n")
  }
}
