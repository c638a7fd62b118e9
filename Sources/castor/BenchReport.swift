// `castor bench report`: the results of several benchmarks, written before with `--json`, as tables and on one page of charts.

import ArgumentParser
import Configuration
import Foundation

struct BenchReport: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "report",
    abstract:
      "Show results that were written with --json, of any benchmarks, together: tables, and one page of charts.",
    discussion: "castor bench rpc --json rpc.json; castor bench block --json block.json; "
      + "castor bench report block.json rpc.json --html page.html")

  @Argument(help: "Files written by --json.", completion: .file(extensions: ["json"]))
  var files: [String]
  @Option(help: "Write all results as one HTML page with charts.", completion: .file(extensions: ["html"]))
  var html: String?

  func run() throws {
    try reportingFailures {
      if let html {
        try BenchmarkOutput.requireWritable(html)
        if let file = files.first(where: { BenchmarkOutput.isSame($0, html) }) {
          throw ConfigurationError(
            key: "--html", value: html, expected: "would overwrite the results in '\(file)'", exitCode: .usage)
        }
      }
      let documents = try files.map(BenchmarkDocument.read)
      let views = try zip(files, documents).map { file, document in try document.view(named: file) }
      try BenchmarkOutput.show(
        zip(documents, views).map { document, view in
          "castor bench \(document.benchmark) (\(document.context.machine))\n\(view.table)"
        }.joined(separator: "\n\n"))
      if let html {
        try BenchmarkOutput.write(Data(PageParts.page(views.map(\.section)).utf8), to: html)
      }
    }
  }
}

extension BenchmarkDocument {
  /// A document from a file that `--json` wrote.
  static func read(_ path: String) throws -> BenchmarkDocument {
    func refusal(_ reason: String, _ code: Configuration.ExitCode) -> ConfigurationError {
      ConfigurationError(key: "results", value: path, expected: reason, exitCode: code)
    }
    guard access(path, R_OK) == 0 else {
      throw refusal(
        "cannot be read: \(String(cString: strerror(errno)))",
        access(path, F_OK) == 0 ? .permissionDenied : .missingInput)
    }
    guard let data = try? Data(contentsOf: URL(filePath: path)) else {
      throw refusal("cannot be read", .inputOutputError)
    }
    struct Schema: Decodable { var schema: Int }
    if let schema = try? JSONDecoder().decode(Schema.self, from: data).schema, schema != BenchmarkDocument.currentSchema
    {
      throw refusal(
        "has the form \(schema), and this castor knows \(BenchmarkDocument.currentSchema)", .invalidConfiguration)
    }
    do { return try JSONDecoder().decode(BenchmarkDocument.self, from: data) } catch {
      throw refusal("is not what castor bench writes with --json", .invalidConfiguration)
    }
  }

  /// The table for the terminal and the part of a page. `file` names the document in errors.
  func view(named file: String) throws -> (table: String, section: PageSection) {
    if benchmark == "block" {
      do {
        let results = try BenchmarkResults(results)
        return (BenchmarkTable.text(results), BenchmarkPage(results: results, context: context).section)
      } catch let error as BenchmarkResults.UnknownResult {
        throw ConfigurationError(
          key: "results", value: file, expected: "has a result that the block benchmark does not have: '\(error.name)'")
      }
    }
    guard let program = ProgramBenchmark.all.first(where: { $0.name == benchmark }) else {
      throw ConfigurationError(
        key: "results", value: file, expected: "is of a benchmark that this castor does not know: '\(benchmark)'")
    }
    let figures = FigureResults(self)
    return (figures.table, FigurePage(benchmark: program, results: figures, context: context).section)
  }
}
