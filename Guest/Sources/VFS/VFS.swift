// The virtual file system (HongMeng §4.3): one tree out of several file systems, and the files that clients have open in it.
//
// Clients are known by the badge of their connection. Every number and path of a client is checked here; file systems get what lies
// inside their own bounds. Paths are copied before they are looked at, since the client could change them meanwhile.

@_exported import FileInterface

/// One mounted file system. A call through the class-bound existential is one indirect call.
struct Mount {
  let system: any FileSystem
  /// The directory that it hides; of the root, the root itself.
  let covers: Place
  /// Where it lies, as it was mounted.
  let path: [UInt8]
}

/// A file that a client has open.
private struct OpenFile {
  var client: UInt64
  var place: Place
  var flags: OpenFlags
  var kind: FileKind
  var device: (any DeviceNode)?
}

/// The tree and the open files. Used by one thread at a time: its owner lets one caller in at once.
public final class VFS {
  /// Symbolic links followed in one walk.
  public static let maximumLinks = 40
  public static let maximumMounts = 16
  /// Open files of all clients, and of one.
  public static let maximumFiles = 4096
  public static let maximumFilesOfClient = 256

  private(set) var mounts: [Mount]
  private var files: [OpenFile?] = []
  /// Counts the uses of each slot, so that a closed handle does not name the next file there.
  private var generations: [UInt32] = []
  let firstPath = PathBuffer()
  private let secondPath = PathBuffer()

  /// Seconds since 1970, for timestamps of what happens from now on.
  public var now: UInt32 = 0 {
    didSet {
      if now != oldValue { for mount in mounts { mount.system.now = now } }
    }
  }

  /// A tree with nothing but `root`.
  public init(root: any FileSystem) {
    mounts = [Mount(system: root, covers: Place(mount: 0, inode: root.root), path: [0x2f])]
  }

  // MARK: Mounts

  /// Lays `system` over the directory `path` for good.
  public func mount(_ system: any FileSystem, at path: Bytes) throws(FileError) {
    guard mounts.count < Self.maximumMounts else { throw .tableFull }
    let place = try find(path)
    guard try mounts[place.mount].system.attributes(place.inode).kind == .directory else { throw .notDirectory }
    guard !isMountPoint(place) else { throw .busy }
    mounts[place.mount].system.retain(place.inode)
    mounts.append(Mount(system: system, covers: place, path: path.array))
    system.now = now
  }

  /// How many files are open, of one client or of all.
  public func openCount(of client: UInt64? = nil) -> Int {
    var count = 0
    for file in files where file != nil && (client == nil || file?.client == client) { count += 1 }
    return count
  }

  // MARK: Open files

  /// Opens a file or directory for `client`; its handle.
  public func open(
    _ client: UInt64, _ path: Bytes, _ flags: OpenFlags, permissions: UInt16 = 0o644
  ) throws(FileError) -> UInt64 {
    guard openCount(of: client) < Self.maximumFilesOfClient, openCount() < Self.maximumFiles else { throw .tableFull }
    guard flags.contains(.write) || flags.isDisjoint(with: [.truncate, .append]) else { throw .denied }
    // An exclusive open makes the name itself, so a link there counts as something that is there.
    let isExclusive = flags.contains([.create, .exclusive])
    let walked = try walk(path, followsLast: !isExclusive, in: firstPath)
    let place: Place
    if let target = walked.target {
      if isExclusive { throw .exists }
      place = target
    } else {
      guard flags.contains(.create) else { throw .notFound }
      guard !walked.wantsDirectory, !flags.contains(.directory) else { throw .isDirectory }
      let inode = try mounts[walked.directory.mount].system.create(
        walked.directory.inode, walked.name, kind: .file, permissions: permissions & 0xfff)
      place = Place(mount: walked.directory.mount, inode: inode)
    }
    let system = mounts[place.mount].system
    let kind = try system.attributes(place.inode).kind
    var node: (any DeviceNode)?
    switch kind {
    case .directory:
      if flags.contains(.write) { throw .isDirectory }
    case .file:
      if flags.contains(.write), system.space.isReadOnly { throw .readOnly }
    case .characterDevice, .blockDevice:
      node = try system.openDevice(place.inode)
    case .link, .pipe, .socket: throw .unsupported
    }
    if flags.contains(.directory), kind != .directory { throw .notDirectory }
    if kind == .file, flags.contains(.truncate) { try system.setSize(place.inode, 0) }
    system.retain(place.inode)
    return insert(OpenFile(client: client, place: place, flags: flags, kind: kind, device: node))
  }

