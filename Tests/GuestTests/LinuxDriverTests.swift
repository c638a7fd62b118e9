// Debian's own driver modules in the driver container, with their data checked. `make drivers` fetches and builds what these need.

import Configuration
import Foundation
import Testing

@Suite(
  .serialized, .enabled(if: LinuxDrivers.arePresent, "make drivers has not put Linux's modules into the boot archive"))
struct LinuxDriverTests {
  private func run(_ host: Host, _ mode: String, _ arguments: String, disk: String) throws -> GuestRun {
    var description = GuestDescription()
    description.disk = disk
    switch host {
    case .castor:
      description.services = [
        "name=block,program=linux-container,mode=\(mode),device=disk0",
        "name=bench,program=bench-block,arguments=\(arguments.replacingOccurrences(of: ",", with: ",,")) exit=on",
      ]
    case .qemu:
      description.commandLine =
        "pollux.block=linux-container pollux.mode=\(mode) pollux.run=bench-block pollux.arguments=\"\(arguments) exit=on\""
    }
    return try description.start(on: host).finish(seconds: 120)
  }

  @Test(arguments: Host.available, LinuxDrivers.modes)
  func writtenDataIsReadBack(host: Host, mode: String) throws {
    let folder = try ScratchFolder()
    let run = try run(
      host, mode,
      "operations=write,read patterns=random,sequential sizes=4096,131072 depths=1,16 milliseconds=60",
      disk: folder.file("disk.img", bytes: 32 << 20))
    let results = run.records.filter { $0["report"] as? String == "bench-result" }
    #expect(results.count == 16, "\(run.console) \(run.errors)")
    for result in results {
      #expect(result["errors"] as? Int == 0)
      #expect(result["mode"] as? String == mode)
      #expect((result["requests"] as? Int ?? 0) > 0)
      if result["operation"] as? String == "write" { #expect(result["verified"] as? Bool == true) }
    }
    #expect(run.console.contains("virtio_blk virtio0: [vda] 65536 512-byte logical blocks"), "\(run.console)")
    #expect(run.exitCode == 0, "\(run.errors)")
  }

  /// Runs reads, eight at a time, with arguments for the driver.
  private func read(with arguments: String) throws -> GuestRun {
    let folder = try ScratchFolder()
    var description = GuestDescription()
    description.disk = try folder.file("disk.img", bytes: 8 << 20)
    description.services = [
      "name=block,program=linux-container,mode=solo,device=disk0,arguments=\(arguments)",
      "name=bench,program=bench-block,arguments=operations=read sizes=4096 depths=8 milliseconds=100 exit=on",
    ]
    return try description.start(on: .castor).finish(seconds: 60)
  }

  @Test(.enabled(if: Host.castor.isAvailable, "needs KVM")) func parametersReachTheModule() throws {
    func doorbellsPerRequest(_ arguments: String) throws -> Double {
      let run = try read(with: arguments)
      let result = try #require(run.records.first { $0["report"] as? String == "bench-result" }, "\(run.console)")
      let requests = try #require(result["requests"] as? Int)
      return Double(try #require(result["doorbells"] as? Int)) / Double(requests)
    }
    // One request at a time, so each has its doorbell; else several share one.
    #expect(try doorbellsPerRequest("virtio-blk.queue_depth=1") > 0.9)
    #expect(try doorbellsPerRequest("virtio_blk.queue-depth=0x40") < 0.5)
    let unknown = try read(with: "virtio_blk.nonsense=1 virtio_ring.other=2")
    #expect(unknown.console.contains("linux-container: virtio_blk has no parameter nonsense"), "\(unknown.console)")
    #expect(unknown.console.contains("linux-container: virtio_ring has no parameter other"), "\(unknown.console)")
    #expect(unknown.exitCode == 0, "\(unknown.console)")
    let bad = try read(with: "virtio_blk.queue_depth=-1")
    #expect(
      bad.console.contains("virtio_blk: parameter queue_depth does not take this value, error -22"), "\(bad.console)")
    #expect(bad.exitCode != 0, "\(bad.console)")
  }

  /// The twin in kernel space, beside Linux's driver in its process.
  @Test(arguments: PlacementCase.all.filter { $0.choice != .ic2 })
  func theTwinKeepsThemInKernelSpace(_ place: PlacementCase) throws {
    let folder = try ScratchFolder()
    let device = place.host == .castor ? ",device=disk0" : ""
    var description = place.description([
      "name=block,program=linux-container,mode=twin\(device),class=CLASS",
      "name=bench,program=bench-block,arguments=selftest=on exit=on",
    ])
    description.disk = try folder.file("disk.img", bytes: 1 << 20)
    let run = try description.start(on: place.host).finish(seconds: 120)
    #expect(run.lines.filter { $0.contains("self test:") && $0.hasSuffix("ok") }.count == 12, "\(run.console)")
    #expect(!run.console.contains("isolation class"), "\(run.console)")
    #expect(run.exitCode == 0)
  }

  @Test(arguments: Host.available, LinuxDrivers.modes)
  func theInterfaceKeepsItsPromises(host: Host, mode: String) throws {
    let folder = try ScratchFolder()
    let run = try run(host, mode, "selftest=on", disk: folder.file("disk.img", bytes: 1 << 20))
    #expect(run.exitCode == 0)
    #expect(run.lines.filter { $0.contains("self test:") && $0.hasSuffix("ok") }.count == 12, "\(run.console)")
  }
}

/// Debian's modules in the boot archive of the tests.
enum LinuxDrivers {
  static let modes = ["solo", "twin", "twin-poll"]
  static let arePresent: Bool = {
    guard let archive = try? HostPaths.findGuest().archive, let bytes = FileManager.default.contents(atPath: archive)
    else { return false }
    return bytes.range(of: Data("linux/container.ko".utf8)) != nil
  }()
}
