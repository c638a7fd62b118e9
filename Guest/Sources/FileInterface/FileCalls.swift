// The calls of the file service: what the words of a message to it mean, for its clients and for itself (§4.3).
//
// Paths and data lie in pages that the caller grants for the time of the call: a path at their start, a second one right behind it; data
// that is read or written at their start. Word 0 of a reply is 0 or a `FileError`.

/// Number of a call; word 0 of the message.
public enum FileCall: UInt64, Sendable {
  /// With the client's process (right: observe), whose open files are closed when it ends. To be called before `open`.
  case hello = 0
  /// Length of the path, `OpenFlags`, permissions → handle.
  case open = 1
  /// Handle.
  case close = 2
  /// Handle, offset, count → count.
  case read = 3
  /// Handle, offset, count → count.
  case write = 4
  /// Handle, cursor, room → bytes used, next cursor. Entries as `DirectoryRecord` reads them.
  case readDirectory = 5
  /// Length of the path, 1 to follow a link at its end → attributes (`FileAttributes.words`).
  case attributes = 6
  /// Handle → attributes.
  case attributesOfOpen = 7
  /// Handle, size.
  case truncate = 8
  /// Length of the path, permissions.
  case makeDirectory = 9
  /// Length of the path.
  case removeDirectory = 10
  case unlink = 11
  /// Lengths of the old and the new path.
  case rename = 12
  case link = 13
  /// Lengths of the path and of the link's text.
  case makeLink = 14
  /// Length of the path → length of the link's text, which replaces the path.
  case readLink = 15
  /// Length of the path, permissions.
  case setPermissions = 16
  /// Index → block size | 1 << 63 if read-only, blocks, free blocks, inodes, free inodes, length of the path, which lies in the
  /// granted pages.
  case mounted = 17
  case sync = 18
  /// From the service to itself: bits of clients that have ended.
  case clientsEnded = 19
  /// → of the page cache: capacity, used, changed pages, hits, misses, pages written (`PageCacheReport`); `unsupported` without one.
  case cache = 20
}

/// How a file is opened; bits of a message word.
public struct OpenFlags: OptionSet, Sendable {
  public let rawValue: UInt64
  public init(rawValue: UInt64) { self.rawValue = rawValue }
  public static let read = OpenFlags(rawValue: 1)
  public static let write = OpenFlags(rawValue: 2)
  /// Makes the file if it is not there.
  public static let create = OpenFlags(rawValue: 4)
  /// With `create`: it must not be there.
  public static let exclusive = OpenFlags(rawValue: 8)
  /// Cuts the file to no length; needs `write`.
  public static let truncate = OpenFlags(rawValue: 16)
  /// Writes go to the end, whatever offset they name.
  public static let append = OpenFlags(rawValue: 32)
  /// Only a directory is opened.
  public static let directory = OpenFlags(rawValue: 64)
}

extension FileAttributes {
  /// Six words for a message.
  public var words: InlineArray<6, UInt64> {
    [
      UInt64(inode) | UInt64(kind.rawValue) << 32 | UInt64(permissions) << 48, size, UInt64(links), sectors,
      UInt64(accessed) | UInt64(modified) << 32, UInt64(changed),
    ]
  }

  /// What `words` says; nil for an unknown kind.
  public init?(words: InlineArray<6, UInt64>) {
    guard let kind = FileKind(rawValue: UInt8(truncatingIfNeeded: words[0] >> 32)) else { return nil }
    self.init(
      inode: UInt32(truncatingIfNeeded: words[0]), kind: kind, permissions: UInt16(truncatingIfNeeded: words[0] >> 48),
      size: words[1], links: UInt32(truncatingIfNeeded: words[2]), sectors: words[3],
      accessed: UInt32(truncatingIfNeeded: words[4]), modified: UInt32(truncatingIfNeeded: words[4] >> 32),
      changed: UInt32(truncatingIfNeeded: words[5]))
  }
}

/// Entries of a directory one behind the other: the inode (4 bytes), the kind, the length of the name (1 byte each), the name.
public enum DirectoryRecord {
  /// Bytes before the name.
  public static let head = 6

  /// Appends an entry at `offset`; the offset behind it, or nil if it does not fit.
  public static func put(_ entry: DirectoryEntry, at offset: Int, in area: ByteArea) -> Int? {
    let end = offset + head + entry.name.count
    guard entry.name.count <= 255, end <= area.count else { return nil }
    area.store(entry.inode, at: offset)
    area.store(entry.kind.rawValue, at: offset + 4)
    area.store(UInt8(entry.name.count), at: offset + 5)
    for index in entry.name.indices { area.store(entry.name[index], at: offset + head + index) }
    return end
  }

  /// The entry at `offset`, which moves behind it; nil at the end or where there is no entry.
  public static func take(at offset: inout Int, from area: ByteArea) -> DirectoryEntry? {
    guard offset >= 0, offset <= area.count - head,
      let kind = FileKind(rawValue: area.load8(offset + 4))
    else { return nil }
    let length = Int(area.load8(offset + 5))
    guard length <= area.count - head - offset else { return nil }
    let name = area.slice(offset + head, length).bytes.array
    let inode = area.load32(offset)
    offset += head + length
    return DirectoryEntry(inode: inode, kind: kind, name: name)
  }
}
