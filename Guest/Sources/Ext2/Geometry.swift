// Where things lie on an ext2 disk, as its superblock claims and as far as that can be believed.
//
// Source for the format: "The Second Extended File System, Internal Layout" (D. Poirier), chapters "Superblock" and "Block
// Group Descriptor Table"; numbers are little endian.

@_exported import FileInterface

/// Why a disk cannot be mounted.
public enum Ext2MountError: Error, Equatable, Sendable {
  /// No superblock with ext2's magic number.
  case notExt2
  /// Features without whose knowledge the disk must not even be read (`feature_incompat`).
  case incompatibleFeatures(UInt32)
  /// A number of the superblock or of a group descriptor makes no sense; which one, by its byte offset.
  case badNumber(offset: Int)
  /// The consistency check could not mend the disk.
  case checkFailed(FileError)
  case inputOutput(FileError)
}

/// Features that a superblock names.
public enum Ext2Feature {
  /// Incompatible: directory entries hold the file's kind.
  public static let fileType: UInt32 = 0x2
  /// Compatible with reading: superblock copies in some groups only; files beyond 2 GiB; B-tree directories (never used by any).
  public static let sparseSuper: UInt32 = 0x1
  public static let largeFile: UInt32 = 0x2
  public static let treeDirectories: UInt32 = 0x4
  /// Compatible: superblock copies in two groups that the superblock names.
  public static let sparseSuper2: UInt32 = 0x200

  static let knownIncompatible = fileType
  static let knownForWriting = sparseSuper | largeFile | treeDirectories
}

/// Byte offsets in the superblock.
enum SuperOffset {
  static let inodes = 0
  static let blocks = 4
  static let reservedBlocks = 8
  static let freeBlocks = 12
  static let freeInodes = 16
  static let firstDataBlock = 20
  static let logBlockSize = 24
  static let blocksPerGroup = 32
  static let inodesPerGroup = 40
  static let mountTime = 44
  static let writeTime = 48
  static let mountCount = 52
  static let magic = 56
  static let state = 58
  static let lastCheck = 64
  static let revision = 76
  static let firstInode = 84
  static let inodeSize = 88
  static let compatible = 92
  static let incompatible = 96
  static let readOnlyCompatible = 100
}

/// Byte offsets in a group descriptor of 32 bytes.
enum GroupOffset {
  static let blockBitmap = 0
  static let inodeBitmap = 4
  static let inodeTable = 8
  static let freeBlocks = 12
  static let freeInodes = 14
  static let directories = 16
  static let size = 32
}

/// Inodes with a meaning of their own.
enum ReservedInode {
  static let root: UInt32 = 2
}

/// The fixed numbers of a file system, checked.
struct Geometry {
  static let superblockOffset: UInt64 = 1024
  static let superblockSize = 1024
  static let magic: UInt16 = 0xef53

  let blockSize: Int
  let blocks: UInt32
  let inodes: UInt32
  let firstDataBlock: UInt32
  let blocksPerGroup: UInt32
  let inodesPerGroup: UInt32
  let inodeSize: Int
  let firstInode: UInt32
  let groups: UInt32
  let revision: UInt32
  let compatible: UInt32
  let hasFileTypes: Bool
  let readOnlyCompatible: UInt32

