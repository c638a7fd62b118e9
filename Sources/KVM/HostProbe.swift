// Finds out, by trying, whether this host's KVM runs ring 0 natively or emulates it one instruction at a time.

import CLinux
import Glibc

/// How the host's KVM executes guest ring 0.
public enum RingZero: String, Sendable {
  /// By the processor (VT-x, AMD-V).
  case native
  /// By KVM's instruction emulator, at about a microsecond an instruction.
  case emulated
}

extension KVMSystem {
  /// Runs POPCNT in ring 0 of a throw-away machine: processors have executed it since 2008, KVM's emulator does not know
  /// it. The machine needs two pages and lives for some milliseconds.
  public func probeRingZero() throws(KVMError) -> RingZero {
    let machine = try VirtualMachine(system: self)
    let count = 0x4000
    let memory = mmap(nil, count, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
    guard let memory, memory != MAP_FAILED else { throw .missingCapability("memory for a probe") }
    defer { munmap(memory, count) }
    // popcnt %eax, %eax; out %al, $0xf4; hlt
    let code: [UInt8] = [0xf3, 0x0f, 0xb8, 0xc0, 0xe6, 0xf4, 0xf4]
    memory.copyMemory(from: code, byteCount: code.count)
    try machine.setMemory(slot: 0, address: 0x1000, count: UInt64(count), host: memory, readOnly: false)
    let processor = try VirtualCPU(machine: machine, index: 0, cpuid: try supportedCPUID())
    try processor.refreshRegisters()
    var system = processor.systemRegisters
    var general = kvm_regs()
    // 32-bit protected mode without paging: flat segments, CPL 0.
    var flat = kvm_segment()
    flat.limit = 0xffff_ffff
    flat.present = 1
    flat.s = 1
    flat.db = 1
    flat.g = 1
    flat.type = 3
    flat.selector = 16
    system.ds = flat
    system.es = flat
    system.ss = flat
    flat.type = 11
    flat.selector = 8
    system.cs = flat
    system.cr0 |= 1
    general.rip = 0x1000
    general.rflags = 2
    try processor.setRegisters(general, system)
    switch try processor.run() {
    case .io: return .native
    default: return .emulated
    }
  }
}
