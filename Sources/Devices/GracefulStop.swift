// From "please stop" to the end of the machine: SIGTERM and the power button (docs/platform.md, "Power-off from the
// host").

import CLinux
import Glibc
import HostSystem
import SystemPackage

/// Asks the guest to power off and ends the machine when it does not. Belongs to an event loop's thread.
public final class GracefulStop {
  /// Why the machine is ended although the guest has not powered off.
  public enum Reason: Equatable, Sendable {
    /// Asked a second time.
    case insisted
    /// The guest did not react to the power button.
    case ignored
    /// The guest acknowledged the power button and did not come to an end.
    case unfinished
  }
  /// How long a guest may take to acknowledge the power button, and then to power off.
  public struct Patience: Sendable {
    public var acknowledgeMilliseconds: UInt64
    public var powerOffMilliseconds: UInt64
    public init(acknowledgeMilliseconds: UInt64 = 5_000, powerOffMilliseconds: UInt64 = 30_000) {
      self.acknowledgeMilliseconds = acknowledgeMilliseconds
      self.powerOffMilliseconds = powerOffMilliseconds
    }
  }

  private let button: PowerButton
  private let loop: EventLoop
  private let patience: Patience
  private let timer: TimerDescriptor
  private let end: (Reason) -> Void
  private var asked = false
  private var acknowledged = false

  /// - Parameter end: ends the machine; called on the loop's thread, at most once.
  public init(
    button: PowerButton, loop: EventLoop, patience: Patience = Patience(), end: @escaping (Reason) -> Void
  ) throws(Errno) {
    self.button = button
    self.loop = loop
    self.patience = patience
    self.end = end
    timer = try TimerDescriptor()
    try loop.add(timer.fileDescriptor, for: .readable) { [unowned self] _ in expire() }
  }

  deinit { loop.remove(timer.fileDescriptor) }

  /// Whether somebody has asked already.
  public var isAsked: Bool { asked }

  /// The first time presses the power button; the second time ends the machine.
  public func request() {
    guard !asked else { return finish(.insisted) }
    asked = true
    button.press()
    timer.arm(nanoseconds: patience.acknowledgeMilliseconds * 1_000_000)
  }

  private func expire() {
    guard timer.drain() else { return }
    if !acknowledged, button.isAcknowledged {
      acknowledged = true
      timer.arm(nanoseconds: patience.powerOffMilliseconds * 1_000_000)
    } else {
      finish(acknowledged ? .unfinished : .ignored)
    }
  }

  private var finished = false
  private func finish(_ reason: Reason) {
    guard !finished else { return }
    finished = true
    timer.disarm()
    end(reason)
  }
}

/// Receives the process's termination signals on an event loop.
public final class TerminationSignals {
  /// SIGTERM, SIGINT (Ctrl-C where the terminal is not the console) and SIGHUP (the terminal went away).
  public static let signals = [SIGTERM, SIGINT, SIGHUP]

  private let descriptor: OwnedDescriptor
  private let loop: EventLoop
  private var previousMask: sigset_t

  /// Blocks the signals in the calling thread, which must be the only one that does not block them already, and calls
  /// `onSignal` on the loop's thread for each that comes. A signal that the parent process ignored stays ignored.
  public init(loop: EventLoop, onSignal: @escaping (CInt) -> Void) throws(Errno) {
    self.loop = loop
    var set = sigset_t()
    sigemptyset(&set)
    for number in Self.signals where !Self.isIgnored(number) { sigaddset(&set, number) }
    var previous = sigset_t()
    pthread_sigmask(SIG_BLOCK, &set, &previous)
    previousMask = previous
    let wanted = set
    descriptor = try OwnedDescriptor {
      withUnsafePointer(to: wanted) { signalfd(-1, $0, CInt(O_CLOEXEC | O_NONBLOCK)) }
    }
    try loop.add(descriptor.rawValue, for: .readable) { [unowned self] _ in
      while let number = next() { onSignal(number) }
    }
  }

  deinit {
    loop.remove(descriptor.rawValue)
    pthread_sigmask(SIG_SETMASK, &previousMask, nil)
  }

  private func next() -> CInt? {
    var information = signalfd_siginfo()
    let size = MemoryLayout<signalfd_siginfo>.size
    guard read(descriptor.rawValue, &information, size) == size else { return nil }
    return CInt(truncatingIfNeeded: information.ssi_signo)
  }

  private static func isIgnored(_ number: CInt) -> Bool {
    var action = sigaction()
    guard sigaction(number, nil, &action) == 0 else { return false }
    // SIG_IGN is the address 1 (bits/signum-generic.h), which Swift cannot compare as a function.
    return unsafeBitCast(action.__sigaction_handler.sa_handler, to: UInt.self) == 1
  }
}
