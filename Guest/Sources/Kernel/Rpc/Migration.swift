// How a thread gets into a server and back (HongMeng §4.1): the slow paths of entry.S's `rpc_call` and `rpc_return`, which do the
// same with grants, deadlines and stacks that must be found first.
import CArch
import KernelCore
import PolluxABI

enum Migration {
  // MARK: Stacks

  /// A stack for a call: the connection's own, a free one, or one that lies idle at another connection.
  static func takeStack(_ connection: Reference<Connection>) -> Reference<Activation>? {
    if let bound = connection.exchangeStack(nil) { return bound }
    let service = connection.pointee.service
    if let free = service.pointee.free {
      service.pointee.free = free.pointee.nextFree
      return free
    }
    var other = service.pointee.connections.first
    while let candidate = other {
      if let idle = candidate.exchangeStack(nil) { return idle }
      other = candidate.pointee.link.next
    }
    return nil
  }

  /// Takes a stack back that no call uses: for the most urgent thread that waits, or bound to its connection again.
  static func giveBack(_ activation: Reference<Activation>) {
    let service = activation.pointee.service
    service.pointee.references += 1
    activation.pointee.thread = nil
    activation.pointee.attention = []
    let connection = activation.pointee.connection
    activation.pointee.connection = nil
    if let connection, connection.pointee.references == 0 { destroyUnused(connection) }
    if service.pointee.isClosed {
      free(activation)
    } else if service.pointee.waiters != 0, serveWaiter(of: service, with: activation) {
      StackWaits.settle(service)
    } else if let connection, connection.pointee.references != 0 {
      activation.pointee.connection = connection
      if let displaced = connection.exchangeStack(activation) { free(displaced) }
    } else {
      free(activation)
    }
    Objects.release(service: service)
  }

  /// Gives a stack to the most urgent thread that can use it. False: there is none.
  private static func serveWaiter(of service: Reference<Service>, with stack: Reference<Activation>) -> Bool {
    while let waiter = StackWaits.next(service) {
      let connection = StackWaits.take(waiter)
      var entered = true
      do throws(SystemError) { try enter(waiter, connection, on: stack) } catch {
        waiter.pointee.frame.rax = UInt64(bitPattern: error.rawValue)
        dropSpare(waiter.pointee.spare)
        waiter.pointee.spare = nil
        entered = false
      }
      Scheduler.ready(waiter)
      Objects.release(connection: connection)
      if entered { return true }
    }
    return false
  }

  static func free(_ activation: Reference<Activation>) {
    activation.pointee.thread = nil
    activation.pointee.connection = nil
    activation.pointee.nextFree = activation.pointee.service.pointee.free
    activation.pointee.service.pointee.free = activation
  }

  // MARK: Calls

  /// Moves a thread into the server with the registers it called with. On an error it stays, and so does the stack with the caller.
  static func enter(
    _ thread: Reference<Thread>, _ connection: Reference<Connection>, on activation: Reference<Activation>
  ) throws(SystemError) {
    let server = connection.pointee.process
    var passed = thread.pointee.frame.r15
    if passed >> 63 != 0 {
      passed = try Windows.open(passed, of: thread.pointee.process, in: server, activation)
    } else if passed != 0 {
      passed = try Handles.copy(
        passed & 0xffff_ffff, of: thread.pointee.process, to: server,
        rights: Rights(rawValue: UInt32(truncatingIfNeeded: passed >> 32)), badge: 0)
    }
    activation.pointee.rip = thread.pointee.frame.rip
    activation.pointee.rsp = thread.pointee.frame.rsp
    activation.pointee.rflags = thread.pointee.frame.rflags
    activation.pointee.caller = thread.pointee.process
    activation.pointee.previous = thread.pointee.activation
    activation.pointee.thread = thread
    activation.pointee.connection = connection
    if let spare = thread.pointee.spare {
      activation.pointee.spare = spare
      activation.pointee.attention.insert(.timed)
      thread.pointee.spare = nil
    }
    thread.pointee.activation = activation
    thread.pointee.process = server
    thread.pointee.frame.rip = connection.pointee.entry
    thread.pointee.frame.rsp = activation.pointee.stack
    thread.pointee.frame.rflags = 0x202
    thread.pointee.frame.cs = server.pointee.space.codeSelector
    thread.pointee.frame.ss = server.pointee.space.stackSelector
    thread.pointee.frame.rax = connection.pointee.context
    thread.pointee.frame.rdi = connection.pointee.badge
    thread.pointee.frame.r15 = passed
    thread.pointee.frame.rbx = 0
    thread.pointee.frame.rbp = 0
  }

