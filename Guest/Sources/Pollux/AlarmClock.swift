// A thread that signals a notification at a time, for services whose loop waits for calls and notifications.

import Synchronization

/// Signals bits of a notification when a time has come. Setting it is a store, unless the new time is earlier than all before.
public final class AlarmClock: Sendable {
  /// When to signal next, a time-stamp.
  private let time = Atomic<UInt64>(SystemCall.forever)
  /// Until when the thread sleeps.
  private let sleepsUntil = Atomic<UInt64>(SystemCall.forever)
  private let wakeUp: Notification
  private let target: Notification
  private let bits: UInt64

  /// Signals `bits` of `target`, by a thread of `priority`, at most that of the process. Lives as long as the process; made once, for a
  /// failure leaves what it got.
  public init(_ target: Notification, bits: UInt64, priority: UInt64 = 12) throws(SystemError) {
    self.target = target
    self.bits = bits
    wakeUp = try Notification.create()
    try Thread.start(stackSize: 16 << 10, priority: priority) { self.run() }
  }

  /// A clock of a service, which goes on without one if there can be none, and says so.
  public static func make(_ target: Notification, bits: UInt64, for service: StaticString) -> AlarmClock? {
    do throws(SystemError) { return try AlarmClock(target, bits: bits) } catch {
      var line = Text(service)
      line.add(": no time limits, for there is no thread for them: ")
      line.add(error.name)
      line.add("\n")
      line.print()
      line.log()
      return nil
    }
  }

  /// Signals at `deadline`, a time-stamp, instead of the time that was set before; `SystemCall.forever`: not at all.
  public func set(_ deadline: UInt64) {
    time.store(deadline, ordering: .sequentiallyConsistent)
    // Both sides store before they look at the other's, so at least one of them sees.
    if deadline < sleepsUntil.load(ordering: .sequentiallyConsistent) { wakeUp.signal(1) }
  }

  private func run() {
    while true {
      let next = time.load(ordering: .sequentiallyConsistent)
      sleepsUntil.store(next, ordering: .sequentiallyConsistent)
      guard time.load(ordering: .sequentiallyConsistent) >= next else { continue }
      _ = wakeUp.wait(until: next)
      let due = time.load(ordering: .sequentiallyConsistent)
      guard due <= Clock.now else { continue }
      // If it has just been set anew, the new time counts.
      if time.compareExchange(
        expected: due, desired: SystemCall.forever, ordering: .sequentiallyConsistent
      ).exchanged {
        target.signal(bits)
      }
    }
  }
}
