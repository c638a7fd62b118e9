// Castor's own I/O ports (docs/platform.md, "Ports"): power control, debug trap, boot marks and the power button.

import Glibc
import HostSystem
import Synchronization

/// What a guest asks of its machine through the power control port.
public enum PowerEvent: Equatable, Sendable {
  case powerOff
  case reboot
  /// End the VM; `castor run` returns the code.
  case exit(UInt8)
}

/// Port `0x600`: power off, reboot, end with an exit code.
public enum PowerControl {
  public static let port: UInt16 = 0x600

  /// What a write means; nil for an access that is not 32 bits wide or a value that has no meaning.
  public static func event(size: Int, value: UInt32) -> PowerEvent? {
    guard size == 4 else { return nil }
    switch value {
    case 0: return .powerOff
    case 1: return .reboot
    case 0x100...0x1ff: return .exit(UInt8(truncatingIfNeeded: value))
    default: return nil
    }
  }
}

/// Port `0x604`: by which a guest kernel hands ring-3 traps to a debugger that is attached to the machine.
public final class DebugPort: Sendable {
  public static let port: UInt16 = 0x604
  private let attached = Atomic<Bool>(false)

  public init() {}

  /// Whether a debugger wants the guest's ring-3 traps. Set by the debugger's server, read by the guest.
  public var wantsTraps: Bool {
    get { attached.load(ordering: .acquiring) }
    set { attached.store(newValue, ordering: .releasing) }
  }

  /// The value of the port for a read of `size` bytes.
  public func read(size: Int) -> UInt32 { wantsTraps ? 1 : 0 }

  /// Whether a write of `size` bytes reports a trap: then RDI of the writing vCPU holds the guest-virtual address of
  /// the trap frame, and the vCPU waits for the debugger.
  public func isTrap(size: Int) -> Bool { size == 4 && wantsTraps }
}

/// Port `0x608`: when the guest reached the stages of its start.
public final class BootMarks: Sendable {
  public static let port: UInt16 = 0x608
  /// Stages are numbered from 1; the first two are the first ring-0 instructions and the first ring-3 program.
  public static let stages = 1...8

  private let start: UInt64
  private let times = Mutex([UInt64](repeating: 0, count: stages.upperBound + 1))

  /// - Parameter start: the monotonic clock's time, in nanoseconds, from which marks are counted.
  public init(start: UInt64 = monotonicNanoseconds()) { self.start = start }

  /// Notes the time of a stage, once; ignores values that are not stages and accesses that are not 32 bits wide.
  public func write(size: Int, value: UInt32, now: UInt64 = monotonicNanoseconds()) {
    guard size == 4, let stage = Int(exactly: value), Self.stages.contains(stage) else { return }
    times.withLock { times in
      if times[stage] == 0 { times[stage] = max(1, now &- start) }
    }
  }

  /// Nanoseconds from `start` to a stage; nil as long as the guest has not reached it.
  public func time(of stage: Int) -> UInt64? {
    guard Self.stages.contains(stage) else { return nil }
    let time = times.withLock { $0[stage] }
    return time == 0 ? nil : time
  }
}

/// Port `0x60c` and its interrupt: the host asks the guest to power off.
public final class PowerButton: Sendable {
  public static let port: UInt16 = 0x60c
  /// The IOAPIC pin on which a press raises an edge.
  public static let interruptPin = 3
  /// Bit 0 of the port: power-off requested.
  public static let powerOffRequested: UInt8 = 0x01

  private struct State {
    var pending: UInt8 = 0
    var acknowledged = false
  }
  private let state = Mutex(State())
  private let interrupt: @Sendable () -> Void

  /// - Parameter interrupt: raises one edge on the button's line; called on the thread that presses.
  public init(interrupt: @escaping @Sendable () -> Void) { self.interrupt = interrupt }

  /// Asks the guest to power off.
  public func press() {
    state.withLock { state in
      state.pending |= Self.powerOffRequested
      state.acknowledged = false
    }
    interrupt()
  }

  /// Whether the guest has cleared the last press.
  public var isAcknowledged: Bool { state.withLock { $0.acknowledged } }

  /// The requests that wait for the guest, for a read of any size.
  public func read() -> UInt8 { state.withLock { $0.pending } }

  /// Clears the requests whose bits are set in `value`.
  public func write(value: UInt8) {
    state.withLock { state in
      if state.pending & value & Self.powerOffRequested != 0 { state.acknowledged = true }
      state.pending &= ~value
    }
  }

  /// Power-on state: no request waits.
  public func reset() { state.withLock { $0 = State() } }
}
