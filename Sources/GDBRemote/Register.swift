// Which x86-64 registers a debugger sees, in which order and size: the layout of the `g` packet, which target.xml
// describes to gdb (GDB manual, "Standard Target Features", "i386 Features").

/// A register of a vCPU. The raw value is the register's number in the remote protocol.
public enum Register: Int, CaseIterable, Sendable {
  // org.gnu.gdb.i386.core
  case rax, rbx, rcx, rdx, rsi, rdi, rbp, rsp
  case r8, r9, r10, r11, r12, r13, r14, r15
  case rip, eflags, cs, ss, ds, es, fs, gs
  case st0, st1, st2, st3, st4, st5, st6, st7
  case fctrl, fstat, ftag, fiseg, fioff, foseg, fooff, fop
  // org.gnu.gdb.i386.sse
  case xmm0, xmm1, xmm2, xmm3, xmm4, xmm5, xmm6, xmm7
  case xmm8, xmm9, xmm10, xmm11, xmm12, xmm13, xmm14, xmm15
  case mxcsr
  // org.gnu.gdb.i386.segments
  case fsBase, gsBase
  // Control registers: a feature of our own.
  case kernelGSBase, cr0, cr2, cr3, cr4, cr8, efer
  // org.gnu.gdb.i386.avx, only where the target has AVX
  case ymm0h, ymm1h, ymm2h, ymm3h, ymm4h, ymm5h, ymm6h, ymm7h
  case ymm8h, ymm9h, ymm10h, ymm11h, ymm12h, ymm13h, ymm14h, ymm15h

  /// Size in bytes.
  public var size: Int {
    switch rawValue {
    case Register.eflags.rawValue...Register.gs.rawValue: 4
    case Register.st0.rawValue...Register.st7.rawValue: 10
    case Register.fctrl.rawValue...Register.fop.rawValue: 4
    case Register.xmm0.rawValue...Register.xmm15.rawValue: 16
    case Register.mxcsr.rawValue: 4
    case Register.ymm0h.rawValue...Register.ymm15h.rawValue: 16
    default: 8
    }
  }

  /// The name that gdb shows.
  public var name: String {
    switch self {
    case .fsBase: "fs_base"
    case .gsBase: "gs_base"
    case .kernelGSBase: "k_gs_base"
    default: "\(self)"
    }
  }

  /// Registers that a target without AVX has.
  static let countWithoutAVX = Register.ymm0h.rawValue

  /// Offset of each register in the `g` packet, and the total at the end.
  static let offsets: [Int] = {
    var offsets: [Int] = []
    var next = 0
    for register in allCases {
      offsets.append(next)
      next += register.size
    }
    return offsets + [next]
  }()
}

/// The registers of one vCPU, as the bytes of a `g` packet (each register little-endian).
public struct RegisterFile: Equatable, Sendable {
  /// Whether the upper halves of the AVX registers are part of it.
  public let hasAVX: Bool
  /// The values one after the other, in the order of `Register`.
  public private(set) var bytes: [UInt8]

  /// All registers zero.
  public init(hasAVX: Bool = false) {
    self.hasAVX = hasAVX
    bytes = [UInt8](repeating: 0, count: Self.byteCount(hasAVX: hasAVX))
  }

  static func byteCount(hasAVX: Bool) -> Int {
    Register.offsets[hasAVX ? Register.allCases.count : Register.countWithoutAVX]
  }

  /// Whether the file holds this register.
  public func contains(_ register: Register) -> Bool { hasAVX || register.rawValue < Register.countWithoutAVX }

  private func range(of register: Register) -> Range<Int> {
    let start = Register.offsets[register.rawValue]
    return start..<start + register.size
  }

  /// A register of up to 64 bits, zero-extended. For wider ones the low 64 bits; zero for one that the file lacks.
  /// Setting drops the bits that do not fit.
  public subscript(register: Register) -> UInt64 {
    get {
      guard contains(register) else { return 0 }
      return bytes[range(of: register).prefix(8)].reversed().reduce(0) { $0 << 8 | UInt64($1) }
    }
    set {
      guard contains(register) else { return }
      var value = newValue
      for index in range(of: register) {
        bytes[index] = UInt8(truncatingIfNeeded: value)
        value >>= 8
      }
    }
  }

  /// The bytes of a register, little-endian; empty for one that the file lacks.
  public func bytes(of register: Register) -> ArraySlice<UInt8> {
    contains(register) ? bytes[range(of: register)] : []
  }

  /// Replaces a register's bytes.
  /// - Returns: false, and nothing changed, when the count is not the register's size.
  @discardableResult
  public mutating func setBytes(of register: Register, to new: some Collection<UInt8>) -> Bool {
    guard contains(register), new.count == register.size else { return false }
    bytes.replaceSubrange(range(of: register), with: new)
    return true
  }

  /// Replaces all registers.
  /// - Returns: false, and nothing changed, when the count is not the file's.
  @discardableResult
  public mutating func setAllBytes(to new: [UInt8]) -> Bool {
    guard new.count == bytes.count else { return false }
    bytes = new
    return true
  }
}
