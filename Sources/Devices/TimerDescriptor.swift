// A one-shot timer as a descriptor (timerfd_create(2)), so that any thread can arm it and a loop or thread can wait.

import CLinux
import Glibc
import HostSystem
import SystemPackage

/// A one-shot timer on the monotonic clock. Safe to share.
final class TimerDescriptor: Sendable {
  private let descriptor: OwnedDescriptor

  /// Makes a timer that is not armed.
  /// - Parameter blocking: whether `wait` waits; a timer for an event loop does not.
  init(blocking: Bool = false) throws(Errno) {
    let flags = CInt(TFD_CLOEXEC) | (blocking ? 0 : CInt(TFD_NONBLOCK))
    descriptor = try OwnedDescriptor { timerfd_create(CLOCK_MONOTONIC, flags) }
  }

  var fileDescriptor: CInt { descriptor.rawValue }

  /// Lets the timer expire once in `nanoseconds` (at least one) from now; an earlier arming is forgotten.
  func arm(nanoseconds: UInt64) {
    let delay = max(1, nanoseconds)
    var setting = itimerspec()
    setting.it_value = timespec(tv_sec: Int(delay / 1_000_000_000), tv_nsec: Int(delay % 1_000_000_000))
    timerfd_settime(descriptor.rawValue, 0, &setting, nil)
  }

  /// Forgets the arming.
  func disarm() {
    var setting = itimerspec()
    timerfd_settime(descriptor.rawValue, 0, &setting, nil)
  }

  /// Takes an expiry; false when there was none.
  @discardableResult
  func drain() -> Bool {
    var expiries: UInt64 = 0
    return read(descriptor.rawValue, &expiries, 8) == 8
  }
}
