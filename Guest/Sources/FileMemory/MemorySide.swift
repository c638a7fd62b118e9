// The memory manager's part: which pages of which files are mapped where, and its page cache, unless the files' pages are that.

import FileInterface
import MemoryClient
import Pollux
import TmpFS

final class MemorySide {
  private struct Mapped {
    var client: UInt64
    var process: Handle
    var inode: UInt32
    var start: UInt64
    var pages: UInt64
  }
  /// What the cache has of a file: a page of the cache for each of the file's, or `none`.
  private struct Cached {
    var inode: UInt32
    var pages: [UInt32]
  }
  private static let none = UInt32.max

  /// The memory whose pages are mapped.
  let object: MemoryObject
  /// The cache's own pages; nil where the files' pages are mapped.
  private let cache: PageStore?
  private let pager: Pager
  private var processes: [(client: UInt64, process: Handle)] = []
  private var mappings: [Mapped] = []
  private var cached: [Cached] = []
  /// The file part where that is another process.
  var remote: Connection?
  let pageCount: Int

  /// With a cache of its own.
  init(pages: Int) throws(SystemError) {
    object = try MemoryObject.create(UInt64(pages * PageStore.pageSize))
    let mapping = try object.map([.read, .write])
    cache = PageStore(ByteArea(unsafeBase: mapping.base, count: mapping.size))
    pageCount = pages
    pager = try Pager.create(shared: try MemoryObject.create(4096), memory: object)
  }

  /// Mapping the files' own pages.
  init(sharing files: FileSide) throws(SystemError) {
    object = files.object
    cache = nil
    pageCount = files.store.capacity
    pager = try Pager.create(shared: try MemoryObject.create(4096), memory: object)
    files.system.onRelease = { [self] page in unmapEverywhere(filePage: page) }
  }

  var ownPagesUsed: Int { cache?.used ?? 0 }

  func add(_ client: UInt64, _ process: Handle) {
    processes.removeAll { $0.client == client }
    processes.append((client, process))
  }

  func map(_ client: UInt64, _ inode: UInt32, at address: UInt64, pages: UInt64) throws(FileError) {
    guard let process = processes.first(where: { $0.client == client })?.process, pages > 0, pages <= UInt64(pageCount)
    else { throw .invalid }
    do throws(SystemError) {
      try pager.createRegion(
        in: process, at: address, size: pages * 4096, mode: Protection.read.rawValue | RegionMode.managed)
    } catch { throw .invalid }
    mappings.append(Mapped(client: client, process: process, inode: inode, start: address, pages: pages))
  }

  /// Serves a fault: 0 if the instruction is to be tried again, 1 if the process has no business there.
  func fault(_ client: UInt64, address: UInt64, isWrite: Bool, _ files: FileSide?) -> UInt64 {
    guard !isWrite,
      let mapped = mappings.first(where: {
        $0.client == client && $0.start <= address && address < $0.start + $0.pages * 4096
      })
    else { return 1 }
    let index = (address - mapped.start) / 4096
    do throws(FileError) {
      guard let page = try page(mapped.inode, index, files) else { return 1 }
      do throws(SystemError) {
        try Pager.map(in: mapped.process, at: address & ~4095, page: UInt64(page), mode: 0)
      } catch {
        // Another thread of the process was faster.
        return error == .exists ? 0 : 1
      }
      return 0
    } catch {
      // The file part waits for this one at the same time: the fault comes again.
      return error == .busy ? 0 : 1
    }
  }

  /// The page to map for a page of a file; nil behind the file's end or in a hole of a shared file.
  private func page(_ inode: UInt32, _ index: UInt64, _ files: FileSide?) throws(FileError) -> UInt32? {
    guard let cache else { return try files?.system.page(inode, index) }
    let place = row(of: inode)
    guard index < UInt64(pageCount) else { throw .tooLarge }
    while cached[place].pages.count <= Int(index) { cached[place].pages.append(Self.none) }
    let known = cached[place].pages[Int(index)]
    if known != Self.none { return known }
    let page = try cache.allocate()
    do throws(FileError) {
      if let files {
        try files.system.readData(inode, index * 4096, into: cache.area(page))
      } else {
        try fetch(inode, index, page)
      }
    } catch {
      cache.release(page)
      throw error
    }
    cached[place].pages[Int(index)] = page
    return page
  }

  private func row(of inode: UInt32) -> Int {
    if let known = cached.firstIndex(where: { $0.inode == inode }) { return known }
    cached.append(Cached(inode: inode, pages: []))
    return cached.count - 1
  }

  private func fetch(_ inode: UInt32, _ index: UInt64, _ page: UInt32) throws(FileError) {
    guard let remote else { throw .inputOutput }
    var message = Message(FileMemoryCall.fetch.rawValue, UInt64(inode), index, UInt64(page))
    do throws(SystemError) { try remote.call(&message) } catch {
      throw error == .deadlock ? .busy : .inputOutput
    }
    if message[0] != 0 { throw FileError(rawValue: message[0]) ?? .inputOutput }
  }

  /// A file was written: what the cache has of it is out of date. With shared pages there is nothing to do.
  func changed(_ inode: UInt32, first: UInt64, pages: UInt64) {
    guard let cache, let place = cached.firstIndex(where: { $0.inode == inode }) else { return }
    var index = first
    let end = min(first + pages, UInt64(cached[place].pages.count))
    while index < end {
      let page = cached[place].pages[Int(index)]
      if page != Self.none {
        unmap(inode, index)
        cache.release(page)
        cached[place].pages[Int(index)] = Self.none
      }
      index += 1
    }
  }

  /// Takes a page of a file out of all mappings.
  private func unmap(_ inode: UInt32, _ index: UInt64) {
    for mapped in mappings where mapped.inode == inode && index < mapped.pages {
      do throws(SystemError) {
        try Pager.remove(from: mapped.process, at: mapped.start + index * 4096, size: 4096, keepingRegions: true)
      } catch { continue }  // the process has ended
    }
  }

  /// A file gives a page back: no mapping of the file may show it any longer.
  private func unmapEverywhere(filePage page: UInt32) {
    for mapped in mappings {
      do throws(SystemError) {
        try Pager.remove(from: mapped.process, at: mapped.start, size: mapped.pages * 4096, keepingRegions: true)
      } catch { continue }  // the process has ended
    }
  }

  /// The file part's process is gone with its files: their mappings are taken out, and a process that still uses one ends at its next fault
  /// there.
  func forgetFiles() {
    remote?.handle.close()
    remote = nil
    guard let cache else { return }
    for mapped in mappings {
      do throws(SystemError) {
        try Pager.remove(from: mapped.process, at: mapped.start, size: mapped.pages * 4096)
      } catch { continue }  // the process has ended
    }
    mappings = []
    for entry in cached {
      for page in entry.pages where page != Self.none { cache.release(page) }
    }
    cached = []
  }

  func drop(_ client: UInt64) {
    for mapped in mappings where mapped.client == client {
      do throws(SystemError) {
        try Pager.remove(from: mapped.process, at: mapped.start, size: mapped.pages * 4096)
      } catch { continue }  // the process has ended
    }
    mappings.removeAll { $0.client == client }
    guard let cache else { return }
    for entry in cached where !mappings.contains(where: { $0.inode == entry.inode }) {
      for page in entry.pages where page != Self.none { cache.release(page) }
    }
    cached.removeAll { entry in !mappings.contains { $0.inode == entry.inode } }
  }
}
