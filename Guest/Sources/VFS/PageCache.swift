// The page cache (HongMeng §4.3): pages of files between the VFS and a file system on a disk. Reads keep what they fetched, writes stay
// here until a sync or until their page is needed for another.
//
// The space for a write is reserved in the file system before its pages change, so that writing them back cannot fail for lack of it. The
// file system has the pages written before its own sync, since its inodes may name blocks that nothing has been written to yet.

import FileInterface

/// A page of a file.
private struct CachedPage {
  var inode: UInt32
  var index: UInt64
  var isUsed = false
  var isDirty = false
  /// Looked at since the last round of the search for a page to give up.
  var isTouched = false
  /// The next in its bucket, or -1.
  var next: Int32 = -1
}

/// A file system with its files' data in a bounded number of pages. Used by one thread at a time. It and the file system hold each other,
/// for as long as the program runs.
public final class PageCache: FileSystem {
  private let system: any PagedFileSystem
  private let store: PageStore
  /// By the number that the page has in `store`.
  private var pages: [CachedPage] = []
  private var buckets: [Int32]
  private var hand = 0
  private var dirtyCount = 0
  private var report = PageCacheReport()
  /// Pages that must stay while a write is prepared.
  private var pinned: (first: Int, last: Int) = (-1, -1)
  /// How often an inode is held open.
  private var holders: [(inode: UInt32, count: Int)] = []
  /// Pages in a row on their way from and to the disk.
  private let incoming = ByteBlock(count: PageCache.longestRun * PageStore.pageSize)
  private let outgoing = ByteBlock(count: PageCache.longestRun * PageStore.pageSize)

  /// Pages that one transfer moves at most.
  private static let longestRun = 16
  public static let leastPages = 64

  /// Keeps pages of `system` in `memory`, which is zero and has room for at least `leastPages`.
  public init(_ system: any PagedFileSystem, memory: ByteArea) {
    precondition(memory.count >= Self.leastPages * PageStore.pageSize)
    self.system = system
    store = PageStore(memory)
    for _ in 0..<store.capacity { pages.append(CachedPage(inode: 0, index: 0)) }
    buckets = [Int32](repeating: -1, count: store.capacity)
    system.beforeSync = { [self] () throws(FileError) in try writeAll() }
  }

  /// What the cache holds and has done.
  public var counters: PageCacheReport {
    var result = report
    result.capacity = UInt64(store.capacity)
    result.used = UInt64(store.used)
    result.dirty = UInt64(dirtyCount)
    return result
  }

  // MARK: Pages

  private func bucket(_ inode: UInt32, _ index: UInt64) -> Int {
    Int((UInt64(inode) &* 0x9e37_79b9 &+ index) % UInt64(buckets.count))
  }

  private func find(_ inode: UInt32, _ index: UInt64) -> Int? {
    var candidate = buckets[bucket(inode, index)]
    while candidate >= 0 {
      let page = Int(candidate)
      if pages[page].inode == inode, pages[page].index == index { return page }
      candidate = pages[page].next
    }
    return nil
  }

  /// A page of zeros for a part of a file that has none here.
  private func add(_ inode: UInt32, _ index: UInt64) throws(FileError) -> Int {
    if store.used == store.capacity { try giveUpOne() }
    let page = Int(try store.allocate())
    let place = bucket(inode, index)
    pages[page] = CachedPage(inode: inode, index: index, isUsed: true, isTouched: true, next: buckets[place])
    buckets[place] = Int32(page)
    return page
  }

  private func drop(_ page: Int) {
    let place = bucket(pages[page].inode, pages[page].index)
    if Int(buckets[place]) == page {
      buckets[place] = pages[page].next
    } else {
      var previous = Int(buckets[place])
      while Int(pages[previous].next) != page { previous = Int(pages[previous].next) }
      pages[previous].next = pages[page].next
    }
    if pages[page].isDirty { dirtyCount -= 1 }
    pages[page] = CachedPage(inode: 0, index: 0)
    store.release(UInt32(page))
  }

  private func area(_ page: Int) -> ByteArea { store.area(UInt32(page)) }

  private func markDirty(_ page: Int) {
    if !pages[page].isDirty { dirtyCount += 1 }
    pages[page].isDirty = true
  }

  /// Gives up a page that has not been looked at for a while. One that cannot be written is passed over for another.
  private func giveUpOne() throws(FileError) {
    var failure = FileError.noSpace
    for _ in 0..<(2 * pages.count) {
      let page = hand
      hand = (hand + 1) % pages.count
      guard pages[page].isUsed, page != pinned.first, page != pinned.last else { continue }
      if pages[page].isTouched {
        pages[page].isTouched = false
        continue
      }
      if pages[page].isDirty {
        do throws(FileError) { try writeRun(around: page) } catch {
          failure = error
          continue
        }
      }
      drop(page)
      return
    }
    throw failure
  }

