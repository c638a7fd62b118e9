// The file service in the guest, on disks that `mke2fs` makes and that e2fsprogs judge: what the guest reads, what it writes, what is left
// when the monitor is killed, and what clients see when the service is killed.

import Foundation
import Testing

/// e2fsprogs on images in a scratch folder.
private struct Disks {
  static let tools = ["mke2fs", "e2fsck", "debugfs"].allSatisfy { path($0) != nil }

  static func path(_ tool: String) -> String? {
    ["/usr/sbin/", "/sbin/", "/usr/bin/", "/bin/"].map { $0 + tool }.first { access($0, X_OK) == 0 }
  }

  @discardableResult
  static func run(_ tool: String, _ arguments: [String]) throws -> (status: Int32, output: Data) {
    let process = Process()
    process.executableURL = URL(fileURLWithPath: try #require(path(tool)))
    process.arguments = arguments
    let pipe = Pipe()
    process.standardOutput = pipe
    process.standardError = tool == "e2fsck" ? pipe : FileHandle.nullDevice
    process.standardInput = FileHandle.nullDevice
    try process.run()
    let output = pipe.fileHandleForReading.readDataToEndOfFile()
    process.waitUntilExit()
    return (process.terminationStatus, output)
  }

  /// An ext2 image with the files of `folder`, if one is given.
  static func make(_ image: String, blockSize: Int, mebibytes: Int = 8, from folder: String? = nil) throws {
    var arguments = ["-q", "-F", "-t", "ext2", "-b", "\(blockSize)"]
    if let folder { arguments += ["-d", folder] }
    let result = try run("mke2fs", arguments + [image, "\(mebibytes)M"])
    try #require(result.status == 0)
  }

  static func expectClean(_ image: String) throws {
    let result = try run("e2fsck", ["-fn", image])
    #expect(result.status == 0, "\(String(decoding: result.output, as: UTF8.self))")
  }

  /// The contents of a file as debugfs sees them.
  static func contents(_ image: String, _ path: String) throws -> Data {
    try run("debugfs", ["-R", "cat \"\(path)\"", image]).output
  }

  /// Free blocks that the superblock tells.
  static func freeBlocks(_ image: String) throws -> Int {
    let text = String(decoding: try run("debugfs", ["-R", "show_super_stats -h", image]).output, as: UTF8.self)
    let line = try #require(text.split(separator: "\n").first { $0.hasPrefix("Free blocks:") })
    return try #require(Int(line.split(separator: " ").last ?? ""))
  }
}

/// One line of the guest's `tree`.
private struct Entry: Equatable, CustomStringConvertible {
  var path: String
  /// As in ext2's directories: 1 a file, 2 a directory, 7 a link.
  var kind: Int
  var size: Int
  var links: Int
  var permissions: Int
  var hash: UInt64
  var description: String { "\(path) \(kind) \(size) \(links) \(String(permissions, radix: 8)) \(hash)" }

  /// FNV-1a of 64 bits, as the guest computes it.
  static func hash(_ data: Data) -> UInt64 {
    data.reduce(0xcbf2_9ce4_8422_2325) { ($0 ^ UInt64($1)) &* 0x100_0000_01b3 }
  }

