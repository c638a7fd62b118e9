// The report on a vCPU that cannot go on: what happened, where, and how the guest got there.

import CLinux
import Glibc
import KVM
import Loader

/// A vCPU at the moment of its failure, as text for a person.
struct CrashReport {
  /// Most stack frames that are shown.
  static let maximumFrames = 32
  /// Words of the stack that are shown.
  static let stackWords = 8

  let processor: Int
  let cause: String
  let registers: kvm_regs
  let system: kvm_sregs
  /// The bytes at RIP; empty where they cannot be read.
  let instruction: [UInt8]
  /// The instructions at RIP in words; empty where nothing could disassemble them.
  let disassembly: [String]
  /// Return addresses, the innermost, RIP itself, first.
  let frames: [UInt64]
  /// What lies at RSP and above it.
  let stack: [UInt64]
  /// For every frame the function that it lies in.
  let symbols: [SymbolMatch?]

  /// The report, several lines, each with its end.
  var text: String {
    var lines = ["castor: vCPU \(processor) cannot go on: \(cause)"]
    lines += registerLines
    if instruction.isEmpty {
      lines.append("no instruction can be read at rip")
    } else {
      lines.append("instruction bytes: " + instruction.map { Self.hex(UInt64($0), 2) }.joined(separator: " "))
      lines += disassembly.map { "  " + $0 }
    }
    lines.append("backtrace:")
    for (index, frame) in frames.enumerated() {
      lines.append("  #\(index)  \(Self.hex(frame))\(index < symbols.count ? Self.place(frame, symbols[index]) : "")")
    }
    if !stack.isEmpty {
      lines.append("stack at rsp:")
      for start in stride(from: 0, to: stack.count, by: 4) {
        let words = stack[start..<min(stack.count, start + 4)].map { Self.hex($0) }
        lines.append("  \(Self.hex(registers.rsp &+ UInt64(start) * 8)): " + words.joined(separator: " "))
      }
    }
    return lines.joined(separator: "\n") + "\n"
  }

  private var registerLines: [String] {
    let rows: [[(String, UInt64)]] = [
      [("rax", registers.rax), ("rbx", registers.rbx), ("rcx", registers.rcx), ("rdx", registers.rdx)],
      [("rsi", registers.rsi), ("rdi", registers.rdi), ("rbp", registers.rbp), ("rsp", registers.rsp)],
      [("r8 ", registers.r8), ("r9 ", registers.r9), ("r10", registers.r10), ("r11", registers.r11)],
      [("r12", registers.r12), ("r13", registers.r13), ("r14", registers.r14), ("r15", registers.r15)],
      [("rip", registers.rip), ("rfl", registers.rflags), ("efr", system.efer), ("apb", system.apic_base)],
      [("cr0", system.cr0), ("cr2", system.cr2), ("cr3", system.cr3), ("cr4", system.cr4)],
    ]
    var lines = rows.map { row in row.map { "\($0.0) \(Self.hex($0.1))" }.joined(separator: "  ") }
    let segments = [
      ("cs", system.cs), ("ss", system.ss), ("ds", system.ds), ("es", system.es), ("fs", system.fs), ("gs", system.gs),
      ("tr", system.tr),
    ]
    lines.append(
      segments.map { "\($0.0) \(Self.hex(UInt64($0.1.selector), 4))" }.joined(separator: "  ")
        + "  ring \(system.cs.selector & 3)")
    lines.append(
      "fs base \(Self.hex(system.fs.base))  gs base \(Self.hex(system.gs.base))  tr base \(Self.hex(system.tr.base))")
    lines.append(
      "gdt \(Self.hex(system.gdt.base)) limit \(Self.hex(UInt64(system.gdt.limit), 4))  "
        + "idt \(Self.hex(system.idt.base)) limit \(Self.hex(UInt64(system.idt.limit), 4))")
    return lines
  }

  private static func place(_ address: UInt64, _ symbol: SymbolMatch?) -> String {
    guard let symbol else { return "" }
    return "  \(symbol.demangledName) + 0x\(String(address &- symbol.address, radix: 16))"
  }

  static func hex(_ value: UInt64, _ digits: Int = 16) -> String {
    let text = String(value, radix: 16)
    return String(repeating: "0", count: max(0, digits - text.utf8.count)) + text
  }

  /// Follows saved frame pointers (System V ABI for x86-64, §3.2.2) from `rbp`. Stops at a frame that cannot be read, that
  /// does not lie above the one before it, or that returns to zero; so a damaged stack cannot make it run on.
  /// - Parameter read: eight bytes at a guest-virtual address, nil where nothing is mapped.
  static func walk(rip: UInt64, rbp: UInt64, read: (UInt64) -> UInt64?) -> [UInt64] {
    var frames = [rip]
    var frame = rbp
    while frames.count < maximumFrames, frame != 0, frame % 8 == 0,
      let next = read(frame), let address = read(frame &+ 8), address != 0
    {
      frames.append(address)
      guard next > frame else { break }
      frame = next
    }
    return frames
  }
}
