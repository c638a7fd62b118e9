// Puts a vCPU into the state in which a boot plan wants it to start.

import CLinux
import KVM
import Loader

extension kvm_segment {
  init(_ segment: BootSegment) {
    self.init()
    base = segment.base
    limit = segment.limit
    selector = segment.selector
    type = segment.type
    present = 1
    s = segment.isCodeOrData ? 1 : 0
    l = segment.isLong ? 1 : 0
    db = segment.is32Bit ? 1 : 0
    g = segment.hasPageGranularity ? 1 : 0
  }
}

extension VirtualCPU {
  /// Sets registers, segments and control registers for the first instruction.
  func start(in state: BootState) throws(KVMError) {
    try refreshRegisters()
    var general = kvm_regs()
    general.rip = state.rip
    general.rbx = state.rbx
    general.rsi = state.rsi
    general.rflags = state.rflags
    var system = systemRegisters
    system.cr0 = state.cr0
    system.cr3 = state.cr3
    system.cr4 = state.cr4
    system.efer = state.efer
    system.gdt.base = state.gdtBase
    system.gdt.limit = state.gdtLimit
    system.idt.base = state.idtBase
    system.idt.limit = state.idtLimit
    system.cs = kvm_segment(state.code)
    let data = kvm_segment(state.data)
    system.ds = data
    system.es = data
    system.fs = data
    system.gs = data
    system.ss = data
    system.tr = kvm_segment(state.task)
    try setRegisters(general, system)
  }
}

/// The CPUID table of one vCPU: the host's, with the vCPU's own APIC ID (Intel SDM vol. 2, CPUID leaves 1, 0xb, 0x1f).
func cpuid(for index: Int, from supported: [kvm_cpuid_entry2], deadlineTimer: Bool) -> [kvm_cpuid_entry2] {
  supported.map { entry in
    var entry = entry
    switch entry.function {
    case 1:
      entry.ebx = entry.ebx & 0x00ff_ffff | UInt32(index) << 24
      // Hypervisor present; the deadline timer lives in KVM and is missing in the supported table.
      entry.ecx |= 1 << 31
      if deadlineTimer { entry.ecx |= 1 << 24 }
    case 0xb, 0x1f: entry.edx = UInt32(index)
    default: break
    }
    return entry
  }
}
