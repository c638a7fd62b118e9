// The nodes in /dev, and how they follow their drivers.

import Files
import Pollux

extension Tester {
  func devices() throws(FileError) {
    Console.write("\n")
    try ownDevices()
    try disk()
    try driversThatCome()
    try files.sync()
  }

  /// Whether a node is there, and `size` bytes long.
  func isNode(_ path: Bytes, _ kind: FileKind, _ size: UInt64) throws(FileError) -> Bool {
    guard try isThere(path) else { return false }
    let attributes = try files.attributes(at: path)
    return attributes.kind == kind && attributes.size == size
  }

  /// Waits until a driver has announced its device.
  func comes(_ path: Bytes) throws(FileError) -> Bool {
    let end = Clock.now + Clock.frequency * 10
    while try !isThere(path) {
      guard Clock.now < end else { return false }
      Clock.sleep(microseconds: 2000)
    }
    return true
  }

  private func ownDevices() throws(FileError) {
    let null = try files.open(Bytes("/dev/null"), [.read, .write])
    try files.write(null, 0, from: block.area)
    expect("null has no end and no contents", try files.read(null, 0, into: block.area) == 0)
    try files.close(null)
    let zero = try files.open(Bytes("/dev/zero"), .read)
    expect("zero gives zeros", try isZero(zero, 0, 5000))
    try files.close(zero)
    expect("the console is announced", try comes(Bytes("/dev/console")))
    try put(Bytes("/dev/console"), Bytes("this came by the console's node\n"), [.write])
    expect("nobody makes a node", .readOnly) { () throws(FileError) in
      try put(Bytes("/dev/new"), Bytes("x"), [.write, .create])
    }
    expect("nobody removes one", .readOnly) { () throws(FileError) in
      try files.unlink(Bytes("/dev/null"))
    }
  }

  private func disk() throws(FileError) {
    expect(
      "the disk is announced with its size", try isNode(Bytes("/dev/vda"), .blockDevice, 8 << 20))
    let disk = try files.open(Bytes("/dev/vda"), [.read, .write])
    _ = try files.read(disk, 1080, into: block.area.slice(0, 2))
    expect("the disk's bytes are read", block.area.load16(0) == 0xef53)
    expect(
      "nothing is read behind its end",
      try files.read(disk, 8 << 20, into: block.area.slice(0, 2)) == 0)
    expect("and none written behind the file system's back", .readOnly) { () throws(FileError) in
      try files.write(disk, 0, from: block.area.slice(0, 512))
    }
    try files.close(disk)
  }

  private func driversThatCome() throws(FileError) {
    let (first, second) = (Bytes("/dev/memdisk0"), Bytes("/dev/memdisk1"))
    expect("a driver's node is there", try comes(first))
    expect("and that of a second driver of the kind", try comes(second))
    var disk = try files.open(first, [.read, .write])
    let other = try files.open(second, [.read, .write])
    Self.fill(block.area.slice(0, 10_000), 31, 0)
    try files.write(disk, 777, from: block.area.slice(0, 10_000))
    block.area.fill()
    _ = try files.read(disk, 777, into: block.area.slice(0, 10_000))
    expect("what is written to a device is read", Self.holds(block.area.slice(0, 10_000), 31, 0))
    expect("and nothing before it changes", try isZero(disk, 0, 777))
    expect("nor behind it", try isZero(disk, 10_777, 777))
    expect("nor on the other", try isZero(other, 0, 20_000))
    expect("nothing is written behind the end", .noSpace) { () throws(FileError) in
      try files.write(disk, 1 << 20, from: block.area.slice(0, 1))
    }
    let driver = try driver(of: Bytes("memdisk0"))
    let name = ByteBlock(count: driver.count)
    for index in driver.indices { name.area.store(driver[index], at: index) }
    let isEnded = attempt { () throws(SystemError) in try Services.end(name.area.bytes) }
    expect("the driver ends", isEnded)
    expect("a node ends with its driver", try !isThere(first))
    expect("the other's stays", try isNode(second, .blockDevice, 1 << 20))
    expect("what is open of it is an error", .deviceGone) { () throws(FileError) in
      _ = try files.read(disk, 0, into: block.area.slice(0, 512))
    }
    let isStarted = attempt { () throws(SystemError) in try Services.restart(name.area.bytes) }
    expect("the driver starts again", isStarted)
    expect("a driver that comes back has a node again", try comes(first))
    expect("the old open file does not become its", .deviceGone) { () throws(FileError) in
      _ = try files.read(disk, 0, into: block.area.slice(0, 512))
    }
    expect("its close says that what was written is lost", .deviceGone) { () throws(FileError) in
      try files.close(disk)
    }
    expect("and closes it", .badHandle) { () throws(FileError) in try files.close(disk) }
    disk = try files.open(first, .read)
    expect("it is a new device", try isZero(disk, 0, 20_000))
    try files.close(disk)
    try files.close(other)
  }

  func attempt(_ body: () throws(SystemError) -> Void) -> Bool {
    do throws(SystemError) {
      try body()
      return true
    } catch { return false }
  }

  /// The service that has announced the device of that name.
  private func driver(of name: Bytes) throws(FileError) -> [UInt8] {
    var index: UInt64 = 0
    while true {
      var message = Message(RegistryCall.device.rawValue, index)
      do throws(SystemError) { try Program.ask(&message) } catch { throw .notFound }
      if message.text(at: 1, words: 2) == name.array { return message.text(at: 5, words: 3) }
      index += 1
    }
  }
}
