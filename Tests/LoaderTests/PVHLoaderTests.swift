import DeviceTree
import GuestMemory
import Testing

@testable import Loader

@Suite struct PVHLoaderTests {
  let archive = (0..<5000).map { UInt8(truncatingIfNeeded: $0) }

  @Test func castorKernelStartsInLongModeWithSegmentsModulesAndStartInfoInPlace() throws {
    let guest = try TestGuest(kernel: TestELF().bytes, archive: archive)
    let plan = try guest.load()
    #expect(plan.format == .castorELF)
    #expect(plan.state.mode == .long64)
    #expect(plan.state.rip == 0x10_0010)
    #expect(plan.state.rbx == 0x6000)
    #expect(try guest.memory.readBytes(at: GuestAddress(0x10_0000), count: 5000) == Array(repeating: 0x90, count: 5000))
    #expect(try guest.read(0x10_0000 + 5000, as: UInt8.self) == 0)

    let place = try #require(plan.archive)
    #expect(place.lowerBound % 4096 == 0 && place.count == archive.count)
    #expect(try guest.memory.readBytes(at: GuestAddress(place.lowerBound), count: archive.count) == archive)
    let tree = try #require(plan.deviceTree)
    let blob = try guest.memory.readBytes(at: GuestAddress(tree.lowerBound), count: tree.count)
    #expect(try DeviceTreeNode(blob: blob).strings("compatible") == ["castor,vm"])
    #expect(!place.overlaps(tree))

    #expect(try guest.read(0x6000, as: UInt32.self) == 0x336e_c578)
    #expect(try guest.read(0x6004, as: UInt32.self) == 1)
    #expect(try guest.read(0x600c, as: UInt32.self) == 2)
    let modules: UInt64 = try guest.read(0x6010)
    #expect(try guest.read(modules, as: UInt64.self) == place.lowerBound)
    #expect(try guest.read(modules + 8, as: UInt64.self) == UInt64(archive.count))
    #expect(try guest.read(modules + 32, as: UInt64.self) == tree.lowerBound)
    let text: UInt64 = try guest.read(0x6018)
    #expect(try guest.memory.readBytes(at: GuestAddress(text), count: 20) == Array("console=ttyS0 quiet\0".utf8))
  }

