// What a death does to calls in progress (HongMeng §4.1): every thread that is in the dead domain goes back to its nearest living
// caller with an error; threads that have gone on from there learn it when they return; no stack stays in use.
import CArch
import KernelCore
import PolluxABI

enum Unwinding {
  /// Closes the services of a process that ends. All other processors are stopped.
  static func closeServices(of process: Reference<Process>) {
    while let service = process.pointee.services.first {
      process.pointee.services.remove(service)
      service.pointee.isClosed = true
      service.pointee.references += 1
      Paging.forgetManaged(by: service)
      var connection = service.pointee.connections.first
      while let open = connection {
        connection = open.pointee.link.next
        if let idle = open.exchangeStack(nil) { Migration.free(idle) }
      }
      while let waiter = service.pointee.waiting.first {
        let through = StackWaits.take(waiter)
        Migration.dropSpare(waiter.pointee.spare)
        waiter.pointee.spare = nil
        waiter.pointee.frame.rax = UInt64(bitPattern: SystemError.peerClosed.rawValue)
        Scheduler.ready(waiter)
        Objects.release(connection: through)
      }
      StackWaits.settle(service)
      var next = service.pointee.activations
      while let activation = next {
        guard let thread = activation.pointee.thread else {
          next = activation.pointee.next
          continue
        }
        if thread.pointee.activation == activation {
          // It may hold more stacks of this service further out: the list is looked through again.
          unwind(thread, .peerClosed)
          next = service.pointee.activations
        } else {
          abandon(thread, callsOf: process)
          next = activation.pointee.next
        }
      }
      Objects.release(service: service)
    }
  }

  /// Ends the innermost call of a thread, and those whose callers are gone, with an error. A thread without living caller ends.
  static func unwind(_ thread: Reference<Thread>, _ error: SystemError) {
    let processor = Scheduler.currentProcessor()
    let runsElsewhere = thread.pointee.state == .running && thread.pointee.processor != processor
    Scheduler.interruptWait(thread)
    var lives = Migration.leave(thread)
    while !lives, thread.pointee.activation != nil { lives = Migration.leave(thread) }
    guard lives else {
      // An orphan with nobody to return to.
      thread.pointee.isVoid = runsElsewhere
      if runsElsewhere {
        thread.pointee.isKilled = true
        thread.pointee.processor.pointee.needsSchedule = true
      } else {
        Objects.finish(thread, on: processor)
      }
      return
    }
    Migration.setResult(thread, error)
    if runsElsewhere { thread.pointee.isVoid = true }
  }

  /// The calls that a dead process has made in this thread have nobody to return to. What the thread waits for further on is given up,
  /// so that servers finish.
  static func abandon(_ thread: Reference<Thread>, callsOf process: Reference<Process>) {
    var next = thread.pointee.activation
    while let activation = next {
      if activation.pointee.caller == process { activation.pointee.attention.insert(.callerGone) }
      next = activation.pointee.previous
    }
    Scheduler.interrupt(thread)
  }

  /// A thread of a process that ends is in a call elsewhere: it finishes there, belonging to nobody.
  static func orphan(_ thread: Reference<Thread>) {
    let home = thread.pointee.home
    abandon(thread, callsOf: home)
    home.pointee.threads.remove(thread)
    home.pointee.threadCount -= 1
    thread.pointee.isOrphan = true
  }
}
