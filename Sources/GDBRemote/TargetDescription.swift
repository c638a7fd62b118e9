// What target.xml says: the registers of an x86-64 vCPU in gdb's description language (GDB manual, appendix "Target
// Descriptions"). The numbers follow `Register`, so the document and the `g` packet cannot disagree.

enum TargetDescription {
  /// The document that `qXfer:features:read:target.xml` returns.
  static func document(hasAVX: Bool) -> String {
    var text = """
      <?xml version="1.0"?>
      <!DOCTYPE target SYSTEM "gdb-target.dtd">
      <target version="1.0">
      <architecture>i386:x86-64</architecture>
      <osabi>none</osabi>

      """
    text += feature("org.gnu.gdb.i386.core", .rax, .fop, types: flags("i386_eflags", size: 4, eflagsBits))
    text += feature("org.gnu.gdb.i386.sse", .xmm0, .mxcsr, types: vectorTypes + flags("i386_mxcsr", size: 4, mxcsrBits))
    text += feature("org.gnu.gdb.i386.segments", .fsBase, .gsBase)
    text += feature(
      "org.castor.x86.control", .kernelGSBase, .efer,
      types: flags("castor_cr0", size: 8, cr0Bits) + flags("castor_cr4", size: 8, cr4Bits)
        + flags("castor_efer", size: 8, eferBits))
    if hasAVX { text += feature("org.gnu.gdb.i386.avx", .ymm0h, .ymm15h) }
    return text + "</target>\n"
  }

  private static func feature(_ name: String, _ first: Register, _ last: Register, types: String = "") -> String {
    let registers = Register.allCases[first.rawValue...last.rawValue].map { register in
      "<reg name=\"\(register.name)\" bitsize=\"\(register.size * 8)\" type=\"\(type(of: register))\""
        + " regnum=\"\(register.rawValue)\"\(group(of: register))/>\n"
    }
    return "<feature name=\"\(name)\">\n\(types)\(registers.joined())</feature>\n"
  }

  private static func type(of register: Register) -> String {
    switch register {
    case .rsp, .rbp, .fsBase, .gsBase, .kernelGSBase, .cr2: "data_ptr"
    case .rip: "code_ptr"
    case .eflags: "i386_eflags"
    case .mxcsr: "i386_mxcsr"
    case .cr0: "castor_cr0"
    case .cr4: "castor_cr4"
    case .efer: "castor_efer"
    case .cr3, .cr8: "uint64"
    default:
      switch register.rawValue {
      case Register.st0.rawValue...Register.st7.rawValue: "i387_ext"
      case Register.xmm0.rawValue...Register.xmm15.rawValue: "vec128"
      case Register.ymm0h.rawValue...Register.ymm15h.rawValue: "uint128"
      default: register.size == 4 ? "int32" : "int64"
      }
    }
  }

  private static func group(of register: Register) -> String {
    switch register.rawValue {
    case Register.st0.rawValue...Register.fop.rawValue: " group=\"float\""
    case Register.mxcsr.rawValue: " group=\"vector\""
    case Register.kernelGSBase.rawValue...Register.efer.rawValue: " group=\"system\""
    default: ""
    }
  }

  private static func flags(_ identifier: String, size: Int, _ bits: [(String, Int)]) -> String {
    let fields = bits.map { name, bit in
      "<field name=\"\(name)\" start=\"\(bit)\" end=\"\(bit)\"/>\n"
    }
    return "<flags id=\"\(identifier)\" size=\"\(size)\">\n\(fields.joined())</flags>\n"
  }

  /// The 128-bit union that gdb's SSE feature prescribes.
  private static let vectorTypes: String = {
    let vectors: [(name: String, element: String, count: Int)] = [
      ("v4_float", "ieee_single", 4), ("v2_double", "ieee_double", 2), ("v16_int8", "int8", 16),
      ("v8_int16", "int16", 8), ("v4_int32", "int32", 4), ("v2_int64", "int64", 2),
    ]
    let definitions = vectors.map { "<vector id=\"\($0.name)\" type=\"\($0.element)\" count=\"\($0.count)\"/>\n" }
    let fields = vectors.map { "<field name=\"\($0.name)\" type=\"\($0.name)\"/>\n" }
    return definitions.joined() + "<union id=\"vec128\">\n" + fields.joined()
      + "<field name=\"uint128\" type=\"uint128\"/>\n</union>\n"
  }()

  // Intel SDM, vol. 1, §3.4.3 (EFLAGS) and §10.2.3 (MXCSR); vol. 3, §2.5 (control registers) and §2.2.1 (EFER).
  private static let eflagsBits = [
    ("CF", 0), ("PF", 2), ("AF", 4), ("ZF", 6), ("SF", 7), ("TF", 8), ("IF", 9), ("DF", 10), ("OF", 11), ("NT", 14),
    ("RF", 16), ("VM", 17), ("AC", 18), ("VIF", 19), ("VIP", 20), ("ID", 21),
  ]
  private static let mxcsrBits = [
    ("IE", 0), ("DE", 1), ("ZE", 2), ("OE", 3), ("UE", 4), ("PE", 5), ("DAZ", 6), ("IM", 7), ("DM", 8), ("ZM", 9),
    ("OM", 10), ("UM", 11), ("PM", 12), ("FZ", 15),
  ]
  private static let cr0Bits = [
    ("PE", 0), ("MP", 1), ("EM", 2), ("TS", 3), ("ET", 4), ("NE", 5), ("WP", 16), ("AM", 18), ("NW", 29), ("CD", 30),
    ("PG", 31),
  ]
  private static let cr4Bits = [
    ("VME", 0), ("PVI", 1), ("TSD", 2), ("DE", 3), ("PSE", 4), ("PAE", 5), ("MCE", 6), ("PGE", 7), ("PCE", 8),
    ("OSFXSR", 9), ("OSXMMEXCPT", 10), ("UMIP", 11), ("LA57", 12), ("VMXE", 13), ("FSGSBASE", 16), ("PCIDE", 17),
    ("OSXSAVE", 18), ("SMEP", 20), ("SMAP", 21), ("PKE", 22), ("PKS", 24),
  ]
  private static let eferBits = [("SCE", 0), ("LME", 8), ("LMA", 10), ("NXE", 11)]
}
