// Exceptions and interrupts: which goes where.
import CArch
import KernelCore
import PolluxABI

/// An exception or interrupt from ring 3.
@c(kernel_trap)
public func kernelTrap(_ threadAddress: UInt64, _ processorAddress: UInt64) -> UInt64 {
  let thread = Reference<Thread>(trusted: threadAddress)
  let processor = Reference<Processor>(trusted: processorAddress)
  let vector = UInt8(truncatingIfNeeded: thread.pointee.frame.vector)
  if vector >= 32 {
    interrupt(vector, processor)
  } else {
    exception(vector, thread, processor)
  }
  return processor.leave()
}

/// An interrupt while the processor was idle.
@c(kernel_idle_interrupt)
public func kernelIdleInterrupt(_ vector: UInt64, _ processorAddress: UInt64) -> UInt64 {
  let processor = Reference<Processor>(trusted: processorAddress)
  interrupt(UInt8(truncatingIfNeeded: vector), processor)
  return processor.leave()
}

@inline(__always)
private func interrupt(_ vector: UInt8, _ processor: Reference<Processor>) {
  kernel.pointee.interrupts &+= 1
  if let interrupt = kernel.pointee.vectors[Int(vector)] {
    interrupt.deliver()
  } else if vector == Vector.timer {
    LocalController.endOfInterrupt()
    processor.timerExpired()
  } else if vector != Vector.spurious {
    // Reschedule and flush: what they ask for has been done on the way here, or is done on the way out. A device's late
    // interrupt after its object is gone needs no more either.
    LocalController.endOfInterrupt()
  }
}

private func exception(_ vector: UInt8, _ thread: Reference<Thread>, _ processor: Reference<Processor>) {
  if vector == 14 {
    kernel.pointee.pageFaults &+= 1
    if Paging.fault(thread, processor) { return }
  }
  if vector == 2 { return }
  if kernel.pointee.isProbing {
    // The boot probe: SYSCALL did not enter ring 0 but landed on LSTAR in ring 3, or is no instruction here.
    kernel.pointee.isProbing = false
    Boot.finish(entryKind: 1)
    return
  }
  if vector == 1 || vector == 3, kernel.pointee.underCastor, port_read8(0x604) & 1 != 0 {
    debug_trap(0x604, thread.framePointer, UInt32(vector))
    return
  }
  if Paging.exception(vector, thread, processor) { return }
  Report.fault(thread, vector)
  Objects.end(thread.pointee.process, status: .faulted(vector: vector), on: processor)
}

extension Reference<Thread> {
  /// The saved registers, for the VMM.
  var framePointer: UnsafeMutablePointer<trap_frame> {
    // A thread begins with its frame.
    UnsafeMutablePointer(bitPattern: UInt(address)).unsafelyUnwrapped
  }
}

/// A fault of the kernel itself: report and end the machine.
@c(kernel_fault)
public func kernelFault(_ frameAddress: UInt64, _ processor: UInt64) -> Never {
  let frame = Reference<trap_frame>(trusted: frameAddress)
  kernel.pointee.log.isUrgent = true
  Report.panic(frame)
  PowerControl.exit(101)
}
