// Which byte sequences the text of a service for kernel space must not contain at any offset, so that no jump into the middle of an
// instruction finds them (after ERIM, USENIX Security '19, for WRPKRU): what changes protection-key rights, page tables, descriptor
// tables or the GS base. Encodings: Intel SDM vol. 2. Sequences of one byte (CLI, IN …) cannot be avoided like that.

/// Looks through the executable segments of an ELF64 file.
struct ByteCheck {
  private(set) var findings: [String] = []

  init(_ file: [UInt8]) {
    func word(_ offset: Int, _ size: Int) -> Int {
      guard offset >= 0, offset + size <= file.count else { return 0 }
      return file[offset..<offset + size].reversed().reduce(0) { $0 << 8 | Int($1) }
    }
    for index in 0..<word(56, 2) {
      let header = word(32, 8) + index * word(54, 2)
      guard word(header, 4) == 1, word(header + 4, 4) & 1 != 0 else { continue }
      let (offset, address, size) = (word(header + 8, 8), word(header + 16, 8), word(header + 32, 8))
      guard offset + size <= file.count else { continue }
      scan(file[offset..<offset + size], address: address)
    }
  }

  private mutating func scan(_ text: ArraySlice<UInt8>, address: Int) {
    for at in text.startIndex..<max(text.startIndex, text.endIndex - 2) where text[at] == 0x0f {
      if let name = Self.name(text[at + 1], text[at + 2]) {
        findings.append("\(name) at 0x\(String(address + at - text.startIndex, radix: 16))")
      }
    }
  }

  /// What begins with 0x0f and these bytes, if it is refused.
  static func name(_ second: UInt8, _ third: UInt8) -> String? {
    let isMemory = third < 0xc0
    let extensionField = third >> 3 & 7
    switch second {
    case 0x30: return "wrmsr"
    case 0x22: return "mov to a control register"
    case 0x23: return "mov to a debug register"
    case 0x07, 0x35: return "sysret or sysexit"
    case 0x00 where extensionField == 2 || extensionField == 3: return "lldt or ltr"
    case 0x01 where isMemory && (extensionField == 2 || extensionField == 3): return "lgdt or lidt"
    case 0x01 where third == 0xf8 || third == 0xef || third == 0xd1: return "swapgs, wrpkru or xsetbv"
    case 0xae where isMemory && extensionField == 5: return "xrstor"
    case 0xc7 where isMemory && extensionField == 3: return "xrstors"
    default: return nil
    }
  }
}
