// What every benchmark's results must be like, whichever command wrote them (docs/benchmark.md, "JSON" and "HTML").

import Foundation
import Testing

@testable import castor

enum BenchmarkSchema {
  static let units: Set = ["ns", "instructions", "B/s", "B/kinstruction", "B", "1/s", "1"]

  /// Checks a document member by member, as a program that knows only the schema sees it.
  static func check(_ data: Data, benchmark: String, machine: String) throws -> BenchmarkDocument {
    let object = try #require(try JSONSerialization.jsonObject(with: data) as? [String: Any])
    #expect(Set(object.keys).subtracting(["absent"]) == ["schema", "benchmark", "context", "results"])
    #expect(object["schema"] as? Int == 1 && object["benchmark"] as? String == benchmark)
    let context = try #require(object["context"] as? [String: Any])
    #expect(context["machine"] as? String == machine)
    #expect(Set(["repetitions", "processor", "kernel", "time"]).isSubset(of: context.keys))
    let entries = try #require(object["results"] as? [[String: Any]])
    let names = entries.compactMap { $0["name"] as? String }
    #expect(!names.isEmpty && Set(names).count == entries.count)
    for (name, entry) in zip(names, entries) {
      let keys = Set(entry.keys)
      #expect(Set(["name", "unit", "value", "samples"]).isSubset(of: keys), "\(name)")
      #expect(
        keys.isSubset(of: ["name", "unit", "value", "samples", "baseline", "ratio", "baselineName", "remark"]),
        "\(name)")
      #expect(keys.contains("baseline") == keys.contains("ratio"), "\(name)")
      #expect(units.contains(entry["unit"] as? String ?? ""), "\(name)")
      let samples = try #require(entry["samples"] as? [Double])
      #expect(samples.count == context["repetitions"] as? Int, "\(name)")
      #expect(samples.allSatisfy { $0 >= 0 && $0.isFinite } && median(samples) == entry["value"] as? Double, "\(name)")
      guard let other = entry["baselineName"] as? String else { continue }
      let baseline = try #require(entries.first { $0["name"] as? String == other })
      #expect(baseline["unit"] as? String == entry["unit"] as? String, "\(name)")
      #expect(baseline["value"] as? Double == entry["baseline"] as? Double, "\(name)")
    }
    return try JSONDecoder().decode(BenchmarkDocument.self, from: data)
  }

  /// A page that needs nothing from elsewhere and closes every element that it opens, in order.
  static func expectWellFormed(_ html: String) {
    #expect(!html.contains("http") && !html.contains("<script") && !html.contains("url("))
    var open: [Substring] = []
    for tag in html.matches(of: /<(\/?)([a-zA-Z0-9]+)([^>]*)>/) where tag.2 != "meta" && !tag.3.hasSuffix("/") {
      if tag.1.isEmpty { open.append(tag.2) } else { #expect(open.popLast() == tag.2) }
    }
    #expect(open.isEmpty)
  }
}
