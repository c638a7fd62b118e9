// A file system that lives in memory alone (HongMeng §4.3): names and attributes on the heap, data in pages of a store that a memory
// manager may share.

import FileInterface

public final class TmpFS: FileSystem {
  /// Longest name in bytes.
  public static let maximumName = 255
  /// Most pages of a file: 4 GiB.
  private static let maximumPages: UInt64 = 1 << 20
  private static let noPage = UInt32.max

  private struct Entry {
    var hash: UInt32
    /// Greater than those of all entries before it.
    var serial: UInt64
    var inode: UInt32
    var name: [UInt8]
  }

  private struct Node {
    var kind: FileKind
    var permissions: UInt16
    var size: UInt64 = 0
    var links: UInt32 = 0
    /// Uses without a name.
    var holds: UInt32 = 0
    var parent: UInt32 = 0
    var modified: UInt32
    var changed: UInt32
    /// Of a directory, in the order in which they were added.
    var entries: [Entry] = []
    /// Of a file: page numbers, `noPage` where a hole is.
    var pages: [UInt32] = []
    var target: [UInt8] = []
  }

  private let store: PageStore
  private var nodes: [Node?] = [nil]
  private var freeNodes: [UInt32] = []
  private var nextSerial: UInt64 = 1
  private var livingNodes: UInt64 = 0
  public let root: UInt32 = 1
  public var now: UInt32 = 0
  /// Told of each page that stops belonging to a file, before it is used again: whoever has mapped it unmaps it.
  public var onRelease: ((UInt32) -> Void)?

  public init(_ store: PageStore) {
    self.store = store
    var node = Node(kind: .directory, permissions: 0o755, modified: 0, changed: 0)
    node.links = 2
    node.parent = root
    nodes.append(node)
    livingNodes = 1
  }

  public var space: FileSystemSpace {
    FileSystemSpace(
      blockSize: UInt32(PageStore.pageSize), blocks: UInt64(store.capacity),
      freeBlocks: UInt64(store.capacity - store.used), inodes: UInt64(UInt32.max),
      freeInodes: UInt64(UInt32.max) - livingNodes, isReadOnly: false)
  }

  // MARK: Nodes and names

  private func node(_ inode: UInt32) throws(FileError) -> Node {
    guard Int(inode) < nodes.count, let node = nodes[Int(inode)] else { throw .notFound }
    return node
  }

  private func directory(_ inode: UInt32) throws(FileError) -> Node {
    let found = try node(inode)
    guard found.kind == .directory else { throw .notDirectory }
    return found
  }

  private func file(_ inode: UInt32) throws(FileError) -> Node {
    let found = try node(inode)
    guard found.kind != .directory else { throw .isDirectory }
    return found
  }

  private func change(_ inode: UInt32, _ body: (inout Node) -> Void) {
    guard var node = nodes[Int(inode)] else { return }
    nodes[Int(inode)] = nil  // so that its arrays are not copied
    body(&node)
    nodes[Int(inode)] = node
  }

  private static func hash(_ name: Bytes) -> UInt32 {
    var hash: UInt32 = 0x811c_9dc5  // FNV-1a
    var index = 0
    while let byte = name.byte(index) {
      hash = (hash ^ UInt32(byte)) &* 0x0100_0193
      index += 1
    }
    return hash
  }

  private static func same(_ stored: [UInt8], _ name: Bytes) -> Bool {
    guard stored.count == name.count else { return false }
    for index in stored.indices where stored[index] != name.byte(index) { return false }
    return true
  }

  private func find(_ node: Node, _ name: Bytes) -> Int? {
    let hash = Self.hash(name)
    for index in node.entries.indices
    where node.entries[index].hash == hash && Self.same(node.entries[index].name, name) {
      return index
    }
    return nil
  }

  private func checkName(_ name: Bytes) throws(FileError) {
    guard name.count > 0, name.count <= Self.maximumName, !name.equals("."), !name.equals("..") else { throw .badName }
    var index = 0
    while let byte = name.byte(index) {
      if byte == 0 || byte == 0x2f { throw .badName }
      index += 1
    }
  }

  private func add(_ directory: UInt32, _ name: Bytes, _ inode: UInt32) {
    let entry = Entry(hash: Self.hash(name), serial: nextSerial, inode: inode, name: name.array)
    nextSerial += 1
    change(directory) { node in
      node.entries.append(entry)
      node.modified = now
      node.changed = now
    }
  }

  private func removeEntry(_ directory: UInt32, _ index: Int) {
    change(directory) { node in
      node.entries.remove(at: index)
      node.modified = now
      node.changed = now
    }
  }

