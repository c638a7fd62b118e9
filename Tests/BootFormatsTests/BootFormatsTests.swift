// The readers of boot-time formats accept what is right and refuse, without reading outside, what is not.

import Testing

@testable import BootFormats

private let machine = Tree.node(
  "", [("model", string("Castor"))],
  [
    .node(
      "chosen", [("bootargs", string("quiet"))],
      [
        .node(
          "pollux,composition", [],
          [
            .node("service@0", [("label", string("console")), ("program", string("console"))], []),
            .node("service@1", [("label", string("nothing"))], []),
            .node(
              "service@2",
              [
                ("label", string("block")), ("program", string("block-container")), ("class", string("ic2")),
                ("mode", string("twin")), ("arguments", string("a=1 b")), ("device", string("/virtio@d0000000")),
              ], []),
          ])
      ]),
    .node(
      "virtio@d0000000",
      [
        ("compatible", string("virtio,mmio") + string("castor,virtio-split")),
        ("reg", [0, 0xd000_0000, 0, 0x1000].flatMap { big($0) } + [0, 0xd000_1000, 0, 0x1000].flatMap { big($0) }),
        ("interrupts", big(5) + big(1)),
      ], []),
  ])

@Suite struct DeviceTreeReaderTests {
  @Test func findsNodesPropertiesAndRegisters() throws {
    let buffer = Buffer(flatten(machine))
    let tree = try DeviceTreeReader(buffer.bytes)
    let root = try #require(tree.root)
    #expect(text(tree.string("model", of: root)) == "Castor")
    let node = try #require(tree.node(at: Bytes("/virtio@d0000000")))
    #expect(tree.isCompatible(node, with: "castor,virtio-split"))
    #expect(!tree.isCompatible(node, with: "castor"))
    #expect(tree.cell("interrupts", 1, of: node) == 1)
    #expect(tree.cell("interrupts", 2, of: node) == nil)
    let window = try #require(tree.register(1, of: node))
    #expect(window.address == 0xd000_1000 && window.size == 0x1000)
    #expect(tree.register(2, of: node) == nil)
    #expect(tree.node(at: Bytes("/virtio")) != nil)
    #expect(tree.node(at: Bytes("/chosen/none")) == nil)
    #expect(tree.node(at: Bytes("chosen")) == nil)
  }

  @Test func readsTheComposition() throws {
    let buffer = Buffer(flatten(machine))
    let composition = try #require(Composition(try DeviceTreeReader(buffer.bytes)))
    #expect(composition.entries.count == 2)
    let block = try #require(composition.entry(Bytes("block")))
    #expect(text(block.program) == "block-container")
    #expect(text(block.mode) == "twin")
    #expect(text(block.arguments) == "a=1 b")
    #expect(text(block.device) == "/virtio@d0000000")
    #expect(text(composition.entries[0].isolationClass) == "ic2")
  }

  @Test func refusesForeignAndTruncatedBlobs() {
    let good = flatten(machine)
    #expect(throws: DeviceTreeReadError.notADeviceTree) { try DeviceTreeReader(Bytes("no tree at all")) }
    let short = Buffer(Array(good.prefix(good.count - 1)))
    #expect(throws: DeviceTreeReadError.blockOutsideBlob) { try DeviceTreeReader(short.bytes) }
    var old = good
    old[23] = 16
    let oldBuffer = Buffer(old)
    #expect(throws: DeviceTreeReadError.unsupportedVersion) { try DeviceTreeReader(oldBuffer.bytes) }
  }

