// The benchmark program's arithmetic: percentiles, places, patterns and arguments.

import BootFormats
import Testing

@testable import BenchmarkCore

@Suite struct LatencyHistogramTests {
  @Test func bucketsCoverAllValuesInOrderAndAreNarrow() {
    var last = -1
    for exponent in 0..<40 {
      for fraction in 0..<64 {
        let value = 1 << UInt64(exponent) + UInt64(fraction) << UInt64(max(0, exponent - 6))
        let bucket = LatencyHistogram.bucket(value)
        let upper = LatencyHistogram.upperBound(bucket)
        #expect(upper >= value)
        #expect(upper - value <= max(1, value / 32))
        #expect(LatencyHistogram.bucket(upper) == bucket)
        #expect(LatencyHistogram.bucket(upper + 1) == bucket + 1)
        if fraction > 0, exponent >= 6 { #expect(bucket >= last) }
        last = bucket
      }
    }
  }

  @Test func percentilesAreThoseOfTheSortedValues() {
    var histogram = LatencyHistogram()
    for value in 1...1000 { histogram.add(UInt64(value) * 1000) }
    let half = histogram.percentile(thousandths: 500)
    #expect(half >= 500_000 && half < 520_000)
    let high = histogram.percentile(thousandths: 990)
    #expect(high >= 990_000 && high < 1_022_000)
    #expect(LatencyHistogram().percentile(thousandths: 500) == 0)
    var other = LatencyHistogram()
    for _ in 0..<3000 { other.add(5) }
    histogram.merge(other)
    #expect(histogram.count == 4000)
    #expect(histogram.percentile(thousandths: 500) == 5)
    histogram.add(.max)
    #expect(histogram.percentile(thousandths: 1000) >= 1 << 40 - 1)
  }
}

@Suite struct BenchmarkPlanTests {
  @Test func casesAreTheProductWithSizesOutermost() throws {
    let plan = try BenchmarkPlan(
      Bytes(
        "operations=read,write patterns=sequential,random sizes=4096,128K depths=1,32 milliseconds=20 span=1M verify=off"
      ))
    #expect(plan.cases.count == 16)
    #expect(plan.cases[0] == BenchmarkCase(isWrite: false, isRandom: false, size: 4096, depth: 1))
    #expect(plan.cases[1].isWrite && !plan.cases[1].isRandom)
    #expect(plan.cases[2].isRandom && plan.cases[4].depth == 32 && plan.cases[8].size == 131_072)
    #expect(plan.milliseconds == 20 && plan.span == 1 << 20 && !plan.verifies)
    let standard = try BenchmarkPlan(Bytes(""))
    #expect(standard.cases == [BenchmarkCase(isWrite: false, isRandom: false, size: 4096, depth: 1)])
    #expect(standard.verifies && standard.milliseconds == 500)
  }

  @Test(arguments: [
    ("sizes=100", BenchmarkPlanError.badSize), ("sizes=0", .badSize), ("sizes=17M", .badSize), ("depths=0", .badDepth),
    ("depths=1000", .badDepth), ("operations=erase", .badOperation), ("patterns=zigzag", .badPattern),
    ("milliseconds=x", .badNumber), ("colour=red", .unknownKey), ("verify", .unknownKey), ("verify=maybe", .badSwitch),
    ("path=astral", .badPath),
  ])
  func refusesBadArguments(_ text: String, _ error: BenchmarkPlanError) {
    let bytes = Array(text.utf8)
    bytes.withUnsafeBytes { buffer in
      guard let base = buffer.baseAddress else { return }
      #expect(throws: error) { try BenchmarkPlan(Bytes(unsafeBase: base, count: buffer.count)) }
    }
  }
}

@Suite struct BlockPatternTests {
  @Test func sequentialPlacesWrapAndRandomOnesSpread() throws {
    var places = try #require(RequestPlaces(span: 4096 * 3 + 100, size: 4096, isRandom: false, seed: 1))
    let sequence = (0..<5).map { _ in places.nextSector() }
    #expect(sequence == [0, 8, 16, 0, 8])
    var random = try #require(RequestPlaces(span: 4096 * 64, size: 4096, isRandom: true, seed: 9))
    var seen: Set<UInt64> = []
    for _ in 0..<2000 { seen.insert(random.nextSector()) }
    #expect(seen.count == 64 && seen.allSatisfy { $0 % 8 == 0 && $0 < 512 })
    #expect(RequestPlaces(span: 4095, size: 4096, isRandom: false, seed: 1) == nil)
  }

  @Test func everyChangedByteIsFound() {
    let base = UnsafeMutableRawPointer.allocate(byteCount: 1024, alignment: 4096)
    defer { base.deallocate() }
    SectorPattern.fill(base, count: 1024, seed: 77)
    SectorPattern.stamp(base, count: 1024, firstSector: 123)
    #expect(SectorPattern.matches(base, count: 1024, firstSector: 123, seed: 77))
    #expect(!SectorPattern.matches(base, count: 1024, firstSector: 124, seed: 77))
    #expect(!SectorPattern.matches(base, count: 1024, firstSector: 123, seed: 78))
    for index in 0..<1024 {
      let byte = base.load(fromByteOffset: index, as: UInt8.self)
      base.storeBytes(of: byte ^ 4, toByteOffset: index, as: UInt8.self)
      #expect(!SectorPattern.matches(base, count: 1024, firstSector: 123, seed: 77))
      base.storeBytes(of: byte, toByteOffset: index, as: UInt8.self)
    }
  }
}
