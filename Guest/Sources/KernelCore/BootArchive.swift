// Where a file lies in the boot archive (ustar, IEEE 1003.1 pax; docs/platform.md).

public enum BootArchive {
  /// Offset and size of the contents of the file with this name; nil if the archive has none, or is malformed before it.
  public static func find(_ name: StaticString, in archive: RawSpan) -> (offset: Int, size: Int)? {
    var header = 0
    while header + 512 <= archive.byteCount, byte(archive, header) != 0 {
      guard let size = octal(archive, at: header + 124, digits: 11) else { return nil }
      let contents = header + 512
      guard size <= archive.byteCount - contents else { return nil }
      if matches(archive, header, name) { return (contents, size) }
      header = contents + (size + 511) & ~511
    }
    return nil
  }

  // unsafeLoad checks its bounds; it is unsafe only for types that not every bit pattern is a value of.
  private static func byte(_ archive: RawSpan, _ offset: Int) -> UInt8 {
    archive.unsafeLoad(fromByteOffset: offset, as: UInt8.self)
  }

  private static func matches(_ archive: RawSpan, _ offset: Int, _ name: StaticString) -> Bool {
    name.withUTF8Buffer { text in
      for index in 0..<text.count where byte(archive, offset + index) != text[index] { return false }
      return byte(archive, offset + text.count) == 0
    }
  }

  private static func octal(_ archive: RawSpan, at offset: Int, digits: Int) -> Int? {
    var value = 0
    for index in 0..<digits {
      let digit = byte(archive, offset + index)
      if digit == 0 || digit == 0x20 { break }
      guard digit >= 0x30, digit < 0x38 else { return nil }
      value = value << 3 | Int(digit - 0x30)
    }
    return value
  }
}
