// The block benchmark's part of a page: charts of every operation and pattern, drawn in SVG, and the table.

import Configuration
import Foundation

struct BenchmarkPage {
  let results: BenchmarkResults
  let context: BenchmarkContext

  /// The benchmark's part of a page.
  var section: PageSection {
    let direct = context.direct.map { $0 ? ", O_DIRECT" : ", page cache" } ?? ""
    let introduction = """
      \(PageParts.escape(context.processor)), \(PageParts.escape(context.kernel)); machine \(PageParts.escape(context.machine)), \
      back end \(PageParts.escape(context.backend ?? ""))\(direct), \(PageParts.escape(context.path ?? "")) requests; \
      \(context.milliseconds ?? 0) ms a case, median of \(context.repetitions). Doorbells, interrupts and exits are per \
      request. The bars of one group ran one after the other on the same disk.
      """
    var parts: [PageSection.Part] = []
    for operation in BenchmarkOperation.allCases {
      for pattern in BenchmarkPattern.allCases {
        let cases = results.cases.filter { $0.operation == operation && $0.pattern == pattern }
        guard !cases.isEmpty else { continue }
        let charts =
          chart(cases, title: "Throughput, MB/s", scale: 1e-6, metric: .throughput)
          + chart(cases, title: "Requests a second", scale: 1, metric: .iops)
          + chart(cases, title: "Median latency, µs", scale: 1e-3, metric: .p50)
        parts.append((heading: "\(pattern.rawValue.capitalized) \(operation.rawValue)", html: charts))
      }
    }
    parts.append((heading: "All figures", html: PageParts.table(BenchmarkTable.rows(results))))
    return PageSection(title: "castor bench block", machine: context.machine, introduction: introduction, parts: parts)
  }

  private func chart(
    _ cases: [BenchmarkCase], title: String, scale: Double, metric: BenchmarkResults.Metric
  ) -> String {
    let width = 960.0
    let height = 260.0
    let left = 60.0
    let top = 34.0
    let bottom = 44.0
    let highest =
      cases.flatMap { one in results.runners.compactMap { results.value(metric, one, $0) } }.max().map { $0 * scale }
      ?? 0
    guard highest > 0 else { return "" }
    let ceiling = Self.niceCeiling(highest)
    let plot = height - top - bottom
    var svg =
      "<svg viewBox=\"0 0 \(Int(width)) \(Int(height))\" role=\"img\" aria-label=\"\(PageParts.escape(title))\">"
      + "<text class=\"title\" x=\"0\" y=\"14\">\(PageParts.escape(title))</text>\n"
    for step in 0...4 {
      let y = top + plot - plot * Double(step) / 4
      svg +=
        "<line x1=\"\(left)\" x2=\"\(width)\" y1=\"\(y)\" y2=\"\(y)\"/><text x=\"\(left - 6)\" y=\"\(y + 4)\" "
        + "text-anchor=\"end\">\(Self.axisLabel(ceiling * Double(step) / 4))</text>\n"
    }
    let group = (width - left) / Double(cases.count)
    let bar = min(28, group * 0.8 / Double(results.runners.count))
    for (place, one) in cases.enumerated() {
      let middle = left + group * (Double(place) + 0.5)
      let start = middle - bar * Double(results.runners.count) / 2
      for (index, runner) in results.runners.enumerated() {
        guard let value = results.value(metric, one, runner) else { continue }
        let length = plot * value * scale / ceiling
        let figure = BenchmarkTable.number(value * scale, 1)
        svg +=
          "<rect x=\"\(start + bar * Double(index))\" y=\"\(top + plot - length)\" width=\"\(bar * 0.9)\" "
          + "height=\"\(length)\" fill=\"\(PageParts.colours[index % PageParts.colours.count])\">"
          + "<title>\(PageParts.escape(one.title)), \(runner.name): \(figure)</title></rect>\n"
      }
      svg +=
        "<text x=\"\(middle)\" y=\"\(height - bottom + 16)\" text-anchor=\"middle\">"
        + "\(ByteSize.format(UInt64(one.size)))</text><text x=\"\(middle)\" y=\"\(height - bottom + 30)\" "
        + "text-anchor=\"middle\">×\(one.depth)</text>\n"
    }
    for (index, runner) in results.runners.enumerated() {
      let x = width - 90 * Double(results.runners.count - index)
      svg +=
        "<rect x=\"\(x)\" y=\"5\" width=\"10\" height=\"10\" fill=\"\(PageParts.colours[index % PageParts.colours.count])\"/>"
        + "<text x=\"\(x + 14)\" y=\"14\">\(runner.name)</text>\n"
    }
    return svg + "</svg>\n"
  }

  /// The next of 1, 2, 2.5, 5 and 10 times a power of ten.
  static func niceCeiling(_ value: Double) -> Double {
    let power = pow(10, floor(log10(value)))
    return ([1, 2, 2.5, 5, 10].first { $0 * power >= value } ?? 10) * power
  }

  private static func axisLabel(_ value: Double) -> String {
    value >= 10_000 ? "\(BenchmarkTable.number(value / 1000, 0))k" : String(format: "%g", value)
  }
}
