// Faults that the kernel does not serve itself (HongMeng §4.5, Fig. 7: "any other fault goes to the memory manager"): the faulting
// thread calls the manager as if it had done so itself, and afterwards goes on with every register as it was.
import CArch
import KernelCore
import PolluxABI

/// What a thread was doing when a fault of it was passed on. Lies behind 512 bytes of FXSAVE area, as a thread does.
struct PassedFault {
  var frame: trap_frame
  /// The call that the thread was in.
  var activation: Reference<Activation>?
  /// The one it was serving when this came.
  var outer: Reference<PassedFault>?

  private static let blockSize = 1024

  /// Has the thread call `manager`: words 0…3 are the address, the error code, the instruction and the exception. False: it cannot.
  static func pass(
    _ vector: UInt8, _ address: UInt64, of thread: Reference<Thread>, to manager: Reference<Connection>,
    _ processor: Reference<Processor>
  ) -> Bool {
    guard !thread.pointee.process.pointee.space.isDomain, let block = kernel.pointee.heap.allocate(blockSize) else {
      return false
    }
    if processor.pointee.floatOwner == thread { thread.saveFloat() }
    copy_words(block, thread.address - Thread.floatSize, Thread.floatSize / 8)
    let fault = Reference<PassedFault>(trusted: block + Thread.floatSize)
    fault.initialize(
      to: PassedFault(
        frame: thread.pointee.frame, activation: thread.pointee.activation, outer: thread.pointee.faults))
    thread.pointee.faults = fault
    thread.pointee.frame.rsi = address
    thread.pointee.frame.rdx = fault.pointee.frame.error
    thread.pointee.frame.r10 = fault.pointee.frame.rip
    thread.pointee.frame.r8 = UInt64(vector)
    thread.pointee.frame.r15 = 0
    // Where the call returns to: the entry page's stub, which makes the system call `faultReturn` of what came back.
    thread.pointee.frame.rip = AddressSpace.systemCallEntry + UInt64(FAULT_RETURN_OFFSET)
    let call = Call(thread: thread, processor: processor)
    do throws(SystemError) {
      _ = try call.rpcCall(through: manager, deadline: SystemCall.forever)
      return true
    } catch {
      thread.pointee.frame = fault.pointee.frame
      thread.pointee.faults = fault.pointee.outer
      free(fault)
      return false
    }
  }

  /// The thread does again what it did when the fault came.
  static func resume(_ thread: Reference<Thread>, _ fault: Reference<PassedFault>, _ processor: Reference<Processor>) {
    thread.pointee.frame = fault.pointee.frame
    copy_words(thread.address - Thread.floatSize, fault.address - Thread.floatSize, Thread.floatSize / 8)
    if processor.pointee.floatOwner == thread { thread.restoreFloat() }
    thread.pointee.faults = fault.pointee.outer
    free(fault)
  }

  private static func free(_ fault: Reference<PassedFault>) {
    kernel.pointee.heap.release(fault.address - Thread.floatSize, blockSize)
  }

  /// A thread leaves a call, or at nil ends: faults of its work there are nobody's any more.
  static func drop(_ thread: Reference<Thread>, in activation: Reference<Activation>?) {
    while let fault = thread.pointee.faults, fault.pointee.activation == activation || activation == nil {
      thread.pointee.faults = fault.pointee.outer
      free(fault)
    }
  }

  /// Hands over the faults of the calls that a spare thread goes on with, from its innermost to `last`.
  static func move(_ thread: Reference<Thread>, to spare: Reference<Thread>, upTo last: Reference<Activation>) {
    var end: Reference<PassedFault>?
    var candidate = thread.pointee.faults
    while let fault = candidate {
      var call = spare.pointee.activation
      while let inside = call, fault.pointee.activation != inside {
        call = inside == last ? nil : inside.pointee.previous
      }
      guard call != nil else { break }
      end = fault
      candidate = fault.pointee.outer
    }
    guard let end else { return }
    spare.pointee.faults = thread.pointee.faults
    thread.pointee.faults = end.pointee.outer
    end.pointee.outer = nil
  }
}

extension Call {
  /// `(process, connection, exceptions)`.
  func pagingAttach() throws(SystemError) -> Int64 {
    let target = try target(first)
    let connection: Reference<Connection> = try object(second, .connection, .call)
    let space = try Paging.space(target)
    connection.pointee.references += 1
    if let old = space.pointee.manager { Objects.release(connection: old) }
    space.pointee.manager = connection
    space.pointee.passesExceptions = third != 0
    return 0
  }

  /// What the entry page's stub calls when the manager has returned: `(status of the call, word 0, word 1)`.
  func faultReturn() throws(SystemError) -> Int64? {
    guard let fault = thread.pointee.faults, fault.pointee.activation == thread.pointee.activation else {
      throw .notFound
    }
    let decision = Int64(bitPattern: first) >= 0 ? FaultDecision(rawValue: second) : nil
    let instruction = third
    PassedFault.resume(thread, fault, processor)
    if decision == .goOnElsewhere, instruction >> 47 == 0 {
      // An address beyond the lower half would fault in ring 0, on the way out.
      thread.pointee.frame.rip = instruction
    } else if decision != .tryAgain {
      let vector = UInt8(truncatingIfNeeded: thread.pointee.frame.vector)
      Report.fault(thread, vector)
      Objects.end(thread.pointee.process, status: .faulted(vector: vector), on: processor)
    }
    return nil
  }
}