  private func insert(_ file: OpenFile) -> UInt64 {
    var slot = 0
    while slot < files.count, files[slot] != nil { slot += 1 }
    if slot == files.count {
      files.append(file)
      generations.append(1)
    } else {
      files[slot] = file
    }
    return UInt64(generations[slot]) << 32 | UInt64(slot)
  }

  private func slot(_ client: UInt64, _ handle: UInt64) throws(FileError) -> Int {
    let slot = Int(handle & 0xffff_ffff)
    guard slot < files.count, generations[slot] == UInt32(handle >> 32), let file = files[slot],
      file.client == client
    else { throw .badHandle }
    return slot
  }

  private func file(_ client: UInt64, _ handle: UInt64) throws(FileError) -> OpenFile {
    guard let file = files[try slot(client, handle)] else { throw .badHandle }
    return file
  }

  private func end(_ slot: Int) throws(FileError) {
    guard let file = files[slot] else { return }
    files[slot] = nil
    generations[slot] &+= 1
    try mounts[file.place.mount].system.release(file.place.inode)
  }

  public func close(_ client: UInt64, _ handle: UInt64) throws(FileError) {
    try end(try slot(client, handle))
  }

  /// Closes all that `client` has open: it has ended.
  public func endClient(_ client: UInt64) {
    for slot in files.indices where files[slot]?.client == client {
      do throws(FileError) { try end(slot) } catch {
        // The file is closed; what it held on the disk is found by the next check.
      }
    }
  }

  // MARK: Data

  /// Reads at `offset` into the start of `area`; bytes read, fewer than asked for at the end of the file.
  public func read(
    _ client: UInt64, _ handle: UInt64, _ offset: UInt64, into area: ByteArea
  ) throws(FileError) -> Int {
    let file = try file(client, handle)
    guard file.flags.contains(.read) else { throw .denied }
    if let node = file.device { return try node.read(offset, into: area) }
    guard file.kind == .file else { throw .isDirectory }
    let system = mounts[file.place.mount].system
    let size = try system.size(file.place.inode)
    guard offset < size, area.count > 0 else { return 0 }
    let count = Int(min(UInt64(area.count), size - offset))
    try system.readData(file.place.inode, offset, into: area.slice(0, count))
    return count
  }

  /// Writes all of `area` at `offset`, or at the end of a file opened with `append`; bytes written.
  public func write(
    _ client: UInt64, _ handle: UInt64, _ offset: UInt64, from area: ByteArea
  ) throws(FileError) -> Int {
    let file = try file(client, handle)
    guard file.flags.contains(.write) else { throw .denied }
    if let node = file.device { return try node.write(offset, from: area) }
    guard file.kind == .file else { throw .isDirectory }
    let system = mounts[file.place.mount].system
    let start = file.flags.contains(.append) ? try system.size(file.place.inode) : offset
    guard start <= UInt64.max - UInt64(area.count) else { throw .tooLarge }
    if area.count > 0 { try system.writeData(file.place.inode, start, from: area) }
    return area.count
  }

  /// Sets the length of an open file.
  public func truncate(_ client: UInt64, _ handle: UInt64, _ size: UInt64) throws(FileError) {
    let file = try file(client, handle)
    guard file.flags.contains(.write) else { throw .denied }
    guard file.kind == .file else { throw .invalid }
    try mounts[file.place.mount].system.setSize(file.place.inode, size)
  }

  /// Attributes of an open file.
  public func attributes(_ client: UInt64, _ handle: UInt64) throws(FileError) -> FileAttributes {
    try attributes(try file(client, handle).place)
  }

  private func attributes(_ place: Place) throws(FileError) -> FileAttributes {
    try mounts[place.mount].system.attributes(place.inode)
  }

  /// Puts as many entries as fit into `area`, from `cursor` (0 at first) on, which moves on, in the form of `DirectoryRecord`. Bytes used;
  /// 0 at the end.
  public func readDirectory(
    _ client: UInt64, _ handle: UInt64, _ cursor: inout UInt64, into area: ByteArea
  ) throws(FileError) -> Int {
    let file = try file(client, handle)
    guard file.kind == .directory else { throw .notDirectory }
    let system = mounts[file.place.mount].system
    var used = 0
    while true {
      var next = cursor
      guard let entry = try system.readDirectory(file.place.inode, &next) else { return used }
      guard let end = DirectoryRecord.put(entry, at: used, in: area) else {
        if used == 0 { throw .invalid }
        return used
      }
      used = end
      cursor = next
    }
  }

