// Ctrl-C and SIGTERM during a benchmark: noted by the handler, acted on where work can be cleaned up.

import Foundation
import Synchronization

/// Set by the signal handler; an atomic store is all that it does.
private let requested = Atomic<Bool>(false)

enum Interruption {
  /// Whether the user asked to stop.
  static var isRequested: Bool { requested.load(ordering: .relaxed) }

  /// Notes SIGINT, SIGTERM and SIGHUP from now on instead of ending the process. System calls return EINTR.
  static func install() {
    requested.store(false, ordering: .relaxed)
    var action = sigaction()
    action.__sigaction_handler.sa_handler = { _ in requested.store(true, ordering: .relaxed) }
    // A parent that had them blocked left them blocked here.
    var unblocked = sigset_t()
    sigemptyset(&unblocked)
    for signal in [SIGINT, SIGTERM, SIGHUP] {
      sigaction(signal, &action, nil)
      sigaddset(&unblocked, signal)
    }
    pthread_sigmask(SIG_UNBLOCK, &unblocked, nil)
    // A machine that ends while it is written to is seen by the write's result.
    signal(SIGPIPE, SIG_IGN)
  }

  /// Throws when the user asked to stop.
  static func check() throws {
    if isRequested { throw CommandFailure(message: "interrupted", exitCode: .interrupted) }
  }
}
