// An ELF kernel: its headers checked, its notes found, its segments put into guest memory.
// System V ABI, chapters 4 and 5; x86-64 psABI; Xen's docs/misc/pvh (note Xen/18).

import GuestMemory

/// The parts of an x86-64 ELF executable that a loader needs.
struct ELFKernel {
  /// A PT_LOAD segment.
  struct Segment: Equatable {
    let fileOffset: UInt64
    let fileCount: UInt64
    /// Guest-physical address.
    let address: UInt64
    /// Where the segment is linked to run (guest-virtual).
    let virtualAddress: UInt64
    let memoryCount: UInt64
  }

  private(set) var segments: [Segment] = []
  /// From note Xen/18: where a PVH guest starts in 32-bit protected mode (guest-physical).
  private(set) var pvhEntry: UInt64?
  /// From note Castor/1: where the guest starts in long mode (guest-physical).
  private(set) var castorEntry: UInt64?

  /// More program headers than any kernel has.
  private static let programHeaderLimit = 128
  /// More bytes of notes than any kernel has.
  private static let noteLimit: UInt64 = 1 << 20

  static let magic: [UInt8] = [0x7f, 0x45, 0x4c, 0x46]

  /// Checks the headers of `file` and finds segments and notes. Loads nothing.
  init(file: borrowing LoadableFile) throws(LoaderError) {
    let header = try ELFHeader(file: file)
    guard header.kind == 2 else {
      throw file.failure(.notAnX8664Kernel("ELF type \(header.kind), not an executable with fixed addresses"))
    }
    guard header.programHeaderCount > 0 else { throw file.failure(.malformed("no program headers")) }
    guard header.programHeaderCount <= Self.programHeaderLimit else {
      throw file.failure(.malformed("\(header.programHeaderCount) program headers"))
    }
    guard header.programHeaderSize == 56 else {
      throw file.failure(.malformed("program header size \(header.programHeaderSize)"))
    }
    let table = try file.bytes(
      at: header.programHeaderOffset, count: header.programHeaderCount * 56, part: "the program headers")
    for index in 0..<header.programHeaderCount {
      let base = index * 56
      let offset: UInt64 = table.integer(base + 8)
      let fileCount: UInt64 = table.integer(base + 32)
      switch table.integer(base, as: UInt32.self) {
      case 1:
        let segment = Segment(
          fileOffset: offset, fileCount: fileCount, address: table.integer(base + 24),
          virtualAddress: table.integer(base + 16), memoryCount: table.integer(base + 40))
        guard segment.fileCount <= segment.memoryCount else {
          throw file.failure(.malformed("segment \(segments.count) has more bytes in the file than in memory"))
        }
        guard offset <= file.count, fileCount <= file.count - offset else {
          throw file.failure(.truncated(part: "segment \(segments.count)"))
        }
        if segment.memoryCount > 0 { segments.append(segment) }
      case 4:
        try findNotes(in: file, at: offset, count: fileCount, alignment: table.integer(base + 48))
      default: break
      }
    }
    guard !segments.isEmpty else { throw file.failure(.malformed("nothing to load")) }
  }

  /// Walks the notes of one PT_NOTE segment.
  private mutating func findNotes(in file: borrowing LoadableFile, at offset: UInt64, count: UInt64, alignment: UInt64)
    throws(LoaderError)
  {
    guard count <= Self.noteLimit else { throw file.failure(.malformed("\(count) bytes of notes")) }
    let notes = try file.bytes(at: offset, count: Int(count), part: "the notes")
    let unit = alignment == 8 ? 8 : 4
    var position = 0
    while position + 12 <= notes.bytes.count {
      // Both sizes are 32-bit, so these sums cannot overflow.
      let nameCount = Int(notes.integer(position, as: UInt32.self))
      let descriptorCount = Int(notes.integer(position + 4, as: UInt32.self))
      let kind: UInt32 = notes.integer(position + 8)
      let name = position + 12
      let descriptor = (name + nameCount + unit - 1) / unit * unit
      guard descriptor + descriptorCount <= notes.bytes.count else {
        throw file.failure(.malformed("a note extends beyond its segment"))
      }
      let owner = notes.bytes[name..<(name + nameCount)]
      if owner.elementsEqual("Xen\0".utf8), kind == 18 {
        pvhEntry = try entry(notes, descriptor, descriptorCount, note: "Xen/18", file: file)
      } else if owner.elementsEqual("Castor\0".utf8), kind == 1 {
        castorEntry = try entry(notes, descriptor, descriptorCount, note: "Castor/1", file: file)
      }
      position = (descriptor + descriptorCount + unit - 1) / unit * unit
    }
  }