  /// What the guest told, by path; the last telling of each.
  static func told(_ run: GuestRun) throws -> [String: Entry] {
    var result: [String: Entry] = [:]
    for line in run.lines where line.hasPrefix("tree ") {
      let words = line.split(separator: " ").map(String.init)
      try #require(words.count == 7, "\(line)")
      let entry = Entry(
        path: words[1], kind: try #require(Int(words[2])), size: try #require(Int(words[3])),
        links: try #require(Int(words[4])), permissions: try #require(Int(words[5])),
        hash: try #require(UInt64(words[6].dropFirst(2), radix: 16)))
      result[entry.path] = entry
    }
    return result
  }

  /// What lies in a folder of this system, as the guest will see it at `place`.
  static func tree(_ folder: String, at place: String) throws -> [String: Entry] {
    var result: [String: Entry] = [:]
    for name in try FileManager.default.subpathsOfDirectory(atPath: folder) {
      var status = stat()
      try #require(lstat("\(folder)/\(name)", &status) == 0)
      var entry = Entry(
        path: "\(place)/\(name)", kind: 0, size: Int(status.st_size), links: Int(status.st_nlink),
        permissions: Int(status.st_mode & 0o7777), hash: hash(Data()))
      switch status.st_mode & S_IFMT {
      case S_IFDIR: (entry.kind, entry.size) = (2, 0)
      case S_IFLNK:
        entry.kind = 7
        entry.hash = hash(Data(try FileManager.default.destinationOfSymbolicLink(atPath: "\(folder)/\(name)").utf8))
      default:
        entry.kind = 1
        entry.hash = hash(try Data(contentsOf: URL(fileURLWithPath: "\(folder)/\(name)")))
      }
      result[entry.path] = entry
    }
    return result
  }
}

/// A guest with a disk, the file service and the test program in `mode`, which ends the machine; and perhaps a writer.
private func start(
  _ host: Host, _ mode: String, _ arguments: String = "", disk: String, driver: String = "twin",
  withWriter: Bool = false, others: [String] = []
) throws -> GuestMachine {
  var description = GuestDescription(memory: "128M", cpus: withWriter ? 2 : 1)
  description.disk = disk
  var services = others
  services += [
    "name=block,program=block-container,mode=\(driver)\(host == .castor ? ",device=disk0" : "")",
    "name=vfs,program=vfs,arguments=memory=2M",
  ]
  if withWriter { services.append("name=writer,program=file-test,mode=writer") }
  services.append(
    "name=test,program=file-test,mode=\(mode)\(arguments.isEmpty ? "" : ",arguments=\(arguments)")")
  description.compose(services, on: host)
  return try description.start(on: host)
}

private func expectSuccess(_ run: GuestRun) {
  #expect(run.lines.filter { $0.hasPrefix("FAILED") }.isEmpty, "\(run.console)")
  #expect(run.lines.contains("ok the test reached its end"), "\(run.console)\(run.errors)")
  #expect(run.exitCode == 0, "\(run.errors)")
}

@Suite(.serialized, .enabled(if: Disks.tools, "needs mke2fs, e2fsck and debugfs (Debian: e2fsprogs)"))
struct FileTests {
  /// A folder with what file systems have.
  private func fill(_ folder: String) throws {
    let manager = FileManager.default
    try manager.createDirectory(atPath: "\(folder)/a/b/c", withIntermediateDirectories: true)
    try manager.createDirectory(atPath: "\(folder)/many", withIntermediateDirectories: true)
    var random = SystemRandomNumberGenerator()
    func put(_ name: String, _ size: Int) throws {
      let data = Data((0..<size).map { _ in UInt8.random(in: 0...255, using: &random) })
      try data.write(to: URL(fileURLWithPath: "\(folder)/\(name)"))
    }
    // Up to twelve direct blocks, one and two indirect levels at 1 KiB and 4 KiB.
    for (name, size) in [("empty", 0), ("one", 1), ("direct", 12_288), ("single", 200_001), ("a/double", 700_003)] {
      try put(name, size)
    }
    for number in 0..<120 { try put("many/file-number-\(number)", number) }
    try put("a/b/c/deep", 77)
    try manager.linkItem(atPath: "\(folder)/one", toPath: "\(folder)/a/hard")
    try manager.createSymbolicLink(atPath: "\(folder)/soft", withDestinationPath: "a/b/c/deep")
    try manager.createSymbolicLink(
      atPath: "\(folder)/a/long", withDestinationPath: String(repeating: "../a/", count: 30) + "b")
    try manager.setAttributes([.posixPermissions: 0o4751], ofItemAtPath: "\(folder)/direct")
    // A hole between two ends.
    let sparse = "\(folder)/sparse"
    try Data("head".utf8).write(to: URL(fileURLWithPath: sparse))
    let file = try #require(FileHandle(forWritingAtPath: sparse))
    try file.seek(toOffset: 600_000)
    try file.write(contentsOf: Data("tail".utf8))
    try file.close()
  }

