// Ext2 against e2fsprogs: images from mke2fs, contents compared with debugfs, every result judged by `e2fsck -fn`.
import Ext2
import Foundation
import Testing

/// Kinds of image that mke2fs makes.
let imageKinds: [(kib: Int, arguments: [String])] = [
  (4096, ["-t", "ext2", "-b", "1024"]),
  (16384, ["-t", "ext2", "-b", "4096"]),
  (4096, ["-t", "ext2", "-b", "2048", "-O", "^filetype,^dir_index,^resize_inode"]),
  (3000, ["-t", "ext2", "-b", "1024", "-g", "1024", "-I", "128", "-N", "512", "-O", "^sparse_super,^resize_inode"]),
  (2048, ["-t", "ext2", "-r", "0", "-b", "1024", "-O", "none"]),
]

@Suite struct Ext2Tests {
  @Test(arguments: imageKinds.indices)
  func filesDirectoriesAndLinks_areWhatE2fsprogsSees(_ kind: Int) throws {
    let workshop = Workshop()
    let store = MemoryStore(try workshop.format(imageKinds[kind].kib, imageKinds[kind].arguments))
    let system = try Ext2(store, now: 1_700_000_000)
    let file = try system.make(system.root, "hello.txt")
    try system.write(file, 0, [UInt8]("hello, disk\n".utf8))
    let folder = try system.make(system.root, "folder", .directory)
    let large = try system.make(folder, "large")
    var data = [UInt8](repeating: 0, count: 700_000)
    for index in data.indices { data[index] = UInt8(truncatingIfNeeded: index &* 31 >> 3) }
    try system.write(large, 0, data)
    let sparse = try system.make(folder, "sparse")
    try system.write(sparse, 90_000_000, [1, 2, 3])
    _ = try named("short") { name throws(FileError) in
      try named("../hello.txt") { target throws(FileError) in try system.makeLink(folder, name, target: target) }
    }
    let longTarget = String(repeating: "x/", count: 100)
    let long = try named("long") { name throws(FileError) in
      try named(longTarget) { target throws(FileError) in try system.makeLink(folder, name, target: target) }
    }
    try named("second") { name throws(FileError) in try system.link(file, folder, name) }
    try system.sync()

    let verdict = try workshop.check(store.content)
    #expect(verdict.status == 0, "\(verdict.output)")
    let path = workshop.folder + "/check.img"
    #expect(try workshop.run("debugfs", ["-R", "cat /folder/second", path]).output.hasSuffix("hello, disk\n"))
    let dump = workshop.folder + "/dump"
    _ = try workshop.run("debugfs", ["-R", "dump /folder/large \(dump)", path])
    #expect(try [UInt8](Data(contentsOf: URL(fileURLWithPath: dump))) == data)
    #expect(try workshop.run("debugfs", ["-R", "stat /folder/short", path]).output.contains("../hello.txt"))

    let again = try Ext2(store)
    #expect(again.checkReport == nil)
    #expect(try again.readLink(long) == [UInt8](longTarget.utf8))
    #expect(try again.contents(large) == data)
    #expect(try again.attributes(sparse).size == 90_000_003)
    #expect(try again.attributes(sparse).sectors < 64)
    #expect(try again.attributes(file).links == 2)
  }

