// The system's services in each isolation class (HongMeng §4.2: "a service's class is a matter of configuration"): the same test of
// the same service passes wherever the composition places it, on each host.

import Foundation
import Testing

/// A class, and for IC1 its mechanism.
enum PlacementChoice: String, CaseIterable, Sendable {
  case ic0, keys, pageTable, ic2

  var isolationClass: String { self == .keys || self == .pageTable ? "ic1" : rawValue }
  /// As the console's `services` shows it.
  var shown: String {
    switch self {
    case .ic0: "ic0 none"
    case .keys: "ic1 keys"
    case .pageTable: "ic1 table"
    case .ic2: "ic2 user"
    }
  }
  /// Protection keys are not to be had under a software KVM.
  static func on(_ host: Host) -> [PlacementChoice] { allCases.filter { host == .qemu || $0 != .keys } }
}

/// One run of a test: where, and how its services are placed.
struct PlacementCase: Sendable, CustomTestStringConvertible {
  let host: Host
  let choice: PlacementChoice
  var testDescription: String { "\(host) \(choice)" }
  static var all: [PlacementCase] {
    Host.available.flatMap { host in PlacementChoice.on(host).map { PlacementCase(host: host, choice: $0) } }
  }

  /// A guest with `services`, in which CLASS stands for the class.
  func description(_ services: [String], cpus: Int = 1) -> GuestDescription {
    var description = GuestDescription(memory: "128M", cpus: cpus)
    let placed = services.map { $0.replacingOccurrences(of: "CLASS", with: choice.isolationClass) }
    description.compose(placed, on: host)
    if choice == .pageTable { description.commandLine += " pollux.isolation=page-table" }
    return description
  }
}

@Suite(.serialized) struct PlacementTests {
  /// The memory manager: budgets, threads, forks and faults passed on to it.
  @Test(arguments: PlacementCase.all)
  func memoryManager(_ place: PlacementCase) throws {
    let run = try place.description(
      [
        "name=memory-manager,program=memory-manager,class=CLASS,arguments=pages=864",
        "name=child,program=memory-test,mode=child", "name=hog,program=memory-test,mode=hog",
        "name=idle,program=memory-test,mode=idle", "name=test,program=memory-test",
      ], cpus: 2
    ).start(on: place.host).finish(seconds: 120)
    #expect(!run.lines.contains { $0.hasPrefix("FAILED") || $0.contains("isolation class") }, "\(run.console)")
    #expect(run.lines.contains("ok the test reached its end"), "\(run.console)\(run.errors)")
    #expect(run.exitCode == 0)
  }

  /// tmpfs and page cache (Guest/Sources/FileMemory), in one process and in two, checked by bench-composition.
  @Test(arguments: PlacementCase.all, [true, false])
  func fileMemory(_ place: PlacementCase, isSplit: Bool) throws {
    let services =
      isSplit
      ? [
        "name=files,program=file-memory,class=CLASS,mode=files",
        "name=memory,program=file-memory,class=CLASS,mode=memory",
      ] : ["name=memory,program=file-memory,class=CLASS,mode=shared"]
    // Counting, it makes the fewest batches: a software KVM copies slowly in ring 0.
    let bench =
      "name=bench,program=bench-composition,arguments=\(isSplit ? "files=files " : "")unit=instructions exit=on"
    let run = try place.description(services + [bench]).start(on: place.host).finish(seconds: 120)
    let reports = run.records.compactMap { $0["report"] as? String }
    #expect(reports.filter { $0 == "bench-figure" }.count == 3, "\(run.console)\(run.errors)")
    #expect(reports.last == "bench-end")
    #expect(!run.console.contains("isolation class"), "\(run.console)")
    #expect(run.exitCode == 0)
  }