  /// Every single damaged byte: the reader ends its walks and stays inside, whatever it finds.
  @Test func survivesEveryDamagedByte() {
    let good = flatten(machine)
    var visited = 0
    for index in good.indices {
      for value: UInt8 in [0, 1, 0x7f, 0xff] {
        var bad = good
        bad[index] = value
        let buffer = Buffer(bad)
        guard let tree = try? DeviceTreeReader(buffer.bytes) else { continue }
        _ = Composition(tree)
        if let root = tree.root {
          tree.forEachChild(of: root) {
            visited += $0.name.count
            return true
          }
        }
        _ = tree.node(at: Bytes("/virtio@d0000000")).map { tree.register(0, of: $0) }
      }
    }
    #expect(visited > 0)
  }
}

@Suite struct TapeArchiveTests {
  @Test func listsFilesAndSkipsFillers() {
    let buffer = Buffer(
      archive([
        ("init", [1, 2, 3]), (".align", [UInt8](repeating: 0, count: 700)), ("./etc/motd", Array("hello".utf8)),
      ]))
    let tar = TapeArchive(buffer.bytes)
    #expect(tar.isArchive)
    var names: [String] = []
    tar.forEachFile {
      names.append(text($0.name) ?? "")
      return true
    }
    #expect(names == ["init", "etc/motd"])
    #expect(text(tar.file(Bytes("etc/motd"))?.contents) == "hello")
    #expect(tar.file(Bytes("init"))?.offset == 512)
    #expect(tar.file(Bytes("none")) == nil)
  }

  @Test func stopsAtAFileThatEndsOutsideTheArchive() {
    var bytes = archive([("a", [1]), ("b", [2])])
    bytes[1024 + 124 + 4] = 0x37
    let buffer = Buffer(bytes)
    #expect(TapeArchive(buffer.bytes).file(Bytes("a")) != nil)
    #expect(TapeArchive(buffer.bytes).file(Bytes("b")) == nil)
  }
}

@Suite struct ExecutableImageTests {
  private let range: Range<UInt64> = 0x1000..<(253 << 39)

  @Test func listsCheckedSegments() throws {
    let buffer = Buffer(
      executable([
        ProgramHeader(),
        ProgramHeader(flags: 6, offset: 0x2000, address: 0x40_2000, fileSize: 0x100, memorySize: 0x2100),
      ]))
    let image = try ExecutableImage(buffer.bytes, within: range)
    #expect(image.entry == 0x40_0000 && image.headerCount == 2)
    let data = try #require(try image.segment(1))
    #expect(data.isWritable && !data.isExecutable && data.contents.count == 0x100 && data.memorySize == 0x2100)
  }

  @Test(arguments: [
    (executable(machine: 183, [ProgramHeader()]), ExecutableError.wrongMachine),
    (executable([ProgramHeader(fileSize: 0x9000, memorySize: 0x9000)]), .segmentOutsideFile),
    (executable([ProgramHeader(fileSize: 0x20, memorySize: 0x10)]), .segmentOutsideFile),
    (executable([ProgramHeader(offset: .max - 5)]), .segmentOutsideFile),
    (executable([ProgramHeader(address: 0)]), .badSegmentAddress),
    (executable([ProgramHeader(address: 0xffff_ffff_ffff_f000, memorySize: 0x2000)]), .badSegmentAddress),
    (executable([ProgramHeader(address: 0x40_0010)]), .badSegmentAddress),
    (executable([ProgramHeader(), ProgramHeader(flags: 6)]), .overlappingSegments),
    (executable(entry: 0x50_0000, [ProgramHeader()]), .badEntry),
    (executable([ProgramHeader(flags: 6)]), .badEntry),
    (Array("#!/bin/sh".utf8), .notAnExecutable),
    (Array(executable([ProgramHeader()]).prefix(80)), .badProgramHeader),
  ])
  func refusesBadImages(_ bytes: [UInt8], _ reason: ExecutableError) {
    let buffer = Buffer(bytes)
    #expect(throws: reason) { try ExecutableImage(buffer.bytes, within: range) }
  }
}

