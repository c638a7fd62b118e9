// What the kernel knows of a thread.
import CArch
import KernelCore
import PolluxABI

/// A thread; it begins with its saved registers, and 512 bytes of FXSAVE area lie before it. The first fields are known to
/// entry.S.
struct Thread: Prioritised, Timed {
  var frame: trap_frame
  /// The processor it runs on or ran on last.
  var processor: Reference<Processor>
  /// The domain it runs in now: its own process, or the server whose call it is in.
  var process: Reference<Process>
  /// The call it is in; nil at home.
  var activation: Reference<Activation>?
  /// Another processor has changed its registers while it was on its way into the kernel, whose reason is thereby void.
  var isVoid: Bool

  /// The process it belongs to, which pays for its time and memory.
  var home: Reference<Process>
  /// FS base.
  var pointer: UInt64
  var identifier: UInt32
  /// Handles, and one while it has not ended.
  var references: UInt32
  var state: ThreadState
  /// What it runs at: its own, or that of a thread that waits for a stack it holds.
  var priority: UInt8
  var ownPriority: UInt8
  /// Its process has ended while it was in a call elsewhere; it goes on there until it returns.
  var isOrphan: Bool
  /// It ends as soon as its processor is in the kernel.
  var isKilled: Bool
  /// What it does has lost its caller while it was not waiting: the next wait ends at once.
  var isInterrupted: Bool
  /// It is in its processor's timer queue.
  var hasTimer: Bool
  /// Processor of that timer queue.
  var timerProcessor: UInt8
  /// Badge of the handle it calls through.
  var badge: UInt32
  /// The token under which its call can be answered.
  var token: UInt32
  /// Links in a run queue, or in the queue of what it waits for.
  var queueLink = Link<Thread>()
  var timerLink = Link<Thread>()
  var processLink = Link<Thread>()
  var deadline: UInt64
  /// Address of the endpoint, notification or service in whose queue it is.
  var waitsFor: UInt64
  /// The connection it calls through as soon as there is a stack.
  var connection: Reference<Connection>?
  /// While it waits for a stack with a deadline, its spare thread; of a spare thread, whom it is for.
  var spare: Reference<Thread>?
  /// The process that owes it a reply.
  var replier: Reference<Process>?
  var processorTime: UInt64
  var switches: UInt64
  /// What it was doing when its innermost passed-on fault came.
  var faults: Reference<PassedFault>?
  /// Its page, if it has one (TokenCalls.swift).
  var parameters: Reference<TokenObject>?

  static let blockSize = 1024
  static let floatSize: UInt64 = 512
}

extension Reference<Thread> {
  @inline(__always) func saveFloat() { float_save(address - Thread.floatSize) }
  @inline(__always) func restoreFloat() { float_restore(address - Thread.floatSize) }
  /// The end of the saved registers.
  @inline(__always) var frameEnd: UInt64 { address + UInt64(FRAME_SIZE) }
}

enum ReadyLinks: LinkField {
  static func link(_ node: Reference<Thread>) -> Link<Thread> { node.pointee.queueLink }
  static func setNext(_ node: Reference<Thread>, _ next: Reference<Thread>?) { node.pointee.queueLink.next = next }
  static func setPrevious(_ node: Reference<Thread>, _ previous: Reference<Thread>?) {
    node.pointee.queueLink.previous = previous
  }
}

enum TimerLinks: LinkField {
  static func link(_ node: Reference<Thread>) -> Link<Thread> { node.pointee.timerLink }
  static func setNext(_ node: Reference<Thread>, _ next: Reference<Thread>?) { node.pointee.timerLink.next = next }
  static func setPrevious(_ node: Reference<Thread>, _ previous: Reference<Thread>?) {
    node.pointee.timerLink.previous = previous
  }
}

enum ProcessThreadLinks: LinkField {
  static func link(_ node: Reference<Thread>) -> Link<Thread> { node.pointee.processLink }
  static func setNext(_ node: Reference<Thread>, _ next: Reference<Thread>?) { node.pointee.processLink.next = next }
  static func setPrevious(_ node: Reference<Thread>, _ previous: Reference<Thread>?) {
    node.pointee.processLink.previous = previous
  }
}
