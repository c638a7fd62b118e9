// Synchronous messages between processes: call, reply, receive, with the eight words in registers and a direct switch between the
// two threads. This file is all of it, so that a thread-migrating call can take its place.
import CArch
import KernelCore
import PolluxABI

extension Call {
  func endpointCreate() throws(SystemError) -> Int64 {
    let endpoint = try kernel.pointee.heap.make(Endpoint(references: 1, receivers: 1, notification: nil))
    return try install(endpoint.address, .endpoint)
  }

  func endpointBind() throws(SystemError) -> Int64 {
    let endpoint: Reference<Endpoint> = try object(first, .endpoint, .receive)
    let notification: Reference<Notification> = try object(second, .notification, .wait)
    // A server that comes after another may be given both, bound already.
    if notification.pointee.endpoint == endpoint { return 0 }
    guard endpoint.pointee.notification == nil, notification.pointee.endpoint == nil else { throw .exists }
    endpoint.pointee.notification = notification
    notification.pointee.endpoint = endpoint
    notification.pointee.references += 1
    return 0
  }

  @inline(__always) func call() throws(SystemError) -> Int64? {
    let entry = try process.pointee.handles.find(first, kind: .endpoint, rights: .call)
    let endpoint = Reference<Endpoint>(trusted: entry.object)
    guard endpoint.pointee.receivers != 0 else { throw .peerClosed }
    thread.pointee.badge = entry.badge
    guard let receiver = endpoint.pointee.waiting.popFirst() else {
      thread.pointee.state = .calling
      thread.pointee.waitsFor = entry.object
      endpoint.pointee.callers.append(thread)
      processor.pointee.needsSchedule = true
      return nil
    }
    Message.deliver(from: thread, to: receiver)
    hand(over: receiver)
    return nil
  }

  @inline(__always) func reply() throws(SystemError) -> Int64? {
    guard let caller = Message.caller(first >> 32, of: process) else { throw .notFound }
    Message.answer(from: thread, to: caller)
    Scheduler.ready(caller)
    return 0
  }

  @inline(__always) func replyReceive() throws(SystemError) -> Int64? {
    let endpoint: Reference<Endpoint> = try object(first & 0xffff_ffff, .endpoint, .receive)
    let token = first >> 32
    var answered: Reference<Thread>?
    if token != 0, let caller = Message.caller(token, of: process) {
      Message.answer(from: thread, to: caller)
      answered = caller
    }
    if let notification = endpoint.pointee.notification, notification.pointee.bits != 0 {
      Message.notify(thread, bits: notification.pointee.bits)
      notification.pointee.bits = 0
    } else if let caller = endpoint.pointee.callers.popFirst() {
      Message.deliver(from: caller, to: thread)
    } else {
      thread.pointee.state = .receiving
      thread.pointee.waitsFor = endpoint.address
      endpoint.pointee.waiting.append(thread)
      if let answered { hand(over: answered) } else { processor.pointee.needsSchedule = true }
      return nil
    }
    if let answered { Scheduler.ready(answered) }
    return nil
  }

  /// Lets the partner run in the caller's place, unless something as urgent is ready here: that has waited longer, and where
  /// the partner's calls are short it would wait for ever.
  @inline(__always) private func hand(over next: Reference<Thread>) {
    if Int(next.pointee.priority) > processor.pointee.runQueue.highest, !processor.pointee.needsSchedule,
      !thread.pointee.isInterrupted
    {
      processor.resumeInSlice(next)
    } else {
      next.pointee.processor = processor
      next.pointee.state = .ready
      processor.pointee.runQueue.append(next)
      processor.pointee.needsSchedule = true
    }
  }
}

enum Message {
  /// Moves the words and a passed handle.
  @inline(__always)
  private static func move(from sender: Reference<Thread>, to receiver: Reference<Thread>) {
    receiver.pointee.frame.rsi = sender.pointee.frame.rsi
    receiver.pointee.frame.rdx = sender.pointee.frame.rdx
    receiver.pointee.frame.r10 = sender.pointee.frame.r10
    receiver.pointee.frame.r8 = sender.pointee.frame.r8
    receiver.pointee.frame.r9 = sender.pointee.frame.r9
    receiver.pointee.frame.r12 = sender.pointee.frame.r12
    receiver.pointee.frame.r13 = sender.pointee.frame.r13
    receiver.pointee.frame.r14 = sender.pointee.frame.r14
    let passed = sender.pointee.frame.r15
    receiver.pointee.frame.r15 = passed == 0 ? 0 : pass(passed, from: sender, to: receiver)
  }

  /// Gives the receiver's process a handle; 0 if the sender may not pass it or the table is full.
  private static func pass(_ passed: UInt64, from sender: Reference<Thread>, to receiver: Reference<Thread>) -> UInt64 {
    let rights = Rights(rawValue: UInt32(truncatingIfNeeded: passed >> 32))
    return
      (try? Handles.copy(
        passed & 0xffff_ffff, of: sender.pointee.process, to: receiver.pointee.process, rights: rights, badge: 0)) ?? 0
  }

  /// Hands a call to a receiver, whose first argument still names the endpoint in its low half.
  @inline(__always) static func deliver(from caller: Reference<Thread>, to receiver: Reference<Thread>) {
    let sequence = kernel.pointee.callSequence &+ 1
    kernel.pointee.callSequence = sequence
    let token = caller.pointee.identifier | sequence << 12
    caller.pointee.token = token
    caller.pointee.state = .awaitingReply
    caller.pointee.replier = receiver.pointee.process
    receiver.pointee.frame.rax = UInt64(caller.pointee.badge)
    receiver.pointee.frame.rdi = receiver.pointee.frame.rdi & 0xffff_ffff | UInt64(token) << 32
    move(from: caller, to: receiver)
  }

  /// Gives a waiting caller its answer; the caller is then in no queue.
  @inline(__always) static func answer(from server: Reference<Thread>, to caller: Reference<Thread>) {
    caller.pointee.frame.rax = 0
    caller.pointee.replier = nil
    move(from: server, to: caller)
    // Until it is queued or runs, it is neither waiting nor ready.
    caller.pointee.state = .running
  }

  /// Gives a receiver notification bits.
  static func notify(_ receiver: Reference<Thread>, bits: UInt64) {
    receiver.pointee.frame.rax = UInt64(SystemCall.notificationBadge)
    receiver.pointee.frame.rdi &= 0xffff_ffff
    receiver.pointee.frame.rsi = bits
  }

  /// The thread that waits for an answer from this process under a token.
  @inline(__always) static func caller(_ token: UInt64, of process: Reference<Process>) -> Reference<Thread>? {
    guard let caller = Objects.thread(UInt32(truncatingIfNeeded: token & 0xfff)),
      caller.pointee.state == .awaitingReply, caller.pointee.token == UInt32(truncatingIfNeeded: token),
      caller.pointee.replier == process
    else { return nil }
    return caller
  }
}
