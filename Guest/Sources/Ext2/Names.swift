// Operations on names: create, link, unlink, directories, symbolic links, rename.

extension Ext2 {
  /// A name that can be made or removed.
  private func checkName(_ name: Bytes) throws(FileError) {
    guard name.count > 0, name.count <= 255, name.firstIndex(of: 0x2f) == nil, name.firstIndex(of: 0) == nil,
      !name.equals("."), !name.equals("..")
    else { throw .badName }
  }

  public func lookup(_ number: UInt32, _ name: Bytes) throws(FileError) -> UInt32 {
    beginLook()
    let directory = try directory(number)
    guard name.count > 0, name.count <= 255 else { throw .badName }
    guard let place = try find(directory, name) else { throw .notFound }
    return place.record.inode
  }

  public func parent(of number: UInt32) throws(FileError) -> UInt32 {
    try lookup(number, Bytes(".."))
  }

  /// Takes an inode and fills it; the caller gives it its name or returns it by `abandon`.
  private func newInode(_ parent: UInt32, _ kind: FileKind, _ permissions: UInt16) throws(FileError) -> Inode {
    let inode = try allocateInode(parent: parent, isDirectory: kind == .directory)
    lastGeneration &+= 1
    inode.mode = kind.modeBits | permissions & 0xfff
    inode.links = 1
    inode.accessed = now
    inode.modified = now
    inode.changed = now
    inode.buffer.store(lastGeneration &+ now, at: inode.offset + 100)
    return inode
  }

  /// Undoes `newInode`.
  private func abandon(_ inode: Inode) throws(FileError) {
    let isDirectory = inode.kind == .directory
    if !inode.isShortLink { try truncate(inode, toBlocks: 0) }
    inode.buffer.area.slice(inode.offset, geometry.inodeSize).fill()
    inode.buffer.isDirty = true
    try freeInode(inode.number, isDirectory: isDirectory)
  }

  /// Makes an inode of `kind`, has `fill` give it content, and names it.
  private func make(
    _ parent: UInt32, _ name: Bytes, _ kind: FileKind, _ permissions: UInt16,
    _ fill: (Inode) throws(FileError) -> Void
  ) throws(FileError) -> UInt32 {
    try beginChange()
    try checkName(name)
    return try withSpace { () throws(FileError) -> UInt32 in
      let directory = try directory(parent)
      if try find(directory, name) != nil { throw .exists }
      if kind == .directory, directory.links >= 32000 { throw .tooManyLinks }
      let inode = try newInode(parent, kind, permissions)
      do throws(FileError) {
        try fill(inode)
        try addEntry(directory, name, inode.number, kind)
      } catch {
        if error != .corrupt { try abandon(inode) }
        throw error
      }
      return inode.number
    }
  }

  public func create(
    _ parent: UInt32, _ name: Bytes, kind: FileKind, permissions: UInt16
  ) throws(FileError) -> UInt32 {
    switch kind {
    case .file, .pipe, .socket: return try make(parent, name, kind, permissions) { _ throws(FileError) in }
    case .directory:
      let number = try make(parent, name, .directory, permissions) { inode throws(FileError) in
        try fillNewDirectory(inode, parent: parent)
        inode.links = 2
      }
      let directory = try directory(parent)
      directory.links += 1
      return number
    default: throw .unsupported
    }
  }

  public func makeLink(_ parent: UInt32, _ name: Bytes, target: Bytes) throws(FileError) -> UInt32 {
    guard target.count > 0, target.count < geometry.blockSize else { throw .badName }
    return try make(parent, name, .link, 0o777) { inode throws(FileError) in
      if target.count < 60 {
        var index = 0
        while let byte = target.byte(index) {
          inode.buffer.store(byte, at: inode.offset + InodeOffset.pointers + index)
          index += 1
        }
      } else {
        let (block, _) = try ensureBlock(inode, 0)
        let content = scratch.area
        content.fill()
        content.copy(target.area)
        try store.write(UInt64(block) * UInt64(geometry.blockSize), from: content)
        hasUnflushedData = true
      }
      inode.size = UInt64(target.count)
    }
  }

  public func readLink(_ number: UInt32) throws(FileError) -> [UInt8] {
    beginLook()
    let inode = try usedInode(number)
    guard inode.kind == .link else { throw .invalid }
    let size = Int(inode.size)
    guard size < geometry.blockSize else { throw damaged() }
    if inode.isShortLink {
      return inode.buffer.area.slice(inode.offset + InodeOffset.pointers, size).bytes.array
    }
    let block = try block(inode, 0)
    guard block != 0 else { throw damaged() }
    try store.read(UInt64(block) * UInt64(geometry.blockSize), into: scratch.area)
    return scratch.area.slice(0, size).bytes.array
  }