  /// The block twin: the driver's own test, by its client.
  @Test(arguments: PlacementCase.all, ["twin", "twin-poll"])
  func blockTwin(_ place: PlacementCase, mode: String) throws {
    let folder = try ScratchFolder()
    let device = place.host == .castor ? ",device=disk0" : ""
    var description = place.description([
      "name=block,program=block-container,mode=\(mode)\(device),class=CLASS",
      "name=bench,program=bench-block,arguments=selftest=on exit=on",
    ])
    description.disk = try folder.file("disk.img", bytes: 4 << 20)
    let run = try description.start(on: place.host).finish(seconds: 120)
    #expect(run.lines.filter { $0.contains("self test:") && $0.hasSuffix("ok") }.count == 11, "\(run.console)")
    #expect(!run.console.contains("isolation class"), "\(run.console)")
    #expect(run.exitCode == 0)
  }

  /// A program without an image for kernel space runs in IC2, and console and `services` say why.
  @Test(arguments: Host.available)
  func whatCannotBePlacedSaysWhy(host: Host) throws {
    let place = PlacementCase(host: host, choice: .ic0)
    let guest = try place.description([
      "name=memory-test,program=memory-test,class=CLASS,mode=child", "name=console,program=console",
    ]).start(on: host)
    #expect(guest.waitFor("pollux> "), "\(guest.console)")
    guest.type("services\r")
    #expect(guest.waitFor("running  no image of it for kernel space"), "\(guest.console)")
    guest.type("halt\r")
    let run = guest.finish()
    let reason = "by page tables in user mode, since no image of it for kernel space"
    #expect(
      run.lines.contains("init: memory-test: isolation class ic0 asked for, ic2 \(reason)"), "\(run.console)")
    #expect(run.exitCode == 0)
  }

  /// The file service over the twin, both in the same class: files in tmpfs and on ext2, which is sound afterwards.
  @Test(.enabled(if: E2FS.isAvailable), arguments: PlacementCase.all)
  func fileService(_ place: PlacementCase) throws {
    let folder = try ScratchFolder()
    let device = place.host == .castor ? ",device=disk0" : ""
    var description = place.description([
      "name=block,program=block-container,mode=twin\(device),class=CLASS", "name=vfs,program=vfs,class=CLASS",
      "name=console,program=console",
    ])
    let disk = try folder.file("disk.img", bytes: 4 << 20)
    #expect(try E2FS.run("mke2fs", "-q", "-F", disk) == 0)
    description.disk = disk
    let guest = try description.start(on: place.host)
    #expect(guest.waitFor("pollux> "), "\(guest.console)")
    guest.type("write /tmp/note kept by the file service\r")
    guest.type("mv /tmp/note /tmp/moved\r")
    guest.type("cat /tmp/moved\r")
    #expect(guest.waitFor("\nkept by the file service"), "\(guest.console)")
    guest.type("write /disk/note kept by the disk\r")
    guest.type("sync\r")
    guest.type("cat /disk/note\r")
    #expect(guest.waitFor("\nkept by the disk"), "\(guest.console)")
    guest.type("services\r")
    #expect(guest.waitFor("block.container"), "\(guest.console)")
    guest.type("halt\r")
    let run = guest.finish()
    for name in ["block ", "vfs "] {
      let line = run.lines.first { $0.hasPrefix(name) }
      #expect(line?.contains(place.choice.shown) == true, "\(run.console)")
    }
    #expect(run.exitCode == 0)
    #expect(try E2FS.run("e2fsck", "-fn", disk) == 0)
  }
}

/// The host's ext2 tools.
enum E2FS {
  static let isAvailable = path("mke2fs") != nil && path("e2fsck") != nil

  private static func path(_ tool: String) -> String? {
    ["/sbin", "/usr/sbin", "/usr/bin"].map { "\($0)/\(tool)" }.first { access($0, X_OK) == 0 }
  }

  static func run(_ tool: String, _ arguments: String...) throws -> Int32 {
    let process = Process()
    process.executableURL = URL(fileURLWithPath: try #require(path(tool)))
    process.arguments = arguments
    process.standardOutput = FileHandle.nullDevice
    process.standardError = FileHandle.nullDevice
    try process.run()
    process.waitUntilExit()
    return process.terminationStatus
  }
}
