// The page cache between files and ext2: it changes nothing but when the disk is written.

import Ext2
import Foundation
import Testing
import VFS

/// ext2 with a cache of `pages` pages before it.
private struct Cached {
  let disk: MemoryStore
  let system: Ext2<MemoryStore>
  let cache: PageCache

  init(_ disk: MemoryStore, pages: Int = PageCache.leastPages) throws {
    self.disk = disk
    system = try Ext2(disk, now: 1)
    let size = pages * PageStore.pageSize
    // Cache and file system hold each other, so it lives until the tests end.
    let memory = UnsafeMutableRawPointer.allocate(byteCount: size, alignment: PageStore.pageSize)
    memory.initializeMemory(as: UInt8.self, repeating: 0, count: size)
    cache = PageCache(system, memory: ByteArea(unsafeBase: memory, count: size))
  }
}

extension FileSystem {
  fileprivate func make(_ name: String) throws(FileError) -> UInt32 {
    try with(name) { name throws(FileError) in try create(root, name, kind: .file, permissions: 0o644) }
  }
  fileprivate func find(_ name: String) throws(FileError) -> UInt32 {
    try with(name) { name throws(FileError) in try lookup(root, name) }
  }
  fileprivate func remove(_ name: String) throws(FileError) {
    try with(name) { name throws(FileError) in try unlink(root, name) }
  }
  fileprivate func move(_ name: String, _ to: String) throws(FileError) {
    try with(name) { name throws(FileError) in
      try with(to) { to throws(FileError) in try rename(root, name, to: root, to) }
    }
  }
  fileprivate func put(_ inode: UInt32, _ offset: Int, _ data: [UInt8]) throws(FileError) {
    let block = ByteBlock(count: data.count)
    for (index, byte) in data.enumerated() { block.area.store(byte, at: index) }
    try writeData(inode, UInt64(offset), from: block.area)
  }
  fileprivate func get(_ inode: UInt32, _ offset: Int, _ count: Int) throws(FileError) -> [UInt8] {
    let block = ByteBlock(count: count)
    block.area.fill(0x77)
    try readData(inode, UInt64(offset), into: block.area)
    return block.area.bytes.array
  }
}

private struct SplitMix: RandomNumberGenerator {
  var state: UInt64
  mutating func next() -> UInt64 {
    state &+= 0x9e37_79b9_7f4a_7c15
    var z = state
    z = (z ^ (z >> 30)) &* 0xbf58_476d_1ce4_e5b9
    z = (z ^ (z >> 27)) &* 0x94d0_49bb_1331_11eb
    return z ^ (z >> 31)
  }
}

struct PageCacheTests {
  @Test func dataComesOnceAndGoesAtASync() throws {
    let cached = try Cached(try formattedDisk(1024))
    let file = try cached.cache.make("f")
    let data = (0..<20_000).map { UInt8(truncatingIfNeeded: $0 &* 31) }
    let before = cached.disk.writes
    for start in stride(from: 0, to: data.count, by: 700) {
      try cached.cache.put(file, start, Array(data[start..<min(start + 700, data.count)]))
    }
    #expect(cached.disk.writes == before)
    #expect(cached.cache.counters.dirty == 5)
    #expect(cached.cache.counters.misses == 0)
    try cached.cache.sync()
    #expect(cached.cache.counters.dirty == 0)
    #expect(cached.cache.counters.written == 5)
    #expect(try Ext2(cached.disk).get(file, 0, data.count) == data)

    let again = try Cached(cached.disk)
    #expect(try again.cache.get(file, 100, 19_000) == Array(data[100..<19_100]))
    #expect(again.cache.counters.misses == 5)
    #expect(again.cache.counters.hits == 0)
    #expect(try again.cache.get(file, 0, 20_000) == data)
    #expect(again.cache.counters.misses == 5)
    #expect(again.cache.counters.hits == 5)
  }