  public func link(_ number: UInt32, _ parent: UInt32, _ name: Bytes) throws(FileError) {
    try beginChange()
    try checkName(name)
    try withSpace { () throws(FileError) in
      let inode = try usedInode(number)
      guard let kind = inode.kind, kind != .directory else { throw .isDirectory }
      guard !dying.contains(number) else { throw .notFound }
      guard inode.links < 32000 else { throw .tooManyLinks }
      let directory = try directory(parent)
      if try find(directory, name) != nil { throw .exists }
      try addEntry(directory, name, number, kind)
      inode.links += 1
      inode.changed = now
    }
  }

  /// Takes one name from an inode; one without names is freed by the next sync after its last holder has released it.
  private func loseName(_ inode: Inode) throws(FileError) {
    inode.changed = now
    if inode.links <= 1 {
      // The count on the disk stays until the directory there names it no more (`sync`).
      dying.append(inode.number)
    } else {
      inode.links -= 1
    }
  }

  private func existing(_ directory: Inode, _ name: Bytes) throws(FileError) -> (DirectoryPlace, Inode) {
    guard let place = try find(directory, name) else { throw .notFound }
    let inode = try inode(place.record.inode)
    guard inode.links > 0, inode.kind != nil, !dying.contains(inode.number) else { throw damaged() }
    return (place, inode)
  }

  public func unlink(_ parent: UInt32, _ name: Bytes) throws(FileError) {
    try beginChange()
    try checkName(name)
    let directory = try directory(parent)
    let (place, inode) = try existing(directory, name)
    guard inode.kind != .directory else { throw .isDirectory }
    removeEntry(directory, place)
    try loseName(inode)
  }

  /// An empty directory loses its name, its `.` and its link to the parent.
  private func dropDirectory(_ directory: Inode, from parent: Inode) {
    dying.append(directory.number)
    directory.changed = now
    if parent.links > 0 { parent.links -= 1 }
  }

  public func removeDirectory(_ parent: UInt32, _ name: Bytes) throws(FileError) {
    try beginChange()
    try checkName(name)
    let directory = try directory(parent)
    let (place, inode) = try existing(directory, name)
    guard inode.kind == .directory else { throw .notDirectory }
    guard try isEmpty(inode) else { throw .notEmpty }
    removeEntry(directory, place)
    dropDirectory(inode, from: directory)
  }

  /// Whether `number` is `ancestor` or lies below it.
  private func lies(_ number: UInt32, below ancestor: UInt32) throws(FileError) -> Bool {
    var current = number
    // A chain longer than there are inodes is a circle.
    for _ in 0...geometry.inodes {
      if current == ancestor { return true }
      if current == root { return false }
      current = try parent(of: current)
    }
    throw damaged()
  }

  public func rename(_ from: UInt32, _ name: Bytes, to: UInt32, _ newName: Bytes) throws(FileError) {
    try beginChange()
    try checkName(name)
    try checkName(newName)
    try withSpace { () throws(FileError) in
      let source = try directory(from)
      let target = try directory(to)
      let (_, inode) = try existing(source, name)
      guard let kind = inode.kind else { throw damaged() }
      let isDirectory = kind == .directory
      if isDirectory, from != to, try lies(to, below: inode.number) { throw .invalid }
      if try find(target, newName) != nil {
        let (old, victim) = try existing(target, newName)
        if victim.number == inode.number { return }
        if victim.kind == .directory {
          guard isDirectory else { throw .isDirectory }
          guard try isEmpty(victim) else { throw .notEmpty }
        } else if isDirectory {
          throw .notDirectory
        }
        replaceEntry(target, old, inode.number, kind)
        if victim.kind == .directory { dropDirectory(victim, from: target) } else { try loseName(victim) }
      } else {
        if isDirectory, from != to, target.links >= 32000 { throw .tooManyLinks }
        try addEntry(target, newName, inode.number, kind)
      }
      // The old name's record may have moved into another's shadow: look again.
      guard let place = try find(source, name) else { throw damaged() }
      removeEntry(source, place)
      inode.changed = now
      if isDirectory, from != to {
        guard let up = try find(inode, Bytes("..")) else { throw damaged() }
        replaceEntry(inode, up, to, .directory)
        if source.links > 0 { source.links -= 1 }
        target.links += 1
      }
    }
  }
}
