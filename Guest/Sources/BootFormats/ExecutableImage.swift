// Reads the load segments of a static ELF64 program: System V ABI, "Object Files" and "Program Loading".

/// Why a program image is refused.
public enum ExecutableError: Error, Equatable, Sendable {
  case notAnExecutable
  /// Not ELF64, little endian, x86-64, ET_EXEC (a service in kernel space: ET_DYN).
  case wrongMachine
  case badProgramHeader
  /// A segment's file part lies outside the file, or is longer than its memory part.
  case segmentOutsideFile
  /// A segment is not page-congruent, wraps, or lies outside the range that programs may use.
  case badSegmentAddress
  case overlappingSegments
  /// The entry address is in no executable segment.
  case badEntry
  /// A relocation that is not relative, or not inside a writable segment's part of the file.
  case badRelocation
  /// The control-flow entry table is missing, damaged, or names an address outside the text.
  case badEntryTable
}

/// The load segments of a program, all checked: inside the file, inside the address range, not overlapping.
public struct ExecutableImage {
  /// One PT_LOAD segment.
  public struct Segment {
    /// Guest-virtual address and size in memory, in bytes.
    public let address: UInt64
    public let memorySize: UInt64
    public let fileOffset: Int
    /// The part of the segment that the file holds; the rest is zero.
    public let contents: Bytes
    public let isWritable: Bool
    public let isExecutable: Bool
  }

  private let file: Bytes
  private let headerOffset: Int
  private let headerSize: Int
  /// How many program headers there are.
  public let headerCount: Int
  /// Guest-virtual address of the first instruction.
  public let entry: UInt64

  /// Checks `file` as a program whose segments lie inside `range`; of type ET_DYN if its place `isChosenByLoader`.
  public init(_ file: Bytes, within range: Range<UInt64>, isChosenByLoader: Bool = false) throws(ExecutableError) {
    guard file.little(0, as: UInt32.self) == 0x464c_457f else { throw .notAnExecutable }
    guard file.byte(4) == 2, file.byte(5) == 1, file.little(16, as: UInt16.self) == (isChosenByLoader ? 3 : 2),
      file.little(18, as: UInt16.self) == 62
    else { throw .wrongMachine }
    guard let entry = file.little(24, as: UInt64.self), let offset = file.little(32, as: UInt64.self),
      let size = file.little(54, as: UInt16.self), let count = file.little(56, as: UInt16.self), size >= 56,
      offset <= UInt64(file.count), file.holds(Int(offset), Int(size) * Int(count))
    else { throw .badProgramHeader }
    self.file = file
    self.entry = entry
    headerOffset = Int(offset)
    headerSize = Int(size)
    headerCount = Int(count)
    try checkSegments(within: range)
  }

  private func checkSegments(within range: Range<UInt64>) throws(ExecutableError) {
    var entryIsExecutable = false
    var highest = range.lowerBound
    for index in 0..<headerCount {
      guard let segment = try segment(index) else { continue }
      let (end, overflow) = segment.address.addingReportingOverflow(segment.memorySize)
      guard !overflow, segment.address >= range.lowerBound, end <= range.upperBound,
        segment.address & 0xfff == UInt64(segment.fileOffset) & 0xfff
      else { throw .badSegmentAddress }
      // The ABI wants ascending order, which makes this test complete; pages must not be shared either.
      guard segment.address & ~0xfff >= highest else { throw .overlappingSegments }
      highest = (end + 0xfff) & ~0xfff
      if segment.isExecutable, entry >= segment.address, entry < end { entryIsExecutable = true }
    }
    guard entryIsExecutable else { throw .badEntry }
  }

  /// Place in the file and size of the first program header of a kind other than load, for instance PT_DYNAMIC.
  func part(kind wanted: UInt32) -> (offset: Int, size: Int)? {
    for index in 0..<headerCount {
      let header = headerOffset + index * headerSize
      guard file.little(header, as: UInt32.self) == wanted, let offset = file.little(header + 8, as: UInt64.self),
        let size = file.little(header + 32, as: UInt64.self), offset <= UInt64(file.count), size <= UInt64(file.count),
        file.holds(Int(offset), Int(size))
      else { continue }
      return (Int(offset), Int(size))
    }
    return nil
  }

  /// The `index`-th program header if it is a non-empty load segment.
  public func segment(_ index: Int) throws(ExecutableError) -> Segment? {
    let header = headerOffset + index * headerSize
    guard index >= 0, index < headerCount, let kind = file.little(header, as: UInt32.self),
      let flags = file.little(header + 4, as: UInt32.self), let offset = file.little(header + 8, as: UInt64.self),
      let address = file.little(header + 16, as: UInt64.self), let fileSize = file.little(header + 32, as: UInt64.self),
      let memorySize = file.little(header + 40, as: UInt64.self)
    else { throw .badProgramHeader }
    guard kind == 1, memorySize > 0 else { return nil }
    guard fileSize <= memorySize, offset <= UInt64(file.count), fileSize <= UInt64(file.count),
      let contents = file.slice(Int(offset), Int(fileSize))
    else { throw .segmentOutsideFile }
    return Segment(
      address: address, memorySize: memorySize, fileOffset: Int(offset), contents: contents, isWritable: flags & 2 != 0,
      isExecutable: flags & 1 != 0)
  }
}
