// Log lines that a guest can cause: at most one a second, with the number of those left out.

import HostSystem
import Logging
import Synchronization

/// Passes one message a second on to a logger, so that a guest cannot fill the host's log. Any thread.
public final class LimitedLog: Sendable {
  private struct State {
    var last: UInt64?
    var leftOut = 0
  }
  private let logger: Logger
  private let state = Mutex(State())

  init(_ logger: Logger) { self.logger = logger }

  /// Logs `message`, or counts it when the last one was less than a second ago.
  public func write(_ level: Logger.Level, _ message: @autoclosure () -> String) {
    let now = monotonicNanoseconds()
    let leftOut: Int? = state.withLock { state in
      if let last = state.last, now &- last < 1_000_000_000 {
        state.leftOut += 1
        return nil
      }
      defer { state.leftOut = 0 }
      state.last = now
      return state.leftOut
    }
    guard let leftOut else { return }
    let note = leftOut > 0 ? " (\(leftOut) more since the last such line)" : ""
    logger.log(level: level, "\(message())\(note)")
  }
}
