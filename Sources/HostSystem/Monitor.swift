// State that threads wait for: a lock with a condition, for the places where `Mutex` alone cannot sleep.

import Glibc

/// A value behind a lock, on whose changes threads can wait (pthread_cond_wait(3)).
public final class Monitor<State>: @unchecked Sendable {
  // @unchecked: `state` is touched only with `lock` held.
  private let lock: UnsafeMutablePointer<pthread_mutex_t>
  private let changed: UnsafeMutablePointer<pthread_cond_t>
  private var state: State

  public init(_ state: State) {
    self.state = state
    // The two live on the heap because pthread objects must not move.
    lock = .allocate(capacity: 1)
    changed = .allocate(capacity: 1)
    pthread_mutex_init(lock, nil)
    var attributes = pthread_condattr_t()
    pthread_condattr_init(&attributes)
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC)
    pthread_cond_init(changed, &attributes)
    pthread_condattr_destroy(&attributes)
  }

  deinit {
    pthread_cond_destroy(changed)
    pthread_mutex_destroy(lock)
    changed.deallocate()
    lock.deallocate()
  }

  /// Reads without waking anybody.
  public func read<Result>(_ body: (State) throws -> Result) rethrows -> Result {
    pthread_mutex_lock(lock)
    defer { pthread_mutex_unlock(lock) }
    return try body(state)
  }

  /// Changes the state and wakes all waiters.
  @discardableResult
  public func update<Result>(_ body: (inout State) throws -> Result) rethrows -> Result {
    pthread_mutex_lock(lock)
    defer {
      pthread_cond_broadcast(changed)
      pthread_mutex_unlock(lock)
    }
    return try body(&state)
  }

  /// Sleeps until `condition` holds, then runs `body` under the same lock; `body` may change the state.
  @discardableResult
  public func wait<Result>(until condition: (State) -> Bool, then body: (inout State) -> Result) -> Result {
    pthread_mutex_lock(lock)
    defer {
      pthread_cond_broadcast(changed)
      pthread_mutex_unlock(lock)
    }
    while !condition(state) { pthread_cond_wait(changed, lock) }
    return body(&state)
  }

  /// Sleeps until `condition` holds or `milliseconds` have passed; says which.
  public func wait(milliseconds: Int, until condition: (State) -> Bool) -> Bool {
    var deadline = timespec()
    clock_gettime(CLOCK_MONOTONIC, &deadline)
    deadline.tv_sec += milliseconds / 1000
    deadline.tv_nsec += (milliseconds % 1000) * 1_000_000
    if deadline.tv_nsec >= 1_000_000_000 {
      deadline.tv_sec += 1
      deadline.tv_nsec -= 1_000_000_000
    }
    pthread_mutex_lock(lock)
    defer { pthread_mutex_unlock(lock) }
    while !condition(state) {
      if pthread_cond_timedwait(changed, lock, &deadline) == ETIMEDOUT { return condition(state) }
    }
    return true
  }
}
