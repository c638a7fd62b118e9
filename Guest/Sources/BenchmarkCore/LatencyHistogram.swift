// A histogram of latencies with buckets of bounded relative width, in the manner of HDR histograms.

/// Counts of values from 0 to 2^40 in buckets at most 1/32 wider than their lower bound. No allocation after `init`.
public struct LatencyHistogram {
  private static let subBits = 5
  private static let largest: UInt64 = 1 << 40 - 1
  private var counts: [UInt32]
  public private(set) var count: UInt64 = 0

  public init() {
    counts = [UInt32](repeating: 0, count: Self.bucket(Self.largest) + 1)
  }

  /// Below 2^(subBits+1) each value has its own bucket; above, each power of two has 2^subBits.
  static func bucket(_ value: UInt64) -> Int {
    guard value >> UInt64(subBits + 1) != 0 else { return Int(value) }
    let shift = 63 - value.leadingZeroBitCount - subBits
    return (shift << subBits) + Int(value >> UInt64(shift))
  }

  /// The largest value of a bucket.
  static func upperBound(_ bucket: Int) -> UInt64 {
    guard bucket >> (subBits + 1) != 0 else { return UInt64(bucket) }
    let shift = bucket >> subBits - 1
    let top = UInt64(bucket - shift << subBits)
    return (top + 1) << UInt64(shift) - 1
  }

  public mutating func add(_ value: UInt64) {
    counts[Self.bucket(min(value, Self.largest))] &+= 1
    count += 1
  }

  public mutating func merge(_ other: LatencyHistogram) {
    for index in counts.indices { counts[index] &+= other.counts[index] }
    count += other.count
  }

  public mutating func clear() {
    for index in counts.indices { counts[index] = 0 }
    count = 0
  }

  /// The value that `thousandths` / 1000 of all values do not exceed (upper bound of its bucket); 0 if there are none.
  public func percentile(thousandths: UInt64) -> UInt64 {
    guard count > 0 else { return 0 }
    let wanted = max(1, (count * thousandths + 999) / 1000)
    var seen: UInt64 = 0
    for index in counts.indices {
      seen += UInt64(counts[index])
      if seen >= wanted { return Self.upperBound(index) }
    }
    return Self.largest
  }
}
