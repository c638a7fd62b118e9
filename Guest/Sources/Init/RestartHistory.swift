// How often a service has been started again of late.

import Pollux

/// Five restarts within ten seconds are the most, as for systemd's units (StartLimitBurst, StartLimitIntervalSec).
struct RestartHistory {
  private static let most = 5
  private static let interval: UInt64 = 10_000_000

  /// Time stamps of the last restarts, the oldest first.
  private var times: [UInt64] = []

  /// Whether there may be a restart at `now`, which is taken for done then.
  mutating func allowsAnother(at now: UInt64) -> Bool {
    let span = Clock.ticks(microseconds: Self.interval)
    while let oldest = times.first, now &- oldest > span { times.removeFirst() }
    guard times.count < Self.most else { return false }
    times.append(now)
    return true
  }
}
