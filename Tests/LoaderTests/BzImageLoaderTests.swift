import GuestMemory
import Testing

@testable import Loader

@Suite struct BzImageLoaderTests {
  /// A bzImage of four setup sectors and a protected-mode kernel of `count` bytes that are their own number.
  static func image(count: Int = 0x2000) -> [UInt8] {
    var file = [UInt8](repeating: 0, count: 5 * 512)
    file[0x1f1] = 4
    file.put(UInt32((count + 15) / 16), at: 0x1f4)
    file.put(UInt16(0xaa55), at: 0x1fe)
    file[0x201] = 0x6a
    file.replaceSubrange(0x202..<0x206, with: Array("HdrS".utf8))
    file.put(UInt16(0x20f), at: 0x206)
    file[0x211] = 1
    file.put(UInt32(0x7fff_ffff), at: 0x22c)
    file.put(UInt16(1), at: 0x236)
    file.put(UInt32(2047), at: 0x238)
    file.put(UInt64(0x20_0000), at: 0x258)
    file.put(UInt32(0x8_0000), at: 0x260)
    return file + (0..<count).map { UInt8(truncatingIfNeeded: $0) }
  }

  @Test func kernelStartsAtIts64BitEntryWithBootParametersInPlace() throws {
    let archive = [UInt8](repeating: 7, count: 4097)
    let guest = try TestGuest(kernel: Self.image(), archive: archive)
    let plan = try guest.load()
    #expect(plan.format == .bzImage)
    #expect(plan.state.mode == .long64)
    #expect(plan.state.rip == 0x10_0200)
    #expect(plan.state.rsi == 0x6000)
    #expect(plan.state.code.selector == 0x10 && plan.state.data.selector == 0x18)
    #expect(try guest.read(0x10_00ff, as: UInt8.self) == 0xff)
    #expect(try guest.read(0x6000 + 0x202, as: UInt32.self) == 0x5372_6448)
    #expect(try guest.read(0x6000 + 0x210, as: UInt8.self) == 0xff)
    #expect(try guest.read(0x6000 + 0x1e8, as: UInt8.self) == 3)
    #expect(try guest.read(0x6000 + 0x2d0 + 40, as: UInt64.self) == 0x10_0000)
    let place = try #require(plan.archive)
    #expect(try guest.read(0x6000 + 0x218, as: UInt32.self) == UInt32(place.lowerBound))
    #expect(try guest.read(0x6000 + 0x21c, as: UInt32.self) == 4097)
    #expect(place.lowerBound >= 0x28_0000)
    let line: UInt32 = try guest.read(0x6000 + 0x228)
    let text = Array("console=ttyS0 quiet virtio_mmio.device=4K@0xd0000000:5\0".utf8)
    #expect(try guest.memory.readBytes(at: GuestAddress(UInt64(line)), count: text.count) == text)
  }

