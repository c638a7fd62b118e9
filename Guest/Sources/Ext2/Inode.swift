// One inode in the buffer of its inode table: every field is read from and written to the block itself.

/// Byte offsets in an inode.
enum InodeOffset {
  static let mode = 0
  static let user = 2
  static let sizeLow = 4
  static let accessed = 8
  static let changed = 12
  static let modified = 16
  static let deleted = 20
  static let group = 24
  static let links = 26
  static let sectors = 28
  static let flags = 32
  static let pointers = 40
  static let attributeBlock = 104
  static let sizeHigh = 108
}

/// A handle of an inode; valid for one operation (the buffer stays in the cache that long).
struct Inode {
  let number: UInt32
  let buffer: Buffer
  let offset: Int

  /// Flag: the directory has a hash index, which our changes do not keep up.
  static let indexFlag: UInt32 = 0x1000

  private func get16(_ field: Int) -> UInt16 { buffer.area.load16(offset + field) }
  private func get32(_ field: Int) -> UInt32 { buffer.area.load32(offset + field) }
  private func put(_ value: UInt16, _ field: Int) { buffer.store(value, at: offset + field) }
  private func put(_ value: UInt32, _ field: Int) { buffer.store(value, at: offset + field) }

  var mode: UInt16 {
    get { get16(InodeOffset.mode) }
    nonmutating set { put(newValue, InodeOffset.mode) }
  }
  var kind: FileKind? { FileKind(mode: mode) }
  var links: UInt16 {
    get { get16(InodeOffset.links) }
    nonmutating set { put(newValue, InodeOffset.links) }
  }
  var accessed: UInt32 {
    get { get32(InodeOffset.accessed) }
    nonmutating set { put(newValue, InodeOffset.accessed) }
  }
  var modified: UInt32 {
    get { get32(InodeOffset.modified) }
    nonmutating set { put(newValue, InodeOffset.modified) }
  }
  var changed: UInt32 {
    get { get32(InodeOffset.changed) }
    nonmutating set { put(newValue, InodeOffset.changed) }
  }
  var deleted: UInt32 {
    get { get32(InodeOffset.deleted) }
    nonmutating set { put(newValue, InodeOffset.deleted) }
  }
  /// Space of data and indirect blocks, in units of 512 bytes.
  var sectors: UInt32 {
    get { get32(InodeOffset.sectors) }
    nonmutating set { put(newValue, InodeOffset.sectors) }
  }
  var flags: UInt32 {
    get { get32(InodeOffset.flags) }
    nonmutating set { put(newValue, InodeOffset.flags) }
  }
  var attributeBlock: UInt32 {
    get { get32(InodeOffset.attributeBlock) }
    nonmutating set { put(newValue, InodeOffset.attributeBlock) }
  }
  /// Length in bytes; only regular files have an upper half.
  var size: UInt64 {
    get {
      let low = UInt64(get32(InodeOffset.sizeLow))
      return kind == .file ? low | UInt64(get32(InodeOffset.sizeHigh)) << 32 : low
    }
    nonmutating set {
      put(UInt32(truncatingIfNeeded: newValue), InodeOffset.sizeLow)
      if kind == .file, newValue >> 32 != UInt64(get32(InodeOffset.sizeHigh)) {
        put(UInt32(newValue >> 32), InodeOffset.sizeHigh)
      }
    }
  }
  /// Where pointer `index` (0…14) lies.
  func slot(_ index: Int) -> Slot { Slot(buffer: buffer, offset: offset + InodeOffset.pointers + index * 4) }

  /// A symbolic link whose target stands in the inode instead of the pointers.
  var isShortLink: Bool {
    kind == .link && size < 60 && (sectors == 0 || attributeBlock != 0 && slot(0).value == 0)
  }
}

/// A block pointer, in an inode or in an indirect block.
struct Slot {
  let buffer: Buffer
  let offset: Int
  var value: UInt32 {
    get { buffer.area.load32(offset) }
    nonmutating set { buffer.store(newValue, at: offset) }
  }
}
