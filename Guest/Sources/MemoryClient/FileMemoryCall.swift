// The calls of the service that is file system, memory manager or both (docs/composition.md).

/// Operations of the service: word 0 of a call. Word 0 of the reply is 0, a `FileError`, or `FileMemoryCall.refused`.
public enum FileMemoryCall: UInt64 {
  /// Passes a memory object of the client, size in word 1: where data travels from now on.
  case attachBuffer = 0
  /// Name in words 1–2, made anew if there is one → inode in word 1.
  case create = 1
  /// Inode, offset, count: writes from the buffer's start.
  case write = 2
  /// Inode, offset, count: reads into the buffer's start.
  case read = 3
  /// Passes the client's process with the right to manage it, whose faults in mappings are served from now on.
  case attachProcess = 4
  /// Inode, address, pages: maps the file there, read-only.
  case map = 5
  /// Takes all mappings of the client out, and forgets what the page cache holds.
  case dropMappings = 6
  /// → pages in use by files in word 1, by the page cache in word 2.
  case usage = 7
  /// Between the parts: inode, index, page of the cache object: copies the file's page there.
  case fetch = 8
  /// Between the parts: inode, first page, pages: the file has changed.
  case changed = 9
  /// Between the parts: passes the page cache's memory, pages in word 1.
  case attachCache = 10

  /// The kernel refuses what the call needs.
  public static let refused: UInt64 = 1 << 32
}
