// `castor doctor`: the host's report for people and for programs.

import ArgumentParser
import Configuration
import Foundation

struct Doctor: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Report what this host offers to virtual machines, and the remedy for what is missing.",
    discussion: """
      Each thing is found by trying it. Whether KVM runs guest ring 0 on the processor or emulates it is found by a tiny \
      machine, not by a module's name. Exit code 0 when machines can run, 69 when they cannot.
      """)

  @Flag(help: "Print JSON: schema, usable, and checks with section, name, status, detail and remedy.")
  var json = false

  func run() throws {
    let report = HostReport.probe()
    if json {
      let encoder = JSONEncoder()
      encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
      print(String(decoding: try encoder.encode(report), as: UTF8.self))
    } else {
      print(Self.table(report))
    }
    if !report.usable { throw ArgumentParser.ExitCode(Configuration.ExitCode.noKVM.rawValue) }
  }

  /// One line a check, its remedy below it, and a verdict at the end.
  static func table(_ report: HostReport) -> String {
    var lines: [String] = []
    var section = ""
    let width = report.checks.map(\.name.count).max() ?? 0
    for check in report.checks {
      if check.section != section {
        section = check.section
        lines.append("\(lines.isEmpty ? "" : "\n")\(section)")
      }
      let mark =
        switch check.status {
        case .ok: "ok"
        case .degraded: "--"
        case .missing: "NO"
        }
      lines.append("  \(mark)  \(check.name.padding(toLength: width, withPad: " ", startingAt: 0))  \(check.detail)")
      if let remedy = check.remedy { lines.append("      \(String(repeating: " ", count: width))  → \(remedy)") }
    }
    lines.append("")
    let missing = report.checks.filter { $0.status == .missing }.map(\.name)
    lines.append(
      missing.isEmpty
        ? "Machines can run on this host." : "Machines cannot run on this host: \(missing.joined(separator: ", ")).")
    return lines.joined(separator: "\n")
  }
}