  @Test func firmwareStartUsesThe32BitEntry() throws {
    var guest = try TestGuest(kernel: Self.image())
    guest.request.throughFirmware = true
    #expect(try guest.load().state.mode == .realModeReset)
    #expect(
      try (0..<4).map { try guest.read(0x8fe0 + $0 * 4, as: UInt32.self) } == [0x4d4f_4243, 0x10_0000, 0, 0x6000])
  }

  @Test func initrdStaysBelowTheKernelsLimit() throws {
    var image = Self.image()
    image.put(UInt32(0x2f_ffff), at: 0x22c)
    let plan = try TestGuest(kernel: image, archive: [1, 2, 3]).load()
    #expect(plan.archive == 0x2f_f000..<0x2f_f003)
  }

  @Test func everyTruncationIsRefused() throws {
    let bytes = Self.image()
    let guest = try TestGuest(kernel: [])
    for count in Array(0..<700) + stride(from: 700, to: bytes.count - 16, by: 211) {
      _ = try guest.directory.file("kernel", Array(bytes[..<count]))
      switch guest.problem() {
      case .truncated: #expect(count < 4 || count >= 0x210)
      case .unknownFormat: #expect(count < 0x210)
      default: Issue.record("\(count) bytes: \(String(describing: guest.problem()))")
      }
    }
  }

  @Test func everyCorruptHeaderByteEndsInAPlanOrAnError() throws {
    let guest = try TestGuest(kernel: [])
    var refused = 0
    for index in 0x1f1..<0x270 {
      for value in [0, 1, 0x7f, 0x80, 0xff] as [UInt8] {
        var changed = Self.image()
        changed[index] = value
        _ = try guest.directory.file("kernel", changed)
        if guest.problem() != nil { refused += 1 }
      }
    }
    #expect(refused > 50)
  }

  @Test func oldProtocolsWithoutA64BitEntryAreRefused() throws {
    for (offset, value) in [(0x206, UInt16(0x20b)), (0x236, 0)] {
      var image = Self.image()
      image.put(value, at: offset)
      guard case .noEntryPoint = try TestGuest(kernel: image).problem() else {
        Issue.record("accepted")
        return
      }
    }
  }

  @Test func kernelThatUnpacksItselfBeyondMemoryOrIntoTheHoleIsRefused() throws {
    var image = Self.image()
    image.put(UInt32(0x20_0001), at: 0x260)
    #expect(
      try TestGuest(kernel: image).problem() == .outsideMemory(part: "the kernel", range: 0x10_0000..<0x40_0001))
    image.put(UInt64(0xbfff_ffff), at: 0x258)
    guard case .insideMMIOHole = try TestGuest(kernel: image).problem() else {
      Issue.record("accepted")
      return
    }
    image.put(UInt64.max, at: 0x258)
    guard case .malformed = try TestGuest(kernel: image).problem() else {
      Issue.record("accepted")
      return
    }
  }

  @Test func deviceArgumentsGoBeforeInitsArguments() throws {
    var guest = try TestGuest(kernel: Self.image())
    guest.request.platform.commandLine = "quiet  -- shell -v"
    #expect(try guest.load().commandLine == "quiet virtio_mmio.device=4K@0xd0000000:5 -- shell -v")
    guest = try TestGuest(kernel: Self.image())
    guest.request.platform.commandLine = String(repeating: "x", count: 2047)
    guard case .commandLineTooLong = guest.problem() else {
      Issue.record("accepted")
      return
    }
  }
}

@Suite struct MPTableTests {
  func table(processors: Int) throws -> (guest: TestGuest, table: UInt64, count: Int) {
    var guest = try TestGuest(kernel: BzImageLoaderTests.image())
    guest.request.platform.processorCount = processors
    _ = try guest.load()
    let pointer: UInt32 = try guest.read(0x9_fc04)
    return (guest, UInt64(pointer), Int(try guest.read(UInt64(pointer) + 4, as: UInt16.self)))
  }

  @Test(arguments: [1, 2, 254]) func sumsAreZeroAndEntriesAreThoseCounted(processors: Int) throws {
    let (guest, table, count) = try table(processors: processors)
    let pointer = try guest.memory.readBytes(at: GuestAddress(0x9_fc00), count: 16)
    #expect(Array(pointer[..<4]) == Array("_MP_".utf8))
    #expect(pointer.reduce(0, &+) == 0)
    let bytes = try guest.memory.readBytes(at: GuestAddress(table), count: count)
    #expect(Array(bytes[..<4]) == Array("PCMP".utf8))
    #expect(bytes.reduce(0, &+) == 0)
    var kinds: [UInt8: Int] = [:]
    var offset = 44
    while offset < count {
      kinds[bytes[offset], default: 0] += 1
      offset += bytes[offset] == 0 ? 20 : 8
    }
    #expect(offset == count)
    #expect(kinds == [0: processors, 1: 1, 2: 1, 3: 2, 4: 2])
    #expect(kinds.values.reduce(0, +) == Int(bytes[34]) | Int(bytes[35]) << 8)
  }

  @Test func moreProcessorsThanAnMPTableCanNameAreRefused() throws {
    var guest = try TestGuest(kernel: BzImageLoaderTests.image())
    guest.request.platform.processorCount = 255
    guard case .platformNotDescribable = guest.problem() else {
      Issue.record("accepted")
      return
    }
  }

  @Test func kernelWithADeviceTreeGetsNoMPTable() throws {
    let guest = try TestGuest(kernel: TestELF().bytes)
    _ = try guest.load()
    #expect(try guest.read(0x9_fc00, as: UInt32.self) == 0)
  }
}

@Suite struct BootROMTests {
  @Test func resetVectorJumpsToTheStartOfTheROM() {
    let bytes = BootROM.bytes
    #expect(bytes.count == 4096)
    #expect(BootROM.address.rawValue + UInt64(bytes.count) == 1 << 32)
    #expect(bytes[0xff0] == 0xe9)  // jmp rel16
    let displacement = UInt16(bytes[0xff1]) | UInt16(bytes[0xff2]) << 8
    #expect(0xfff3 &+ displacement == 0xf000)
    #expect(bytes[0] == 0xfa)  // cli
  }
}
