// The VFS over tmpfs and ext2: walks, mounts, open files and their clients.

import Testing
import VFS

struct WalkTests {
  @Test func dotsAndSlashesLeadWhereTheyShould() throws {
    let vfs = try Tree().vfs
    try vfs.makeDirectory("/a")
    try vfs.makeDirectory("/a/b/")
    try vfs.put("/a/b/f", "deep")
    for path in [
      "/a/b/f", "a/b/f", "//a///b//f", "/a/./b/../b/f", "/../../a/b/f", "/disk/../a/b/f", "/disk/./../disk/../a/b/f",
    ] {
      #expect(try vfs.get(path) == "deep", "\(path)")
    }
    for path in ["/a/b/f/", "/a/b/f/.", "/a/b/f/.."] {
      #expect(throws: FileError.notDirectory, "\(path)") { try vfs.get(path) }
    }
    #expect(throws: FileError.notFound) { try vfs.get("/a/c/f") }
    #expect(throws: FileError.notFound) { try vfs.get("/a/c") }
    #expect(throws: FileError.badName) { try vfs.get("") }
    #expect(throws: FileError.badName) { try vfs.get("/a/\0") }
    #expect(throws: FileError.badName) { try vfs.get("/" + String(repeating: "x", count: 256)) }
    #expect(throws: FileError.badName) { try vfs.get(String(repeating: "/a/..", count: 1000)) }
    #expect(throws: FileError.notFound) { try vfs.get("/" + String(repeating: "x", count: 255)) }
  }

  @Test func linksAreFollowedUpToALimit() throws {
    let vfs = try Tree().vfs
    try vfs.makeDirectory("/a")
    try vfs.put("/a/f", "text")
    try vfs.makeLink("/relative", "a")
    try vfs.makeLink("/disk/absolute", "/a/f")
    try vfs.makeLink("/a/up", "../disk/absolute")
    #expect(try vfs.get("/relative/f") == "text")
    #expect(try vfs.get("/relative/../a/f") == "text")
    #expect(try vfs.get("/disk/absolute") == "text")
    #expect(try vfs.get("/relative/up") == "text")
    #expect(try vfs.attributes("/relative", followsLink: false).kind == .link)
    #expect(try vfs.attributes("/relative/", followsLink: false).kind == .directory)
    #expect(throws: FileError.notDirectory) { try vfs.get("/disk/absolute/") }
    try vfs.makeLink("/x", "y")
    try vfs.makeLink("/y", "x")
    #expect(throws: FileError.tooManyLinks) { try vfs.get("/x") }
    // A chain of 40 is followed, one of 41 is not.
    try vfs.makeLink("/l1", "a/f")
    for index in 2...41 { try vfs.makeLink("/l\(index)", "l\(index - 1)") }
    #expect(try vfs.get("/l40") == "text")
    #expect(throws: FileError.tooManyLinks) { try vfs.get("/l41") }
  }

  @Test func aLinkToNothingMakesItsTarget() throws {
    let vfs = try Tree().vfs
    try vfs.makeLink("/l", "/disk/new")
    #expect(throws: FileError.notFound) { try vfs.get("/l") }
    #expect(throws: FileError.exists) { try vfs.open("/l", [.write, .create, .exclusive]) }
    try vfs.put("/l", "made")
    #expect(try vfs.get("/disk/new") == "made")
    try vfs.unlink("/l")
    #expect(try vfs.get("/disk/new") == "made")
  }
}

struct MountTests {
  @Test func mountPointsStayAndSeparate() throws {
    let tree = try Tree()
    let vfs = tree.vfs
    #expect(try vfs.names("/") == ["disk"])
    #expect(try vfs.names("/disk") == ["lost+found"])
    #expect(throws: FileError.busy) { try vfs.removeDirectory("/disk") }
    #expect(throws: FileError.busy) { try vfs.rename("/disk", "/other") }
    #expect(throws: FileError.busy) { try vfs.removeDirectory("/disk/..") }
    #expect(throws: FileError.busy) { try vfs.removeDirectory("/") }
    try vfs.put("/f", "1")
    try vfs.put("/disk/g", "2")
    #expect(throws: FileError.crossDevice) { try vfs.rename("/f", "/disk/f") }
    #expect(throws: FileError.crossDevice) { try vfs.link("/f", "/disk/f") }
    #expect(throws: FileError.busy) { try vfs.rename("/f", "/disk") }
    try vfs.rename("/disk/g", "/disk/lost+found/h")
    #expect(try vfs.get("/disk/lost+found/h") == "2")
    try vfs.sync()
    try tree.expectClean()
  }
}

