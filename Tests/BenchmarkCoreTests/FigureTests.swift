// Records of the benchmark programs: JSON that any reader takes, medians, units and options.

import BootFormats
import Foundation
import Testing

@testable import BenchmarkCore

@Suite struct FigureTests {
  private static func object(_ line: [UInt8]) throws -> [String: Any] {
    #expect(line.first == 0x1e && line.last == 0x0a)
    return try #require(try JSONSerialization.jsonObject(with: Data(line.dropFirst())) as? [String: Any])
  }

  @Test func aRecordIsAJSONTextSequence() throws {
    var figure = Figure(
      "read/" + 4096, .time, samples: [1500, 2000, 1_234_567_000], baseline: FigureName("read/") + "capability")
    var record = try Self.object(figure.record(isCounting: false))
    #expect(Set(record.keys) == ["report", "name", "unit", "value", "samples", "baseline"])
    #expect(record["report"] as? String == "bench-figure" && record["name"] as? String == "read/4096")
    #expect(record["unit"] as? String == "ns" && record["value"] as? Double == 2)
    #expect(
      record["samples"] as? [Double] == [1.5, 2, 1_234_567] && record["baseline"] as? String == "read/capability")
    figure.baseline = nil
    figure.remark = "a \"quoted\" \\ remark\n"
    figure.samples = []
    record = try Self.object(figure.record(isCounting: true))
    #expect(record["unit"] as? String == "instructions" && record["remark"] as? String == "a ?quoted? ? remark?")
    #expect((record["samples"] as? [Double])?.isEmpty == true && record["baseline"] == nil)
  }

  @Test func mediansAreThoseOfTheSortedValues() {
    #expect(Figure.median([]) == 0 && Figure.median([7]) == 7 && Figure.median([4, 1]) == 2)
    #expect(Figure.median([.max, .max]) == .max && Figure.median([3, 5]) == 4)
    var generator = SystemRandomNumberGenerator()
    for count in 1..<40 {
      let values = (0..<count).map { _ in generator.next() % 1000 }
      let sorted = values.sorted()
      let middle = count / 2
      let expected = count % 2 == 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2
      #expect(Figure.median(values) == expected)
    }
  }

  @Test func optionsAreWordsAmongOthers() {
    let counting = MeasureOptions(Bytes("sizes=1 unit=instructions  quick=on"))
    #expect(counting.isCounting && counting.isQuick && counting.operations(ticksForOne: 1, frequency: 1) == 32)
    let timed = MeasureOptions(Bytes("unit=time quick"))
    #expect(!timed.isCounting && !timed.isQuick)
    // A microsecond each at 1 GHz: as many as fit; and always some, but not endlessly many.
    #expect(timed.operations(ticksForOne: 1000, frequency: 1_000_000_000) == Int(timed.batchMicroseconds))
    #expect(timed.operations(ticksForOne: 1 << 40, frequency: 1_000_000_000) == 4)
    #expect(timed.operations(ticksForOne: 0, frequency: 1 << 60) == 1 << 20)
    // Three batches however slow; then only while there is time; never more than there should be.
    let megahertz: UInt64 = 1_000_000
    #expect(timed.wantsBatch(after: 2, ticks: .max, frequency: megahertz))
    #expect(!timed.wantsBatch(after: 3, ticks: timed.limitMicroseconds, frequency: megahertz))
    #expect(timed.wantsBatch(after: 3, ticks: timed.limitMicroseconds - 1, frequency: megahertz))
    #expect(!timed.wantsBatch(after: timed.batches, ticks: 0, frequency: megahertz))
    #expect(MeasureOptions.value("b", in: Bytes("ab=1 b=2"))?.number == 2)
  }
}
