// What every file system offers to the VFS (§4.3): inodes by number, names in directories, whole pages of data.

@_exported import BootFormats

/// What a file is; the numbers are those of ext2's directory entries.
public enum FileKind: UInt8, Sendable {
  case file = 1
  case directory = 2
  case characterDevice = 3
  case blockDevice = 4
  case pipe = 5
  case socket = 6
  case link = 7

  /// The upper four bits of a Unix mode.
  public var modeBits: UInt16 {
    switch self {
    case .file: 0x8000
    case .directory: 0x4000
    case .characterDevice: 0x2000
    case .blockDevice: 0x6000
    case .pipe: 0x1000
    case .socket: 0xc000
    case .link: 0xa000
    }
  }

  /// The kind in a Unix mode; nil for a mode that means none.
  public init?(mode: UInt16) {
    switch mode & 0xf000 {
    case 0x8000: self = .file
    case 0x4000: self = .directory
    case 0x2000: self = .characterDevice
    case 0x6000: self = .blockDevice
    case 0x1000: self = .pipe
    case 0xc000: self = .socket
    case 0xa000: self = .link
    default: return nil
    }
  }
}

/// Attributes of an inode.
public struct FileAttributes: Equatable, Sendable {
  public var inode: UInt32
  public var kind: FileKind
  /// The lower twelve bits of the mode.
  public var permissions: UInt16
  /// Length in bytes.
  public var size: UInt64
  /// Names that the inode has.
  public var links: UInt32
  /// Space in units of 512 bytes.
  public var sectors: UInt64
  /// Seconds since 1970.
  public var accessed: UInt32
  public var modified: UInt32
  public var changed: UInt32

  public init(
    inode: UInt32, kind: FileKind, permissions: UInt16, size: UInt64, links: UInt32, sectors: UInt64 = 0,
    accessed: UInt32 = 0, modified: UInt32 = 0, changed: UInt32 = 0
  ) {
    self.inode = inode
    self.kind = kind
    self.permissions = permissions
    self.size = size
    self.links = links
    self.sectors = sectors
    self.accessed = accessed
    self.modified = modified
    self.changed = changed
  }
}

/// Space of a file system.
public struct FileSystemSpace: Equatable, Sendable {
  /// Bytes of a block.
  public var blockSize: UInt32
  public var blocks: UInt64
  public var freeBlocks: UInt64
  public var inodes: UInt64
  public var freeInodes: UInt64
  public var isReadOnly: Bool

  public init(
    blockSize: UInt32, blocks: UInt64, freeBlocks: UInt64, inodes: UInt64, freeInodes: UInt64, isReadOnly: Bool
  ) {
    self.blockSize = blockSize
    self.blocks = blocks
    self.freeBlocks = freeBlocks
    self.inodes = inodes
    self.freeInodes = freeInodes
    self.isReadOnly = isReadOnly
  }
}

/// One entry of a directory as `readDirectory` tells it.
public struct DirectoryEntry: Sendable {
  public var inode: UInt32
  public var kind: FileKind
  public var name: [UInt8]

  public init(inode: UInt32, kind: FileKind, name: [UInt8]) {
    self.inode = inode
    self.kind = kind
    self.name = name
  }
}

/// A disk, or what looks like one, in bytes. Offsets and lengths are multiples of 512.
public protocol BlockStore: AnyObject {
  var byteCount: UInt64 { get }
  var isReadOnly: Bool { get }
  /// Reads `area.count` bytes at `offset`.
  func read(_ offset: UInt64, into area: ByteArea) throws(FileError)
  /// Writes all of `area` at `offset`; durable after the next `flush`.
  func write(_ offset: UInt64, from area: ByteArea) throws(FileError)
  /// All that was written before is on stable storage when this returns.
  func flush() throws(FileError)
}

/// A file system. Used by one thread at a time; the VFS holds a lock around every call.
public protocol FileSystem: AnyObject {
  var root: UInt32 { get }
  /// Seconds since 1970, for timestamps; the owner sets it before operations.
  var now: UInt32 { get set }
  var space: FileSystemSpace { get }

