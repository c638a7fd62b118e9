// An epoll loop: one thread waits here for its descriptors and runs their handlers.

import CLinux
import Glibc
import Synchronization
import SystemPackage

/// What a descriptor is waited for.
public struct Readiness: OptionSet, Sendable {
  public let rawValue: UInt32
  public init(rawValue: UInt32) { self.rawValue = rawValue }
  public static let readable = Readiness(rawValue: EPOLLIN.rawValue)
  public static let writable = Readiness(rawValue: EPOLLOUT.rawValue)
  /// Peer closed or error; always reported, never asked for.
  public static let hangUp = Readiness(rawValue: EPOLLHUP.rawValue | EPOLLERR.rawValue | EPOLLRDHUP.rawValue)
}

/// Waits for descriptors and runs their handlers, all on the thread that calls `run`.
///
/// `add`, `modify`, `remove` and handlers belong to that thread (or to the time before `run`); `perform` and `stop`
/// may be called from any thread.
public final class EventLoop: @unchecked Sendable {
  // @unchecked: `handlers` is touched only by the loop's thread; what other threads reach is behind `shared`.
  private struct Shared {
    var pending: [@Sendable () -> Void] = []
    var stopped = false
  }
  private let descriptor: OwnedDescriptor
  private let wakeUp: EventDescriptor
  private let shared = Mutex(Shared())
  private var handlers: [CInt: (Readiness) -> Void] = [:]

  public init() throws(Errno) {
    descriptor = try OwnedDescriptor { epoll_create1(CInt(EPOLL_CLOEXEC)) }
    wakeUp = try EventDescriptor()
    try add(wakeUp.fileDescriptor, for: .readable) { [wakeUp] _ in wakeUp.drain() }
  }

  /// Runs `handler` each time `fileDescriptor` is ready (level-triggered). The caller keeps the descriptor open until
  /// `remove`.
  public func add(_ fileDescriptor: CInt, for readiness: Readiness, handler: @escaping (Readiness) -> Void)
    throws(Errno)
  {
    try control(EPOLL_CTL_ADD, fileDescriptor, readiness)
    handlers[fileDescriptor] = handler
  }

  /// Changes what an added descriptor is waited for.
  public func modify(_ fileDescriptor: CInt, for readiness: Readiness) throws(Errno) {
    try control(EPOLL_CTL_MOD, fileDescriptor, readiness)
  }

  /// Stops waiting for a descriptor; does nothing for one that was never added.
  public func remove(_ fileDescriptor: CInt) {
    guard handlers.removeValue(forKey: fileDescriptor) != nil else { return }
    try? control(EPOLL_CTL_DEL, fileDescriptor, [])
  }

  /// Runs `work` on the loop's thread, soon. Any thread.
  public func perform(_ work: @escaping @Sendable () -> Void) {
    shared.withLock { $0.pending.append(work) }
    wakeUp.signal()
  }

  /// Makes `run` return after the handlers that are ready. Any thread.
  public func stop() {
    shared.withLock { $0.stopped = true }
    wakeUp.signal()
  }

  /// Serves descriptors until `stop`.
  public func run() {
    while !shared.withLock({ $0.stopped }) { poll(timeoutMilliseconds: -1) }
  }

  /// Waits once, at most `timeoutMilliseconds` (−1: without limit), and runs what is ready.
  public func poll(timeoutMilliseconds: CInt) {
    let ready = withUnsafeTemporaryAllocation(of: epoll_event.self, capacity: 32) { events -> [(CInt, UInt32)] in
      let count = epoll_wait(descriptor.rawValue, events.baseAddress, 32, timeoutMilliseconds)
      guard count > 0 else { return [] }
      return (0..<Int(count)).map { (events[$0].data.fd, events[$0].events) }
    }
    for (fileDescriptor, mask) in ready { handlers[fileDescriptor]?(Readiness(rawValue: mask)) }
    let work = shared.withLock { state in
      let pending = state.pending
      state.pending = []
      return pending
    }
    for item in work { item() }
  }

  private func control(_ operation: CInt, _ fileDescriptor: CInt, _ readiness: Readiness) throws(Errno) {
    var event = epoll_event()
    event.events = readiness.rawValue
    event.data.fd = fileDescriptor
    try systemCall { epoll_ctl(descriptor.rawValue, operation, fileDescriptor, &event) }
  }
}
