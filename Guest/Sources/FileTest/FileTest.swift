// A test of the file service from outside (§4.3), by its client's calls: `mode` says which part. `Tests/GuestTests/FileTests.swift` makes
// the disk, reads the lines and the exit code, and has e2fsprogs judge the disk afterwards.
//
//   read      tells what lies on /disk
//   write     every operation on /tmp and on /disk, then a sync, then what lies on /disk
//   verify    tells what lies on /disk, and removes it
//   endless   checks what an earlier run has synced (`synced=N`), then writes until the machine is killed; with `last=on` checks only
//   devices   the nodes in /dev, and how they follow their drivers; needs services `console`, `memdisk` and `memdisk2`
//   entropy   the nodes of Linux's drivers, and random bytes from /dev/hwrng; needs services `block`, `net` and `entropy`
//   random    reads /dev/hwrng until the machine is killed, and says how much
//   deaths    kills the file service and its clients while they are at work, and starts them again; needs a service `writer`
//   writer    writes until it is killed, whatever becomes of the file service

import Files
import Pollux

@main enum FileTest {
  static func main() {
    let mode = Program.start.text("mode") ?? Bytes("")
    let arguments = CommandLine(Program.start.text("arguments") ?? Bytes(""))
    var code: UInt64 = 1
    do throws(SystemError) {
      let tester = Tester(try Files())
      do throws(FileError) {
        if mode.equals("read") { try tester.tellTree(Bytes("/disk")) }
        if mode.equals("write") { try tester.write() }
        if mode.equals("verify") { try tester.verify() }
        if mode.equals("endless") {
          try tester.checkSynced(arguments.value("synced")?.number ?? 0)
          if arguments.value("last") == nil { try tester.writeForever() }
          try tester.files.sync()
        }
        if mode.equals("devices") { try tester.devices() }
        if mode.equals("entropy") { try tester.entropy() }
        if mode.equals("random") { try tester.readRandomForever() }
        if mode.equals("deaths") { try tester.deaths() }
        if mode.equals("writer") { tester.writeWhateverHappens() }
        if tester.failures == 0 {
          Console.write("ok the test reached its end\n")
          code = 0
        }
      } catch { tester.fail(error.name) }
    } catch {
      var line = Text("FAILED with an error: ")
      line.add(error.name)
      line.add("\n")
      line.print()
    }
    do throws(SystemError) { try Program.control(.exit, code) } catch {}
    Kernel.exit(1)
  }
}

/// Counts what fails, and has what all parts need.
final class Tester {
  let files: Files
  let names = Names()
  var failures: UInt64 = 0
  /// Where data travels from and to.
  let block = ByteBlock(count: 64 << 10)

  init(_ files: Files) { self.files = files }

  func fail(_ name: StaticString, _ detail: Bytes = Bytes("")) {
    failures += 1
    var line = Text("FAILED ")
    line.add(name)
    line.add(" ")
    line.add(detail)
    line.add("\n")
    line.print()
  }

  func expect(_ name: StaticString, _ holds: Bool) {
    guard holds else {
      fail(name)
      return
    }
    Console.write("ok ")
    Console.write(name)
    Console.write("\n")
  }

  /// Expects that `body` fails with `wanted`.
  func expect(_ name: StaticString, _ wanted: FileError, _ body: () throws(FileError) -> Void) {
    do throws(FileError) {
      try body()
      fail(name, Bytes("(nothing was thrown)"))
    } catch {
      if error == wanted { expect(name, true) } else { fail(name, Bytes(error.name)) }
    }
  }

  // MARK: Whole files

  /// Word `index` of the contents that `seed` stands for.
  private static func word(_ seed: UInt64, _ index: UInt64) -> UInt64 {
    var value = (seed &* 0x9e37_79b9_7f4a_7c15) ^ (index &+ 1) &* 0xbf58_476d_1ce4_e5b9
    value ^= value >> 29
    return value &* 0x94d0_49bb_1331_11eb
  }

  /// Fills `area` with what the contents of `seed` are from `offset` on.
  static func fill(_ area: ByteArea, _ seed: UInt64, _ offset: UInt64) {
    for index in 0..<area.count {
      let position = offset + UInt64(index)
      area.store(UInt8(truncatingIfNeeded: word(seed, position / 8) >> (position % 8 * 8)), at: index)
    }
  }

