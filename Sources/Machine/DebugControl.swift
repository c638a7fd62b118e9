// How a debugger's wishes become KVM guest debugging: the control word, DR0–DR7, and the places where traps from ring 3
// are caught on hosts whose KVM does not see them (KVM_SET_GUEST_DEBUG; Intel SDM vol. 3, §18.2).

import CLinux
import GDBRemote
import GuestMemory
import KVM

/// What the host's KVM can do for a debugger.
struct DebugCapability: Sendable {
  /// Ring 0 is emulated: guest debugging does not reach ring 3, and `int3` in ring 0 is an emulation failure.
  var isEmulated: Bool
  /// Single-stepping can keep interrupts away (KVM_GUESTDBG_BLOCKIRQ).
  var blocksInterrupts: Bool

  init(system: KVMSystem) throws(KVMError) {
    isEmulated = try system.probeRingZero() == .emulated
    let flags = system.value(of: Capability("KVM_CAP_SET_GUEST_DEBUG2", KVM_CAP_SET_GUEST_DEBUG2))
    // The emulator leaves a vCPU halted in the middle of the interrupt that comes after such a step.
    blocksInterrupts = !isEmulated && flags & Int(KVM_GUESTDBG_BLOCKIRQ) != 0
  }

  /// Debug registers that are the user's: the emulated host needs two for ring 3.
  var userDebugRegisters: Int { isEmulated ? 2 : 4 }
}

/// The frame that #DB and #BP push in 64-bit mode (Intel SDM vol. 3, §6.14.2).
struct InterruptFrame {
  var rip: UInt64
  var cs: UInt64
  var rflags: UInt64
  var rsp: UInt64
  var ss: UInt64

  /// Whether the trap came from ring 3.
  var isFromUser: Bool { cs & 3 == 3 }
}

/// The settings of KVM_SET_GUEST_DEBUG for one vCPU.
struct DebugSettings: Equatable {
  var control = UInt32(KVM_GUESTDBG_ENABLE)
  var registers = [UInt64](repeating: 0, count: 8)
  private var used = 0

  /// Adds a hardware breakpoint or watchpoint; nothing happens when all four registers are taken.
  mutating func add(_ breakpoint: Breakpoint) {
    guard used < 4, let condition = Self.condition(of: breakpoint) else { return }
    registers[used] = breakpoint.address
    // Global enable, exact breakpoints, and the condition of the register.
    registers[7] |= 0x400 | 2 << (2 * UInt64(used)) | condition << (16 + 4 * UInt64(used))
    used += 1
    control |= UInt32(KVM_GUESTDBG_USE_HW_BP)
  }

  mutating func step(blockingInterrupts: Bool) {
    control |= UInt32(KVM_GUESTDBG_SINGLESTEP)
    if blockingInterrupts { control |= UInt32(KVM_GUESTDBG_BLOCKIRQ) }
  }

  /// The R/W and LEN bits of DR7, or nil for what debug registers cannot watch: reads alone, odd sizes, misaligned
  /// addresses.
  static func condition(of breakpoint: Breakpoint) -> UInt64? {
    let access: UInt64
    switch breakpoint.kind {
    case .software, .hardware: return 0
    case .writeWatch: access = 1
    case .accessWatch: access = 3
    case .readWatch: return nil
    }
    let lengths: [Int: UInt64] = [1: 0, 2: 1, 4: 3, 8: 2]
    guard let length = lengths[breakpoint.length], breakpoint.address % UInt64(breakpoint.length) == 0 else {
      return nil
    }
    return access | length << 2
  }
}

extension VirtualCPU {
  /// Whether the vCPU is in ring 3.
  var isInUserMode: Bool { systemRegisters.cs.selector & 3 == 3 }

  /// The vCPU's page tables at this moment.
  func pageWalk(in memory: GuestMemory) -> PageWalk {
    let system = systemRegisters
    return PageWalk(memory: memory, cr0: system.cr0, cr3: system.cr3, cr4: system.cr4, efer: system.efer)
  }

  func apply(_ settings: DebugSettings) throws(KVMError) {
    try setGuestDebug(control: settings.control, debugRegisters: settings.registers)
  }

  /// Where the guest's handler of a vector begins: the 64-bit gate in its IDT; nil before it has one.
  func handler(of vector: UInt64, in memory: GuestMemory) -> UInt64? {
    let table = systemRegisters.idt
    guard UInt64(table.limit) >= vector * 16 + 15, systemRegisters.efer >> 10 & 1 == 1,
      let low: UInt64 = load(table.base &+ vector * 16, memory),
      let high: UInt64 = load(table.base &+ vector * 16 &+ 8, memory), low >> 47 & 1 == 1
    else { return nil }
    return low & 0xffff | low >> 32 & 0xffff_0000 | high << 32
  }

  /// The frame at the top of the stack, when the vCPU is at the first instruction of a handler.
  func interruptFrame(in memory: GuestMemory) -> InterruptFrame? {
    let top = registers.rsp
    let words: [UInt64] = (0..<5 as Range<UInt64>).compactMap { load(top &+ $0 * 8, memory) }
    guard words.count == 5 else { return nil }
    return InterruptFrame(rip: words[0], cs: words[1], rflags: words[2], rsp: words[3], ss: words[4])
  }

  /// Returns from an interrupt without executing IRETQ: ring 3 goes on where `frame` says.
  func resumeUser(_ frame: InterruptFrame, in memory: GuestMemory) {
    var general = registers
    general.rip = frame.rip
    general.rflags = frame.rflags | 2
    general.rsp = frame.rsp
    registers = general
    var system = systemRegisters
    let isLong = descriptor(frame.cs, memory).map { $0 >> 53 & 1 == 1 } ?? true
    system.cs = Self.userSegment(selector: frame.cs, type: 11, isLong: isLong)
    system.ss = Self.userSegment(selector: frame.ss, type: 3, isLong: false)
    systemRegisters = system
  }

  private static func userSegment(selector: UInt64, type: UInt8, isLong: Bool) -> kvm_segment {
    var segment = kvm_segment()
    segment.limit = 0xffff_ffff
    segment.selector = UInt16(truncatingIfNeeded: selector)
    segment.type = type
    segment.present = 1
    segment.dpl = 3
    segment.s = 1
    segment.l = isLong ? 1 : 0
    segment.db = isLong ? 0 : 1
    segment.g = 1
    return segment
  }

  private func descriptor(_ selector: UInt64, _ memory: GuestMemory) -> UInt64? {
    let table = systemRegisters.gdt
    guard selector & 4 == 0, UInt64(table.limit) >= selector | 7 else { return nil }
    return load(table.base &+ (selector & 0xfff8), memory)
  }

  private func load<Value: FixedWidthInteger & BitwiseCopyable>(_ address: UInt64, _ memory: GuestMemory) -> Value? {
    guard let place = pageWalk(in: memory).translate(address) else { return nil }
    return try? memory.read(Value.self, at: place.physical)
  }
}
