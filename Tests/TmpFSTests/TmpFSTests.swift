// TmpFS against a plain model: random operations on names and data, and no page lost or held.

import FileInterface
import Testing
import TmpFS

private func bytes(_ text: String) -> Bytes {
  let copy = UnsafeMutableRawPointer.allocate(byteCount: max(1, text.utf8.count), alignment: 8)
  for (index, byte) in text.utf8.enumerated() { copy.storeBytes(of: byte, toByteOffset: index, as: UInt8.self) }
  return Bytes(unsafeBase: UnsafeRawPointer(copy), count: text.utf8.count)
}

private struct Files {
  let block: ByteBlock
  let store: PageStore
  let system: TmpFS
  init(pages: Int) {
    block = ByteBlock(count: pages * 4096)
    store = PageStore(block.area)
    system = TmpFS(store)
  }
}

struct TmpFSTests {
  @Test func namesAreFoundUntilTheyAreRemoved() throws {
    let files = Files(pages: 4)
    let system = files.system
    let directory = try system.create(system.root, bytes("d"), kind: .directory, permissions: 0o700)
    let file = try system.create(directory, bytes("f"), kind: .file, permissions: 0o644)
    #expect(try system.lookup(directory, bytes("f")) == file)
    #expect(try system.attributes(system.root).links == 3)
    #expect(throws: FileError.exists) { try system.create(directory, bytes("f"), kind: .file, permissions: 0) }
    #expect(throws: FileError.notEmpty) { try system.removeDirectory(system.root, bytes("d")) }
    #expect(throws: FileError.badName) { try system.create(directory, bytes("a/b"), kind: .file, permissions: 0) }
    try system.link(file, system.root, bytes("g"))
    try system.unlink(directory, bytes("f"))
    #expect(try system.attributes(file).links == 1)
    try system.removeDirectory(system.root, bytes("d"))
    #expect(throws: FileError.notFound) { try system.lookup(system.root, bytes("d")) }
  }

  @Test func aDirectoryCannotMoveBelowItself() throws {
    let system = Files(pages: 1).system
    let a = try system.create(system.root, bytes("a"), kind: .directory, permissions: 0)
    let b = try system.create(a, bytes("b"), kind: .directory, permissions: 0)
    #expect(throws: FileError.invalid) { try system.rename(system.root, bytes("a"), to: b, bytes("c")) }
  }

  @Test func anOpenFileOutlivesItsName() throws {
    let files = Files(pages: 2)
    let system = files.system
    let file = try system.create(system.root, bytes("f"), kind: .file, permissions: 0)
    let data = ByteBlock(count: 4096)
    data.area.fill(7)
    try system.writeData(file, 0, from: data.area)
    system.retain(file)
    try system.unlink(system.root, bytes("f"))
    let back = ByteBlock(count: 4096)
    try system.readData(file, 0, into: back.area)
    #expect(back.area.equals(data.area))
    try system.release(file)
    #expect(files.store.used == 0)
  }

  @Test func aFullStoreRefusesAndKeepsWhatIsThere() throws {
    let files = Files(pages: 3)
    let file = try files.system.create(files.system.root, bytes("f"), kind: .file, permissions: 0)
    let data = ByteBlock(count: 8192)
    try files.system.writeData(file, 0, from: data.area)
    #expect(throws: FileError.noSpace) { try files.system.writeData(file, 8192, from: data.area) }
    #expect(files.store.used == 2)
    #expect(try files.system.attributes(file).size == 8192)
  }

  @Test(arguments: 1...20) func randomOperationsAgreeWithAModel(seed: Int) throws {
    var random = Numbers(state: UInt64(seed) &* 0x9e37_79b9_7f4a_7c15 | 1)
    let files = Files(pages: 64)
    let system = files.system
    var model: [String: [UInt8]] = [:]
    for _ in 0..<2000 {
      let name = "file\(random.next() % 8)"
      let inode = try? system.lookup(system.root, bytes(name))
      #expect((inode != nil) == (model[name] != nil))
      switch random.next() % 6 {
      case 0:
        if inode == nil {
          _ = try system.create(system.root, bytes(name), kind: .file, permissions: 0)
          model[name] = []
        }
      case 1:
        if inode != nil {
          try system.unlink(system.root, bytes(name))
          model[name] = nil
        }
      case 2:
        guard let inode, var content = model[name] else { continue }
        let size = Int(random.next() % 30_000)
        try system.setSize(inode, UInt64(size))
        content = Array(content.prefix(size)) + [UInt8](repeating: 0, count: max(0, size - content.count))
        model[name] = content
      case 3:
        let other = "file\(random.next() % 8)"
        guard inode != nil, other != name else { continue }
        try system.rename(system.root, bytes(name), to: system.root, bytes(other))
        model[other] = model.removeValue(forKey: name)
      default:
        guard let inode, var content = model[name] else { continue }
        let offset = Int(random.next() % 20_000)
        let count = Int(random.next() % 9000) + 1
        let data = ByteBlock(count: count)
        for index in 0..<count { data.area.store(UInt8(truncatingIfNeeded: random.next()), at: index) }
        let size = content.count
        do {
          try system.writeData(inode, UInt64(offset), from: data.area)
        } catch {
          #expect(error == .noSpace)
          #expect(try system.attributes(inode).size == UInt64(size))
          continue
        }
        if content.count < offset + count {
          content += [UInt8](repeating: 0, count: offset + count - content.count)
        }
        for index in 0..<count { content[offset + index] = data.area.load8(index) }
        model[name] = content
      }
    }
    for (name, content) in model {
      let inode = try system.lookup(system.root, bytes(name))
      #expect(try system.attributes(inode).size == UInt64(content.count))
      guard !content.isEmpty else { continue }
      let back = ByteBlock(count: content.count)
      try system.readData(inode, 0, into: back.area)
      #expect((0..<content.count).allSatisfy { back.area.load8($0) == content[$0] })
      try system.unlink(system.root, bytes(name))
    }
    for name in model.keys where model[name]?.isEmpty == true { try? system.unlink(system.root, bytes(name)) }
    #expect(files.store.used == 0)
  }
}

private struct Numbers {
  var state: UInt64
  /// Marsaglia's xorshift64.
  mutating func next() -> UInt64 {
    state ^= state << 13
    state ^= state >> 7
    state ^= state << 17
    return state >> 9
  }
}
