// How a vCPU's registers, as KVM gives them, become the debugger's register file, and back.

import CLinux
import GDBRemote
import KVM

/// General register names beside the members of `kvm_regs` that hold them.
private let generalRegisters: [(Register, WritableKeyPath<kvm_regs, UInt64> & Sendable)] = [
  (.rax, \.rax), (.rbx, \.rbx), (.rcx, \.rcx), (.rdx, \.rdx), (.rsi, \.rsi), (.rdi, \.rdi), (.rbp, \.rbp),
  (.rsp, \.rsp), (.r8, \.r8), (.r9, \.r9), (.r10, \.r10), (.r11, \.r11), (.r12, \.r12), (.r13, \.r13), (.r14, \.r14),
  (.r15, \.r15), (.rip, \.rip), (.eflags, \.rflags),
]

private let segmentRegisters: [(Register, WritableKeyPath<kvm_sregs, kvm_segment> & Sendable)] = [
  (.cs, \.cs), (.ss, \.ss), (.ds, \.ds), (.es, \.es), (.fs, \.fs), (.gs, \.gs),
]

private let controlRegisters: [(Register, WritableKeyPath<kvm_sregs, UInt64> & Sendable)] = [
  (.fsBase, \.fs.base), (.gsBase, \.gs.base), (.cr0, \.cr0), (.cr2, \.cr2), (.cr3, \.cr3), (.cr4, \.cr4),
  (.cr8, \.cr8), (.efer, \.efer),
]

extension RegisterFile {
  mutating func take(_ general: kvm_regs, _ system: kvm_sregs) {
    for (register, member) in generalRegisters { self[register] = general[keyPath: member] }
    for (register, member) in segmentRegisters { self[register] = UInt64(system[keyPath: member].selector) }
    for (register, member) in controlRegisters { self[register] = system[keyPath: member] }
  }

  /// Puts general and control registers back.
  /// - Returns: false when a segment selector changed: only the guest can load descriptors.
  func give(_ general: inout kvm_regs, _ system: inout kvm_sregs) -> Bool {
    for (register, member) in segmentRegisters where self[register] != UInt64(system[keyPath: member].selector) {
      return false
    }
    for (register, member) in generalRegisters { general[keyPath: member] = self[register] }
    for (register, member) in controlRegisters { system[keyPath: member] = self[register] }
    return true
  }

  // The XSAVE area (Intel SDM vol. 1, §13.4): the FXSAVE image, the header with the mask of components that are not in
  // their initial state, and the upper halves of AVX at their standard place.
  private static let maskOffset = 512
  private static let upperHalvesOffset = 576
  private static let x87: UInt64 = 1
  private static let sse: UInt64 = 2
  private static let avx: UInt64 = 4

  private static let floatingPoint = (0..<8).compactMap { Register(rawValue: Register.st0.rawValue + $0) }
  private static let vectors = (0..<16).compactMap { Register(rawValue: Register.xmm0.rawValue + $0) }
  private static let upperHalves = (0..<16).compactMap { Register(rawValue: Register.ymm0h.rawValue + $0) }

