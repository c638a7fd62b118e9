// Prints the report on a vCPU that cannot go on, after what the guest itself has said.

import CLinux
import Devices
import Glibc
import GuestMemory
import HostSystem
import KVM
import Loader

extension Machine {
  /// Writes the report to standard error. On the vCPU's thread.
  func reportCrash(_ exit: Exit, on thread: ProcessorThread) {
    // The guest's last words first: they are on their way to the console.
    let deadline = monotonicNanoseconds() + 100_000_000
    while serial.pendingOutput > 0, monotonicNanoseconds() < deadline { usleep(1000) }
    let text = crashReport(exit, of: thread.processor).text
    _ = text.withCString { write(2, $0, strlen($0)) }
  }

  private func crashReport(_ exit: Exit, of processor: VirtualCPU) -> CrashReport {
    let registers = processor.registers
    let walk = processor.pageWalk(in: memory)
    func read(_ address: UInt64) -> UInt64? {
      // A word never crosses a page when it is aligned; one that is not is nothing that we look for.
      guard address % 8 == 0, let page = walk.translate(address) else { return nil }
      return try? memory.read(UInt64.self, at: page.physical)
    }
    let frames = CrashReport.walk(rip: registers.rip, rbp: registers.rbp, read: read)
    var instruction: [UInt8] = []
    if case .internalError(_, _, let bytes) = exit { instruction = bytes }
    if instruction.isEmpty {
      for offset in 0..<15 as Range<UInt64> {
        guard let page = walk.translate(registers.rip &+ offset),
          let byte = try? memory.read(UInt8.self, at: page.physical)
        else { break }
        instruction.append(byte)
      }
    }
    var stack: [UInt64] = []
    let top = registers.rsp & ~7
    for index in 0..<UInt64(CrashReport.stackWords) {
      guard let word = read(top &+ index * 8) else { break }
      stack.append(word)
    }
    // A return address lies behind its call, which may be the last instruction of a function.
    let places = frames.enumerated().map { $0.offset == 0 ? $0.element : $0.element &- 1 }
    let symbols = configuration.kernel.map { SymbolTable(path: $0).nearest(to: places) } ?? []
    return CrashReport(
      processor: processor.index, cause: describe(exit, registers), registers: registers,
      system: processor.systemRegisters, instruction: instruction,
      disassembly: disassemble(instruction, at: registers.rip), frames: frames, stack: stack, symbols: symbols)
  }

  private func describe(_ exit: Exit, _ registers: kvm_regs) -> String {
    let place = "at 0x\(String(registers.rip, radix: 16))"
    return switch exit {
    case .shutdown: "triple fault \(place)"
    case .internalError(_, _, let bytes) where !bytes.isEmpty: "KVM cannot emulate the instruction \(place)"
    case .internalError(let suberror, _, _): "KVM internal error \(suberror) \(place)"
    case .entryFailure(let reason): "the processor refused to enter the guest (0x\(String(reason, radix: 16)))"
    case .debug(let address, _, _): "unexpected debug exit at 0x\(String(address, radix: 16))"
    case .systemEvent(let type): "system event \(type)"
    case .unknown(let reason): "unknown exit \(reason)"
    default: "\(exit)"
    }
  }
}
