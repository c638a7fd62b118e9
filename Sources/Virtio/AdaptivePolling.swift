// How long a device's thread looks for more work before it sleeps: as long as looking has paid of late.

/// Decides how long to poll.
///
/// Being woken costs more than a short look, and an I/O that comes right after the thread went to sleep has paid that
/// for nothing. So the time grows when work came within the limit of the last one, and shrinks when it came later; a
/// device whose work is rare does not poll at all. (KVM's halt_poll_ns and QEMU's poll-max-ns do the same for a vCPU
/// and an I/O thread.) All times in ns.
struct AdaptivePolling {
  /// The longest time; 0: never poll.
  let maximum: UInt64
  /// What to poll for at the moment.
  private(set) var span: UInt64 = 0
  /// The first step above not polling.
  private static let start: UInt64 = 8_000

  init(maximum: UInt64) { self.maximum = maximum }

  /// Work came `gap` after the last, and the thread had to be woken for it.
  mutating func woken(after gap: UInt64) {
    guard maximum > 0 else { return }
    if gap <= maximum {
      span = min(maximum, max(Self.start, 2 * max(span, gap)))
    } else {
      span = span > Self.start ? span / 2 : 0
    }
  }
}