  @Test func memoryMapIsRAMWithAReservedStretchBelowOneMebibyte() throws {
    let guest = try TestGuest(
      kernel: TestELF().bytes, memory: [0..<(4 << 20), 0x1_0000_0000..<(0x1_0000_0000 + (1 << 20))])
    _ = try guest.load()
    let map: UInt64 = try guest.read(0x6028)
    let count: UInt32 = try guest.read(0x6030)
    let entries = try (0..<UInt64(count)).map { index -> [UInt64] in
      let entry = map + index * 24
      return try [
        guest.read(entry), guest.read(entry + 8), UInt64(guest.read(entry + 16, as: UInt32.self)),
      ]
    }
    #expect(
      entries == [
        [0, 0x9_fc00, 1], [0x9_fc00, 0x6_0400, 2], [0x10_0000, 0x30_0000, 1], [0x1_0000_0000, 0x10_0000, 1],
      ])
  }

  @Test func pageTablesMapTheFirstFourGibibytesOntoThemselves() throws {
    let guest = try TestGuest(kernel: TestELF().bytes)
    let state = try guest.load().state
    for address in [0, 0x1f_ffff, 0x20_0000, 0xfee0_0000, 0xffff_ffff] as [UInt64] {
      var table = state.cr3
      for shift in [39, 30] as [UInt64] {
        let entry: UInt64 = try guest.read(table + (address >> shift & 0x1ff) * 8)
        #expect(entry & 0x83 == 0x03)
        table = entry & ~0xfff
      }
      let entry: UInt64 = try guest.read(table + (address >> 21 & 0x1ff) * 8)
      #expect(entry & 0x83 == 0x83)
      #expect(entry & ~0x1f_ffff | address & 0x1f_ffff == address)
    }
    #expect(try guest.read(state.gdtBase + 0x10, as: UInt64.self) == 0x00af_9b00_0000_ffff)
    #expect(try guest.read(state.gdtBase + 0x18, as: UInt64.self) == 0x00cf_9300_0000_ffff)
    #expect(state.code.isLong && !state.data.isLong)
  }

  @Test func kernelWithTheXenNoteAloneStartsInProtectedModeWithoutADeviceTree() throws {
    var elf = TestELF()
    elf.notes = TestELF.note("Linux", 18, .little(UInt32(7))) + TestELF.note("Xen", 18, .little(UInt64(0x10_0100)))
    let guest = try TestGuest(kernel: elf.bytes, archive: archive)
    let plan = try guest.load()
    #expect(plan.format == .pvhELF)
    #expect(plan.state.mode == .protected32)
    #expect(plan.state.rip == 0x10_0100)
    #expect(plan.state.cr0 & 0x8000_0000 == 0)
    #expect(plan.deviceTree == nil)
    #expect(try guest.read(0x600c, as: UInt32.self) == 1)
    #expect(try guest.read(plan.state.gdtBase + 0x10, as: UInt64.self) == 0x00cf_9b00_0000_ffff)
  }

  @Test func firmwareStartLeavesThePVHEntryInTheMailbox() throws {
    var guest = try TestGuest(kernel: TestELF().bytes)
    guest.request.throughFirmware = true
    let plan = try guest.load()
    #expect(plan.format == .castorELF)
    #expect(plan.state.mode == .realModeReset)
    #expect(plan.state.code.base + plan.state.rip == 0xffff_fff0)
    #expect(
      try (0..<4).map { try guest.read(0x8fe0 + $0 * 4, as: UInt32.self) } == [0x4d4f_4243, 0x10_0020, 0x6000, 0])
  }

  @Test func loadingTwiceAfterZeroingGivesTheSameMemory() throws {
    let guest = try TestGuest(kernel: TestELF().bytes, archive: archive)
    let first = try guest.load()
    let bytes = try guest.memory.readBytes(at: GuestAddress(0), count: 4 << 20)
    try guest.memory.write(bytes: [UInt8](repeating: 0, count: 4 << 20), at: GuestAddress(0))
    #expect(try guest.load() == first)
    #expect(try guest.memory.readBytes(at: GuestAddress(0), count: 4 << 20) == bytes)
  }

  // Hostile and broken files.

  @Test func everyTruncationOfAKernelIsRefused() throws {
    let bytes = TestELF().bytes
    let guest = try TestGuest(kernel: [])
    for count in Array(0..<400) + stride(from: 400, to: bytes.count, by: 97) {
      _ = try guest.directory.file("kernel", Array(bytes[..<count]))
      guard case .truncated = guest.problem() else {
        Issue.record("\(count) bytes: \(String(describing: guest.problem()))")
        continue
      }
    }
  }

  @Test func everyCorruptHeaderByteEndsInAPlanOrAnErrorNamingTheFile() throws {
    let bytes = TestELF().bytes
    let guest = try TestGuest(kernel: [])
    var refused = 0
    for index in 0..<232 {
      for value in [0, 1, 0x7f, 0x80, 0xff] as [UInt8] where bytes[index] != value {
        var changed = bytes
        changed[index] = value
        _ = try guest.directory.file("kernel", changed)
        do {
          _ = try guest.load()
        } catch {
          refused += 1
          #expect(error.description.hasPrefix(guest.request.kernelPath + ": "))
        }
      }
    }
    #expect(refused > 200)
  }

  @Test(arguments: [
    (4, UInt64(1), "32-bit ELF"), (5, 2, "big-endian ELF"), (18, 183, "ELF machine 183"), (18, 3, "ELF machine 3"),
    (16, 3, "ELF type 3"),
  ])
  func otherMachinesAndKindsAreRefused(offset: Int, value: UInt64, text: String) throws {
    var bytes = TestELF().bytes
    bytes[offset] = UInt8(value)
    let guest = try TestGuest(kernel: bytes)
    guard case .notAnX8664Kernel(let why) = guest.problem() else {
      Issue.record("\(String(describing: guest.problem()))")
      return
    }
    #expect(why.contains(text))
  }

  @Test func segmentOverlappingTheMMIOHoleIsRefused() throws {
    var elf = TestELF()
    elf.segments.append(.init(address: 0xbfff_f000, contents: [1], memoryCount: 0x2000))
    let guest = try TestGuest(kernel: elf.bytes)
    #expect(
      guest.problem() == .insideMMIOHole(part: "segment 1", range: 0xbfff_f000..<0xc000_1000))
  }

  @Test(arguments: [
    (UInt64(0x3f_f000), UInt64(0x1001)), (0x40_0000, 1), (0x2_0000_0000, 0x1000), (0x0, 0x50_0000),
  ])
  func segmentOutsideMemoryIsRefused(address: UInt64, count: UInt64) throws {
    var elf = TestELF()
    elf.segments = [.init(address: address, contents: [1], memoryCount: count)]
    elf.notes = TestELF.note("Castor", 1, .little(address))
    let guest = try TestGuest(kernel: elf.bytes)
    switch guest.problem() {
    case .outsideMemory(part: "segment 0", _): break
    case .malformed where address > UInt64(UInt32.max): break
    default: Issue.record("\(String(describing: guest.problem()))")
    }
  }

  @Test func segmentThatWrapsAroundTheAddressSpaceIsRefused() throws {
    var elf = TestELF()
    elf.segments.append(.init(address: .max - 10, contents: [1], memoryCount: 100))
    guard case .malformed = try TestGuest(kernel: elf.bytes).problem() else {
      Issue.record("accepted")
      return
    }
  }

  @Test(arguments: [UInt64(0x6000), 0x5fff, 0xffff, 0x9_fc00, 0xf_0000])
  func segmentOverTheBootAreaOrTheFirmwareTablesIsRefused(address: UInt64) throws {
    var elf = TestELF()
    elf.segments.append(.init(address: address, contents: [1, 2], memoryCount: 2))
    guard case .overlaps(part: "segment 1", _, _) = try TestGuest(kernel: elf.bytes).problem() else {
      Issue.record("accepted")
      return
    }
  }

  @Test func overlappingSegmentsAreRefused() throws {
    var elf = TestELF()
    elf.segments.append(.init(address: 0x10_2fff, contents: [1], memoryCount: 1))
    let guest = try TestGuest(kernel: elf.bytes)
    #expect(
      guest.problem() == .overlaps(part: "segment 1", range: 0x10_2fff..<0x10_3000, other: "segment 0"))
  }

  @Test func segmentWithMoreBytesInTheFileThanInMemoryIsRefused() throws {
    var elf = TestELF()
    elf.segments[0].memoryCount = 4999
    guard case .malformed = try TestGuest(kernel: elf.bytes).problem() else {
      Issue.record("accepted")
      return
    }
  }

  @Test func kernelWithoutAnEntryNoteIsRefused() throws {
    var elf = TestELF()
    elf.notes = TestELF.note("GNU", 3, [1, 2, 3, 4])
    guard case .noEntryPoint = try TestGuest(kernel: elf.bytes).problem() else {
      Issue.record("accepted")
      return
    }
  }

  @Test func firmwareStartOfAKernelWithoutThePVHNoteIsRefused() throws {
    var elf = TestELF()
    elf.notes = TestELF.note("Castor", 1, .little(UInt64(0x10_0010)))
    var guest = try TestGuest(kernel: elf.bytes)
    #expect(guest.problem() == nil)
    guest = try TestGuest(kernel: elf.bytes)
    guest.request.throughFirmware = true
    guard case .noEntryPoint = guest.problem() else {
      Issue.record("accepted")
      return
    }
  }

  @Test(arguments: [UInt64(0xf_ffff), 0x10_3000, 0xffff_ffff_8010_0000])
  func entryOutsideTheSegmentsIsRefused(entry: UInt64) throws {
    var elf = TestELF()
    elf.notes = TestELF.note("Castor", 1, .little(entry))
    guard case .malformed = try TestGuest(kernel: elf.bytes).problem() else {
      Issue.record("accepted")
      return
    }
  }

  @Test(arguments: [
    [UInt8](repeating: 0xff, count: 16), .little(UInt32(4)) + .little(UInt32(0xffff_fff0)) + .little(1),
  ])
  func noteThatLeavesItsSegmentIsRefused(notes: [UInt8]) throws {
    var elf = TestELF()
    elf.notes = notes
    guard case .malformed = try TestGuest(kernel: elf.bytes).problem() else {
      Issue.record("accepted")
      return
    }
  }

  @Test func missingUnreadableAndForeignFilesAreNamed() throws {
    var guest = try TestGuest(kernel: Array("#!/bin/sh\n".utf8))
    #expect(guest.problem() == .unknownFormat)
    guest.request.kernelPath = guest.directory.path
    #expect(guest.problem() == .notARegularFile)
    guest.request.kernelPath = "/nonexistent/kernel"
    #expect(guest.problem() == .cannotRead(errno: 2))
    #expect(throws: LoaderError(path: "/nonexistent/kernel", problem: .cannotRead(errno: 2))) { try guest.load() }
  }

  @Test func emptyMissingAndTooLargeArchivesAreNamed() throws {
    var guest = try TestGuest(kernel: TestELF().bytes, archive: [])
    guard case .malformed = guest.problem() else {
      Issue.record("an empty archive was accepted")
      return
    }
    guest = try TestGuest(kernel: TestELF().bytes, archive: [UInt8](repeating: 1, count: 3 << 20))
    #expect(guest.problem() == .noRoom(part: "the boot archive", bytes: 3 << 20))
    guest = try TestGuest(kernel: TestELF().bytes)
    guest.request.archivePath = "/nonexistent/archive"
    #expect(throws: LoaderError(path: "/nonexistent/archive", problem: .cannotRead(errno: 2))) { try guest.load() }
  }

  @Test func commandLineThatDoesNotFitIsRefused() throws {
    var guest = try TestGuest(kernel: TestELF().bytes)
    guest.request.platform.commandLine = String(repeating: "x", count: StartInfo.commandLineLimit)
    #expect(guest.problem() == nil)
    guest = try TestGuest(kernel: TestELF().bytes)
    guest.request.platform.commandLine = String(repeating: "x", count: StartInfo.commandLineLimit + 1)
    #expect(
      guest.problem()
        == .commandLineTooLong(bytes: StartInfo.commandLineLimit + 1, limit: StartInfo.commandLineLimit))
  }
}
