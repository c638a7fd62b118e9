import Testing

@testable import Virtio

@Suite struct LatencyHistogramTests {
  @Test func everyValueIsWithinOneThirtySecondOfItsSlot() {
    var value: UInt64 = 1
    while value < 1 << 40 {
      for probe in [value - 1, value, value + 1, value + value / 3] {
        var histogram = LatencyHistogram()
        histogram.record(probe)
        histogram.record(1 << 40)
        let shown = histogram.percentile(50)
        #expect(shown >= probe && shown - probe <= probe / 32)
      }
      value *= 2
    }
  }

  @Test func percentilesOfAKnownDistribution() {
    var histogram = LatencyHistogram()
    #expect(histogram.percentile(99) == 0)
    for value in 1...1000 as ClosedRange<UInt64> { histogram.record(value * 1000) }
    #expect((500_000...516_000).contains(histogram.percentile(50)))
    #expect((990_000...1_000_000).contains(histogram.percentile(99)))
    #expect(histogram.percentile(100) == 1_000_000)
    #expect(histogram.total == 500_500_000)
    #expect(histogram.buckets.reduce(0) { $0 + $1.count } == 1000)
  }

  @Test func valuesBeyondTheRangeAreCounted() {
    var histogram = LatencyHistogram()
    histogram.record(.max)
    #expect(histogram.maximum == .max)
    #expect(histogram.buckets.count == 1)
  }
}