  private func make(_ directory: UInt32, _ name: Bytes, _ node: Node) throws(FileError) -> UInt32 {
    try checkName(name)
    let parent = try self.directory(directory)
    guard parent.links > 0 else { throw .notFound }
    guard find(parent, name) == nil else { throw .exists }
    var node = node
    node.parent = directory
    let inode: UInt32
    if let reused = freeNodes.popLast() {
      inode = reused
      nodes[Int(inode)] = node
    } else {
      guard nodes.count < Int(UInt32.max) else { throw .noSpace }
      inode = UInt32(nodes.count)
      nodes.append(node)
    }
    livingNodes += 1
    if node.kind == .directory { change(directory) { $0.links += 1 } }
    add(directory, name, inode)
    return inode
  }

  /// Frees an inode that nothing names or uses any more.
  private func reap(_ inode: UInt32) {
    guard let node = nodes[Int(inode)], node.links == 0, node.holds == 0 else { return }
    for page in node.pages where page != Self.noPage { drop(page) }
    nodes[Int(inode)] = nil
    freeNodes.append(inode)
    livingNodes -= 1
  }

  private func drop(_ page: UInt32) {
    onRelease?(page)
    store.release(page)
  }

  // MARK: Directories

  public func attributes(_ inode: UInt32) throws(FileError) -> FileAttributes {
    let node = try node(inode)
    let pages = UInt64(node.pages.count { $0 != Self.noPage })
    return FileAttributes(
      inode: inode, kind: node.kind, permissions: node.permissions, size: node.size, links: node.links,
      sectors: pages * 8, accessed: node.modified, modified: node.modified, changed: node.changed)
  }

  public func size(_ inode: UInt32) throws(FileError) -> UInt64 { try node(inode).size }

  public func lookup(_ directory: UInt32, _ name: Bytes) throws(FileError) -> UInt32 {
    let node = try self.directory(directory)
    guard let index = find(node, name) else { throw .notFound }
    return node.entries[index].inode
  }

  public func parent(of directory: UInt32) throws(FileError) -> UInt32 { try self.directory(directory).parent }

  public func readDirectory(_ directory: UInt32, _ cursor: inout UInt64) throws(FileError) -> DirectoryEntry? {
    let node = try self.directory(directory)
    for entry in node.entries where entry.serial > cursor {
      cursor = entry.serial
      return DirectoryEntry(inode: entry.inode, kind: try self.node(entry.inode).kind, name: entry.name)
    }
    return nil
  }

  public func create(
    _ directory: UInt32, _ name: Bytes, kind: FileKind, permissions: UInt16
  ) throws(FileError) -> UInt32 {
    var node = Node(kind: kind, permissions: permissions & 0xfff, modified: now, changed: now)
    node.links = kind == .directory ? 2 : 1
    return try make(directory, name, node)
  }

  public func makeLink(_ directory: UInt32, _ name: Bytes, target: Bytes) throws(FileError) -> UInt32 {
    guard target.count > 0, target.count < PageStore.pageSize else { throw .badName }
    var node = Node(kind: .link, permissions: 0o777, modified: now, changed: now)
    node.links = 1
    node.target = target.array
    node.size = UInt64(target.count)
    return try make(directory, name, node)
  }

  public func readLink(_ inode: UInt32) throws(FileError) -> [UInt8] {
    let node = try node(inode)
    guard node.kind == .link else { throw .notFound }
    return node.target
  }

  public func link(_ inode: UInt32, _ directory: UInt32, _ name: Bytes) throws(FileError) {
    try checkName(name)
    guard try file(inode).links > 0 else { throw .notFound }
    guard find(try self.directory(directory), name) == nil else { throw .exists }
    change(inode) { node in
      node.links += 1
      node.changed = now
    }
    add(directory, name, inode)
  }

  public func unlink(_ directory: UInt32, _ name: Bytes) throws(FileError) {
    let parent = try self.directory(directory)
    guard let index = find(parent, name) else { throw .notFound }
    let inode = parent.entries[index].inode
    _ = try file(inode)
    removeEntry(directory, index)
    change(inode) { node in
      node.links -= 1
      node.changed = now
    }
    reap(inode)
  }

  public func removeDirectory(_ directory: UInt32, _ name: Bytes) throws(FileError) {
    let parent = try self.directory(directory)
    guard let index = find(parent, name) else { throw .notFound }
    let inode = parent.entries[index].inode
    guard try self.directory(inode).entries.isEmpty else { throw .notEmpty }
    removeEntry(directory, index)
    change(directory) { $0.links -= 1 }
    change(inode) { $0.links = 0 }
    reap(inode)
  }

  public func rename(_ from: UInt32, _ name: Bytes, to: UInt32, _ newName: Bytes) throws(FileError) {
    try checkName(newName)
    let source = try directory(from)
    let destination = try directory(to)
    guard let index = find(source, name) else { throw .notFound }
    let inode = source.entries[index].inode
    let moved = try node(inode)
    if moved.kind == .directory {
      // Not into itself or below.
      var above = to
      while true {
        if above == inode { throw .invalid }
        if above == root { break }
        above = try directory(above).parent
      }
    }
    if let existing = find(destination, newName) {
      let other = destination.entries[existing].inode
      if other == inode { return }
      if moved.kind == .directory { try removeDirectory(to, newName) } else { try unlink(to, newName) }
    }
    guard let place = find(try directory(from), name) else { throw .notFound }
    removeEntry(from, place)
    add(to, newName, inode)
    change(inode) { node in
      node.changed = now
      if node.kind == .directory { node.parent = to }
    }
    if moved.kind == .directory, from != to {
      change(from) { $0.links -= 1 }
      change(to) { $0.links += 1 }
    }
  }

