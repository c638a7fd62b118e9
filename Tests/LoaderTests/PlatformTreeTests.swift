import DeviceTree
import Glibc
import Testing

@testable import Loader

@Suite struct PlatformTreeTests {
  var platform: PlatformDescription {
    var platform = PlatformDescription(
      processorCount: 11, memory: PlatformLayout.memoryRanges(bytes: 5 << 30))
    platform.commandLine = "verbose"
    platform.tscFrequency = 2_445_000_000
    platform.virtioDevices = [
      VirtioWindow(index: 0, deviceType: 2, queueCount: 16), VirtioWindow(index: 1, deviceType: 1, queueCount: 3),
    ]
    platform.services = [
      ServiceDescription(name: "vfs", program: "/bin/vfs", isolationClass: "ic1", restart: "always"),
      ServiceDescription(name: "disk", program: "/bin/block", mode: "twin", arguments: "-v", device: 0),
    ]
    return platform
  }

  @Test func treeSaysWhatTheDescriptionSays() throws {
    let root = try DeviceTreeNode(blob: PlatformTree.build(platform))
    #expect(root.node(at: "/chosen")?.strings("bootargs") == ["verbose"])
    #expect(root.node(at: "/cpus")?.children.count == 11)
    #expect(root.node(at: "/cpus/cpu@a")?.cells("reg") == [10])
    #expect(root.node(at: "/memory@0")?.cells("reg") == [0, 0, 0, 0xc000_0000, 1, 0, 0, 0x8000_0000])
    #expect(root.node(at: "/clock")?.cells("tsc-frequency") == [0, 2_445_000_000])
    #expect(root.node(at: "/timer")?.bytes("tsc-deadline") == [])
    let disk = try #require(root.node(at: "/virtio@d0000000"))
    #expect(
      disk.cells("reg") == [
        0, 0xd000_0000, 0, 0x1000, 0, 0xd000_1000, 0, 0x1000, 0, 0xd001_0000, 0, 0x1_0000, 0, 0xd000_2000, 0, 0x1000,
      ])
    #expect(disk.strings("reg-names") == ["registers", "messages", "doorbells", "control"])
    #expect(disk.cells("castor,device-type") == [2])
    #expect(disk.cells("castor,queues") == [16])
    #expect(root.node(at: "/virtio@d0040000")?.cells("interrupts") == [6, 1])
    let service = try #require(root.node(at: "/chosen/pollux,composition/service@1"))
    #expect(service.strings("label") == ["disk"])
    #expect(service.strings("device") == ["/virtio@d0000000"])
    #expect(service.strings("class") == nil && service.strings("restart") == nil)
    #expect(root.node(at: "/chosen/pollux,composition/service@0")?.strings("restart") == ["always"])
  }

  @Test func timerWithoutDeadlineModeHasNoSuchProperty() throws {
    var platform = platform
    platform.hasTSCDeadline = false
    let root = try DeviceTreeNode(blob: PlatformTree.build(platform))
    #expect(root.node(at: "/timer") != nil && root.node(at: "/timer")?.bytes("tsc-deadline") == nil)
  }

  @Test(.enabled(if: access("/usr/bin/dtc", X_OK) == 0, "needs dtc"))
  func dtcAcceptsTheSourceWithoutWarnings() throws {
    let directory = try TemporaryDirectory()
    let source = try DeviceTreeNode(blob: PlatformTree.build(platform)).sourceText
    let input = try directory.file("in.dts", Array(source.utf8))
    let messages = try directory.file("messages", [])
    #expect(system("dtc -I dts -O dtb -o /dev/null \(input) 2>\(messages)") == 0)
    var status = stat()
    #expect(stat(messages, &status) == 0)
    #expect(status.st_size == 0, "\(source)")
  }

  @Test func memoryIsSplitAroundTheMMIOHole() {
    let gibibyte: UInt64 = 1 << 30
    #expect(PlatformLayout.memoryRanges(bytes: 128 << 20) == [0..<0x800_0000])
    #expect(PlatformLayout.memoryRanges(bytes: 3 * gibibyte) == [0..<0xc000_0000])
    #expect(
      PlatformLayout.memoryRanges(bytes: 3 * gibibyte + 4096)
        == [0..<0xc000_0000, 0x1_0000_0000..<0x1_0000_1000])
  }
}
