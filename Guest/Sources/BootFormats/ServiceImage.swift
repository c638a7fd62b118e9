// Reads the image of a service in kernel space (HongMeng §4.2): a program as in ExecutableImage.swift, but placed by its loader, with the
// relative relocations that needs (System V ABI x86-64, R_X86_64_RELATIVE) and its control-flow entry table, a note (owner
// "Pollux", type 1) of 32-bit offsets, each from its own place.

/// A checked service image; addresses are from the start of the service's window.
public struct ServiceImage {
  public let program: ExecutableImage
  private let file: Bytes
  /// The relocations' place in the file, and how many there are.
  private let relocations: Int
  public let relocationCount: Int
  /// The entry table's place in the file.
  private let entries: (offset: Int, address: UInt64)
  public let entryCount: Int

  /// Checks `file` as a service whose segments lie inside `range`.
  public init(_ file: Bytes, within range: Range<UInt64>) throws(ExecutableError) {
    self.file = file
    program = try ExecutableImage(file, within: range, isChosenByLoader: true)
    (relocations, relocationCount) = try Self.findRelocations(file, program)
    guard let note = program.part(kind: 4), note.size >= 24, file.little(note.offset, as: UInt32.self) == 7,
      let size = file.little(note.offset + 4, as: UInt32.self), size % 4 == 0, size > 0,
      file.little(note.offset + 8, as: UInt32.self) == 1, file.slice(note.offset + 12, 6)?.equals("Pollux") == true,
      Int(size) <= note.size - 20, let address = Self.address(of: note.offset + 20, in: program)
    else { throw .badEntryTable }
    entries = (note.offset + 20, address)
    entryCount = Int(size) / 4
    for index in 0..<relocationCount { _ = try relocation(index) }
    for index in 0..<entryCount { _ = try entry(index) }
  }

  /// DT_RELA (7) and DT_RELASZ (8) of the dynamic section.
  private static func findRelocations(
    _ file: Bytes, _ program: ExecutableImage
  ) throws(ExecutableError) -> (Int, Int) {
    guard let dynamic = program.part(kind: 2) else { return (0, 0) }
    var address: UInt64 = 0
    var size: UInt64 = 0
    var at = 0
    while at + 16 <= dynamic.size, let tag = file.little(dynamic.offset + at, as: UInt64.self), tag != 0,
      let value = file.little(dynamic.offset + at + 8, as: UInt64.self)
    {
      if tag == 7 { address = value }
      if tag == 8 { size = value }
      at += 16
    }
    if size == 0 { return (0, 0) }
    for index in 0..<program.headerCount {
      guard let segment = try program.segment(index), address >= segment.address else { continue }
      let offset = address - segment.address
      if offset <= UInt64(segment.contents.count), size <= UInt64(segment.contents.count) - offset, size % 24 == 0 {
        return (segment.fileOffset + Int(offset), Int(size / 24))
      }
    }
    throw .badRelocation
  }

  private static func address(of fileOffset: Int, in program: ExecutableImage) -> UInt64? {
    for index in 0..<program.headerCount {
      guard let segment = try? program.segment(index), fileOffset >= segment.fileOffset,
        fileOffset < segment.fileOffset + segment.contents.count
      else { continue }
      return segment.address + UInt64(fileOffset - segment.fileOffset)
    }
    return nil
  }

  /// The `index`-th relocation: the 64-bit word at `address` becomes the window's start plus `value`.
  public func relocation(_ index: Int) throws(ExecutableError) -> (address: UInt64, value: UInt64) {
    let at = relocations + index * 24
    guard index >= 0, index < relocationCount, let address = file.little(at, as: UInt64.self),
      file.little(at + 8, as: UInt64.self) == 8, let value = file.little(at + 16, as: UInt64.self)
    else { throw .badRelocation }
    for header in 0..<program.headerCount {
      guard let segment = try program.segment(header), segment.isWritable, address >= segment.address else { continue }
      let offset = address - segment.address
      if segment.contents.count >= 8, offset <= UInt64(segment.contents.count - 8) { return (address, value) }
    }
    throw .badRelocation
  }

  /// The `index`-th address of the control-flow entry table; it lies in executable memory.
  public func entry(_ index: Int) throws(ExecutableError) -> UInt64 {
    guard index >= 0, index < entryCount, let raw = file.little(entries.offset + index * 4, as: UInt32.self) else {
      throw .badEntryTable
    }
    let offset = Int64(Int32(bitPattern: raw))
    let address = entries.address &+ UInt64(index) * 4 &+ UInt64(bitPattern: offset)
    for header in 0..<program.headerCount {
      guard let segment = try program.segment(header), segment.isExecutable, address >= segment.address,
        address - segment.address < UInt64(segment.contents.count)
      else { continue }
      return address
    }
    throw .badEntryTable
  }
}