  public func setPermissions(_ inode: UInt32, _ permissions: UInt16) throws(FileError) {
    _ = try node(inode)
    change(inode) { node in
      node.permissions = permissions & 0xfff
      node.changed = now
    }
  }

  public func retain(_ inode: UInt32) { if Int(inode) < nodes.count { change(inode) { $0.holds += 1 } } }

  public func release(_ inode: UInt32) throws(FileError) {
    guard try node(inode).holds > 0 else { throw .notFound }
    change(inode) { $0.holds -= 1 }
    reap(inode)
  }

  // MARK: Data

  public func setSize(_ inode: UInt32, _ size: UInt64) throws(FileError) {
    let node = try file(inode)
    let pageSize = UInt64(PageStore.pageSize)
    guard size <= Self.maximumPages * pageSize else { throw .tooLarge }
    let pages = Int((size + pageSize - 1) / pageSize)
    if pages < node.pages.count {
      for page in node.pages[pages...] where page != Self.noPage { drop(page) }
    }
    let inLast = Int(size % pageSize)
    if size < node.size, inLast != 0, pages <= node.pages.count, node.pages[pages - 1] != Self.noPage {
      store.area(node.pages[pages - 1]).slice(inLast, PageStore.pageSize - inLast).fill()
    }
    change(inode) { node in
      if pages < node.pages.count { node.pages.removeLast(node.pages.count - pages) }
      node.size = size
      node.modified = now
      node.changed = now
    }
  }

  public func reserve(_ inode: UInt32, _ offset: UInt64, _ count: Int) throws(FileError) {
    guard count > 0 else { return }
    let node = try file(inode)
    let pageSize = UInt64(PageStore.pageSize)
    guard offset <= Self.maximumPages * pageSize, UInt64(count) <= Self.maximumPages * pageSize - offset else {
      throw .tooLarge
    }
    let end = offset + UInt64(count)
    let last = Int((end + pageSize - 1) / pageSize)
    var made: [(Int, UInt32)] = []
    for index in Int(offset / pageSize)..<last where index >= node.pages.count || node.pages[index] == Self.noPage {
      do throws(FileError) { made.append((index, try store.allocate())) } catch {
        for (_, page) in made { store.release(page) }
        throw error
      }
    }
    change(inode) { node in
      while node.pages.count < last { node.pages.append(Self.noPage) }
      for (index, page) in made { node.pages[index] = page }
      node.size = max(node.size, end)
      node.modified = now
      node.changed = now
    }
  }

  /// The number of the page at `index` of a file; nil in a hole or behind the end.
  public func page(_ inode: UInt32, _ index: UInt64) throws(FileError) -> UInt32? {
    let node = try file(inode)
    guard index < UInt64(node.pages.count), node.pages[Int(index)] != Self.noPage else { return nil }
    return node.pages[Int(index)]
  }

  /// Calls `body` for each run of [offset, offset + count) within one page: the page's part, or nil in a hole, and where the run starts
  /// in the range.
  private func eachRun(_ node: Node, _ offset: UInt64, _ count: Int, _ body: (ByteArea?, Int, Int) -> Void) {
    var done = 0
    while done < count {
      let at = offset + UInt64(done)
      let inPage = Int(at % UInt64(PageStore.pageSize))
      let length = min(count - done, PageStore.pageSize - inPage)
      let index = at / UInt64(PageStore.pageSize)
      let page = index < UInt64(node.pages.count) ? node.pages[Int(index)] : Self.noPage
      body(page == Self.noPage ? nil : store.area(page).slice(inPage, length), done, length)
      done += length
    }
  }

  public func readData(_ inode: UInt32, _ offset: UInt64, into area: ByteArea) throws(FileError) {
    eachRun(try file(inode), offset, area.count) { part, start, length in
      if let part { area.copy(part, at: start) } else { area.slice(start, length).fill() }
    }
  }

  public func writeBack(_ inode: UInt32, _ offset: UInt64, from area: ByteArea) throws(FileError) {
    eachRun(try file(inode), offset, area.count) { part, start, length in
      part?.copy(area.slice(start, length))
    }
  }

  /// Writes `area` at `offset`, with new pages where there are none.
  public func writeData(_ inode: UInt32, _ offset: UInt64, from area: ByteArea) throws(FileError) {
    try reserve(inode, offset, area.count)
    try writeBack(inode, offset, from: area)
  }

  public func sync() {}
}
