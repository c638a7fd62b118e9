// Faults that a person injects into a block device to see what its driver does.

/// One fault.
public enum BlockFault: Sendable, Equatable {
  /// The next requests fail with an I/O error.
  case failNext(Int)
  /// Every request that touches one of these sectors of 512 bytes fails with an I/O error.
  case failSectors(Range<UInt64>)
  /// This part of all requests, 0 to 1, fails with an I/O error.
  case failRate(Double)
  /// Every completion is held back this long, in ns.
  case delay(nanoseconds: UInt64)
  /// The device breaks: DEVICE_NEEDS_RESET.
  case needsReset
  /// An interrupt of a queue for which nothing was used.
  case spuriousInterrupt(queue: Int)
  /// The queue is not served any more, until a reset or `clear`.
  case wedge(queue: Int)
  /// No faults from now on.
  case clear
}

/// The faults in force. Device thread only.
struct BlockFaults {
  private var failNext = 0
  private var failSectors: Range<UInt64>?
  private var failRate = 0.0
  private var random = SystemRandomNumberGenerator()
  private(set) var delay: UInt64 = 0
  /// Whether requests have to be looked at at all.
  private(set) var isActive = false

  mutating func apply(_ fault: BlockFault) {
    switch fault {
    case .failNext(let count): failNext = max(0, count)
    case .failSectors(let range): failSectors = range.isEmpty ? nil : range
    case .failRate(let rate): failRate = min(max(rate.isNaN ? 0 : rate, 0), 1)
    case .delay(let nanoseconds): delay = nanoseconds
    case .clear: (failNext, failSectors, failRate, delay) = (0, nil, 0, 0)
    case .needsReset, .spuriousInterrupt, .wedge: break
    }
    isActive = failNext > 0 || failSectors != nil || failRate > 0
  }

  /// Whether the next request, on `sectors`, is to fail.
  mutating func hits(_ sectors: Range<UInt64>) -> Bool {
    if failNext > 0 {
      failNext -= 1
      return true
    }
    if let failSectors, failSectors.overlaps(sectors) { return true }
    return failRate > 0 && Double.random(in: 0..<1, using: &random) < failRate
  }
}