  @Test func imageFilledByMke2fs_isReadBack() throws {
    let workshop = Workshop()
    let source = workshop.folder + "/source"
    try FileManager.default.createDirectory(atPath: source + "/a/b", withIntermediateDirectories: true)
    var files: [String: [UInt8]] = [:]
    var random = SplitMix(state: 7)
    for index in 0..<40 {
      let name = "file-\(index)"
      let data = (0..<Int.random(in: 0...60_000, using: &random)).map { UInt8(truncatingIfNeeded: $0 &* (index + 3)) }
      try Data(data).write(to: URL(fileURLWithPath: source + "/a/b/" + name))
      files[name] = data
    }
    let store = MemoryStore(try workshop.format(8192, ["-t", "ext2", "-b", "1024", "-d", source]))
    let before = store.content
    let system = try Ext2(store, readOnly: true)
    let folder = try system.find(try system.find(system.root, "a"), "b")
    let names = try system.names(folder)
    #expect(Set(names.keys) == Set(files.keys))
    for (name, data) in files { #expect(try system.contents(try #require(names[name])) == data) }
    #expect(throws: FileError.readOnly) { try system.make(folder, "new") }
    try system.sync()
    #expect(store.content == before)
  }

  @Test func fullDisk_refusesAndStaysClean() throws {
    let workshop = Workshop()
    let store = MemoryStore(try workshop.format(512, ["-t", "ext2", "-b", "1024", "-N", "32"]))
    let system = try Ext2(store, now: 5)
    var made = 0
    #expect(throws: FileError.noSpace) {
      while true {
        let file = try system.make(system.root, "file\(made)")
        made += 1
        try system.write(file, 0, [UInt8](repeating: 7, count: 30_000))
      }
    }
    #expect(made > 5)
    // A file that is deleted makes room at once, though its blocks only come free with a sync.
    try system.remove(system.root, "file0")
    let file = try system.make(system.root, "again")
    try system.write(file, 0, [UInt8](repeating: 8, count: 20_000))
    #expect(throws: FileError.noSpace) {
      for index in 0..<64 { _ = try system.make(system.root, "empty\(index)") }
    }
    try system.sync()
    let verdict = try workshop.check(store.content)
    #expect(verdict.status == 0, "\(verdict.output)")
  }

  /// A write into a hole for which there is no room leaves zeros there, not what deleted files had in the blocks that were taken.
  @Test func writeThatDoesNotFitIntoAHole_leavesZeros() throws {
    let workshop = Workshop()
    let store = MemoryStore(try workshop.format(512, ["-t", "ext2", "-b", "1024", "-N", "32"]))
    let system = try Ext2(store, now: 5)
    let old = try system.make(system.root, "old")
    #expect(throws: FileError.noSpace) {
      var offset: UInt64 = 0
      while true {
        try system.write(old, offset, [UInt8](repeating: 0xaa, count: 4096))
        offset += 4096
      }
    }
    try system.sync()
    try system.remove(system.root, "old")
    try system.sync()
    let file = try system.make(system.root, "sparse")
    try system.setSize(file, 1 << 20)
    #expect(throws: FileError.noSpace) { try system.write(file, 0, [UInt8](repeating: 0x55, count: 600 << 10)) }
    #expect(try system.contents(file).allSatisfy { $0 == 0 })
    try system.sync()
    let verdict = try workshop.check(store.content)
    #expect(verdict.status == 0, "\(verdict.output)")
  }

  @Test func unlinkedOpenFile_livesUntilRelease() throws {
    let workshop = Workshop()
    let store = MemoryStore(try workshop.format(1024, ["-t", "ext2"]))
    let system = try Ext2(store, now: 5)
    let file = try system.make(system.root, "open")
    try system.write(file, 0, [1, 2, 3])
    try system.sync()
    let free = system.space.freeInodes
    system.retain(file)
    try system.remove(system.root, "open")
    try system.sync()
    #expect(try system.contents(file) == [1, 2, 3])
    #expect(try system.attributes(file).links == 0)
    // A kill now: the next mount frees it.
    let other = MemoryStore(store.content)
    let mended = try Ext2(other, now: 6)
    #expect(mended.space.freeInodes == free + 1)
    #expect(try workshop.check(other.content).status == 0)
    try system.release(file)
    try system.sync()
    #expect(system.space.freeInodes == free + 1)
    let verdict = try workshop.check(store.content)
    #expect(verdict.status == 0, "\(verdict.output)")
  }

  @Test func unknownFeatures_areRefusedOrReadOnly() throws {
    let workshop = Workshop()
    let image = try workshop.format(1024, ["-t", "ext2"])
    let incompatible = MemoryStore(image)
    incompatible.content[1024 + 96] |= 0x40
    #expect(throws: Ext2MountError.incompatibleFeatures(0x40)) { _ = try Ext2(incompatible) }
    let readable = MemoryStore(image)
    readable.content[1024 + 100] |= 0x10
    #expect(try Ext2(readable).isReadOnly)
    let wrong = MemoryStore(image)
    wrong.content[1024 + 57] = 0
    #expect(throws: Ext2MountError.notExt2) { _ = try Ext2(wrong) }
    #expect(throws: Ext2MountError.incompatibleFeatures(0x40 | 0x200)) {
      _ = try Ext2(MemoryStore(try workshop.format(8192, ["-t", "ext4", "-O", "^64bit"])))
    }
  }
}
