// What happens when all stacks of a service are in use (HongMeng §4.1, "resource exhaustion"): who waits, who is lent whose priority,
// and which waits could never end.
import CArch
import KernelCore
import PolluxABI

enum StackWaits {
  /// Makes a thread wait for a stack of the connection's service, if that cannot last for ever.
  static func begin(_ thread: Reference<Thread>, _ connection: Reference<Connection>) {
    let service = connection.pointee.service
    thread.pointee.state = .awaitingStack
    thread.pointee.waitsFor = service.address
    thread.pointee.connection = connection
    connection.pointee.references += 1
    service.pointee.waiting.append(thread)
    lend(thread.pointee.priority, to: service)
  }

  /// The most urgent thread that waits, of these the first.
  static func next(_ service: Reference<Service>) -> Reference<Thread>? {
    var best = service.pointee.waiting.first
    var candidate = best?.pointee.queueLink.next
    while let thread = candidate {
      if let found = best, thread.pointee.priority > found.pointee.priority { best = thread }
      candidate = thread.pointee.queueLink.next
    }
    return best
  }

  /// Takes a thread out of the queue; what it was to call through, whose count is now the caller's.
  static func take(_ thread: Reference<Thread>) -> Reference<Connection> {
    let service = Reference<Service>(trusted: thread.pointee.waitsFor)
    service.pointee.waiting.remove(thread)
    thread.pointee.state = .running
    let connection = thread.pointee.connection.unsafelyUnwrapped  // set by `begin` for every thread in the queue
    thread.pointee.connection = nil
    return connection
  }

  /// What a fast return looks at says again whether somebody waits.
  @inline(__always) static func publish(_ service: Reference<Service>) {
    service.pointee.waiters = service.pointee.waiting.isEmpty ? 0 : 1
  }

  /// Somebody has left the queue of a service: nobody may run on at a priority that was lent for him.
  static func settle(_ service: Reference<Service>) {
    publish(service)
    var next = service.pointee.activations
    while let activation = next {
      next = activation.pointee.next
      if let holder = activation.pointee.thread { settle(holder) }
    }
  }

  /// A thread runs at its own priority, or that of the most urgent thread that waits for a stack it holds.
  @inline(__always) static func settle(_ thread: Reference<Thread>) {
    // Waiters lend when they come, so one that runs at its own has been lent nothing more.
    if thread.pointee.priority != thread.pointee.ownPriority { recompute(thread) }
  }

  private static func recompute(_ thread: Reference<Thread>) {
    var priority = thread.pointee.ownPriority
    var held = thread.pointee.activation
    while let activation = held {
      held = activation.pointee.previous
      if activation.pointee.service.pointee.waiters != 0, let waiter = next(activation.pointee.service) {
        priority = max(priority, waiter.pointee.priority)
      }
    }
    Scheduler.setPriority(thread, priority)
  }

  // MARK: Searches over services, marked so that each is visited once; they need no stack and no memory

  /// Raises all threads that the service's waiters wait for, through as many services as it takes.
  private static func lend(_ priority: UInt8, to service: Reference<Service>) {
    search(from: service) { holder in
      if let holder, holder.pointee.priority < priority { Scheduler.setPriority(holder, priority) }
      return false
    }
  }

  /// Whether some thread that holds a stack can go on without the waiter: if all of them wait for stacks, which threads hold that wait
  /// for stacks, …, nobody ever returns one. A stack without a holder is being taken or given back by a processor in the lock-free part
  /// of a call: who takes it will search himself if he comes to wait, who gives it back looks for waiters afterwards.
  static func canEnd(_ service: Reference<Service>, for waiter: Reference<Thread>) -> Bool {
    search(from: service) { holder in
      guard let holder else { return true }
      return holder != waiter && holder.pointee.state != .awaitingStack
    }
  }

  /// Shows `visit` the holders of the service's stacks and of those they wait for; ends with true as soon as it says so.
  @discardableResult
  private static func search(from service: Reference<Service>, _ visit: (Reference<Thread>?) -> Bool) -> Bool {
    kernel.pointee.searchMark &+= 1
    let mark = kernel.pointee.searchMark
    service.pointee.mark = mark
    service.pointee.searchNext = nil
    var last = service
    var next: Reference<Service>? = service
    while let current = next {
      var activation = current.pointee.activations
      while let stack = activation {
        activation = stack.pointee.next
        let holder = stack.pointee.thread
        if visit(holder) { return true }
        guard let holder, holder.pointee.state == .awaitingStack else { continue }
        let further = Reference<Service>(trusted: holder.pointee.waitsFor)
        guard further.pointee.mark != mark else { continue }
        further.pointee.mark = mark
        further.pointee.searchNext = nil
        last.pointee.searchNext = further
        last = further
      }
      next = current.pointee.searchNext
    }
    return false
  }
}
