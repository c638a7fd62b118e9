// What stands behind the nodes in /dev.

import FileInterface
import Pollux
import VFS

/// Takes everything, gives nothing.
final class NullDevice: DeviceNode {
  let size: UInt64 = 0
  func read(_ offset: UInt64, into area: ByteArea) throws(FileError) -> Int { 0 }
  func write(_ offset: UInt64, from area: ByteArea) throws(FileError) -> Int { area.count }
}

/// Takes everything, gives zeros.
final class ZeroDevice: DeviceNode {
  let size: UInt64 = 0
  func read(_ offset: UInt64, into area: ByteArea) throws(FileError) -> Int {
    area.fill()
    return area.count
  }
  func write(_ offset: UInt64, from area: ByteArea) throws(FileError) -> Int { area.count }
}

/// The serial console's output. Its input belongs to the shell.
final class ConsoleDevice: DeviceNode {
  let size: UInt64 = 0
  func read(_ offset: UInt64, into area: ByteArea) throws(FileError) -> Int { throw .unsupported }
  func write(_ offset: UInt64, from area: ByteArea) throws(FileError) -> Int {
    // The server is one monitor: nobody may hold it longer than a page takes.
    let count = min(area.count, 4096)
    Console.write(UnsafeRawBufferPointer(start: area.unsafeBase, count: count))
    return count
  }
}

/// The disk's bytes, to be read only: what a file system on it holds in memory would not know of a write.
final class DiskDevice: DeviceNode {
  private let store: DiskStore
  private let sectors = ByteBlock(count: 4096)
  init(_ store: DiskStore) { self.store = store }

  var size: UInt64 { store.byteCount }

  func read(_ offset: UInt64, into area: ByteArea) throws(FileError) -> Int {
    guard offset < size else { return 0 }
    let total = Int(min(UInt64(area.count), size - offset))
    var done = 0
    while done < total {
      let position = offset + UInt64(done)
      let start = position & ~511
      let part = sectors.area.slice(0, Int(min(UInt64(sectors.area.count), size - start)))
      try store.read(start, into: part)
      let within = Int(position - start)
      let count = min(part.count - within, total - done)
      area.copy(part.slice(within, count), at: done)
      done += count
    }
    return total
  }
  func write(_ offset: UInt64, from area: ByteArea) throws(FileError) -> Int { throw .readOnly }
}
