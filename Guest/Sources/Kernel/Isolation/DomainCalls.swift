// The short way of a call into or out of kernel space (HongMeng §4.2, Fig. 4): what entry.S does lock-free between processes, here with
// the kernel's lock held. A flat list of conditions; what is not met leaves everything as it was and goes the general way
// (Rpc/Migration.swift).
import CArch
import KernelCore
import PolluxABI

enum DomainCalls {
  /// Serves `rpcCall` and `rpcReturn`. False: it has to go the general way.
  @inline(__always)
  static func serve(_ thread: Reference<Thread>, on processor: Reference<Processor>) -> Bool {
    guard thread.pointee.frame.r15 == 0 else { return false }  // nothing is passed
    if thread.pointee.frame.rax == SystemCall.rpcCall.rawValue { return call(thread, processor) }
    if thread.pointee.frame.rax == SystemCall.rpcReturn.rawValue { return leave(thread, processor) }
    return false
  }

  private static func call(_ thread: Reference<Thread>, _ processor: Reference<Processor>) -> Bool {
    let caller = thread.pointee.process
    guard
      let entry = try? caller.pointee.handles.find(thread.pointee.frame.rdi, kind: .connection, rights: .call)
    else { return false }
    let connection = Reference<Connection>(trusted: entry.object)
    let server = connection.pointee.process
    // Without a stack the thread has to wait, or be refused.
    guard !connection.pointee.service.pointee.isClosed, let activation = Migration.takeStack(connection) else {
      return false
    }
    activation.pointee.rip = thread.pointee.frame.rip
    activation.pointee.rsp = thread.pointee.frame.rsp
    activation.pointee.rflags = thread.pointee.frame.rflags
    activation.pointee.caller = caller
    activation.pointee.previous = thread.pointee.activation
    activation.pointee.thread = thread
    activation.pointee.connection = connection
    activation.pointee.attention = caller.pointee.space.isDomain ? .callerInKernel : []
    thread.pointee.activation = activation
    thread.pointee.frame.rip = connection.pointee.entry
    thread.pointee.frame.rsp = activation.pointee.stack
    thread.pointee.frame.rflags = 0x202
    thread.pointee.frame.rax = connection.pointee.context
    thread.pointee.frame.rdi = connection.pointee.badge
    move(thread, to: server, processor)
    return true
  }

  private static func leave(_ thread: Reference<Thread>, _ processor: Reference<Processor>) -> Bool {
    guard let activation = thread.pointee.activation, let caller = activation.pointee.caller,
      activation.pointee.attention.rawValue & ~Attention.callerInKernel.rawValue == 0,
      thread.pointee.priority == thread.pointee.ownPriority  // it has borrowed none
    else { return false }
    let service = activation.pointee.service
    guard service.pointee.waiters == 0, !service.pointee.isClosed else { return false }
    thread.pointee.activation = activation.pointee.previous
    thread.pointee.frame.rip = activation.pointee.rip
    thread.pointee.frame.rsp = activation.pointee.rsp
    thread.pointee.frame.rflags = activation.pointee.rflags
    thread.pointee.frame.rax = 0
    thread.pointee.frame.rdi = 0
    activation.pointee.thread = nil
    activation.pointee.attention = []
    if service.pointee.process.pointee.space.isDomain {
      Migration.free(activation)
    } else if let displaced = activation.pointee.connection?.exchangeStack(activation) {
      Migration.free(displaced)
    }
    move(thread, to: caller, processor)
    return true
  }

  /// The protection domain, and what must not be seen in it.
  @inline(__always)
  private static func move(
    _ thread: Reference<Thread>, to process: Reference<Process>, _ processor: Reference<Processor>
  ) {
    thread.pointee.process = process
    thread.pointee.frame.cs = process.pointee.space.codeSelector
    thread.pointee.frame.ss = process.pointee.space.stackSelector
    thread.pointee.frame.rbx = 0
    thread.pointee.frame.rbp = 0
    // Kernel space is in every page table.
    if !process.pointee.space.sharesKernel { processor.follow() }
  }
}
