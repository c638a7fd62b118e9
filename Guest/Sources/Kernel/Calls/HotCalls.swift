// The system calls on the paths that must be short, each a function of its own that entry.S reaches through a table: no common
// dispatch, no nested frames. Numbers 0 to 7, in this order.
import CArch
import KernelCore
import PolluxABI

@c(kernel_call_null) public func kernelCallNull(_ thread: UInt64, _ processor: UInt64) -> UInt64 {
  kernel.pointee.systemCalls &+= 1
  Reference<Thread>(trusted: thread).pointee.frame.rax = 0
  // Nothing has changed, so the caller goes on.
  return thread
}

@c(kernel_call_call) public func kernelCallCall(_ thread: UInt64, _ processor: UInt64) -> UInt64 {
  Call.serve(thread, processor) { call throws(SystemError) in try call.call() }
}

@c(kernel_call_reply_receive) public func kernelCallReplyReceive(_ thread: UInt64, _ processor: UInt64) -> UInt64 {
  Call.serve(thread, processor) { call throws(SystemError) in try call.replyReceive() }
}

@c(kernel_call_reply) public func kernelCallReply(_ thread: UInt64, _ processor: UInt64) -> UInt64 {
  Call.serve(thread, processor) { call throws(SystemError) in try call.reply() }
}

@c(kernel_call_signal) public func kernelCallSignal(_ thread: UInt64, _ processor: UInt64) -> UInt64 {
  Call.serve(thread, processor) { call throws(SystemError) in try call.notificationSignal() }
}

@c(kernel_call_wait) public func kernelCallWait(_ thread: UInt64, _ processor: UInt64) -> UInt64 {
  Call.serve(thread, processor) { call throws(SystemError) in try call.notificationWait() }
}

@c(kernel_call_poll) public func kernelCallPoll(_ thread: UInt64, _ processor: UInt64) -> UInt64 {
  Call.serve(thread, processor) { call throws(SystemError) in try call.notificationPoll() }
}

@c(kernel_call_acknowledge) public func kernelCallAcknowledge(_ thread: UInt64, _ processor: UInt64) -> UInt64 {
  Call.serve(thread, processor) { call throws(SystemError) in try call.interruptAcknowledge() }
}
