// The system calls of services, connections and calls by thread migration (HongMeng §4.1), except what entry.S does by itself.
import CArch
import KernelCore
import PolluxABI

extension Call {
  func serviceCreate() throws(SystemError) -> Int64 {
    let server = try target(first)
    guard server.pointee.space.mayEnter(second) else { throw .badAddress }
    let service = try kernel.pointee.heap.make(
      Service(references: 1, process: server, entry: second, context: third))
    server.pointee.references += 1
    server.pointee.services.append(service)
    return try install(service.address, .service)
  }

  func serviceAddStack() throws(SystemError) -> Int64 {
    let service: Reference<Service> = try object(first, .service, .manage)
    let space = service.pointee.process.pointee.space
    let windowSize = Windows.maximumPages * AddressSpace.pageSize
    guard !service.pointee.isClosed else { throw .notFound }
    guard second & 15 == 0, second > space.start, second <= space.end, third & 4095 == 0,
      third == 0 || third >= space.start && third <= space.end - windowSize
    else { throw .badAddress }
    let activation = try kernel.pointee.heap.make(
      Activation(stack: second, service: service, next: service.pointee.activations, window: third))
    service.pointee.activations = activation
    Migration.giveBack(activation)
    return 0
  }

  func connectionCreate() throws(SystemError) -> Int64 {
    let service: Reference<Service> = try object(first, .service, .connect)
    guard third <= 1 else { throw .badArgument }
    guard !service.pointee.isClosed else { throw .peerClosed }
    let connection = try kernel.pointee.heap.make(
      Connection(
        process: service.pointee.process, entry: service.pointee.entry, badge: second,
        context: service.pointee.context, service: service, references: 1,
        refuses: ConnectionFlags(rawValue: third).contains(.refuse)))
    service.pointee.references += 1
    service.pointee.connections.append(connection)
    if let free = service.pointee.free {
      service.pointee.free = free.pointee.nextFree
      free.pointee.connection = connection
      connection.pointee.stack = free.address
    }
    return try install(connection.address, .connection, [.call, .grant])
  }

  func serviceQuery() throws(SystemError) -> Int64 {
    let service: Reference<Service> = try object(first, .service, .manage)
    guard let query = ServiceQuery(rawValue: second) else { throw .badArgument }
    var count: Int64 = 0
    switch query {
    case .stacks, .inUse:
      var next = service.pointee.activations
      while let activation = next {
        if query == .stacks || activation.pointee.thread != nil { count += 1 }
        next = activation.pointee.next
      }
    case .waiting:
      var next = service.pointee.waiting.first
      while let waiter = next {
        count += 1
        next = waiter.pointee.queueLink.next
      }
    case .connections:
      var next = service.pointee.connections.first
      while let connection = next {
        count += 1
        next = connection.pointee.link.next
      }
    }
    return count
  }

  /// A call that entry.S could not do by itself, or one with a deadline.
  func rpcCall(deadline: UInt64 = SystemCall.forever) throws(SystemError) -> Int64? {
    try rpcCall(through: try object(first, .connection, .call), deadline: deadline)
  }

  func rpcCall(through connection: Reference<Connection>, deadline: UInt64) throws(SystemError) -> Int64? {
    let service = connection.pointee.service
    guard !service.pointee.isClosed else { throw .peerClosed }
    // Set before stacks are looked for: a return on another processor looks at it after it has given its stack back.
    service.pointee.waiters = 1
    _ = exchange64(service.address, 1)
    let stack = Migration.takeStack(connection)
    if stack == nil {
      guard !connection.pointee.refuses else { throw fail(service, .exhausted) }
      guard StackWaits.canEnd(service, for: thread) else { throw fail(service, .deadlock) }
    } else {
      StackWaits.publish(service)
    }
    if deadline != SystemCall.forever {
      do throws(SystemError) {
        let spare = try Migration.makeSpare(for: thread, .timedOut, on: processor)
        thread.pointee.spare = spare
        Scheduler.startTimer(spare, deadline: deadline, on: processor)
      } catch {
        if let stack { Migration.free(stack) }
        throw fail(service, error)
      }
    }
    guard let stack else {
      StackWaits.begin(thread, connection)
      processor.pointee.needsSchedule = true
      return nil
    }
    do throws(SystemError) { try Migration.enter(thread, connection, on: stack) } catch {
      Migration.dropSpare(thread.pointee.spare)
      thread.pointee.spare = nil
      Migration.free(stack)
      throw fail(service, error)
    }
    processor.follow()
    return nil
  }