  /// Takes a thread out of its innermost call. False: its caller is gone, so that it cannot go on there.
  static func leave(_ thread: Reference<Thread>) -> Bool {
    guard let activation = thread.pointee.activation else { return true }
    thread.pointee.activation = activation.pointee.previous
    thread.pointee.process = activation.pointee.caller ?? thread.pointee.home
    thread.pointee.frame.rip = activation.pointee.rip
    thread.pointee.frame.rsp = activation.pointee.rsp
    thread.pointee.frame.rflags = activation.pointee.rflags
    thread.pointee.frame.cs = thread.pointee.process.pointee.space.codeSelector
    thread.pointee.frame.ss = thread.pointee.process.pointee.space.stackSelector
    let lives = !activation.pointee.attention.contains(.callerGone)
    if lives { thread.pointee.isInterrupted = false }
    if thread.pointee.faults != nil { PassedFault.drop(thread, in: activation) }
    Windows.close(activation)
    dropSpare(activation.pointee.spare)
    activation.pointee.spare = nil
    giveBack(activation)
    StackWaits.settle(thread)
    return lives
  }

  /// What a fast return left to do (entry.S, `rpc_after`): a stack that lost its place at the connection, and threads that wait.
  static func after(_ thread: Reference<Thread>) {
    let displaced = thread.pointee.frame.rdi & ~1
    let service = Reference<Service>(trusted: thread.pointee.frame.rax)
    thread.pointee.frame.vector = UInt64(SYSTEM_CALL_VECTOR)
    thread.pointee.frame.rax = 0
    thread.pointee.frame.rdi = 0
    thread.pointee.frame.rbp = 0
    thread.pointee.frame.cs = thread.pointee.process.pointee.space.codeSelector
    thread.pointee.frame.ss = thread.pointee.process.pointee.space.stackSelector
    service.pointee.references += 1
    if let activation = Reference<Activation>(address: displaced) { free(activation) }
    while let waiter = StackWaits.next(service), let connection = waiter.pointee.connection,
      let stack = takeStack(connection)
    {
      stack.pointee.connection = nil
      if !serveWaiter(of: service, with: stack) { free(stack) }
    }
    StackWaits.settle(service)
    StackWaits.settle(thread)
    Objects.release(service: service)
  }

  // MARK: Deadlines

  /// Makes the thread that goes on in the server when a call of `thread` ends early with `error`.
  static func makeSpare(
    for thread: Reference<Thread>, _ error: SystemError, on processor: Reference<Processor>
  ) throws(SystemError) -> Reference<Thread> {
    let spare = try Objects.makeThread(
      thread.pointee.home, entry: 0, stack: 0, arguments: (0, 0), priority: thread.pointee.ownPriority, on: processor,
      isOrphan: true)
    spare.pointee.state = .spare
    spare.pointee.spare = thread
    spare.pointee.frame.rax = UInt64(bitPattern: error.rawValue)
    return spare
  }

  static func dropSpare(_ spare: Reference<Thread>?) {
    guard let spare else { return }
    if spare.pointee.hasTimer { Scheduler.cancelTimer(spare) }
    Objects.discard(spare)
  }

  /// The time of a call with a spare thread is over. Runs on any processor; where the caller runs on another, that one is asked.
  static func expire(_ spare: Reference<Thread>) {
    guard let thread = spare.pointee.spare else { return }
    let error = SystemError(rawValue: Int64(bitPattern: spare.pointee.frame.rax)) ?? .timedOut
    if thread.pointee.state == .awaitingStack, thread.pointee.spare == spare {
      let service = Reference<Service>(trusted: thread.pointee.waitsFor)
      Objects.release(connection: StackWaits.take(thread))
      StackWaits.settle(service)
      thread.pointee.spare = nil
      Objects.discard(spare)
      thread.pointee.frame.rax = UInt64(bitPattern: error.rawValue)
      return Scheduler.ready(thread)
    }
    var candidate = thread.pointee.activation
    while let activation = candidate, activation.pointee.spare != spare { candidate = activation.pointee.previous }
    guard let activation = candidate else { return }
    if activation.pointee.attention.contains(.callerGone) { return }
    let processor = Scheduler.currentProcessor()
    if thread.pointee.state == .running, thread.pointee.processor != processor {
      // Vector registers can be had on its own processor alone.
      Scheduler.startTimer(spare, deadline: 1, on: thread.pointee.processor)
      LocalController.send(Vector.timer, to: thread.pointee.processor.pointee.identifier)
      return
    }
    split(thread, at: activation, error, spare)
    processor.follow()
  }

