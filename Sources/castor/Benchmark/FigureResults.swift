// The figures of a guest program over all repetitions: medians, ratios to their baselines, the table and the JSON form.

import Foundation

/// Everything that one run of a program's benchmark found.
struct FigureResults {
  /// A figure that this machine cannot give.
  struct Absence: Codable, Equatable {
    var name: String
    var remark: String
  }

  private struct Figure {
    var unit: String
    var baseline: String?
    var remark: String?
    var samples: [Double] = []
  }

  /// Names in the order of their first report.
  private(set) var names: [String] = []
  private(set) var absences: [Absence] = []
  private var figures: [String: Figure] = [:]

  init() {}

  /// The results of a document.
  init(_ document: BenchmarkDocument) {
    for entry in document.results {
      if figures[entry.name] == nil { names.append(entry.name) }
      figures[entry.name] = Figure(
        unit: entry.unit, baseline: entry.baselineName, remark: entry.remark, samples: entry.samples)
    }
    absences = document.absent ?? []
  }

  /// Adds what one machine reported. Names of a labelled form begin with the label; a figure of a later form without a
  /// baseline of its own is compared with the same figure of the first form.
  mutating func add(_ reports: [FigureReport], label: String = "", first: String = "") {
    for report in reports {
      guard let short = report.name else { continue }
      let name = label.isEmpty ? short : "\(label)/\(short)"
      if report.report == "bench-absent" {
        let absence = Absence(name: name, remark: report.remark ?? "")
        if !absences.contains(absence) { absences.append(absence) }
        continue
      }
      guard let unit = report.unit, let value = report.value else { continue }
      if figures[name] == nil {
        let baseline = report.baseline.map { label.isEmpty ? $0 : "\(label)/\($0)" }
        names.append(name)
        figures[name] = Figure(
          unit: unit, baseline: baseline ?? (label == first ? nil : "\(first)/\(short)"), remark: report.remark)
      }
      figures[name]?.samples.append(value)
    }
  }

  /// One result a figure, in order. `ratio` is the median of the ratios of the repetitions.
  var entries: [BenchmarkResults.Entry] {
    names.compactMap { name in
      guard let figure = figures[name], let value = median(figure.samples) else { return nil }
      var entry = BenchmarkResults.Entry(name: name, unit: figure.unit, value: value, samples: figure.samples)
      entry.remark = figure.remark
      // Nothing is a multiple of 0, such as of no frame lost.
      if let baseline = figure.baseline, let other = figures[baseline], other.unit == figure.unit,
        let ratio = median(zip(figure.samples, other.samples).filter { $0.1 > 0 }.map { $0.0 / $0.1 })
      {
        entry.baselineName = baseline
        entry.baseline = median(other.samples)
        entry.ratio = ratio
      }
      return entry
    }
  }

  /// The headings and a row a figure, cell by cell, and then what is absent.
  var rows: [[String]] {
    var rows = [["figure", "remark", "value", "baseline", "ratio", "compared with"]]
    for entry in entries {
      rows.append([
        entry.name, entry.remark ?? "", Self.text(entry.value, entry.unit),
        entry.baseline.map { Self.text($0, entry.unit) } ?? "–",
        entry.ratio.map(Self.ratioText) ?? "–", entry.baselineName ?? "–",
      ])
    }
    for absence in absences { rows.append([absence.name, absence.remark, "absent", "–", "–", "–"]) }
    return rows
  }

  /// The table for the terminal.
  var table: String { BenchmarkTable.align(rows) }

  /// A ratio with two digits at least that are not zero, however small it is.
  static func ratioText(_ ratio: Double) -> String {
    if ratio > 0, ratio < 0.01 { return String(format: "%.1e", ratio) }
    return BenchmarkTable.number(ratio, ratio < 0.1 ? 3 : 2)
  }

  /// A value with the unit that suits its size.
  static func text(_ value: Double, _ unit: String) -> String {
    func scaled(_ steps: [(Double, String)]) -> String {
      let step = steps.last { value >= $0.0 } ?? steps[0]
      let number = value / step.0
      return BenchmarkTable.number(number, number < 10 ? 2 : 1) + " " + step.1
    }
    switch unit {
    case "ns": return scaled([(1, "ns"), (1e3, "µs"), (1e6, "ms"), (1e9, "s")])
    case "B/s": return scaled([(1, "B/s"), (1e3, "kB/s"), (1e6, "MB/s"), (1e9, "GB/s")])
    case "B": return scaled([(1, "B"), (1024, "KiB"), (1_048_576, "MiB"), (1_073_741_824, "GiB")])
    case "instructions": return BenchmarkTable.number(value, value == value.rounded() ? 0 : 1) + " instr"
    case "1": return BenchmarkTable.number(value, value == value.rounded() ? 0 : 2)
    default: return BenchmarkTable.number(value, 2) + " " + unit
    }
  }
}
