// Random operations on Ext2 and on a model in memory; cuts of the write sequence at many points; disks with random damage.
import Ext2
import Foundation
import Testing

/// What the file system should hold.
final class Model {
  final class Node {
    let inode: UInt32
    var data: [UInt8] = []
    var children: [String: Node]?
    /// Number of the last operation that changed the data, or the names in the directory.
    var lastChange = 0
    init(_ inode: UInt32, isDirectory: Bool) {
      self.inode = inode
      children = isDirectory ? [:] : nil
    }
  }
  let root: Node
  var step = 0
  init(_ root: UInt32) { self.root = Node(root, isDirectory: true) }

  func all(_ node: Node? = nil, _ path: String = "", _ visit: (String, Node) throws -> Void) rethrows {
    // In the order of names, so that a seed always means the same operations.
    for (name, child) in ((node ?? root).children ?? [:]).sorted(by: { $0.key < $1.key }) {
      try visit(path + "/" + name, child)
      if child.children != nil { try all(child, path + "/" + name, visit) }
    }
  }

  var directories: [Node] {
    var result = [root]
    all { _, node in if node.children != nil { result.append(node) } }
    return result
  }

  func contains(_ node: Node, below other: Node) -> Bool {
    if node === other { return true }
    return (other.children ?? [:]).values.contains { contains(node, below: $0) }
  }
}

/// Performs one random operation on both; they must agree on success.
func performRandomOperation(
  _ system: Ext2<MemoryStore>, _ model: Model, _ random: inout SplitMix
) throws {
  model.step += 1
  system.now += 1
  let directory = model.directories.randomElement(using: &random)!
  let name =
    "n" + String(repeating: "x", count: Int.random(in: 0...12, using: &random) * 8)
    + "\(Int.random(in: 0..<6, using: &random))"
  let children = directory.children!
  let sorted = children.sorted { $0.key < $1.key }
  func change(_ nodes: Model.Node...) { for node in nodes { node.lastChange = model.step } }
  switch Int.random(in: 0..<12, using: &random) {
  case 0, 1:
    if children[name] == nil {
      let node = Model.Node(try system.make(directory.inode, name), isDirectory: false)
      directory.children![name] = node
      change(directory, node)
    } else {
      #expect(throws: FileError.exists) { try system.make(directory.inode, name) }
    }
  case 2:
    if children[name] == nil {
      let node = Model.Node(try system.make(directory.inode, name, .directory), isDirectory: true)
      directory.children![name] = node
      change(directory, node)
    }
  case 3, 4, 5, 6:
    guard let node = sorted.map(\.value).filter({ $0.children == nil }).randomElement(using: &random) else { return }
    let offset = Int.random(in: 0...(Bool.random(using: &random) ? 3000 : 40_000), using: &random)
    let data = (0..<Int.random(in: 1...9000, using: &random)).map { UInt8(truncatingIfNeeded: $0 &* 7 &+ model.step) }
    try system.write(node.inode, UInt64(offset), data)
    if node.data.count < offset + data.count {
      node.data += [UInt8](repeating: 0, count: offset + data.count - node.data.count)
    }
    node.data.replaceSubrange(offset..<offset + data.count, with: data)
    change(node)
  case 7:
    guard let node = sorted.map(\.value).filter({ $0.children == nil }).randomElement(using: &random) else { return }
    let size = Int.random(in: 0...50_000, using: &random)
    try system.setSize(node.inode, UInt64(size))
    node.data = Array(node.data.prefix(size)) + [UInt8](repeating: 0, count: max(0, size - node.data.count))
    change(node)
  case 8:
    guard let (name, node) = sorted.randomElement(using: &random) else { return }
    if node.children == nil {
      try system.remove(directory.inode, name)
      directory.children![name] = nil
      change(directory, node)
    } else if node.children!.isEmpty {
      try system.removeDirectory(directory.inode, named: name)
      directory.children![name] = nil
      change(directory, node)
    } else {
      #expect(throws: FileError.notEmpty) { try system.removeDirectory(directory.inode, named: name) }
      #expect(throws: FileError.isDirectory) { try system.remove(directory.inode, name) }
    }
  case 9, 10:
    guard let (old, node) = sorted.randomElement(using: &random) else { return }
    let target = model.directories.randomElement(using: &random)!
    if node.children != nil, model.contains(target, below: node) {
      #expect(throws: FileError.invalid) { try system.move(directory.inode, old, target.inode, name) }
      return
    }
    if let victim = target.children![name], victim !== node {
      if (victim.children != nil) != (node.children != nil) || !(victim.children?.isEmpty ?? true) {
        #expect(throws: FileError.self) { try system.move(directory.inode, old, target.inode, name) }
        return
      }
      change(victim)
    }
    try system.move(directory.inode, old, target.inode, name)
    if target.children![name] === node { return }
    target.children![name] = node
    directory.children![old] = nil
    change(directory, target)
  default:
    guard let node = sorted.map(\.value).filter({ $0.children == nil }).randomElement(using: &random) else { return }
    guard directory.children![name] == nil else { return }
    try named(name) { bytes throws(FileError) in try system.link(node.inode, directory.inode, bytes) }
    directory.children![name] = node
    change(directory)
  }
}

