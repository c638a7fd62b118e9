// What is said about a fault: registers, and for the kernel's own the return addresses, which a symboliser turns into names.
import CArch
import KernelCore
import PolluxABI

enum Report {
  private static func name(_ vector: UInt8) -> StaticString {
    switch vector {
    case 0: "divide error"
    case 1: "debug"
    case 3: "breakpoint"
    case 5: "bound range"
    case 6: "invalid opcode"
    case 7: "no floating point"
    case 8: "double fault"
    case 10: "invalid task state"
    case 11: "segment not present"
    case 12: "stack fault"
    case 13: "general protection"
    case 14: "page fault"
    case 16: "x87 error"
    case 17: "alignment check"
    case 18: "machine check"
    case 19: "SIMD error"
    case 21: "control protection"
    default: "exception"
    }
  }

  private static func word(_ label: StaticString, _ value: UInt64) {
    Say.text(label)
    Say.hex(value)
  }

  private static func registers(_ frame: trap_frame) {
    word("  rip ", frame.rip)
    word(" cs ", frame.cs)
    word(" rflags ", frame.rflags)
    word("\n  rsp ", frame.rsp)
    word(" error ", frame.error)
    word(" cr2 ", fault_address())
    word("\n  rax ", frame.rax)
    word(" rbx ", frame.rbx)
    word(" rcx ", frame.rcx)
    word("\n  rdx ", frame.rdx)
    word(" rsi ", frame.rsi)
    word(" rdi ", frame.rdi)
    word("\n  rbp ", frame.rbp)
    word(" r8  ", frame.r8)
    word(" r9  ", frame.r9)
    word("\n  r10 ", frame.r10)
    word(" r11 ", frame.r11)
    word(" r12 ", frame.r12)
    word("\n  r13 ", frame.r13)
    word(" r14 ", frame.r14)
    word(" r15 ", frame.r15)
    Say.newline()
  }

  /// A process does not survive an exception.
  static func fault(_ thread: Reference<Thread>, _ vector: UInt8) {
    Say.text("process ")
    Say.decimal(UInt64(thread.pointee.process.pointee.identifier))
    Say.text(" (")
    Say.name(thread.pointee.process.pointee.name)
    Say.text(thread.pointee.process.pointee.space.mechanism.faultLabel)
    Say.text(" thread ")
    Say.decimal(UInt64(thread.pointee.identifier))
    Say.text(": ")
    Say.text(name(vector))
    Say.newline()
    registers(thread.pointee.frame)
    trace(thread.pointee.frame.rip, thread.pointee.frame.rbp) { address in
      guard let bytes = try? UserBytes(thread.pointee.process, address, 8),
        let (place, count) = try? bytes.run(at: 0, forWriting: false), count == 8
      else { return nil }
      return load64(place)
    }
  }

  /// The kernel does not survive its own.
  static func panic(_ frame: Reference<trap_frame>) {
    Say.text("\nKernel panic: ")
    Say.text(name(UInt8(truncatingIfNeeded: frame.pointee.vector)))
    Say.text(" on processor ")
    Say.decimal(UInt64(Scheduler.currentProcessor().pointee.index))
    Say.newline()
    registers(frame.pointee)
    let blocks = address_of_cpu_blocks()
    let end = blocks + UInt64(CPU_SIZE) * UInt64(CPU_LIMIT)
    trace(frame.pointee.rip, frame.pointee.rbp) { address in
      address >= blocks && address < end ? load64(address) : nil
    }
  }

  /// Return addresses along the chain of frame pointers. `read` gives a word of the stack if it can be read.
  private static func trace(_ start: UInt64, _ frame: UInt64, read: (UInt64) -> UInt64?) {
    Say.text("Backtrace:\n")
    var frame = frame
    word("  ", start)
    Say.newline()
    for _ in 0..<32 {
      guard frame & 7 == 0, frame != 0, let next = read(frame), let address = read(frame &+ 8), address != 0 else {
        break
      }
      word("  ", address)
      Say.newline()
      guard next > frame else { break }
      frame = next
    }
  }
}

extension IsolationMechanism {
  /// Behind the process's name in the report of its fault.
  fileprivate var faultLabel: StaticString {
    switch self {
    case .best, .userMode: ")"
    case .protectionKeys: ", domain in kernel space, protection keys)"
    case .pageTable: ", domain in kernel space, page table)"
    case .none: ", in the kernel's domain)"
    }
  }
}
