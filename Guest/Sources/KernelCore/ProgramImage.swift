// Which segments an ELF program has (System V ABI, "Program Loading"), each checked against the file and the user's part of
// the address space.
import PolluxABI

/// A 64-bit ELF executable for x86-64 whose segments can be mapped in place.
public struct ProgramImage: ~Escapable {
  private let bytes: RawSpan
  public let entry: UInt64
  private let headers: Int
  public let segmentCount: Int

  /// One loadable segment; `address` and `fileOffset` are page-aligned.
  public struct Segment {
    public var address: UInt64
    public var fileOffset: UInt64
    public var fileSize: UInt64
    public var memorySize: UInt64
    public var protection: Protection
  }

  /// Nil if the file is not such a program.
  @_lifetime(copy bytes)
  public init?(_ bytes: RawSpan) {
    guard bytes.byteCount >= 64, Self.load(bytes, 0, UInt32.self) == 0x464c_457f,
      Self.load(bytes, 4, UInt16.self) == 0x0102, Self.load(bytes, 16, UInt16.self) == 2,
      Self.load(bytes, 18, UInt16.self) == 62, Self.load(bytes, 54, UInt16.self) == 56
    else { return nil }
    let headers = Self.load(bytes, 32, UInt64.self)
    let count = Int(Self.load(bytes, 56, UInt16.self))
    guard headers & 7 == 0, headers <= UInt64(bytes.byteCount), count * 56 <= bytes.byteCount - Int(headers) else {
      return nil
    }
    self.bytes = bytes
    self.headers = Int(headers)
    entry = Self.load(bytes, 24, UInt64.self)
    segmentCount = count
  }

  // unsafeLoad checks bounds and alignment; every bit pattern is a value of an integer type.
  private static func load<Value: FixedWidthInteger & BitwiseCopyable>(
    _ bytes: RawSpan, _ offset: Int, _: Value.Type
  ) -> Value {
    bytes.unsafeLoad(fromByteOffset: offset, as: Value.self)
  }

  /// The `index`-th program header if it is loadable and not empty. `badArgument` if it cannot be mapped in place.
  public func segment(_ index: Int) throws(SystemError) -> Segment? {
    let header = headers + index * 56
    guard index >= 0, index < segmentCount else { throw .badArgument }
    guard Self.load(bytes, header, UInt32.self) == 1 else { return nil }
    let flags = Self.load(bytes, header + 4, UInt32.self)
    let segment = Segment(
      address: Self.load(bytes, header + 16, UInt64.self),
      fileOffset: Self.load(bytes, header + 8, UInt64.self),
      fileSize: Self.load(bytes, header + 32, UInt64.self),
      memorySize: Self.load(bytes, header + 40, UInt64.self),
      protection: Protection(rawValue: UInt64(flags >> 2 & 1 | flags & 2 | (flags & 1) << 2)))
    if segment.memorySize == 0 { return nil }
    let size = UInt64(bytes.byteCount)
    guard segment.address & 4095 == 0, segment.address >= AddressSpace.userStart,
      segment.address < AddressSpace.userEnd, segment.memorySize <= AddressSpace.userEnd - segment.address,
      segment.fileSize <= segment.memorySize, segment.fileOffset <= size,
      segment.fileSize <= size - segment.fileOffset,
      segment.fileSize == 0 || segment.fileOffset & 4095 == 0,
      !segment.protection.contains([.write, .execute]),
      // What follows the contents in the file must not show in the program's zero-initialised memory.
      segment.memorySize == segment.fileSize || segment.fileSize & 4095 == 0
    else { throw .badArgument }
    return segment
  }
}
