// Which byte sequences the text of a service for kernel space must not contain at any offset, so that no jump into the middle of an
// instruction finds them (after ERIM, USENIX Security '19, for WRPKRU): what changes protection-key rights, page tables, descriptor
// tables or the GS base. Encodings: Intel SDM vol. 2. Sequences of one byte (CLI, IN …) cannot be avoided like that.

/// Looks through the executable segments of an ELF64 file.
struct ByteCheck {
  /// The file, which `mend` changes.
  private(set) var file: [UInt8]
  /// Offsets in the file of what is refused.
  private(set) var offsets: [Int] = []
  private var segments: [Segment] = []

  /// An executable segment: a range of the file, and the address of its first byte.
  private struct Segment {
    let range: Range<Int>
    let address: Int
    func address(of offset: Int) -> Int { offset - range.lowerBound + address }
  }

  init(_ file: [UInt8]) {
    self.file = file
    func word(_ offset: Int, _ size: Int) -> Int {
      guard offset >= 0, offset + size <= file.count else { return 0 }
      return file[offset..<offset + size].reversed().reduce(0) { $0 << 8 | Int($1) }
    }
    for index in 0..<word(56, 2) {
      let header = word(32, 8) + index * word(54, 2)
      guard word(header, 4) == 1, word(header + 4, 4) & 1 != 0 else { continue }
      let (offset, address, size) = (word(header + 8, 8), word(header + 16, 8), word(header + 32, 8))
      guard offset + size <= file.count else { continue }
      segments.append(Segment(range: offset..<offset + size, address: address))
    }
    scan()
  }

  var findings: [String] {
    offsets.map { offset in
      let address = segments.first { $0.range.contains(offset) }?.address(of: offset) ?? 0
      return "\(Self.name(file[offset + 1], file[offset + 2]) ?? "") at 0x\(String(address, radix: 16))"
    }
  }

  private mutating func scan() {
    offsets = []
    for segment in segments {
      offsets += segment.range.dropLast(2).filter { at in
        file[at] == 0x0f && Self.name(file[at + 1], file[at + 2]) != nil
      }
    }
  }

  /// Bytes that the linker script keeps free at the end of the text.
  private static let roomForStubs = 512

  /// What is refused mostly lies in the distance of a jump or call. Such an instruction is led to its target by way of a jump in the room
  /// at the end of the text, so that it has another distance. `instructions` are the addresses of all instructions in the text.
  mutating func mend(_ instructions: [Int]) {
    for segment in segments {
      let starts = Set(instructions.map { $0 - segment.address + segment.range.lowerBound })
      var stub = max(segment.range.lowerBound, segment.range.upperBound - Self.roomForStubs)
      // Mended before.
      while stub + 5 <= segment.range.upperBound, file[stub] == 0xe9 { stub += 5 }
      while let refused = offsets.first(where: segment.range.contains) {
        guard let start = (max(segment.range.lowerBound, refused - 5)...refused).last(where: starts.contains),
          let end = jumpEnd(start), refused < end
        else { return }
        let target = end + distance(end)
        while true {
          guard stub + 5 <= segment.range.upperBound, file[stub] == 0xcc else { return }
          file[stub] = 0xe9
          setDistance(stub + 5, to: target)
          setDistance(end, to: stub)
          stub += 5
          let before = offsets
          scan()
          if offsets.allSatisfy(before.contains), !offsets.contains(refused) { break }
          // Refused bytes in one of the new distances: this room stays unused.
          setDistance(end, to: target)
          file.replaceSubrange(stub - 5..<stub, with: [UInt8](repeating: 0x90, count: 5))
          scan()
        }
      }
    }
  }

  /// The end of the instruction at an offset if it is a jump, a conditional jump or a call with a distance of four bytes.
  private func jumpEnd(_ start: Int) -> Int? {
    if file[start] == 0xe8 || file[start] == 0xe9 { return start + 5 }
    return file[start] == 0x0f && file[start + 1] & 0xf0 == 0x80 ? start + 6 : nil
  }

  private func distance(_ end: Int) -> Int {
    Int(Int32(truncatingIfNeeded: file[end - 4..<end].reversed().reduce(0) { $0 << 8 | Int($1) }))
  }

  private mutating func setDistance(_ end: Int, to target: Int) {
    for byte in 0..<4 { file[end - 4 + byte] = UInt8(truncatingIfNeeded: (target - end) >> (8 * byte)) }
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
