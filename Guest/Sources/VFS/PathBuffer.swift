// Where a path lies while it is walked: a copy of what the client sent, which the client cannot change any more, and the paths that
// symbolic links make of it.

import FileInterface

/// Room for one path and for its successor when a link is followed. Slices of it are valid until the next `load`.
final class PathBuffer {
  /// Longest path in bytes.
  static let capacity = 4096
  private var current = ByteBlock(count: capacity)
  private var other = ByteBlock(count: capacity)
  private(set) var path = Bytes("")

  /// Copies `path`. One that is empty, too long or has a zero byte is no path.
  func load(_ path: Bytes) throws(FileError) {
    guard path.count > 0, path.count <= Self.capacity else { throw .badName }
    current.area.copy(path.area)
    self.path = current.area.slice(0, path.count).bytes
    guard self.path.firstIndex(of: 0) == nil else { throw .badName }
  }

  /// Makes the path `target`/`rest` the current one; `rest` is the end of the current one.
  func follow(_ target: [UInt8], rest: Bytes) throws(FileError) {
    let length = target.count + (rest.isEmpty ? 0 : rest.count + 1)
    guard target.count > 0, length <= Self.capacity else { throw .badName }
    for index in target.indices { other.area.store(target[index], at: index) }
    if !rest.isEmpty {
      other.area.store(0x2f as UInt8, at: target.count)
      other.area.copy(rest.area, at: target.count + 1)
    }
    swap(&current, &other)
    path = current.area.slice(0, length).bytes
  }
}