  /// Writes back the page and the changed ones before and behind it in its file.
  private func writeRun(around page: Int) throws(FileError) {
    let inode = pages[page].inode
    func dirty(_ index: UInt64) -> Int? {
      guard let found = find(inode, index), pages[found].isDirty else { return nil }
      return found
    }
    var first = pages[page].index
    var count = 1
    while count < Self.longestRun, first > 0, dirty(first - 1) != nil {
      first -= 1
      count += 1
    }
    while count < Self.longestRun, dirty(first + UInt64(count)) != nil { count += 1 }
    for step in 0..<count {
      guard let part = find(inode, first + UInt64(step)) else { continue }
      outgoing.area.copy(area(part), at: step * PageStore.pageSize)
    }
    let size = UInt64(PageStore.pageSize)
    try system.writeBack(inode, first * size, from: outgoing.area.slice(0, count * PageStore.pageSize))
    for step in 0..<count {
      guard let part = find(inode, first + UInt64(step)) else { continue }
      pages[part].isDirty = false
      dirtyCount -= 1
      report.written += 1
    }
  }

  private func writeAll() throws(FileError) {
    guard dirtyCount > 0 else { return }
    for page in pages.indices where pages[page].isDirty { try writeRun(around: page) }
  }

  /// Forgets all pages of a file from `first` on, changed or not.
  private func forget(_ inode: UInt32, from first: UInt64 = 0) {
    for page in pages.indices where pages[page].isUsed && pages[page].inode == inode && pages[page].index >= first {
      drop(page)
    }
  }

  // MARK: Data

  public func readData(_ inode: UInt32, _ offset: UInt64, into area: ByteArea) throws(FileError) {
    let size = UInt64(PageStore.pageSize)
    var done = 0
    while done < area.count {
      let position = offset + UInt64(done)
      let index = position / size
      let within = Int(position % size)
      if let page = find(inode, index) {
        report.hits += 1
        pages[page].isTouched = true
        let part = min(area.count - done, PageStore.pageSize - within)
        area.copy(self.area(page).slice(within, part), at: done)
        done += part
        continue
      }
      // All that is missing in a row comes at once.
      let wanted = (within + area.count - done + PageStore.pageSize - 1) / PageStore.pageSize
      var count = 1
      while count < min(wanted, Self.longestRun), find(inode, index + UInt64(count)) == nil { count += 1 }
      let run = incoming.area.slice(0, count * PageStore.pageSize)
      try system.readData(inode, index * size, into: run)
      report.misses += UInt64(count)
      for step in 0..<count {
        let page = try add(inode, index + UInt64(step))
        self.area(page).copy(run.slice(step * PageStore.pageSize, PageStore.pageSize))
      }
      let part = min(area.count - done, run.count - within)
      area.copy(run.slice(within, part), at: done)
      done += part
    }
  }

  public func writeData(_ inode: UInt32, _ offset: UInt64, from area: ByteArea) throws(FileError) {
    // What is written at once must find room here beside the pages that stay.
    let most = (store.capacity / 2 - 1) * PageStore.pageSize
    var done = 0
    while done < area.count {
      let part = min(area.count - done, most)
      try writePart(inode, offset + UInt64(done), from: area.slice(done, part))
      done += part
    }
  }

  private func writePart(_ inode: UInt32, _ offset: UInt64, from area: ByteArea) throws(FileError) {
    let size = UInt64(PageStore.pageSize)
    let end = offset + UInt64(area.count)
    let (first, last) = (offset / size, (end - 1) / size)
    defer { pinned = (-1, -1) }
    // Pages that keep some of what they have, before the file system's blocks change.
    let oldSize = try system.size(inode)
    if offset % size != 0, first * size < oldSize { pinned.first = try load(inode, first) }
    if end % size != 0, last != first || offset % size == 0, end < oldSize { pinned.last = try load(inode, last) }
    var missing = 0
    for index in first...last where find(inode, index) == nil { missing += 1 }
    while store.capacity - store.used < missing { try giveUpOne() }
    // It may have given up one that is written as a whole.
    missing = 0
    for index in first...last where find(inode, index) == nil { missing += 1 }
    while store.capacity - store.used < missing { try giveUpOne() }
    try system.reserve(inode, offset, area.count)
    var done = 0
    while done < area.count {
      let position = offset + UInt64(done)
      let within = Int(position % size)
      let part = min(area.count - done, PageStore.pageSize - within)
      let page: Int
      if let found = find(inode, position / size) { page = found } else { page = try add(inode, position / size) }
      self.area(page).copy(area.slice(done, part), at: within)
      pages[page].isTouched = true
      markDirty(page)
      done += part
    }
  }