  private func fail(_ service: Reference<Service>, _ error: SystemError) -> SystemError {
    StackWaits.publish(service)
    return error
  }

  func rpcReturn() throws(SystemError) -> Int64? {
    guard let activation = thread.pointee.activation else { throw .notFound }
    let server = thread.pointee.process
    var passed = thread.pointee.frame.r15
    thread.pointee.frame.r15 = 0
    var lives = Migration.leave(thread)
    if !lives {
      while !lives, thread.pointee.activation != nil { lives = Migration.leave(thread) }
      if lives { Migration.setResult(thread, .peerClosed) } else { Objects.finish(thread, on: processor) }
    } else {
      if passed != 0 {
        passed =
          (try? Handles.copy(
            passed & 0xffff_ffff, of: server, to: thread.pointee.process,
            rights: Rights(rawValue: UInt32(truncatingIfNeeded: passed >> 32)), badge: 0)) ?? 0
      }
      thread.pointee.frame.r15 = passed
      thread.pointee.frame.rax = 0
      thread.pointee.frame.rdi = 0
      thread.pointee.frame.rbx = 0
      thread.pointee.frame.rbp = 0
    }
    _ = activation
    processor.follow()
    return nil
  }

  func rpcCancel() throws(SystemError) -> Int64 {
    let target: Reference<Thread> = try object(first, .thread, .manage)
    guard target.pointee.state != .ended, target.pointee.state != .spare else { throw .notFound }
    guard var outermost = target.pointee.activation else {
      guard target.pointee.state == .awaitingStack else { throw .notFound }
      Scheduler.interruptWait(target)
      return 0
    }
    while let previous = outermost.pointee.previous { outermost = previous }
    guard !outermost.pointee.attention.contains(.callerGone) else { throw .notFound }
    if outermost.pointee.spare == nil {
      outermost.pointee.spare = try Migration.makeSpare(for: target, .cancelled, on: processor)
      // The other processors may be about to return from this very call.
      Scheduler.stopOthers()
      guard outermost.pointee.thread == target else {
        Migration.dropSpare(outermost.pointee.spare)
        outermost.pointee.spare = nil
        throw .notFound
      }
      outermost.pointee.attention.insert(.timed)
    }
    if let spare = outermost.pointee.spare {
      spare.pointee.frame.rax = UInt64(bitPattern: SystemError.cancelled.rawValue)
      if spare.pointee.hasTimer { Scheduler.cancelTimer(spare) }
      Migration.expire(spare)
    }
    return 0
  }
}

/// The rest of a fast return.
@c(kernel_rpc_after)
public func kernelRpcAfter(_ thread: UInt64, _ processor: UInt64) -> UInt64 {
  let thread = Reference<Thread>(trusted: thread)
  Migration.after(thread)
  return comeBack(thread, Reference(trusted: processor))
}

/// A thread goes on in whatever domain it is in now, though its processor still has that of another.
private func comeBack(_ thread: Reference<Thread>, _ processor: Reference<Processor>) -> UInt64 {
  processor.follow()
  processor.setKernelStack(thread.frameEnd)
  return processor.leave()
}

/// A thread that another processor changed on its way into the kernel: what it came for is void, unless it was interrupted.
@c(kernel_void_entry)
public func kernelVoidEntry(_ thread: UInt64, _ processor: UInt64) -> UInt64 {
  let thread = Reference<Thread>(trusted: thread)
  thread.pointee.isVoid = false
  if thread.pointee.frame.vector >= 32, thread.pointee.frame.vector < 256 {
    return kernelTrap(thread.address, processor)
  }
  return comeBack(thread, Reference(trusted: processor))
}