  private func entry(
    _ notes: FileBytes, _ offset: Int, _ count: Int, note: String, file: borrowing LoadableFile
  ) throws(LoaderError) -> UInt64 {
    switch count {
    case 4: return UInt64(notes.integer(offset, as: UInt32.self))
    case 8: return notes.integer(offset)
    default: throw file.failure(.malformed("note \(note) of \(count) bytes"))
    }
  }

  /// Puts the segments into guest memory, whose bytes behind the file's part are zero already.
  func load(file: borrowing LoadableFile, memory: GuestMemory, placement: inout Placement) throws(LoaderError) {
    for (index, segment) in segments.enumerated() {
      try placement.claim("segment \(index)", at: segment.address, count: segment.memoryCount, path: file.path)
    }
    for (index, segment) in segments.enumerated() {
      let part = "segment \(index)"
      try file.load(part, at: segment.fileOffset, count: segment.fileCount, to: segment.address, memory: memory)
    }
  }

  /// Whether an entry address lies in a loaded segment.
  func contains(_ address: UInt64) -> Bool {
    segments.contains { address >= $0.address && address - $0.address < $0.memoryCount }
  }
}

/// The fields of an ELF64 header for x86-64.
struct ELFHeader {
  let kind: UInt16
  let programHeaderOffset: UInt64
  let programHeaderSize: Int
  let programHeaderCount: Int
  let sectionHeaderOffset: UInt64
  let sectionHeaderSize: Int
  let sectionHeaderCount: Int

  init(file: borrowing LoadableFile) throws(LoaderError) {
    let header = try file.bytes(at: 0, count: 64, part: "the ELF header")
    guard header.bytes.starts(with: ELFKernel.magic) else { throw file.failure(.unknownFormat) }
    guard header.bytes[4] == 2 else { throw file.failure(.notAnX8664Kernel("32-bit ELF")) }
    guard header.bytes[5] == 1 else { throw file.failure(.notAnX8664Kernel("big-endian ELF")) }
    let machine: UInt16 = header.integer(18)
    guard machine == 62 else { throw file.failure(.notAnX8664Kernel("ELF machine \(machine)")) }
    kind = header.integer(16)
    programHeaderOffset = header.integer(32)
    sectionHeaderOffset = header.integer(40)
    programHeaderSize = Int(header.integer(54, as: UInt16.self))
    programHeaderCount = Int(header.integer(56, as: UInt16.self))
    sectionHeaderSize = Int(header.integer(58, as: UInt16.self))
    sectionHeaderCount = Int(header.integer(60, as: UInt16.self))
  }
}

extension LoadableFile {
  /// Reads a piece of the file straight into guest memory.
  func load(_ part: String, at offset: UInt64, count: UInt64, to address: UInt64, memory: GuestMemory)
    throws(LoaderError)
  {
    guard count > 0 else { return }
    let target: UnsafeMutableRawBufferPointer
    do {
      target = try memory.buffer(at: GuestAddress(address), count: count)
    } catch {
      throw failure(.outsideMemory(part: part, range: address..<(address &+ count)))
    }
    try read(into: target, at: offset, part: part)
  }
}