  /// The page with what the file has there.
  private func load(_ inode: UInt32, _ index: UInt64) throws(FileError) -> Int {
    if let page = find(inode, index) {
      report.hits += 1
      return page
    }
    report.misses += 1
    let page = try add(inode, index)
    do throws(FileError) {
      try system.readData(inode, index * UInt64(PageStore.pageSize), into: area(page))
    } catch {
      drop(page)
      throw error
    }
    return page
  }

  public func setSize(_ inode: UInt32, _ size: UInt64) throws(FileError) {
    try system.setSize(inode, size)
    let pageSize = UInt64(PageStore.pageSize)
    forget(inode, from: size / pageSize + (size % pageSize == 0 ? 0 : 1))
    let within = Int(size % pageSize)
    if within != 0, let page = find(inode, size / pageSize) {
      // What lay behind the new end must not come back when the file grows again.
      area(page).slice(within, PageStore.pageSize - within).fill()
    }
  }

  public func reserve(_ inode: UInt32, _ offset: UInt64, _ count: Int) throws(FileError) {
    try system.reserve(inode, offset, count)
  }
  public func writeBack(_ inode: UInt32, _ offset: UInt64, from area: ByteArea) throws(FileError) {
    try system.writeBack(inode, offset, from: area)
  }
  public func sync() throws(FileError) {
    try writeAll()
    try system.sync()
  }

  // MARK: Files that come to their end

  public func retain(_ inode: UInt32) {
    system.retain(inode)
    for index in holders.indices where holders[index].inode == inode {
      holders[index].count += 1
      return
    }
    holders.append((inode, 1))
  }

  public func release(_ inode: UInt32) throws(FileError) {
    for index in holders.indices where holders[index].inode == inode {
      holders[index].count -= 1
      if holders[index].count == 0 { holders.remove(at: index) }
      break
    }
    // Before the file system can give the number to another file.
    forgetIfGone(inode)
    try system.release(inode)
  }

  /// A file without names and holders will not be read again, and its number will mean another.
  private func forgetIfGone(_ inode: UInt32) {
    for holder in holders where holder.inode == inode { return }
    do throws(FileError) {
      if try system.attributes(inode).links > 0 { return }
    } catch {
      // Gone already.
    }
    forget(inode)
  }

  public func unlink(_ directory: UInt32, _ name: Bytes) throws(FileError) {
    let inode = try system.lookup(directory, name)
    try system.unlink(directory, name)
    forgetIfGone(inode)
  }

  public func rename(_ from: UInt32, _ name: Bytes, to: UInt32, _ newName: Bytes) throws(FileError) {
    var replaced: UInt32?
    do throws(FileError) { replaced = try system.lookup(to, newName) } catch {
      guard error == .notFound else { throw error }
    }
    try system.rename(from, name, to: to, newName)
    if let replaced { forgetIfGone(replaced) }
  }

  // MARK: All else is the file system's

  public var root: UInt32 { system.root }
  public var now: UInt32 {
    get { system.now }
    set { system.now = newValue }
  }
  public var space: FileSystemSpace { system.space }
  public func attributes(_ inode: UInt32) throws(FileError) -> FileAttributes { try system.attributes(inode) }
  public func size(_ inode: UInt32) throws(FileError) -> UInt64 { try system.size(inode) }
  public func lookup(_ directory: UInt32, _ name: Bytes) throws(FileError) -> UInt32 {
    try system.lookup(directory, name)
  }
  public func parent(of directory: UInt32) throws(FileError) -> UInt32 { try system.parent(of: directory) }
  public func readDirectory(_ directory: UInt32, _ cursor: inout UInt64) throws(FileError) -> DirectoryEntry? {
    try system.readDirectory(directory, &cursor)
  }
  public func create(
    _ directory: UInt32, _ name: Bytes, kind: FileKind, permissions: UInt16
  ) throws(FileError) -> UInt32 { try system.create(directory, name, kind: kind, permissions: permissions) }
  public func makeLink(_ directory: UInt32, _ name: Bytes, target: Bytes) throws(FileError) -> UInt32 {
    try system.makeLink(directory, name, target: target)
  }
  public func readLink(_ inode: UInt32) throws(FileError) -> [UInt8] { try system.readLink(inode) }
  public func link(_ inode: UInt32, _ directory: UInt32, _ name: Bytes) throws(FileError) {
    try system.link(inode, directory, name)
  }
  public func removeDirectory(_ directory: UInt32, _ name: Bytes) throws(FileError) {
    try system.removeDirectory(directory, name)
  }
  public func setPermissions(_ inode: UInt32, _ permissions: UInt16) throws(FileError) {
    try system.setPermissions(inode, permissions)
  }
}