  /// The caller of `activation` goes on with an error; the spare thread goes on in the server with what the caller's thread did there.
  private static func split(
    _ thread: Reference<Thread>, at activation: Reference<Activation>, _ error: SystemError, _ spare: Reference<Thread>
  ) {
    Scheduler.interrupt(thread)
    spare.pointee.isInterrupted = thread.pointee.isInterrupted
    thread.pointee.isInterrupted = false
    for index in 0..<kernel.pointee.processorCount where Processor.at(index).pointee.floatOwner == thread {
      thread.saveFloat()
    }
    copy_words(spare.address - Thread.floatSize, thread.address - Thread.floatSize, Thread.floatSize / 8)
    spare.pointee.frame = thread.pointee.frame
    spare.pointee.process = thread.pointee.process
    spare.pointee.activation = thread.pointee.activation
    spare.pointee.pointer = thread.pointee.pointer
    spare.pointee.spare = nil
    activation.pointee.spare = nil
    var member = thread.pointee.activation
    while let inside = member {
      inside.pointee.thread = spare
      if let nested = inside.pointee.spare { nested.pointee.spare = spare }
      if inside == activation { break }
      member = inside.pointee.previous
    }
    if thread.pointee.faults != nil { PassedFault.move(thread, to: spare, upTo: activation) }
    thread.pointee.activation = activation.pointee.previous
    thread.pointee.process = activation.pointee.caller ?? thread.pointee.home
    setResult(thread, error)
    thread.pointee.frame.rip = activation.pointee.rip
    thread.pointee.frame.rsp = activation.pointee.rsp
    thread.pointee.frame.rflags = activation.pointee.rflags
    activation.pointee.previous = nil
    activation.pointee.caller = nil
    activation.pointee.attention.remove(.timed)
    activation.pointee.attention.insert(.callerGone)
    StackWaits.settle(thread)
    StackWaits.settle(spare)
    Scheduler.ready(spare)
  }

  /// The registers of a call that failed: nothing of the server shows.
  static func setResult(_ thread: Reference<Thread>, _ error: SystemError) {
    let old = thread.pointee.frame
    thread.pointee.frame = trap_frame()
    thread.pointee.frame.rax = UInt64(bitPattern: error.rawValue)
    thread.pointee.frame.rip = old.rip
    thread.pointee.frame.rsp = old.rsp
    thread.pointee.frame.rflags = old.rflags
    thread.pointee.frame.cs = thread.pointee.process.pointee.space.codeSelector
    thread.pointee.frame.ss = thread.pointee.process.pointee.space.stackSelector
    thread.pointee.frame.vector = old.vector
  }

  // MARK: Ends of connections and services

  /// The last handle of a connection is gone; calls in progress still return through it.
  static func close(_ connection: Reference<Connection>) {
    if let idle = connection.exchangeStack(nil) { free(idle) }
    var next = connection.pointee.service.pointee.activations
    while let activation = next {
      next = activation.pointee.next
      if activation.pointee.connection == connection, activation.pointee.thread != nil {
        activation.pointee.attention.insert(.connectionClosed)
      }
    }
    destroyUnused(connection)
  }

  /// Frees a closed connection unless a call still has to return through it.
  private static func destroyUnused(_ connection: Reference<Connection>) {
    let service = connection.pointee.service
    var next = service.pointee.activations
    while let activation = next {
      if activation.pointee.connection == connection { return }
      next = activation.pointee.next
    }
    service.pointee.connections.remove(connection)
    kernel.pointee.heap.destroy(connection)
    Objects.release(service: service)
  }

  /// Frees a service that nothing refers to any more.
  static func destroy(_ service: Reference<Service>) {
    let process = service.pointee.process
    if !service.pointee.isClosed { process.pointee.services.remove(service) }
    while let activation = service.pointee.activations {
      service.pointee.activations = activation.pointee.next
      kernel.pointee.heap.destroy(activation)
    }
    kernel.pointee.heap.destroy(service)
    Objects.release(process: process)
  }
}