  static func holds(_ area: ByteArea, _ seed: UInt64, _ offset: UInt64) -> Bool {
    for index in 0..<area.count {
      let position = offset + UInt64(index)
      if area.load8(index) != UInt8(truncatingIfNeeded: word(seed, position / 8) >> (position % 8 * 8)) { return false }
    }
    return true
  }

  /// Makes a file of the contents of `seed`, written in pieces of `piece` bytes.
  func make(_ path: Bytes, size: UInt64, seed: UInt64, piece: Int = 16384) throws(FileError) {
    let file = try files.open(path, [.write, .create, .truncate])
    var offset: UInt64 = 0
    while offset < size {
      let part = block.area.slice(0, Int(min(UInt64(piece), size - offset)))
      Self.fill(part, seed, offset)
      try files.write(file, offset, from: part)
      offset += UInt64(part.count)
    }
    try files.close(file)
  }

  /// Whether a file has the contents of `seed` up to `size`, its length if there is none given, read in pieces of `piece` bytes.
  func holds(_ path: Bytes, size: UInt64, seed: UInt64, piece: Int = 16384) throws(FileError) -> Bool {
    let file = try files.open(path, .read)
    var isSound = try files.attributes(file).size == size
    var offset: UInt64 = 0
    while isSound {
      let count = try files.read(file, offset, into: block.area.slice(0, piece))
      if count == 0 { break }
      isSound = Self.holds(block.area.slice(0, count), seed, offset)
      offset += UInt64(count)
    }
    try files.close(file)
    return isSound && offset == size
  }

  /// Makes a file of this text.
  func put(_ path: Bytes, _ text: Bytes, _ flags: OpenFlags = [.write, .create, .truncate]) throws(FileError) {
    let file = try files.open(path, flags)
    try files.write(file, 0, from: text.area)
    try files.close(file)
  }

  func text(_ path: Bytes) throws(FileError) -> [UInt8] {
    let file = try files.open(path, .read)
    let count = try files.read(file, 0, into: block.area)
    try files.close(file)
    return block.area.slice(0, count).bytes.array
  }

  func has(_ path: Bytes, _ text: StaticString) throws(FileError) -> Bool {
    try self.text(path) == Bytes(text).array
  }

  func isThere(_ path: Bytes) throws(FileError) -> Bool {
    do throws(FileError) {
      _ = try files.attributes(at: path, followsLink: false)
      return true
    } catch {
      if error == .notFound { return false }
      throw error
    }
  }

  func freeBlocks(_ mount: StaticString) throws(FileError) -> UInt64 {
    var index = 0
    while let (path, space) = try files.mounted(index) {
      if path == Bytes(mount).array { return space.freeBlocks }
      index += 1
    }
    throw .notFound
  }
}

/// Paths that are made of parts; the last sixteen stay as they are.
final class Names {
  private var blocks: [ByteBlock] = []
  private var turn = 0

  init() { for _ in 0..<16 { blocks.append(ByteBlock(count: 1024)) } }

  private func keep(_ text: Text) -> Bytes {
    turn = (turn + 1) % blocks.count
    let area = blocks[turn].area
    for index in text.bytes.indices { area.store(text.bytes[index], at: index) }
    return area.slice(0, text.bytes.count).bytes
  }

  func callAsFunction(_ directory: Bytes, _ name: StaticString) -> Bytes {
    callAsFunction(directory, Bytes(name))
  }
  func callAsFunction(_ directory: Bytes, _ name: Bytes) -> Bytes {
    var text = Text()
    text.add(directory)
    text.add("/")
    text.add(name)
    return keep(text)
  }
  func callAsFunction(_ directory: Bytes, _ name: StaticString, _ number: UInt64) -> Bytes {
    var text = Text()
    text.add(directory)
    text.add("/")
    text.add(name)
    text.add(number)
    return keep(text)
  }
  func callAsFunction(_ directory: Bytes, _ name: [UInt8]) -> Bytes {
    var text = Text()
    text.add(directory)
    text.add("/")
    text.add(name)
    return keep(text)
  }
}