/// The file system holds what the model holds, all of it and nothing else.
func compare(_ system: Ext2<MemoryStore>, _ model: Model) throws {
  for directory in model.directories {
    var names = try system.names(directory.inode)
    if directory === model.root { names["lost+found"] = nil }
    #expect(names == directory.children!.mapValues { $0.inode })
  }
  var files: [(String, Model.Node)] = []
  model.all { path, node in if node.children == nil { files.append((path, node)) } }
  for (path, node) in files { #expect(try system.contents(node.inode) == node.data, "\(path)") }
}

@Suite struct Ext2ModelTests {
  @Test(arguments: imageKinds.indices)
  func randomOperations_agreeWithModelAndE2fsck(_ kind: Int) throws {
    let workshop = Workshop()
    let store = MemoryStore(try workshop.format(imageKinds[kind].kib, imageKinds[kind].arguments))
    let empty = store.content
    for seed in 0..<4 as Range<UInt64> {
      store.content = empty
      var random = SplitMix(state: seed &* 977 &+ UInt64(kind))
      var system = try Ext2(store, now: 1_000_000)
      let model = Model(system.root)
      for round in 0..<6 {
        do {
          for _ in 0..<50 { try performRandomOperation(system, model, &random) }
        } catch FileError.noSpace {
          break
        }
        try compare(system, model)
        try system.sync()
        let verdict = try workshop.check(store.content)
        try #require(verdict.status == 0, "seed \(seed) round \(round): \(verdict.output)")
        if round % 2 == 1 { system = try Ext2(store, now: system.now) }
      }
    }
  }

  /// The disk after every prefix of a sync's writes, with some of the last unflushed ones missing, is mended by the mount.
  @Test(arguments: 0..<8 as Range<UInt64>)
  func killAtAnyWrite_isMendedWithoutLossOfSyncedData(_ seed: UInt64) throws {
    let workshop = Workshop()
    let kind = imageKinds[[0, 3, 4, 2][Int(seed % 4)]]
    let store = MemoryStore(try workshop.format(kind.kib, kind.arguments))
    var random = SplitMix(state: seed)
    let system = try Ext2(store, now: 1_000_000)
    let model = Model(system.root)
    do { for _ in 0..<120 { try performRandomOperation(system, model, &random) } } catch FileError.noSpace {}
    try system.sync()
    let synced = model.step
    var paths: [(String, UInt32, [UInt8], Model.Node)] = []
    model.all { path, node in if node.children == nil { paths.append((path, node.inode, node.data, node)) } }
    let base = store.content
    store.isRecording = true
    do { for _ in 0..<60 { try performRandomOperation(system, model, &random) } } catch FileError.noSpace {}
    try system.sync()
    // A lost file without data is freed, as e2fsck does too.
    let untouched = paths.filter { $0.3.lastChange <= synced && !$0.2.isEmpty }

    let step = max(1, store.journal.count / 24)
    for cut in stride(from: 0, through: store.journal.count, by: step) {
      var content = base
      for write in store.journal[0..<cut] {
        content.replaceSubrange(write.offset..<write.offset + write.data.count, with: write.data)
      }
      // By our own mount …
      let mended = MemoryStore(content)
      let after = try Ext2(mended, now: 2_000_000)
      for (path, inode, data, _) in untouched {
        let attributes = try after.attributes(inode)
        #expect(attributes.links >= 1)
        #expect(try after.contents(inode) == data, "cut \(cut): \(path)")
      }
      let verdict = try workshop.check(mended.content)
      try #require(verdict.status == 0, "cut \(cut) of \(store.journal.count): \(verdict.output)")
      // … and by e2fsck.
      if cut % (step * 4) == 0 {
        let repaired = try workshop.check(content, "-fy")
        try #require(repaired.status <= 1, "\(repaired.output)")
        let other = try Ext2(MemoryStore(repaired.after))
        for (path, inode, data, _) in untouched {
          #expect(try other.contents(inode) == data, "e2fsck, cut \(cut): \(path)")
        }
      }
    }
  }

  /// Random damage to metadata: mounting and using such a disk throws or works, and never traps; what the check has mended, e2fsck finds
  /// mended.
  @Test(arguments: 0..<6 as Range<UInt64>)
  func damagedDisk_neverTraps(_ seed: UInt64) throws {
    let workshop = Workshop()
    let kind = imageKinds[Int(seed) % imageKinds.count]
    let store = MemoryStore(try workshop.format(kind.kib, kind.arguments))
    var random = SplitMix(state: 99 + seed)
    let system = try Ext2(store, now: 1_000_000)
    let model = Model(system.root)
    for _ in 0..<60 { try performRandomOperation(system, model, &random) }
    try system.sync()
    let base = store.content
    for _ in 0..<60 {
      let damaged = MemoryStore(base)
      for _ in 0..<Int.random(in: 1...30, using: &random) {
        let place = Int.random(in: 1024..<min(base.count, 120_000), using: &random)
        damaged.content[place] = UInt8.random(in: 0...255, using: &random)
      }
      // Half of them unclean, so that the check runs.
      if Bool.random(using: &random) { damaged.content[1024 + 58] = 0 }
      do {
        let system = try Ext2(damaged, now: 3)
        for name in try system.names(system.root).values {
          _ = try? system.contents(name)
          _ = try? system.names(name)
        }
        _ = try system.make(system.root, "fresh")
        for (name, _) in try system.names(system.root) { try? system.remove(system.root, name) }
        try system.sync()
      } catch is FileError {
      } catch is Ext2MountError {}
    }
  }

  @Test func deviceThatFails_givesErrorAndKeepsWhatWasSynced() throws {
    let workshop = Workshop()
    let store = MemoryStore(try workshop.format(2048, ["-t", "ext2", "-b", "1024"]))
    for limit in stride(from: 1, to: 120, by: 5) {
      let copy = MemoryStore(store.content)
      copy.operationsLeft = limit
      do {
        let system = try Ext2(copy, now: 9)
        for index in 0..<20 {
          let file = try system.make(system.root, "f\(index)")
          try system.write(file, 0, [UInt8](repeating: 1, count: 5000))
        }
        try system.sync()
      } catch is FileError {
      } catch is Ext2MountError {}
      copy.operationsLeft = Int.max
      _ = try Ext2(copy, now: 10)
      #expect(try workshop.check(copy.content).status == 0)
    }
  }
}
