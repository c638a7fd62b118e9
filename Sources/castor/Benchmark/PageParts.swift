// What the HTML pages of all benchmarks share: the frame with its style, tables, and bars drawn in SVG.

import Foundation

enum PageParts {
  static let colours = ["#8a8f98", "#d9822b", "#2b6cb0", "#2f855a"]

  /// The whole page: of one benchmark, or several one below the other with links to each. Nothing is fetched from elsewhere.
  static func page(_ sections: [PageSection]) -> String {
    if sections.count == 1 { return frame(title: sections[0].title, body: sections[0].html(level: 2)) }
    let links = sections.enumerated().map { index, section in
      "<li><a href=\"#bench\(index)\">\(escape(section.title)) (\(escape(section.machine)))</a></li>\n"
    }
    let bodies = sections.enumerated().map { index, section in
      "<h2 id=\"bench\(index)\">\(escape(section.title)) (\(escape(section.machine)))</h2>\n\(section.html(level: 3))"
    }
    return frame(title: "castor bench", body: "<ul>\n\(links.joined())</ul>\n\(bodies.joined(separator: "\n"))")
  }

  /// `body` is HTML.
  private static func frame(title: String, body: String) -> String {
    """
    <!DOCTYPE html>
    <html lang="en"><head><meta charset="utf-8"><title>\(escape(title))</title>
    <meta name="viewport" content="width=device-width, initial-scale=1">
    <style>
    :root { color-scheme: light dark }
    body { font: 15px/1.5 system-ui, sans-serif; max-width: 64rem; margin: 2rem auto; padding: 0 1rem }
    svg { width: 100%; height: auto; margin: .5rem 0 1.5rem } svg text { font: 11px system-ui, sans-serif; fill: currentColor }
    svg .title { font-size: 13px; font-weight: 600 } svg line { stroke: currentColor; stroke-opacity: .2 }
    table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 13px }
    td, th { padding: .15rem .6rem; text-align: right; border-bottom: 1px solid #8884 }
    td:first-child, th:first-child, td:nth-child(2), th:nth-child(2) { text-align: left }
    .scroll { overflow-x: auto }
    </style></head><body>
    <h1>\(escape(title))</h1>
    \(body)
    </body></html>

    """
  }

  /// A table whose first row is its headings.
  static func table(_ rows: [[String]]) -> String {
    "<div class=\"scroll\"><table>\n"
      + rows.enumerated().map { index, row in
        let cell = index == 0 ? "th" : "td"
        return "<tr>" + row.map { "<\(cell)>\(escape($0))</\(cell)>" }.joined() + "</tr>"
      }.joined(separator: "\n") + "\n</table></div>"
  }

  /// One horizontal bar a figure, all of one unit; `isBaseline` ones are grey.
  static func bars(title: String, _ items: [(name: String, value: Double, text: String, isBaseline: Bool)]) -> String {
    guard let highest = items.map(\.value).max(), highest > 0 else { return "" }
    let left = 300.0
    let length = 520.0
    let height = 24 + 20 * items.count
    var svg =
      "<svg viewBox=\"0 0 960 \(height)\" role=\"img\" aria-label=\"\(escape(title))\">"
      + "<text class=\"title\" x=\"0\" y=\"14\">\(escape(title))</text>\n"
    for (index, item) in items.enumerated() {
      let y = 24 + 20 * index
      let width = max(1, length * item.value / highest)
      svg +=
        "<text x=\"\(left - 8)\" y=\"\(y + 12)\" text-anchor=\"end\">\(escape(item.name))</text>"
        + "<rect x=\"\(left)\" y=\"\(y)\" width=\"\(width)\" height=\"15\" fill=\"\(colours[item.isBaseline ? 0 : 2])\"/>"
        + "<text x=\"\(left + width + 6)\" y=\"\(y + 12)\">\(escape(item.text))</text>\n"
    }
    return svg + "</svg>\n"
  }

  static func escape(_ text: String) -> String {
    text.replacingOccurrences(of: "&", with: "&amp;").replacingOccurrences(of: "<", with: "&lt;")
      .replacingOccurrences(of: ">", with: "&gt;").replacingOccurrences(of: "\"", with: "&quot;")
  }
}

/// What a benchmark has on a page.
struct PageSection {
  /// A heading, as text, and what stands below it, as HTML.
  typealias Part = (heading: String, html: String)

  /// The command.
  var title: String
  /// kvm or qemu.
  var machine: String
  /// HTML.
  var introduction: String
  var parts: [Part]

  /// The introduction and the parts below headings of a level.
  func html(level: Int) -> String {
    let body = parts.map { part in
      (part.heading.isEmpty ? "" : "<h\(level)>\(PageParts.escape(part.heading))</h\(level)>\n") + part.html
    }
    return "<p>\(introduction)</p>\n" + body.joined(separator: "\n")
  }
}

/// The part of a page with a benchmark program's figures.
struct FigurePage {
  let benchmark: ProgramBenchmark
  let results: FigureResults
  let context: BenchmarkContext

  var section: PageSection {
    let entries = results.entries
    let baselines = Set(entries.compactMap(\.baselineName))
    var charts = ""
    var units: [String] = []
    for entry in entries where !units.contains(entry.unit) { units.append(entry.unit) }
    for unit in units {
      let items = entries.filter { $0.unit == unit }.map {
        ($0.name, $0.value, FigureResults.text($0.value, unit), baselines.contains($0.name))
      }
      charts += PageParts.bars(title: unit == "1" ? "Counts" : "In \(unit)", items)
    }
    let introduction =
      "\(PageParts.escape(context.processor)), \(PageParts.escape(context.kernel)); machine "
      + "\(PageParts.escape(context.machine)), \(context.cpus ?? 1) CPU; \(PageParts.escape(benchmark.subject)); median of "
      + "\(context.repetitions) machines. Grey bars are what others are compared with."
    return PageSection(
      title: "castor bench \(benchmark.name)", machine: context.machine, introduction: introduction,
      parts: [(heading: "", html: charts), (heading: "All figures", html: PageParts.table(results.rows))])
  }
}