/// Devices that come and go.
private final class Drivers: DeviceSource {
  final class Letters: DeviceNode {
    let first: UInt8
    var written: [UInt8] = []
    var flushes = 0
    init(_ first: UInt8) { self.first = first }
    func read(_ offset: UInt64, into area: ByteArea) throws(FileError) -> Int {
      guard offset < 3, area.count > 0 else { return 0 }
      area.store(first + UInt8(offset), at: 0)
      return 1
    }
    func write(_ offset: UInt64, from area: ByteArea) throws(FileError) -> Int {
      written += area.bytes.array
      return area.count
    }
    func flush() throws(FileError) { flushes += 1 }
  }

  var devices: [DeviceDescription] = []
  var opened: [Letters] = []
  func add(_ name: String, serial: UInt64) {
    devices.append(DeviceDescription(name: Array(name.utf8), kind: .blockDevice, size: 3, serial: serial))
  }
  func device(_ index: Int) throws(FileError) -> DeviceDescription? { index < devices.count ? devices[index] : nil }
  func open(_ device: DeviceDescription) throws(FileError) -> any DeviceNode {
    opened.append(Letters(UInt8(0x40 + device.serial)))
    return opened[opened.count - 1]
  }
}

struct DeviceTests {
  @Test func nodesComeAndGoWithTheirDrivers() throws {
    let vfs = try Tree().vfs
    let drivers = Drivers()
    try vfs.makeDirectory("/dev")
    try with("/dev") { path throws(FileError) in try vfs.mount(DeviceFS(drivers), at: path) }
    #expect(try vfs.names("/dev") == [])
    drivers.add("a", serial: 1)
    drivers.add("b", serial: 2)
    #expect(try vfs.names("/dev", room: 8) == ["a", "b"])
    let handle = try vfs.open("/dev/a", [.read, .write, .create, .truncate])
    let second = try vfs.open("/dev/a")
    #expect(drivers.opened.count == 1)
    #expect(try vfs.read(handle, 1, 10) == [0x42])
    try vfs.write(handle, 0, [1, 2])
    #expect(drivers.opened[0].written == [1, 2])
    #expect(try vfs.attributes("/dev/a").size == 3)
    #expect(try vfs.attributes("/dev/a").kind == .blockDevice)
    try vfs.sync()
    #expect(drivers.opened[0].flushes == 1)
    #expect(throws: FileError.readOnly) { try vfs.unlink("/dev/a") }
    #expect(throws: FileError.readOnly) { try vfs.put("/dev/c", "") }
    #expect(throws: FileError.crossDevice) { try vfs.rename("/dev/a", "/a") }
    // The driver goes; who has the device open keeps what there is of it; another driver of the name is another device.
    drivers.devices.removeFirst()
    #expect(throws: FileError.notFound) { try vfs.open("/dev/a") }
    #expect(try vfs.names("/dev") == ["b"])
    drivers.add("a", serial: 3)
    let third = try vfs.open("/dev/a")
    #expect(try vfs.read(third, 0, 1) == [0x43])
    #expect(try vfs.read(handle, 0, 1) == [0x41])
    try vfs.close(1, handle)
    #expect(try vfs.read(second, 2, 1) == [0x43])
    vfs.endClient(1)
    #expect(try vfs.names("/dev") == ["a", "b"])
    #expect(vfs.openCount() == 0)
    // Closed by all, it is opened anew.
    _ = try vfs.open("/dev/a")
    #expect(drivers.opened.count == 3)
  }
}

struct OpenFileTests {
  @Test func aHandleIsItsClientsAlone() throws {
    let vfs = try Tree().vfs
    let handle = try vfs.open("/f", [.read, .write, .create], client: 7)
    try vfs.write(handle, 0, [1, 2, 3], client: 7)
    #expect(throws: FileError.badHandle) { try vfs.read(handle, 0, 3, client: 8) }
    #expect(throws: FileError.badHandle) { try vfs.close(8, handle) }
    #expect(try vfs.read(handle, 1, 10, client: 7) == [2, 3])
    try vfs.close(7, handle)
    #expect(throws: FileError.badHandle) { try vfs.read(handle, 0, 3, client: 7) }
    // The slot is used again under another number.
    let next = try vfs.open("/f", client: 7)
    #expect(next != handle)
    #expect(throws: FileError.badHandle) { try vfs.close(7, handle) }
    for wrong in [0, 1, UInt64.max, next + 1, next ^ 1 << 40] {
      #expect(throws: FileError.badHandle) { try vfs.read(wrong, 0, 3, client: 7) }
    }
  }

