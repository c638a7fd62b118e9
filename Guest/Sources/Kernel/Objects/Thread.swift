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

  var process: Reference<Process>
  /// Root of its process's page tables.
  var pageTable: UInt64
  /// FS base.
  var pointer: UInt64
  var identifier: UInt32
  /// Handles, and one while it has not ended.
  var references: UInt32
  var state: ThreadState
  var priority: UInt8
  /// It ends as soon as its processor is in the kernel.
  var isKilled: Bool
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
  /// Address of the endpoint or notification in whose queue it is.
  var waitsFor: UInt64
  /// The process that owes it a reply.
  var replier: Reference<Process>?
  var processorTime: UInt64
  var switches: UInt64
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
