// The results as a table for the terminal.

import Configuration
import Foundation

enum BenchmarkTable {
  private static let headings = [
    "case", "by", "MB/s", "IOPS", "p50 µs", "p99 µs", "doorbells", "interrupts", "calls", "exits", "instructions",
    "looking", "÷ host", "÷ solo",
  ]

  /// One line for each case and runner, columns aligned. Doorbells, interrupts, calls, exits and instructions are per request;
  /// `looking` are the instructions of clients that wait for the device, which are not among the others.
  static func text(_ results: BenchmarkResults) -> String { align(rows(results)) }

  /// The headings and the lines, cell by cell; columns without any figure are left out.
  static func rows(_ results: BenchmarkResults) -> [[String]] {
    var rows: [[String]] = [headings]
    for benchmarkCase in results.cases {
      for (index, runner) in results.runners.enumerated() {
        func cell(_ metric: BenchmarkResults.Metric, _ scale: Double, _ digits: Int) -> String {
          results.value(metric, benchmarkCase, runner).map { number($0 * scale, digits) } ?? "–"
        }
        func ratio(to other: BenchmarkResults.Runner) -> String {
          (results.ratio(.throughput, benchmarkCase, runner, to: other)
            ?? results.ratio(.instructions, benchmarkCase, runner, to: other)).map { number($0, 2) } ?? "–"
        }
        let isGuest = runner != .host
        rows.append([
          index == 0 ? benchmarkCase.title : "", runner.name, cell(.throughput, 1e-6, 1), cell(.iops, 1, 0),
          cell(.p50, 1e-3, 1), cell(.p99, 1e-3, 1), cell(.doorbells, 1, 2), cell(.interrupts, 1, 2),
          cell(.calls, 1, 2), cell(.exits, 1, 2), cell(.instructions, 1, 0), cell(.looking, 1, 0),
          isGuest ? ratio(to: .host) : "–",
          isGuest && runner != .guest(.solo) ? ratio(to: .guest(.solo)) : "–",
        ])
      }
    }
    // Times on a machine that counts instructions, instructions elsewhere: columns that nobody fills.
    let filled = headings.indices.filter { column in column < 2 || rows.dropFirst().contains { $0[column] != "–" } }
    return rows.map { row in filled.map { row[$0] } }
  }

  /// The first two columns to the left, figures to the right.
  static func align(_ rows: [[String]]) -> String {
    let count = rows.map(\.count).max() ?? 0
    let widths = (0..<count).map { column in rows.map { $0[column].count }.max() ?? 0 }
    return rows.map { row in
      let cells = row.enumerated().map { column, text in
        let padding = String(repeating: " ", count: widths[column] - text.count)
        return column < 2 ? text + padding : padding + text
      }
      return cells.joined(separator: "  ").trimmingTrailingSpaces()
    }.joined(separator: "\n")
  }

  static func number(_ value: Double, _ digits: Int) -> String { String(format: "%.\(digits)f", value) }
}

extension String {
  fileprivate func trimmingTrailingSpaces() -> String {
    var text = self
    while text.hasSuffix(" ") { text.removeLast() }
    return text
  }
}

/// A progress bar on standard error, when that is a terminal.
struct ProgressBar {
  let total: Int
  private let isShown = isatty(2) == 1
  private let start = HostBaseline.now()

  init(total: Int) { self.total = total }

  /// Redraws the bar: `done` of `total` steps, and what is under way.
  func show(_ done: Int, _ title: String) {
    guard isShown else { return }
    let width = 24
    let filled = total == 0 ? width : done * width / total
    let bar = String(repeating: "█", count: filled) + String(repeating: "░", count: width - filled)
    var line = "\r\u{1b}[K\(bar) \(done)/\(total)  \(title)"
    if done > 0 {
      let elapsed = Double(HostBaseline.now() - start) / 1e9
      line += "  \(Int(elapsed / Double(done) * Double(total - done)) + 1) s left"
    }
    FileHandle.standardError.write(Data(line.utf8))
  }

  /// Removes the bar.
  func clear() { if isShown { FileHandle.standardError.write(Data("\r\u{1b}[K".utf8)) } }
}