  @Test(arguments: Host.available, [1024, 4096])
  func whatMke2fsPutThereIsRead(host: Host, blockSize: Int) throws {
    let scratch = try ScratchFolder()
    let folder = "\(scratch.path)/files"
    try fill(folder)
    let image = "\(scratch.path)/disk.img"
    try Disks.make(image, blockSize: blockSize, from: folder)
    let run = try start(host, "read", disk: image, driver: blockSize == 1024 ? "twin" : "solo").finish()
    expectSuccess(run)
    var told = try Entry.told(run)
    #expect(told.removeValue(forKey: "/disk")?.kind == 2)
    #expect(told.removeValue(forKey: "/disk/lost+found")?.kind == 2)
    let expected = try Entry.tree(folder, at: "/disk")
    #expect(told.count == expected.count)
    for (path, entry) in expected { #expect(told[path] == entry, "\(path)") }
    // Nobody who only reads makes the disk unclean.
    try Disks.expectClean(image)
  }

  @Test(arguments: Host.available, [1024, 4096])
  func whatTheGuestWroteIsThere(host: Host, blockSize: Int) throws {
    let scratch = try ScratchFolder()
    let image = "\(scratch.path)/disk.img"
    try Disks.make(image, blockSize: blockSize)
    let free = try Disks.freeBlocks(image)
    let run = try start(host, "write", disk: image).finish(seconds: 120)
    expectSuccess(run)
    #expect(run.lines.contains("synced"))
    try Disks.expectClean(image)
    let told = try Entry.told(run)
    #expect(told.count > 60)
    for entry in told.values where entry.kind == 1 {
      let path = String(entry.path.dropFirst("/disk".count))
      let data = try Disks.contents(image, path)
      #expect(data.count == entry.size, "\(path)")
      #expect(Entry.hash(data) == entry.hash, "\(path)")
    }
    for (path, text) in [("/w/short", "new"), ("/w/one", "third"), ("/w/full", "fits"), ("/w/a/b/deep", "deep")] {
      #expect(String(decoding: try Disks.contents(image, path), as: UTF8.self) == text)
    }
    let second = try start(host, "verify", disk: image, driver: "solo").finish(seconds: 120)
    expectSuccess(second)
    let again = try Entry.told(second)
    #expect(again == told)
    #expect(second.lines.contains("free \(free)"), "\(second.console)")
    #expect(try Disks.freeBlocks(image) == free)
    try Disks.expectClean(image)
  }

  @Test(arguments: Host.available, [1024, 4096])
  func aKilledMonitorLosesNothingThatWasSynced(host: Host, blockSize: Int) throws {
    let scratch = try ScratchFolder()
    let image = "\(scratch.path)/disk.img"
    try Disks.make(image, blockSize: blockSize)
    var synced = 0
    for _ in 0..<4 {
      let guest = try start(host, "endless", "synced=\(synced)", disk: image)
      // It gets somewhere, and then an accident happens at any time.
      #expect(guest.waitFor("checked "), "\(guest.console)")
      let goal = synced + Int.random(in: 1...30)
      let deadline = Date().addingTimeInterval(60)
      while (lastSynced(guest.console) ?? 0) < goal, Date() < deadline, guest.process.isRunning { usleep(5000) }
      usleep(UInt32.random(in: 0...200_000))
      kill(guest.process.processIdentifier, SIGKILL)
      let run = guest.finish()
      #expect(run.exitCode == 128 + SIGKILL, "\(run.console)\(run.errors)")
      #expect(run.lines.filter { $0.hasPrefix("FAILED") }.isEmpty, "\(run.console)")
      let reached = try #require(lastSynced(run.console), "\(run.console)")
      #expect(reached >= goal)
      synced = reached
    }
    let run = try start(host, "endless", "synced=\(synced) last=on", disk: image).finish()
    expectSuccess(run)
    try Disks.expectClean(image)
  }

  /// The last step that the guest said was synced, in a whole line.
  private func lastSynced(_ console: String) -> Int? {
    guard let end = console.lastIndex(of: "\n") else { return nil }
    return console[..<end].split(whereSeparator: \.isNewline).last { $0.hasPrefix("synced ") }
      .flatMap { Int($0.dropFirst("synced ".count)) }
  }

  @Test(arguments: Host.available, ["twin", "solo"])
  func devicesFollowTheirDrivers(host: Host, driver: String) throws {
    let scratch = try ScratchFolder()
    let image = "\(scratch.path)/disk.img"
    try Disks.make(image, blockSize: 1024)
    let run = try start(
      host, "devices", disk: image, driver: driver,
      others: ["name=console,program=console", "name=memdisk,program=memdisk", "name=memdisk2,program=memdisk"]
    ).finish()
    expectSuccess(run)
    #expect(run.lines.contains("this came by the console's node"))
    try Disks.expectClean(image)
  }

  @Test(arguments: Host.available)
  func clientsAndServiceSurviveEachOther(host: Host) throws {
    let scratch = try ScratchFolder()
    let image = "\(scratch.path)/disk.img"
    try Disks.make(image, blockSize: 1024)
    let free = try Disks.freeBlocks(image)
    let run = try start(host, "deaths", disk: image, withWriter: true).finish(seconds: 180)
    expectSuccess(run)
    #expect(run.lines.contains("free \(free)"), "\(run.console)")
    try Disks.expectClean(image)
  }
}
