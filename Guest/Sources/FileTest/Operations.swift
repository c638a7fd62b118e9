// Every operation on one directory: what it does, and how it refuses.

import Files
import Pollux

extension Tester {
  func write() throws(FileError) {
    try files.makeDirectory(Bytes("/tmp/w"))
    try work(in: Bytes("/tmp/w"), mount: "/")
    try files.makeDirectory(Bytes("/disk/w"))
    try work(in: Bytes("/disk/w"), mount: "/disk")
    try across()
    try files.sync()
    Console.write("synced\n")
    try tellTree(Bytes("/disk"))
  }

  func verify() throws(FileError) {
    try tellTree(Bytes("/disk"))
    expect(
      "a large file is what it was",
      try holds(Bytes("/disk/w/large"), size: 900_000, seed: 5, piece: 60_000))
    try removeAll(in: Bytes("/disk/w"))
    try files.removeDirectory(Bytes("/disk/w"))
    try files.sync()
    var line = Text("free ")
    line.add(try freeBlocks("/disk"))
    line.add("\n")
    line.print()
  }

  private func work(in base: Bytes, mount: StaticString) throws(FileError) {
    let before = try freeBlocks(mount)
    var line = Text("free ")
    line.add(before)
    line.add("\n")
    if Bytes(mount).equals("/disk") { line.print() }
    try contents(base)
    try lengths(base)
    try naming(base)
    try directories(base)
    try manyNames(base)
    try openWithoutName(base, mount)
    try fill(base, mount)
  }

  private func contents(_ base: Bytes) throws(FileError) {
    let path = names(base, "short")
    try put(path, Bytes("abc"), [.write, .create, .exclusive])
    expect("what is there is not made again", .exists) { () throws(FileError) in
      try put(path, Bytes("x"), [.write, .create, .exclusive])
    }
    try put(path, Bytes("def"), [.write, .append])
    expect("an append goes to the end", try has(path, "abcdef"))
    try put(path, Bytes("xy"), [.write])
    expect("a write stays where it is", try has(path, "xycdef"))
    try put(path, Bytes("new"), [.write, .truncate])
    expect("a truncating open leaves nothing", try has(path, "new"))

    let large = names(base, "large")
    try make(large, size: 900_000, seed: 5, piece: 4093)
    expect("a large file in odd pieces is read in others", try holds(large, size: 900_000, seed: 5, piece: 30_011))
    let file = try files.open(large, [.read, .write])
    Self.fill(block.area.slice(0, 10_000), 6, 300_001)
    try files.write(file, 300_001, from: block.area.slice(0, 10_000))
    _ = try files.read(file, 300_000, into: block.area.slice(0, 10_002))
    expect(
      "an overwrite in the middle changes the middle",
      Self.holds(block.area.slice(1, 10_000), 6, 300_001) && Self.holds(block.area.slice(0, 1), 5, 300_000)
        && Self.holds(block.area.slice(10_001, 1), 5, 310_001))
    Self.fill(block.area.slice(0, 10_000), 5, 300_001)
    try files.write(file, 300_001, from: block.area.slice(0, 10_000))
    expect("nothing is read behind the end", try files.read(file, 900_000, into: block.area.slice(0, 10)) == 0)
    try files.close(file)
    expect("a closed file is not read", .badHandle) { () throws(FileError) in
      _ = try files.read(file, 0, into: block.area.slice(0, 1))
    }
    let reader = try files.open(large, .read)
    expect("who reads does not write", .denied) { () throws(FileError) in
      try files.write(reader, 0, from: block.area.slice(0, 1))
    }
    try files.close(reader)
    let writer = try files.open(large, .write)
    expect("who writes does not read", .denied) { () throws(FileError) in
      _ = try files.read(writer, 0, into: block.area.slice(0, 1))
    }
    try files.close(writer)
  }

  func isZero(_ file: Files.File, _ offset: UInt64, _ count: Int) throws(FileError) -> Bool {
    block.area.fill(1)
    guard try files.read(file, offset, into: block.area.slice(0, count)) == count else { return false }
    for index in 0..<count where block.area.load8(index) != 0 { return false }
    return true
  }

  private func lengths(_ base: Bytes) throws(FileError) {
    let path = names(base, "sparse")
    let file = try files.open(path, [.read, .write, .create])
    try files.write(file, 5_000_000, from: Bytes("tail").area)
    expect("a hole has a length", try files.attributes(file).size == 5_000_004)
    expect("a hole has no space", try files.attributes(file).sectors < 100)
    expect("a hole reads as zeros", try isZero(file, 4_990_000, 10_000))
    Self.fill(block.area.slice(0, 3000), 9, 1000)
    try files.write(file, 1000, from: block.area.slice(0, 3000))
    expect("beside data in a hole are zeros", try isZero(file, 0, 1000))
    expect("behind data in a hole are zeros", try isZero(file, 4000, 10_000))
    try files.truncate(file, to: 2000)
    try files.truncate(file, to: 20_000)
    expect("what was cut off does not come back", try isZero(file, 2000, 18_000))
    _ = try files.read(file, 1000, into: block.area.slice(0, 1000))
    expect("what was not cut off stays", Self.holds(block.area.slice(0, 1000), 9, 1000))
    expect("a length beyond all bounds is refused", .tooLarge) { () throws(FileError) in
      try files.truncate(file, to: 1 << 60)
    }
    try files.close(file)
  }