  @Test(arguments: ["/", "/disk/"]) func rightsAreThoseOfTheOpen(at place: String) throws {
    let vfs = try Tree().vfs
    let writer = try vfs.open(place + "f", [.write, .create])
    try vfs.write(writer, 0, Array("hello".utf8))
    #expect(throws: FileError.denied) { try vfs.read(writer, 0, 5) }
    let reader = try vfs.open(place + "f")
    #expect(throws: FileError.denied) { try vfs.write(1, reader, 0, from: ByteBlock(count: 1).area) }
    #expect(throws: FileError.denied) { try vfs.truncate(1, reader, 0) }
    #expect(throws: FileError.denied) { try vfs.open(place + "f", [.read, .truncate]) }
    #expect(throws: FileError.exists) { try vfs.open(place + "f", [.write, .create, .exclusive]) }
    #expect(throws: FileError.notDirectory) { try vfs.open(place + "f", [.read, .directory]) }
    #expect(throws: FileError.isDirectory) { try vfs.open(place, [.write]) }
    #expect(throws: FileError.isDirectory) { try vfs.open(place + "new/", [.write, .create]) }
    let appender = try vfs.open(place + "f", [.write, .append])
    try vfs.write(appender, 0, Array(" you".utf8))
    #expect(try vfs.get(place + "f") == "hello you")
    #expect(throws: FileError.tooLarge) { try vfs.write(1, writer, .max - 1, from: ByteBlock(count: 8).area) }
    try vfs.truncate(1, writer, 4)
    #expect(try vfs.get(place + "f") == "hell")
    _ = try vfs.open(place + "f", [.write, .truncate])
    #expect(try vfs.read(reader, 0, 5) == [])
  }

  @Test func whatAnEndedClientHeldIsFree() throws {
    let tree = try Tree()
    let vfs = tree.vfs
    let before = try with("/disk") { path throws(FileError) in try vfs.space(at: path).freeBlocks }
    for place in ["/", "/disk/"] {
      for index in 0..<20 {
        let handle = try vfs.open(place + "f\(index)", [.write, .create], client: 5)
        try vfs.write(handle, 0, [UInt8](repeating: 1, count: 10_000), client: 5)
        try vfs.unlink(place + "f\(index)")
      }
    }
    let other = try vfs.open("/disk/kept", [.write, .create], client: 6)
    #expect(tree.pages.used == 60)
    #expect(vfs.openCount(of: 5) == 40)
    vfs.endClient(5)
    #expect(vfs.openCount() == 1)
    #expect(tree.pages.used == 0)
    try vfs.write(other, 0, [1], client: 6)
    vfs.endClient(6)
    try vfs.unlink("/disk/kept")
    try vfs.sync()
    #expect(try with("/disk") { path throws(FileError) in try vfs.space(at: path).freeBlocks } == before)
    try tree.expectClean()
  }

  @Test func noClientTakesAllFiles() throws {
    let vfs = try Tree().vfs
    try vfs.put("/f", "")
    for _ in 0..<VFS.maximumFilesOfClient { try vfs.open("/f", client: 2) }
    #expect(throws: FileError.tableFull) { try vfs.open("/f", client: 2) }
    #expect(throws: FileError.tableFull) { try vfs.open("/g", [.write, .create], client: 2) }
    #expect(throws: FileError.notFound) { try vfs.attributes("/g") }
    try vfs.open("/f", client: 3)
    vfs.endClient(2)
    try vfs.open("/f", client: 2)
  }

  @Test func directoriesAreReadInPieces() throws {
    let vfs = try Tree().vfs
    for place in ["/", "/disk/"] {
      try vfs.makeDirectory(place + "d")
      let names = (0..<50).map { "name\($0)" }.sorted()
      for name in names { try vfs.put(place + "d/" + name, "") }
      #expect(try vfs.names(place + "d", room: 20) == names)
      #expect(try vfs.names(place + "d", room: 4096) == names)
    }
    let handle = try vfs.open("/d")
    var cursor: UInt64 = 0
    #expect(throws: FileError.invalid) { try vfs.readDirectory(1, handle, &cursor, into: ByteBlock(count: 8).area) }
  }
}
