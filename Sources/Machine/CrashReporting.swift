// What is printed when a vCPU cannot go on.

import Glibc
import KVM

extension Machine {
  /// Writes the report to standard error.
  func reportCrash(_ exit: Exit, on thread: ProcessorThread) {
    let registers = thread.processor.registers
    let system = thread.processor.systemRegisters
    func hex(_ value: UInt64) -> String {
      let digits = String(value, radix: 16)
      return String(repeating: "0", count: 16 - digits.count) + digits
    }
    var text = "castor: vCPU \(thread.processor.index) cannot go on: \(describe(exit))\n"
    text += "rip \(hex(registers.rip))  rflags \(hex(registers.rflags))  cs \(String(system.cs.selector, radix: 16))\n"
    text +=
      "rax \(hex(registers.rax))  rbx \(hex(registers.rbx))  rcx \(hex(registers.rcx))  rdx \(hex(registers.rdx))\n"
    text +=
      "rsi \(hex(registers.rsi))  rdi \(hex(registers.rdi))  rbp \(hex(registers.rbp))  rsp \(hex(registers.rsp))\n"
    text += "r8  \(hex(registers.r8))  r9  \(hex(registers.r9))  r10 \(hex(registers.r10))  r11 \(hex(registers.r11))\n"
    text +=
      "r12 \(hex(registers.r12))  r13 \(hex(registers.r13))  r14 \(hex(registers.r14))  r15 \(hex(registers.r15))\n"
    text += "cr0 \(hex(system.cr0))  cr2 \(hex(system.cr2))  cr3 \(hex(system.cr3))  cr4 \(hex(system.cr4))\n"
    _ = text.withCString { write(2, $0, strlen($0)) }
  }

  private func describe(_ exit: Exit) -> String {
    switch exit {
    case .shutdown: "triple fault"
    case .internalError(_, _, let bytes) where !bytes.isEmpty:
      "KVM cannot emulate the instruction " + bytes.map { String($0, radix: 16) }.joined(separator: " ")
    case .internalError(let suberror, _, _): "KVM internal error \(suberror)"
    case .entryFailure(let reason): "the processor refused to enter the guest (0x\(String(reason, radix: 16)))"
    case .debug(let address, _, _): "unexpected debug exit at 0x\(String(address, radix: 16))"
    case .systemEvent(let type): "system event \(type)"
    case .unknown(let reason): "unknown exit \(reason)"
    default: "\(exit)"
    }
  }
}