  private func naming(_ base: Bytes) throws(FileError) {
    let (one, two, link) = (names(base, "one"), names(base, "two"), names(base, "link"))
    try put(one, Bytes("first"))
    try put(two, Bytes("second"))
    try files.rename(one, to: two)
    expect("a rename replaces its target", try has(two, "first"))
    expect("and leaves no old name", try !isThere(one))
    try files.link(two, to: one)
    expect("a link counts", try files.attributes(at: one).links == 2)
    try put(one, Bytes("third"))
    expect("both names are one file", try has(two, "third"))
    try files.unlink(two)
    expect("one name less leaves the other", try has(one, "third"))
    expect("and the count is one", try files.attributes(at: one).links == 1)
    try files.makeLink(link, target: Bytes("one"))
    expect("a symbolic link leads on", try has(link, "third"))
    expect("its text is read", try files.readLink(link) == Bytes("one").array)
    let long = names(base, "long")
    let target = Bytes("././././././././././././././././././././././././././././././././././one")
    try files.makeLink(long, target: target)
    expect("a long link leads on", try has(long, "third"))
    try files.setPermissions(one, 0o640)
    expect("permissions are kept", try files.attributes(at: one).permissions == 0o640)
    var name = Text()
    for _ in 0..<256 { name.add("n") }
    expect("a name too long is refused", .badName) { () throws(FileError) in
      try put(names(base, name.bytes), Bytes("x"))
    }
  }

  private func directories(_ base: Bytes) throws(FileError) {
    let (a, b, ab) = (names(base, "a"), names(base, "b"), names(base, "a/b"))
    try files.makeDirectory(a)
    try files.makeDirectory(b)
    try put(names(a, "inner"), Bytes("inner"))
    expect("a directory is made once", .exists) { () throws(FileError) in try files.makeDirectory(a) }
    expect("a full directory stays", .notEmpty) { () throws(FileError) in try files.removeDirectory(a) }
    expect("a directory is not unlinked", .isDirectory) { () throws(FileError) in try files.unlink(b) }
    expect("a file is no directory", .notDirectory) { () throws(FileError) in
      try files.removeDirectory(names(a, "inner"))
    }
    expect("a directory has no second name", .isDirectory) { () throws(FileError) in
      try files.link(b, to: names(base, "c"))
    }
    try files.rename(b, to: ab)
    expect("a moved directory counts at its new parent", try files.attributes(at: a).links == 3)
    expect("a directory does not go below itself", .invalid) { () throws(FileError) in
      try files.rename(a, to: names(ab, "a"))
    }
    try put(names(ab, "deep"), Bytes("deep"))
    expect("dots lead up after the move", try has(names(ab, "../inner"), "inner"))
    try files.makeDirectory(b)
    try files.removeDirectory(b)
    expect("a removed directory is gone", try !isThere(b))
  }

  private func manyNames(_ base: Bytes) throws(FileError) {
    let many = names(base, "many")
    let kept = ByteBlock(count: many.count)
    kept.area.copy(many.area)
    let directory = kept.area.bytes
    try files.makeDirectory(directory)
    for number in 0..<150 as Range<UInt64> {
      let file = try files.open(names(directory, "a-name-that-fills-the-directory-", number), [.write, .create])
      try files.close(file)
    }
    expect("all names are listed", try files.list(directory).count == 150)
    for number in 0..<150 as Range<UInt64> where number % 3 != 0 {
      try files.unlink(names(directory, "a-name-that-fills-the-directory-", number))
    }
    expect("the others stay", try files.list(directory).count == 50)
  }

  private func openWithoutName(_ base: Bytes, _ mount: StaticString) throws(FileError) {
    try files.sync()
    let before = try freeBlocks(mount)
    let path = names(base, "nameless")
    let file = try files.open(path, [.read, .write, .create])
    Self.fill(block.area, 12, 0)
    try files.write(file, 0, from: block.area)
    try files.unlink(path)
    try files.sync()
    block.area.fill()
    _ = try files.read(file, 0, into: block.area)
    expect("an open file outlives its name and a sync", Self.holds(block.area, 12, 0))
    try put(path, Bytes("another"))
    Self.fill(block.area.slice(0, 100), 13, 0)
    try files.write(file, 0, from: block.area.slice(0, 100))
    expect("a new file of that name is another", try has(path, "another"))
    try files.unlink(path)
    try files.close(file)
    try files.sync()
    expect("its space is free in the end", try freeBlocks(mount) == before)
  }

  private func fill(_ base: Bytes, _ mount: StaticString) throws(FileError) {
    try files.sync()
    let before = try freeBlocks(mount)
    let path = names(base, "full")
    let file = try files.open(path, [.read, .write, .create])
    var size: UInt64 = 0
    var reason: FileError?
    while reason == nil {
      Self.fill(block.area, 14, size)
      do throws(FileError) {
        try files.write(file, size, from: block.area)
        size += UInt64(block.area.count)
      } catch { reason = error }
    }
    expect("a full file system says so", reason == .noSpace)
    expect("the space was used", size > before * 512)
    var offset: UInt64 = 0
    var isSound = true
    while offset < size {
      _ = try files.read(file, offset, into: block.area)
      if !Self.holds(block.area, 14, offset) { isSound = false }
      offset += UInt64(block.area.count)
    }
    expect("what fitted is there", isSound)
    try files.close(file)
    try files.unlink(path)
    try files.sync()
    expect("and then all is free again", try freeBlocks(mount) == before)
    try put(path, Bytes("fits"))
    expect("a file fits again", try has(path, "fits"))
  }

  private func across() throws(FileError) {
    expect("nothing is renamed into another file system", .crossDevice) { () throws(FileError) in
      try files.rename(Bytes("/tmp/w/short"), to: Bytes("/disk/w/other"))
    }
    expect("a mounted directory stays", .busy) { () throws(FileError) in try files.removeDirectory(Bytes("/disk")) }
    expect("the boot archive is read", try files.attributes(at: Bytes("/boot/init")).size > 1000)
    expect("and not written", .readOnly) { () throws(FileError) in try files.unlink(Bytes("/boot/init")) }
  }
}
