// The file system's part: tmpfs, and who must hear of changes.

import FileInterface
import MemoryClient
import Pollux
import TmpFS

final class FileSide {
  /// The memory whose pages the files have.
  let object: MemoryObject
  let store: PageStore
  let system: TmpFS
  /// Where the memory part is another process: the way to it, and its cache's pages.
  var listener: Connection?
  var cache: Mapping?
  /// Files of which the memory part has pages.
  private var watched: [UInt32] = []

  init(pages: Int) throws(SystemError) {
    object = try MemoryObject.create(UInt64(pages * PageStore.pageSize))
    let mapping = try object.map([.read, .write])
    store = PageStore(ByteArea(unsafeBase: mapping.base, count: mapping.size))
    system = TmpFS(store)
  }

  /// An empty file in the root.
  func create(_ name: [UInt8]) throws(FileError) -> UInt32 {
    let block = ByteBlock(count: max(1, name.count))
    for index in name.indices { block.area.store(name[index], at: index) }
    let text = block.area.slice(0, name.count).bytes
    if let old = try? system.lookup(system.root, text) {
      try system.setSize(old, 0)
      return old
    }
    return try system.create(system.root, text, kind: .file, permissions: 0o644)
  }

  /// Writes, and tells the memory part if it has pages of the file. The same bytes are kept twice then, and so are the books.
  func write(_ inode: UInt32, _ offset: UInt64, _ area: ByteArea, _ memory: MemorySide?) throws(FileError) {
    try system.writeData(inode, offset, from: area)
    let first = offset / 4096
    let pages = (offset + UInt64(area.count) + 4095) / 4096 - first
    if let memory {
      memory.changed(inode, first: first, pages: pages)
    } else if let listener, watched.contains(inode) {
      var message = Message(FileMemoryCall.changed.rawValue, UInt64(inode), first, pages)
      do throws(SystemError) { try listener.call(&message) } catch {
        switch error {
        // Its mappings have died with it; there is nobody to tell.
        case .peerClosed, .badHandle: forgetMemory()
        case .deadlock: throw .busy
        default: throw .inputOutput
        }
      }
    }
  }

  /// The memory part's process is gone, or there is a new one.
  func forgetMemory() {
    listener?.handle.close()
    listener = nil
    cache?.unmap()
    cache = nil
    watched = []
  }

  /// Copies a page of a file into a page of the other process's cache.
  func fetch(_ inode: UInt32, _ index: UInt64, toCachePage page: UInt64) throws(FileError) {
    guard let cache, page < UInt64(cache.size / 4096), index < 1 << 20 else { throw .invalid }
    let area = ByteArea(unsafeBase: cache.base, count: cache.size).slice(Int(page) * 4096, 4096)
    try system.readData(inode, index * 4096, into: area)
    if !watched.contains(inode) { watched.append(inode) }
  }
}