  // MARK: Names

  public func attributes(at path: Bytes, followsLink: Bool = true) throws(FileError) -> FileAttributes {
    try attributes(try find(path, followsLast: followsLink))
  }

  /// Space of the file system in which `path` lies.
  public func space(at path: Bytes) throws(FileError) -> FileSystemSpace {
    mounts[try find(path).mount].system.space
  }

  /// The mount of that index, the root's first: where it lies and its space; nil behind the last.
  public func mounted(_ index: Int) -> (path: [UInt8], space: FileSystemSpace)? {
    guard mounts.indices.contains(index) else { return nil }
    return (mounts[index].path, mounts[index].system.space)
  }

  public func makeDirectory(_ path: Bytes, permissions: UInt16 = 0o755) throws(FileError) {
    let walked = try walk(path, followsLast: false, in: firstPath)
    guard walked.target == nil else { throw .exists }
    _ = try mounts[walked.directory.mount].system.create(
      walked.directory.inode, walked.name, kind: .directory, permissions: permissions & 0xfff)
  }

  public func removeDirectory(_ path: Bytes) throws(FileError) {
    let (walked, target) = try existing(path)
    try mounts[target.mount].system.removeDirectory(walked.directory.inode, walked.name)
  }

  /// Removes a name that is no directory's.
  public func unlink(_ path: Bytes) throws(FileError) {
    let (walked, target) = try existing(path)
    guard !walked.wantsDirectory else { throw .isDirectory }
    try mounts[target.mount].system.unlink(walked.directory.inode, walked.name)
  }

  /// A name that may be taken away: neither root nor `.` nor `..`, and nothing mounted there.
  private func existing(_ path: Bytes) throws(FileError) -> (Walked, Place) {
    let walked = try walk(path, followsLast: false, in: firstPath)
    guard let target = walked.target else { throw .notFound }
    guard !isMountPoint(target) else { throw .busy }
    guard !walked.name.isEmpty else { throw .invalid }
    return (walked, target)
  }

  public func rename(_ path: Bytes, to newPath: Bytes) throws(FileError) {
    let (from, source) = try existing(path)
    let to = try walk(newPath, followsLast: false, in: secondPath)
    guard from.directory.mount == to.directory.mount else { throw .crossDevice }
    if let target = to.target, isMountPoint(target) { throw .busy }
    guard !to.name.isEmpty else { throw .invalid }
    let system = mounts[source.mount].system
    if to.wantsDirectory, try system.attributes(source.inode).kind != .directory { throw .notDirectory }
    try system.rename(from.directory.inode, from.name, to: to.directory.inode, to.name)
  }

  /// A further name for a file.
  public func link(_ path: Bytes, to newPath: Bytes) throws(FileError) {
    let source = try find(path, followsLast: false)
    let to = try walk(newPath, followsLast: false, in: secondPath)
    guard source.mount == to.directory.mount else { throw .crossDevice }
    guard to.target == nil else { throw .exists }
    guard !to.wantsDirectory else { throw .notFound }
    try mounts[source.mount].system.link(source.inode, to.directory.inode, to.name)
  }

  /// A symbolic link at `path` that names `target`.
  public func makeLink(_ path: Bytes, target: Bytes) throws(FileError) {
    let walked = try walk(path, followsLast: false, in: firstPath)
    guard walked.target == nil else { throw .exists }
    guard !walked.wantsDirectory else { throw .notFound }
    // A copy, which the client cannot change while it is stored.
    try secondPath.load(target)
    _ = try mounts[walked.directory.mount].system.makeLink(
      walked.directory.inode, walked.name, target: secondPath.path)
  }

  public func readLink(_ path: Bytes) throws(FileError) -> [UInt8] {
    let place = try find(path, followsLast: false)
    guard try mounts[place.mount].system.attributes(place.inode).kind == .link else { throw .invalid }
    return try mounts[place.mount].system.readLink(place.inode)
  }

  public func setPermissions(_ path: Bytes, _ permissions: UInt16) throws(FileError) {
    let place = try find(path)
    try mounts[place.mount].system.setPermissions(place.inode, permissions & 0xfff)
  }

  /// Everything done before, in all file systems, is on stable storage when this returns.
  public func sync() throws(FileError) {
    for mount in mounts { try mount.system.sync() }
  }
}