  /// Takes x87, SSE and AVX state from an XSAVE area of at least 832 bytes.
  mutating func takeExtendedState(_ area: UnsafeRawBufferPointer) {
    let mask = area.loadUnaligned(fromByteOffset: Self.maskOffset, as: UInt64.self)
    let hasX87 = mask & Self.x87 != 0
    let hasSSE = mask & Self.sse != 0
    func word(_ offset: Int) -> UInt64 { UInt64(area.loadUnaligned(fromByteOffset: offset, as: UInt16.self)) }
    func long(_ offset: Int) -> UInt64 { area.loadUnaligned(fromByteOffset: offset, as: UInt64.self) }
    // A component in its initial state need not be in the area: FCW 0x37f, every x87 register empty, the rest zero.
    self[.fctrl] = hasX87 ? word(0) : 0x37f
    self[.fstat] = hasX87 ? word(2) : 0
    self[.fop] = hasX87 ? word(6) : 0
    self[.fioff] = hasX87 ? long(8) & 0xffff_ffff : 0
    self[.fiseg] = hasX87 ? long(8) >> 32 & 0xffff : 0
    self[.fooff] = hasX87 ? long(16) & 0xffff_ffff : 0
    self[.foseg] = hasX87 ? long(16) >> 32 & 0xffff : 0
    for (index, register) in Self.floatingPoint.enumerated() {
      let bytes = area[(32 + 16 * index)..<(42 + 16 * index)]
      setBytes(of: register, to: hasX87 ? Array(bytes) : [UInt8](repeating: 0, count: 10))
    }
    self[.ftag] = hasX87 ? fullTags(abridged: area[4]) : 0xffff
    // MXCSR is in the area whenever SSE or AVX is.
    self[.mxcsr] =
      mask & (Self.sse | Self.avx) != 0 ? UInt64(area.loadUnaligned(fromByteOffset: 24, as: UInt32.self)) : 0x1f80
    for (index, register) in Self.vectors.enumerated() {
      let bytes = area[(160 + 16 * index)..<(176 + 16 * index)]
      setBytes(of: register, to: hasSSE ? Array(bytes) : [UInt8](repeating: 0, count: 16))
    }
    guard hasAVX else { return }
    for (index, register) in Self.upperHalves.enumerated() {
      let start = Self.upperHalvesOffset + 16 * index
      setBytes(
        of: register,
        to: mask & Self.avx != 0 ? Array(area[start..<start + 16]) : [UInt8](repeating: 0, count: 16))
    }
  }

  /// Puts x87, SSE and AVX state into an XSAVE area, and marks it as present there.
  func giveExtendedState(_ area: UnsafeMutableRawBufferPointer) {
    func store(_ register: Register, _ offset: Int, _ count: Int) {
      for (index, byte) in bytes(of: register).prefix(count).enumerated() { area[offset + index] = byte }
    }
    store(.fctrl, 0, 2)
    store(.fstat, 2, 2)
    store(.fop, 6, 2)
    store(.fioff, 8, 4)
    store(.fiseg, 12, 2)
    store(.fooff, 16, 4)
    store(.foseg, 20, 2)
    area[4] = abridgedTags
    area[5] = 0
    for (index, register) in Self.floatingPoint.enumerated() { store(register, 32 + 16 * index, 10) }
    store(.mxcsr, 24, 4)
    for (index, register) in Self.vectors.enumerated() { store(register, 160 + 16 * index, 16) }
    var mask = area.loadUnaligned(fromByteOffset: Self.maskOffset, as: UInt64.self) | Self.x87 | Self.sse
    if hasAVX {
      for (index, register) in Self.upperHalves.enumerated() {
        store(register, Self.upperHalvesOffset + 16 * index, 16)
      }
      mask |= Self.avx
    }
    area.storeBytes(of: mask, toByteOffset: Self.maskOffset, as: UInt64.self)
  }

  /// FXSAVE keeps one bit a register, the tag word two: 0 valid, 1 zero, 2 special, 3 empty (SDM vol. 1, §10.5.1).
  private func fullTags(abridged: UInt8) -> UInt64 {
    let top = Int(self[.fstat] >> 11 & 7)
    var tags: UInt64 = 0
    for physical in 0..<8 {
      var tag: UInt64 = 3
      if abridged >> physical & 1 == 1 {
        let value = bytes(of: Self.floatingPoint[(physical - top) & 7])
        let bytes = Array(value)
        let exponent = (UInt64(bytes[9]) << 8 | UInt64(bytes[8])) & 0x7fff
        if exponent == 0 {
          tag = bytes.prefix(8).allSatisfy { $0 == 0 } ? 1 : 2
        } else {
          tag = exponent != 0x7fff && bytes[7] >> 7 == 1 ? 0 : 2
        }
      }
      tags |= tag << (2 * UInt64(physical))
    }
    return tags
  }

  private var abridgedTags: UInt8 {
    let tags = self[.ftag]
    return (0..<8).reduce(0) { $0 | (tags >> (2 * UInt64($1)) & 3 == 3 ? 0 : 1 << $1) }
  }
}