@Suite struct CommandLineTests {
  @Test func readsDevicesAndValues() {
    let line = CommandLine(
      Bytes(
        "quiet virtio_mmio.device=512@0xfeb00e00:12 pollux.mode=solo virtio_mmio.device=4K@0xd0000000:5:3 a=\"b c\" pollux.mode=twin"
      ))
    var devices: [AnnouncedDevice] = []
    line.forEachDevice { devices.append($0) }
    #expect(
      devices == [
        AnnouncedDevice(address: 0xfeb0_0e00, size: 512, interrupt: 12),
        AnnouncedDevice(address: 0xd000_0000, size: 4096, interrupt: 5),
      ])
    #expect(text(line.value("pollux.mode")) == "twin")
    #expect(text(line.value("a")) == "b c")
    #expect(text(line.value("quiet")) == "")
    #expect(line.value("none") == nil)
  }

  @Test(arguments: [
    "512", "@1:2", "0@1:2", "1@:2", "1@2:", "1@2", "1@0xffffffffffffffff:1", "1K1@2:3", "1@2:99999999999",
  ])
  func ignoresMalformedDevices(_ value: String) {
    let buffer = Buffer(Array("virtio_mmio.device=\(value)".utf8))
    var count = 0
    CommandLine(buffer.bytes).forEachDevice { _ in count += 1 }
    #expect(count == 0)
  }
}

@Suite struct StartBlockTests {
  @Test func carriesHandlesNumbersAndTexts() {
    var builder = StartBlockBuilder()
    #expect({ builder.add("registry", handle: 7) }())
    #expect({ builder.add("size", number: 1 << 40) }())
    #expect({ builder.add("mode", text: Bytes("twin-poll")) }())
    let buffer = Buffer(builder.contents)
    let block = StartBlock(buffer.bytes)
    #expect(block.handle("registry") == 7)
    #expect(block.number("size") == 1 << 40)
    #expect(text(block.text("mode")) == "twin-poll")
    #expect(block.handle("size") == nil)
    #expect(block.number("none") == nil)
  }

  @Test func refusesWhatDoesNotFit() {
    var builder = StartBlockBuilder()
    let long = Buffer([UInt8](repeating: 0x61, count: 4096))
    #expect(!{ builder.add("arguments", text: long.bytes) }())
    #expect({ builder.add("mode", text: Bytes("solo")) }())
    let buffer = Buffer(builder.contents)
    #expect(text(StartBlock(buffer.bytes).text("mode")) == "solo")
    #expect(builder.contents.count == 4096)
  }
}

@Suite struct CommandLineCompositionTests {
  @Test func servicesAreWordsInStartOrder() throws {
    let line = CommandLine(
      Bytes(
        "quiet pollux.service=\"name=vfs,class=ic1,restart=always,mode=split\" pollux.service=\"name=bench,program=bench-fs,device=disk0,arguments=a=1,2 b=x,name=no\""
      ))
    let entries = try #require(Composition(line)).entries
    #expect(entries.count == 2)
    #expect(
      entries[0].name.equals("vfs") && entries[0].program.equals("vfs") && entries[0].isolationClass.equals("ic1"))
    #expect(entries[0].restart.equals("always") && entries[1].restart.isEmpty)
    #expect(entries[0].mode.equals("split") && entries[0].arguments.isEmpty)
    #expect(entries[1].name.equals("bench") && entries[1].program.equals("bench-fs"))
    #expect(entries[1].device.equals("disk0") && entries[1].arguments.equals("a=1,2 b=x,name=no"))
    #expect(entries[1].isolationClass.equals("ic2"))
  }

  @Test func whatIsMalformedNamesNoService() throws {
    #expect(Composition(CommandLine(Bytes("pollux.run=x services"))) == nil)
    for text in ["pollux.service=", "pollux.service=junk", "pollux.service=program=x,,=", "pollux.service=\"name=\""]
      as [StaticString]
    {
      #expect(Composition(CommandLine(Bytes(text)))?.entries.isEmpty == true)
    }
  }
}
