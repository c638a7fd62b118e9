// A host thread with a name, for vCPUs and device event loops.

import CLinux
import Glibc
import SystemPackage

/// A POSIX thread that runs one closure. All signals but those of faults are blocked in it unless the closure unblocks
/// them, so that process signals reach the main thread's signalfd.
public final class HostThread: @unchecked Sendable {
  // @unchecked: `handle` is written once in `init` and read afterwards.
  private final class Start {
    let name: String
    let body: @Sendable () -> Void
    init(name: String, body: @escaping @Sendable () -> Void) {
      self.name = name
      self.body = body
    }
  }
  private var handle = pthread_t()

  /// Starts a thread. `name` (at most 15 bytes are shown) appears in `top -H` and debuggers.
  public init(name: String, _ body: @escaping @Sendable () -> Void) throws(Errno) {
    let start = Unmanaged.passRetained(Start(name: name, body: body))
    var everything = sigset_t()
    var previous = sigset_t()
    sigfillset(&everything)
    // A fault whose signal is blocked kills without running its handler, which puts the terminal back.
    for fault in [SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP, SIGABRT, SIGSYS] { sigdelset(&everything, fault) }
    pthread_sigmask(SIG_SETMASK, &everything, &previous)
    let result = pthread_create(
      &handle, nil,
      { argument in
        // The pointer is the retained Start made above; this thread takes that reference over.
        guard let argument else { return nil }
        let start = Unmanaged<Start>.fromOpaque(argument).takeRetainedValue()
        castor_set_thread_name(String(start.name.prefix(15)))
        start.body()
        return nil
      }, start.toOpaque())
    pthread_sigmask(SIG_SETMASK, &previous, nil)
    guard result == 0 else {
      start.release()
      throw Errno(rawValue: result)
    }
  }

  /// Waits until the thread's closure has returned. Call once.
  public func join() { pthread_join(handle, nil) }

  /// Sends a signal to this thread alone (pthread_kill(3)).
  public func send(signal: CInt) { pthread_kill(handle, signal) }
}