  func attributes(_ inode: UInt32) throws(FileError) -> FileAttributes
  /// The length in bytes alone.
  func size(_ inode: UInt32) throws(FileError) -> UInt64
  func lookup(_ directory: UInt32, _ name: Bytes) throws(FileError) -> UInt32
  func parent(of directory: UInt32) throws(FileError) -> UInt32
  /// The entry at `cursor` (0 at first), which moves on; nil at the end. `.` and `..` are left out.
  func readDirectory(_ directory: UInt32, _ cursor: inout UInt64) throws(FileError) -> DirectoryEntry?

  /// Makes a regular file, pipe, socket or, with `makeDirectory`, a directory.
  func create(_ directory: UInt32, _ name: Bytes, kind: FileKind, permissions: UInt16) throws(FileError) -> UInt32
  func makeLink(_ directory: UInt32, _ name: Bytes, target: Bytes) throws(FileError) -> UInt32
  func readLink(_ inode: UInt32) throws(FileError) -> [UInt8]
  func link(_ inode: UInt32, _ directory: UInt32, _ name: Bytes) throws(FileError)
  /// Removes a name that is no directory's.
  func unlink(_ directory: UInt32, _ name: Bytes) throws(FileError)
  func removeDirectory(_ directory: UInt32, _ name: Bytes) throws(FileError)
  func rename(_ from: UInt32, _ name: Bytes, to: UInt32, _ newName: Bytes) throws(FileError)
  func setPermissions(_ inode: UInt32, _ permissions: UInt16) throws(FileError)

  /// What stands behind the node of a device; `unsupported` where nothing does.
  func openDevice(_ inode: UInt32) throws(FileError) -> any DeviceNode

  /// Keeps the inode alive without a name until `release`.
  func retain(_ inode: UInt32)
  func release(_ inode: UInt32) throws(FileError)

  /// Sets the length; what is cut off is freed, what is added reads as zeros.
  func setSize(_ inode: UInt32, _ size: UInt64) throws(FileError)
  /// Makes room for `count` bytes at `offset` and extends the length to their end, so that writing them back cannot fail for
  /// lack of space. Until they are written back, what is read there is not defined.
  func reserve(_ inode: UInt32, _ offset: UInt64, _ count: Int) throws(FileError)
  /// Fills `area` with the data at `offset`; holes and what lies behind the end are zeros.
  func readData(_ inode: UInt32, _ offset: UInt64, into area: ByteArea) throws(FileError)
  /// Writes all of `area` at any `offset`, with new blocks where there are none.
  func writeData(_ inode: UInt32, _ offset: UInt64, from area: ByteArea) throws(FileError)
  /// Writes back data at `offset`, a multiple of the page size: the parts of `area` for which there is room.
  func writeBack(_ inode: UInt32, _ offset: UInt64, from area: ByteArea) throws(FileError)

  /// Everything done before is on stable storage when this returns.
  func sync() throws(FileError)
}

extension FileSystem {
  public func openDevice(_ inode: UInt32) throws(FileError) -> any DeviceNode { throw .unsupported }
}

/// A file system that can have changed pages of its files kept elsewhere.
public protocol PagedFileSystem: FileSystem {
  /// Called before every sync, also those that the file system does by itself; it may call `writeBack`.
  var beforeSync: (() throws(FileError) -> Void)? { get set }
}

/// What the cache holds and has done since the start.
public struct PageCacheReport: Equatable, Sendable {
  /// Pages of 4 KiB: all, those with data, and those that differ from the disk.
  public var capacity: UInt64 = 0
  public var used: UInt64 = 0
  public var dirty: UInt64 = 0
  /// Pages that were found here, and that were not.
  public var hits: UInt64 = 0
  public var misses: UInt64 = 0
  /// Pages written back.
  public var written: UInt64 = 0

  public init() {}
}
