// What lies in a tree, a line for each name: its path, kind, length, names, permissions and a hash of its contents, so that another
// system can say whether it sees the same.

import Files
import Pollux

extension Tester {
  /// A directory is told before what it holds.
  func tellTree(_ path: Bytes) throws(FileError) {
    try tell(path)
    for entry in try files.list(path) {
      let below = copy(path, entry.name)
      if entry.kind == .directory { try tellTree(below.area.bytes) } else { try tell(below.area.bytes) }
    }
  }

  private func copy(_ path: Bytes, _ name: [UInt8]) -> ByteBlock {
    let text = names(path, name)
    let block = ByteBlock(count: text.count)
    block.area.copy(text.area)
    return block
  }

  private func tell(_ path: Bytes) throws(FileError) {
    let attributes = try files.attributes(at: path, followsLink: false)
    var hash = Hash()
    switch attributes.kind {
    case .file:
      let file = try files.open(path, .read)
      var offset: UInt64 = 0
      while true {
        let count = try files.read(file, offset, into: block.area)
        if count == 0 { break }
        hash.add(block.area.slice(0, count))
        offset += UInt64(count)
      }
      try files.close(file)
    case .link:
      let target = try files.readLink(path)
      for byte in target { hash.add(byte) }
    default: break
    }
    var line = Text("tree ")
    line.add(path)
    line.add(" ")
    line.add(UInt64(attributes.kind.rawValue))
    line.add(" ")
    line.add(attributes.kind == .directory ? 0 : attributes.size)
    line.add(" ")
    line.add(attributes.links)
    line.add(" ")
    line.add(UInt64(attributes.permissions))
    line.add(" ")
    line.add(hexadecimal: hash.value)
    line.add("\n")
    line.print()
  }

  /// Removes all that lies in `path`.
  func removeAll(in path: Bytes) throws(FileError) {
    for entry in try files.list(path) {
      let below = copy(path, entry.name)
      if entry.kind == .directory {
        try removeAll(in: below.area.bytes)
        try files.removeDirectory(below.area.bytes)
      } else {
        try files.unlink(below.area.bytes)
      }
    }
  }
}

/// FNV-1a of 64 bits.
struct Hash {
  private(set) var value: UInt64 = 0xcbf2_9ce4_8422_2325

  mutating func add(_ byte: UInt8) { value = (value ^ UInt64(byte)) &* 0x100_0000_01b3 }
  mutating func add(_ area: ByteArea) { for index in 0..<area.count { add(area.load8(index)) } }
}
