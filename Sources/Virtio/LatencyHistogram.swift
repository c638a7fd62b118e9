// How long requests took: a log-linear histogram in the manner of HdrHistogram. (The package of that name needs
// Foundation, which the VMM process does not carry.)

/// Counts durations in nanoseconds with a relative error of at most 1/32, from 1 ns to 18 minutes; longer ones count as
/// that. Takes no heap until the first value.
public struct LatencyHistogram: Sendable {
  private static let bits = 5
  private static let largestExponent = 40
  private static let slots = (largestExponent - bits + 2) << bits

  private var counts: [UInt64] = []
  /// Number of values recorded.
  public private(set) var count: UInt64 = 0
  /// Sum of the values recorded, in ns.
  public private(set) var total: UInt64 = 0
  /// Largest value recorded, in ns.
  public private(set) var maximum: UInt64 = 0

  public init() {}

  private static func slot(_ value: UInt64) -> Int {
    let value = min(value, (1 << UInt64(largestExponent + 1)) - 1)
    guard value >= 1 << bits else { return Int(value) }
    let exponent = 63 - value.leadingZeroBitCount
    return (exponent - bits) << bits + Int(value >> UInt64(exponent - bits))
  }

  /// Smallest and largest value that share a slot.
  private static func bounds(_ slot: Int) -> ClosedRange<UInt64> {
    guard slot >= 2 << bits else { return UInt64(slot)...UInt64(slot) }
    let shift = UInt64(slot >> bits - 1)
    let low = UInt64(slot & (1 << bits - 1) | 1 << bits) << shift
    return low...(low + (1 << shift) - 1)
  }

  /// Counts one duration in ns.
  public mutating func record(_ nanoseconds: UInt64) {
    if counts.isEmpty { counts = [UInt64](repeating: 0, count: Self.slots) }
    counts[Self.slot(nanoseconds)] &+= 1
    count &+= 1
    total &+= nanoseconds
    maximum = max(maximum, nanoseconds)
  }

  /// The value in ns below or at which `percent` of the recorded values lie; 0 when there are none.
  public func percentile(_ percent: Double) -> UInt64 {
    guard count > 0 else { return 0 }
    let wanted = max(1, UInt64((Double(count) * min(max(percent, 0), 100) / 100).rounded(.up)))
    var seen: UInt64 = 0
    for (slot, number) in counts.enumerated() {
      seen += number
      if seen >= wanted { return min(Self.bounds(slot).upperBound, maximum) }
    }
    return maximum
  }

  /// Every slot that holds something: the largest value it stands for, in ns, and how many values it holds.
  public var buckets: [(upTo: UInt64, count: UInt64)] {
    counts.enumerated().filter { $0.element > 0 }.map { (Self.bounds($0.offset).upperBound, $0.element) }
  }
}
