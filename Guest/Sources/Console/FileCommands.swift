// The shell's commands on files: those of the file service, and where the composition has none those of the boot archive.

import Files
import Pollux

struct FileCommands {
  private let archive: TapeArchive
  private let files: Files?

  init(archive: TapeArchive) {
    self.archive = archive
    files = try? Files()
  }

  static let help: StaticString = """
    ls [PATH]         a directory, or the boot archive where there is no file service
    cat FILE          a text file (names without / are looked for in the boot archive, too)
    write FILE TEXT   makes a file of one line
    mkdir, rm PATH    makes a directory, removes a file or an empty directory
    mv FROM TO
    df, sync          space of the mounted file systems and the page cache; write everything to the disk

    """

  /// Performs the command if it is one of these; whether it was.
  func perform(_ command: Bytes, _ rest: Bytes) throws(FileError) -> Bool {
    var words = Parts(of: rest, separator: 0x20)
    let first = words.next() ?? Bytes("")
    let second = words.next()
    if command.equals("ls") {
      try list(first)
    } else if command.equals("cat") {
      try show(first)
    } else if command.equals("write") {
      guard let second else { throw .invalid }
      try write(first, rest.suffix(from: second.unsafeBase - rest.unsafeBase) ?? second)
    } else if command.equals("mkdir") {
      try present().makeDirectory(first)
    } else if command.equals("rm") {
      let isDirectory = try present().attributes(at: first, followsLink: false).kind == .directory
      if isDirectory { try present().removeDirectory(first) } else { try present().unlink(first) }
    } else if command.equals("mv") {
      guard let second else { throw .invalid }
      try present().rename(first, to: second)
    } else if command.equals("df") {
      try space()
    } else if command.equals("sync") {
      try present().sync()
    } else {
      return false
    }
    return true
  }

  private func present() throws(FileError) -> Files {
    guard let files, files.isPresent else { throw .serviceGone }
    return files
  }

  /// Before the machine goes down: what was written is to be on the disk.
  func settle() {
    guard let files, files.isPresent else { return }
    do throws(FileError) { try files.sync() } catch {
      Console.write("the disk could not be written: ")
      var line = Text()
      line.add(error.name)
      line.add("\n")
      line.print()
    }
  }

  private func list(_ path: Bytes) throws(FileError) {
    guard let files, files.isPresent else {
      guard path.isEmpty else { throw .serviceGone }
      archive.forEachFile { file in
        Self.printEntry(file.name, .file, UInt64(file.contents.count))
        return true
      }
      return
    }
    let path = path.isEmpty ? Bytes("/") : path
    let attributes = try files.attributes(at: path)
    guard attributes.kind == .directory else {
      Self.printEntry(path, attributes.kind, attributes.size)
      return
    }
    for entry in try files.list(path) {
      var full = Text()
      full.add(path)
      full.add("/")
      full.add(entry.name)
      let size: UInt64
      if entry.kind == .file || entry.kind == .blockDevice {
        size = try Self.with(full.bytes) { name throws(FileError) in
          try files.attributes(at: name, followsLink: false).size
        }
      } else {
        size = 0
      }
      try Self.with(entry.name) { name throws(FileError) in Self.printEntry(name, entry.kind, size) }
    }
  }

  /// Calls `body` with a copy of the bytes that lives as long as the call.
  private static func with<Result>(
    _ bytes: [UInt8], _ body: (Bytes) throws(FileError) -> Result
  ) throws(FileError) -> Result {
    let block = ByteBlock(count: bytes.count)
    for index in bytes.indices { block.area.store(bytes[index], at: index) }
    defer { withExtendedLifetime(block) {} }
    return try body(block.area.bytes)
  }

  private static func printEntry(_ name: Bytes, _ kind: FileKind, _ size: UInt64) {
    var line = Text()
    line.add(name)
    switch kind {
    case .directory: line.add("/")
    case .link: line.add("@")
    case .file, .blockDevice:
      line.pad(to: 24)
      line.add(size)
    default: break
    }
    line.add("\n")
    line.print()
  }

  private func show(_ name: Bytes) throws(FileError) {
    if name.firstIndex(of: 0x2f) == nil, let file = archive.file(name) {
      try Self.check(file.contents)
      // The archive stays mapped.
      Console.write(UnsafeRawBufferPointer(start: file.contents.unsafeBase, count: file.contents.count))
      return
    }
    let files = try present()
    let file = try files.open(name, .read)
    let block = ByteBlock(count: 4096)
    var offset: UInt64 = 0
    while true {
      let count = try files.read(file, offset, into: block.area)
      if count == 0 { break }
      if offset == 0 { try Self.check(block.area.slice(0, count).bytes) }
      Console.write(UnsafeRawBufferPointer(start: block.area.unsafeBase, count: count))
      offset += UInt64(count)
    }
    try files.close(file)
  }

  /// Only text may go to the terminal.
  private static func check(_ text: Bytes) throws(FileError) {
    var index = 0
    while index < min(512, text.count), let byte = text.byte(index) {
      guard byte == 0x0a || byte == 0x09 || byte == 0x0d || byte >= 0x20 else { throw .unsupported }
      index += 1
    }
  }

  private func write(_ name: Bytes, _ text: Bytes) throws(FileError) {
    let files = try present()
    let line = ByteBlock(count: text.count + 1)
    line.area.copy(text.area)
    line.area.store(0x0a as UInt8, at: text.count)
    let file = try files.open(name, [.write, .create, .truncate])
    try files.write(file, 0, from: line.area)
    try files.close(file)
  }

  private func space() throws(FileError) {
    let files = try present()
    Console.write("MOUNTED ON        SIZE/KiB    FREE/KiB\n")
    var index = 0
    while let (path, space) = try files.mounted(index) {
      var line = Text()
      line.add(path)
      Reports.right(&line, (space.blocks * UInt64(space.blockSize)) >> 10, 26)
      Reports.right(&line, (space.freeBlocks * UInt64(space.blockSize)) >> 10, 38)
      index += 1
      // The devices' directory has no space.
      if space.blocks == 0 { continue }
      if space.isReadOnly { line.add("  read-only") }
      line.add("\n")
      line.print()
    }
    guard let cache = try files.cache() else { return }
    var line = Text("page cache: ")
    for (value, name) in [
      (cache.capacity, " pages, "), (cache.used, " used, "), (cache.dirty, " changed; "), (cache.hits, " hits, "),
      (cache.misses, " misses, "), (cache.written, " written\n"),
    ] as [(UInt64, StaticString)] {
      line.add(value)
      line.add(name)
    }
    line.print()
  }
}