  /// Random operations on more data than the cache has room for agree with arrays; and so does the disk in the end.
  @Test(arguments: [1024, 4096], 0..<4 as Range<UInt64>)
  func randomOperationsAgreeWithAModel(blockSize: Int, seed: UInt64) throws {
    var random = SplitMix(state: seed)
    let cached = try Cached(try formattedDisk(4096, blockSize: blockSize))
    let cache = cached.cache
    var model: [String: [UInt8]] = [:]
    /// Files without names that are still open.
    var nameless: [(inode: UInt32, data: [UInt8])] = []
    var counter = 0
    for _ in 0..<1500 {
      let name = "f\(Int.random(in: 0..<5, using: &random))"
      guard var data = model[name] else {
        _ = try cache.make(name)
        model[name] = []
        continue
      }
      let inode = try cache.find(name)
      switch Int.random(in: 0..<16, using: &random) {
      case 0..<6:
        let offset = Int.random(in: 0...max(1, min(data.count + 6000, 200_000)), using: &random)
        let length = Int.random(in: 1...(Bool.random(using: &random) ? 3000 : 66_000), using: &random)
        counter += 1
        let bytes = (0..<length).map { UInt8(truncatingIfNeeded: $0 &* 7 &+ counter) }
        try cache.put(inode, offset, bytes)
        if data.count < offset { data += [UInt8](repeating: 0, count: offset - data.count) }
        data.replaceSubrange(offset..<min(data.count, offset + length), with: bytes)
        model[name] = data
      case 6..<11:
        let offset = Int.random(in: 0...data.count + 100, using: &random)
        let length = Int.random(in: 1...70_000, using: &random)
        var expected = offset < data.count ? Array(data[offset..<min(data.count, offset + length)]) : []
        expected += [UInt8](repeating: 0, count: length - expected.count)
        try #require(try cache.get(inode, offset, length) == expected)
      case 11:
        let size = Int.random(in: 0...data.count + 9000, using: &random)
        try cache.setSize(inode, UInt64(size))
        model[name] = Array(data.prefix(size)) + [UInt8](repeating: 0, count: max(0, size - data.count))
      case 12:
        let other = "f\(Int.random(in: 0..<5, using: &random))"
        try cache.move(name, other)
        model[name] = nil
        model[other] = data
      case 13:
        try cache.remove(name)
        model[name] = nil
      case 14:
        if nameless.count < 3 {
          cache.retain(inode)
          try cache.remove(name)
          model[name] = nil
          nameless.append((inode, data))
        } else {
          let open = nameless.removeFirst()
          if !open.data.isEmpty { try #require(try cache.get(open.inode, 0, open.data.count) == open.data) }
          try cache.release(open.inode)
        }
      default: try cache.sync()
      }
      #expect(cache.counters.used <= cache.counters.capacity)
    }
    for open in nameless { try cache.release(open.inode) }
    try cache.sync()
    #expect(cache.counters.written > 100)
    #expect(cache.counters.hits > 100)
    #expect(cache.counters.misses > 100)
    let disk = try Ext2(cached.disk)
    for (name, data) in model where !data.isEmpty {
      let inode = try disk.find(name)
      #expect(try disk.attributes(inode).size == UInt64(data.count))
      #expect(try disk.get(inode, 0, data.count) == data)
    }
    try expectClean(cached.disk)
  }

  /// A sync that the file system does by itself finds the data on the disk that its inodes speak of.
  @Test func aSyncOfTheFileSystemTakesThePagesAlong() throws {
    let cached = try Cached(try formattedDisk(1024))
    let old = try cached.cache.make("old")
    try cached.cache.put(old, 0, [UInt8](repeating: 0xaa, count: 500_000))
    try cached.cache.sync()
    try cached.cache.remove("old")
    try cached.cache.sync()
    let new = try cached.cache.make("new")
    for start in stride(from: 0, to: 200_000, by: 3000) {
      try cached.cache.put(new, start, [UInt8](repeating: 0x55, count: 3000))
    }
    try cached.system.sync()
    let disk = try Ext2(cached.disk)
    #expect(try disk.get(try disk.find("new"), 0, 200_000).allSatisfy { $0 == 0x55 })
    try expectClean(cached.disk)
  }

  @Test func aDeviceThatFailsForAWhileLosesNothing() throws {
    let cached = try Cached(try formattedDisk(2048))
    let file = try cached.cache.make("f")
    try cached.cache.sync()
    cached.disk.failsWrites = true
    let data = (0..<150_000).map { UInt8(truncatingIfNeeded: $0 &* 13) }
    try cached.cache.put(file, 0, data)
    #expect(throws: FileError.inputOutput) { try cached.cache.sync() }
    // Changed pages are not given up: what needs their room fails.
    #expect(throws: FileError.inputOutput) {
      try cached.cache.put(file, 150_000, [UInt8](repeating: 1, count: 120_000))
    }
    #expect(try cached.cache.get(file, 0, data.count) == data)
    cached.disk.failsWrites = false
    try cached.cache.sync()
    let disk = try Ext2(cached.disk)
    #expect(try disk.get(try disk.find("f"), 0, data.count) == data)
    try expectClean(cached.disk)
  }

  /// A full disk refuses a write before its pages change.
  @Test func aWriteThatDoesNotFitChangesNothing() throws {
    let cached = try Cached(try formattedDisk(256))
    let file = try cached.cache.make("f")
    try cached.cache.put(try cached.cache.make("large"), 0, [UInt8](repeating: 9, count: 130_000))
    try cached.cache.put(file, 0, [UInt8](repeating: 3, count: 10_000))
    try cached.cache.setSize(file, 400_000)
    #expect(throws: FileError.noSpace) { try cached.cache.put(file, 9000, [UInt8](repeating: 4, count: 110_000)) }
    #expect(try cached.cache.get(file, 0, 10_000).allSatisfy { $0 == 3 })
    #expect(try cached.cache.get(file, 10_000, 390_000).allSatisfy { $0 == 0 })
    try cached.cache.sync()
    let disk = try Ext2(cached.disk)
    #expect(try disk.get(try disk.find("f"), 10_000, 390_000).allSatisfy { $0 == 0 })
    try expectClean(cached.disk)
  }
}
