// Reads the boot archive in place: POSIX.1-1988 ustar, the form that `tar --format=ustar` writes.

/// An archive read where it lies. Damage ends the walk early; nothing outside the archive is ever read.
public struct TapeArchive {
  private let bytes: Bytes

  /// A regular file of the archive.
  public struct File {
    /// Path inside the archive, without a leading `./`.
    public let name: Bytes
    public let contents: Bytes
    /// Offset of the contents from the start of the archive, in bytes.
    public let offset: Int
  }

  public init(_ bytes: Bytes) { self.bytes = bytes }

  /// Whether the archive starts with a ustar header.
  public var isArchive: Bool { bytes.slice(257, 5)?.equals("ustar") ?? false }

  private static func octal(_ field: Bytes) -> Int? {
    var value = 0
    var digits = 0
    var index = 0
    while let character = field.byte(index) {
      if character == 0x20 && digits == 0 {
        index += 1
        continue
      }
      guard character >= 0x30, character <= 0x37 else { break }
      value = value << 3 | Int(character - 0x30)
      digits += 1
      index += 1
    }
    return digits == 0 ? nil : value
  }

  /// Calls `body` for each regular file, in order, until it answers false. Alignment fillers (`.align`) are skipped.
  public func forEachFile(_ body: (File) -> Bool) {
    var offset = 0
    while let header = bytes.slice(offset, 512), header.byte(0) != 0 {
      guard header.slice(257, 5)?.equals("ustar") ?? false, let sizeField = header.slice(124, 12),
        let size = Self.octal(sizeField), let contents = bytes.slice(offset + 512, size),
        let nameField = header.slice(0, 100)
      else { return }
      var name = nameField.upToZero
      if name.starts(with: "./") { name = name.suffix(from: 2) ?? name }
      let kind = header.byte(156) ?? 0
      if kind == 0x30 || kind == 0, !Self.isFiller(name) {
        if !body(File(name: name, contents: contents, offset: offset + 512)) { return }
      }
      offset += 512 + (size + 511) & ~511
    }
  }

  private static func isFiller(_ name: Bytes) -> Bool {
    name.starts(with: ".align") || name.equals("")
  }

  /// The file named `name`.
  public func file(_ name: Bytes) -> File? {
    var found: File?
    forEachFile { candidate in
      if candidate.name.equals(name) { found = candidate }
      return found == nil
    }
    return found
  }
}