  /// Checks a superblock against itself and against a device of `byteCount` bytes.
  init(_ area: ByteArea, byteCount: UInt64) throws(Ext2MountError) {
    guard area.load16(SuperOffset.magic) == Self.magic else { throw .notExt2 }
    revision = area.load32(SuperOffset.revision)
    guard revision <= 1 else { throw .badNumber(offset: SuperOffset.revision) }
    let isDynamic = revision == 1
    compatible = isDynamic ? area.load32(SuperOffset.compatible) : 0
    let incompatible = isDynamic ? area.load32(SuperOffset.incompatible) : 0
    readOnlyCompatible = isDynamic ? area.load32(SuperOffset.readOnlyCompatible) : 0
    let unknown = incompatible & ~Ext2Feature.knownIncompatible
    guard unknown == 0 else { throw .incompatibleFeatures(unknown) }
    hasFileTypes = incompatible & Ext2Feature.fileType != 0

    let logBlockSize = area.load32(SuperOffset.logBlockSize)
    guard logBlockSize <= 2 else { throw .badNumber(offset: SuperOffset.logBlockSize) }
    blockSize = 1024 << Int(logBlockSize)
    let size = isDynamic ? Int(area.load16(SuperOffset.inodeSize)) : 128
    guard size >= 128, size <= blockSize, size & (size - 1) == 0 else {
      throw .badNumber(offset: SuperOffset.inodeSize)
    }
    inodeSize = size
    firstDataBlock = area.load32(SuperOffset.firstDataBlock)
    guard firstDataBlock == (logBlockSize == 0 ? 1 : 0) else { throw .badNumber(offset: SuperOffset.firstDataBlock) }
    blocks = area.load32(SuperOffset.blocks)
    guard blocks > firstDataBlock + 3, UInt64(blocks) * UInt64(blockSize) <= byteCount else {
      throw .badNumber(offset: SuperOffset.blocks)
    }
    let bits = UInt32(blockSize * 8)
    blocksPerGroup = area.load32(SuperOffset.blocksPerGroup)
    guard blocksPerGroup >= 8, blocksPerGroup <= bits, blocksPerGroup % 8 == 0 else {
      throw .badNumber(offset: SuperOffset.blocksPerGroup)
    }
    inodesPerGroup = area.load32(SuperOffset.inodesPerGroup)
    guard inodesPerGroup >= 8, inodesPerGroup <= bits, inodesPerGroup % 8 == 0,
      inodesPerGroup * UInt32(size) % UInt32(blockSize) == 0  // the inode table fills whole blocks
    else { throw .badNumber(offset: SuperOffset.inodesPerGroup) }
    groups = (blocks - firstDataBlock + blocksPerGroup - 1) / blocksPerGroup
    inodes = area.load32(SuperOffset.inodes)
    guard UInt64(inodes) == UInt64(groups) * UInt64(inodesPerGroup) else {
      throw .badNumber(offset: SuperOffset.inodes)
    }
    firstInode = isDynamic ? area.load32(SuperOffset.firstInode) : 11
    guard firstInode >= 11, firstInode <= inodesPerGroup else { throw .badNumber(offset: SuperOffset.firstInode) }
  }

  /// Whether data can be written without harm to features that we do not know.
  var allowsWriting: Bool { readOnlyCompatible & ~Ext2Feature.knownForWriting == 0 }

  /// Pointers in an indirect block.
  var pointers: UInt64 { UInt64(blockSize / 4) }
  var inodeTableBlocks: UInt32 { inodesPerGroup * UInt32(inodeSize) / UInt32(blockSize) }
  var descriptorBlocks: UInt32 { (groups * 32 + UInt32(blockSize) - 1) / UInt32(blockSize) }

  func firstBlock(of group: UInt32) -> UInt32 { firstDataBlock + group * blocksPerGroup }
  func blockCount(of group: UInt32) -> UInt32 { min(blocksPerGroup, blocks - firstBlock(of: group)) }

  /// Blocks at the start of a group that copies of superblock and descriptors take.
  func headBlocks(of group: UInt32) -> UInt32 { hasSuperblock(group) ? 1 + descriptorBlocks : 0 }

  private func hasSuperblock(_ group: UInt32) -> Bool {
    if group <= 1 || readOnlyCompatible & Ext2Feature.sparseSuper == 0 { return true }
    for base in [3, 5, 7] as [UInt32] {
      var power = base
      while power < group { power *= base }
      if power == group { return true }
    }
    return false
  }

  /// Logical blocks that an inode can address (§ "Inode table": 12 direct, one, two and three times indirect).
  var maximumBlocks: UInt64 {
    let p = pointers
    return min(12 + p + p * p + p * p * p, UInt64(UInt32.max) - 1)
  }
}
