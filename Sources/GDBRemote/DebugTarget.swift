// What a debugger can ask of the machine it debugs. The protocol engine above it knows nothing of KVM.

/// A vCPU as a thread of the debugger: 1 is vCPU 0, and so on (the remote protocol gives 0 and −1 other meanings).
public struct ThreadIdentifier: RawRepresentable, Hashable, Comparable, Sendable {
  public var rawValue: UInt32
  public init(rawValue: UInt32) { self.rawValue = rawValue }
  /// The thread of a vCPU, counted from zero.
  public init(vCPU index: Int) { rawValue = UInt32(truncatingIfNeeded: index) &+ 1 }
  /// The vCPU's index, counted from zero.
  public var vCPU: Int { Int(rawValue) - 1 }
  public static func < (left: ThreadIdentifier, right: ThreadIdentifier) -> Bool { left.rawValue < right.rawValue }
}

/// What `Z` and `z` packets insert and remove; the raw value is the packet's digit.
public enum BreakpointKind: UInt8, Sendable {
  case software = 0
  case hardware = 1
  case writeWatch = 2
  case readWatch = 3
  case accessWatch = 4
}

/// A breakpoint or watchpoint at a guest-virtual address.
public struct Breakpoint: Hashable, Sendable {
  public let kind: BreakpointKind
  /// Guest-virtual address.
  public let address: UInt64
  /// Bytes watched; for breakpoints the length of the trap instruction, 1.
  public let length: Int
  public init(kind: BreakpointKind, address: UInt64, length: Int) {
    self.kind = kind
    self.address = address
    self.length = length
  }
}

/// What one thread does when the target is resumed.
public enum ResumeAction: Equatable, Sendable {
  case `continue`
  /// One instruction.
  case step
  /// Instructions until RIP leaves the range (guest-virtual) or something else stops the thread.
  case stepWhileIn(Range<UInt64>)
  /// Not run at all.
  case stay
}

/// Why the target stopped.
public enum StopReason: Equatable, Sendable {
  /// Ctrl-C, or the stop that goes with attaching.
  case interrupted
  /// A step is complete.
  case stepped
  case softwareBreakpoint
  case hardwareBreakpoint
  /// A watchpoint; `address` is guest-virtual.
  case watchpoint(BreakpointKind, address: UInt64)
  /// The vCPU cannot go on: an instruction that the host cannot execute.
  case illegalInstruction
  /// The vCPU cannot go on: triple fault.
  case fault
  /// The machine is gone: it powered off or ended with a code.
  case exited(code: UInt8)
}

/// A stop of the whole target, and the thread that caused it.
public struct StopEvent: Equatable, Sendable {
  public var thread: ThreadIdentifier
  public var reason: StopReason
  public init(thread: ThreadIdentifier, reason: StopReason) {
    self.thread = thread
    self.reason = reason
  }
}

/// A range of the address space as gdb shall treat it (GDB manual, "Memory Map Format").
public struct MemoryMapRange: Equatable, Sendable {
  public enum Kind: String, Sendable {
    case ram
    /// Not writable by the debugger: gdb uses hardware breakpoints there by itself.
    case rom
  }
  public var kind: Kind
  public var start: UInt64
  public var length: UInt64
  public init(kind: Kind, start: UInt64, length: UInt64) {
    self.kind = kind
    self.start = start
    self.length = length
  }
}

/// A request that the target refuses.
public enum DebugTargetError: Error, Equatable, CustomStringConvertible {
  /// This target has no such thing; gdb then looks for another way.
  case unsupported
  /// No memory behind a guest-virtual address.
  case unmapped(address: UInt64)
  /// No such vCPU.
  case noThread(ThreadIdentifier)
  /// Anything else, in words for the user.
  case failed(String)

  public var description: String {
    switch self {
    case .unsupported: "not supported by this target"
    case .unmapped(let address): "no memory at 0x\(String(address, radix: 16))"
    case .noThread(let thread): "no thread \(thread.rawValue)"
    case .failed(let reason): reason
    }
  }
}

/// A machine under a debugger, in all-stop mode: either every vCPU is stopped or the target as a whole runs.
///
/// The server calls these from its own thread, one at a time. Registers, memory, breakpoints and monitor commands are
/// asked for only while the target is stopped.
public protocol DebugTarget: AnyObject, Sendable {
  /// The vCPUs, in order.
  var threads: [ThreadIdentifier] { get }
  /// What to show for a thread besides its number: ring, halted, not started …
  func describe(_ thread: ThreadIdentifier) -> String
  /// Whether registers include the upper halves of AVX.
  var hasAVX: Bool { get }
  /// The address space as gdb sees it; empty for none.
  var memoryMap: [MemoryMapRange] { get }

  /// A debugger has come: stops all vCPUs and returns when they are stopped.
  func attach() -> StopEvent
  /// The debugger has gone, perhaps while the target runs: removes all breakpoints and lets every vCPU run. The
  /// completion of a pending `resume` is not called any more.
  func detach()
  /// Ends the machine. The debugger is gone afterwards.
  func kill()

  /// Lets vCPUs run and returns at once. `completion` is called exactly once, from any thread, after all vCPUs have
  /// stopped again. Threads that are not in `actions` stay.
  func resume(_ actions: [ThreadIdentifier: ResumeAction], completion: @escaping @Sendable (StopEvent) -> Void)
  /// Asks a running target to stop with `.interrupted`; the completion of `resume` reports it.
  func interrupt()

  func readRegisters(of thread: ThreadIdentifier) throws(DebugTargetError) -> RegisterFile
  func writeRegisters(_ registers: RegisterFile, of thread: ThreadIdentifier) throws(DebugTargetError)
  /// Reads guest-virtual memory as the thread sees it, without the trap instructions of breakpoints. May return fewer
  /// bytes when the rest is not mapped.
  func readMemory(at address: UInt64, count: Int, thread: ThreadIdentifier) throws(DebugTargetError) -> [UInt8]
  /// Writes guest-virtual memory as the thread sees it, read-only pages included. Breakpoints stay in place.
  func writeMemory(_ bytes: [UInt8], at address: UInt64, thread: ThreadIdentifier) throws(DebugTargetError)

  /// Inserting twice or removing what is not there is no error.
  func insert(_ breakpoint: Breakpoint, thread: ThreadIdentifier) throws(DebugTargetError)
  func remove(_ breakpoint: Breakpoint, thread: ThreadIdentifier) throws(DebugTargetError)

  /// Runs a `monitor` command and returns what to print.
  func monitor(_ command: String, thread: ThreadIdentifier) throws(DebugTargetError) -> String
}
