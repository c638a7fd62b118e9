import GDBRemote
import GuestMemory
import Testing

@testable import Machine

@Suite struct BreakpointTableTests {
  let memory: GuestMemory
  private let identity: (UInt64) -> GuestAddress? = { GuestAddress($0) }

  init() throws {
    memory = try GuestMemory(ranges: [0..<0x1_0000], hugePages: false)
    try memory.write(bytes: [0x90, 0x91, 0x92, 0x93], at: GuestAddress(0x1000))
  }

  private func byte(_ address: UInt64) throws -> UInt8 { try memory.read(at: GuestAddress(address)) }

  @Test func trapReplacesTheByteAndRemovalRestoresIt() throws {
    var table = BreakpointTable(memory: memory)
    table.insert(0x1001, translate: identity)
    #expect(try byte(0x1001) == 0xcc)
    #expect(table.isTrap(at: GuestAddress(0x1001)))
    table.remove(0x1001)
    #expect(try byte(0x1001) == 0x91)
    #expect(!table.contains(0x1001))
  }

  @Test func readsHideTrapsAndWritesGoBeneathThem() throws {
    var table = BreakpointTable(memory: memory)
    table.insert(0x1001, translate: identity)
    #expect(try table.read(at: GuestAddress(0x1000), count: 4) == [0x90, 0x91, 0x92, 0x93])
    try table.write([0xa0, 0xa1, 0xa2], at: GuestAddress(0x1000))
    #expect(try byte(0x1001) == 0xcc)
    #expect(try table.read(at: GuestAddress(0x1000), count: 4) == [0xa0, 0xa1, 0xa2, 0x93])
    table.removeAll()
    #expect(try byte(0x1001) == 0xa1)
  }

  @Test func twoAddressesOfOnePlaceShareItsTrap() throws {
    var table = BreakpointTable(memory: memory)
    table.insert(0x1002, translate: identity)
    table.insert(0x7f80_0000_1002) { GuestAddress($0 & 0xffff) }
    table.remove(0x1002)
    #expect(try byte(0x1002) == 0xcc)
    table.remove(0x7f80_0000_1002)
    #expect(try byte(0x1002) == 0x92)
  }

  @Test func unmappedBreakpointWaitsUntilItHasAPlace() throws {
    var table = BreakpointTable(memory: memory)
    table.insert(0x40_1000) { _ in nil }
    #expect(table.hasWaiting)
    #expect(!table.resolveWaiting { _ in nil })
    #expect(table.resolveWaiting { _ in GuestAddress(0x1003) })
    #expect(!table.hasWaiting)
    #expect(try byte(0x1003) == 0xcc)
    table.removeAll()
    #expect(try byte(0x1003) == 0x93)
  }

  @Test func placeOutsideMemoryCountsAsUnmapped() {
    var table = BreakpointTable(memory: memory)
    table.insert(0x5_0000, translate: identity)
    #expect(table.hasWaiting)
  }

  @Test func byteThatTheGuestHasReplacedIsLeftAlone() throws {
    var table = BreakpointTable(memory: memory)
    table.insert(0x1000, translate: identity)
    try memory.write(UInt8(0x55), at: GuestAddress(0x1000))
    #expect(try table.read(at: GuestAddress(0x1000), count: 1) == [0x55])
    table.remove(0x1000)
    #expect(try byte(0x1000) == 0x55)
  }
}

@Suite struct DebugSettingsTests {
  @Test(arguments: [
    (BreakpointKind.writeWatch, 8 as UInt64, 0x1000 as UInt64, 0b1001 as UInt64?), (.accessWatch, 4, 0x1004, 0b1111),
    (.writeWatch, 1, 0x1003, 0b0001), (.accessWatch, 2, 0x1002, 0b0111), (.readWatch, 4, 0x1000, nil),
    (.writeWatch, 3, 0x1000, nil), (.writeWatch, 4, 0x1002, nil), (.writeWatch, 16, 0x1000, nil), (.hardware, 1, 7, 0),
    (.writeWatch, 0, 0, nil),
  ])
  func conditionsAreThoseOfDR7(kind: BreakpointKind, length: UInt64, address: UInt64, condition: UInt64?) {
    #expect(
      DebugSettings.condition(of: Breakpoint(kind: kind, address: address, length: Int(length))) == condition)
  }

  @Test func fourRegistersAreFilledAndAFifthIsIgnored() {
    var settings = DebugSettings()
    for index in 0..<5 as Range<UInt64> {
      settings.add(
        Breakpoint(kind: index == 1 ? .writeWatch : .hardware, address: 0x1000 + 8 * index, length: index == 1 ? 8 : 1))
    }
    #expect(settings.registers == [0x1000, 0x1008, 0x1010, 0x1018, 0, 0, 0, 0x4aa | 0b1001 << 20])
  }
}

@Suite struct RegisterConversionTests {
  /// An XSAVE area with every component present and recognisable bytes.
  private func area(mask: UInt64) -> [UInt8] {
    var area = (0..<4096).map { UInt8(truncatingIfNeeded: $0 * 7) }
    area.withUnsafeMutableBytes { bytes in
      bytes.storeBytes(of: 0x37f, toByteOffset: 0, as: UInt16.self)
      bytes.storeBytes(of: 0x3800, toByteOffset: 2, as: UInt16.self)  // TOP = 7
      bytes[4] = 0b1000_0001  // physical registers 7 and 0: ST0 and ST1
      bytes.storeBytes(of: 0x1fa0, toByteOffset: 24, as: UInt32.self)
      for index in 32..<42 { bytes[index] = 0 }  // ST0 = 0
      bytes.storeBytes(of: 0x8000_0000_0000_0000, toByteOffset: 48, as: UInt64.self)  // ST1 = 1.0
      bytes.storeBytes(of: 0x3fff, toByteOffset: 56, as: UInt16.self)
      bytes.storeBytes(of: mask, toByteOffset: 512, as: UInt64.self)
    }
    return area
  }

  @Test func extendedStateComesBackAsItWent() {
    let original = area(mask: 7)
    var file = RegisterFile(hasAVX: true)
    original.withUnsafeBytes { file.takeExtendedState($0) }
    #expect(file[.mxcsr] == 0x1fa0)
    #expect(Array(file.bytes(of: .xmm2)) == Array(original[192..<208]))
    #expect(Array(file.bytes(of: .ymm15h)) == Array(original[816..<832]))
    // Physical register 7 is ST0, a zero; 0 is ST1, valid; the others are empty.
    #expect(file[.ftag] == 0b01_11_11_11_11_11_11_00)
    var other = area(mask: 7)
    for index in 160..<416 { other[index] = 0 }
    other.withUnsafeMutableBytes { file.giveExtendedState($0) }
    #expect(other[0..<5] == original[0..<5])
    #expect(other[160..<416] == original[160..<416])
    #expect(other[576..<832] == original[576..<832])
  }

  @Test func componentsInTheirInitialStateAreNotReadFromTheArea() {
    var file = RegisterFile(hasAVX: true)
    area(mask: 0).withUnsafeBytes { file.takeExtendedState($0) }
    #expect(file[.fctrl] == 0x37f)
    #expect(file[.ftag] == 0xffff)
    #expect(file[.mxcsr] == 0x1f80)
    #expect(file.bytes(of: .xmm1).allSatisfy { $0 == 0 })
    #expect(file.bytes(of: .ymm1h).allSatisfy { $0 == 0 })
  }

  @Test func writingMarksTheComponentsAsPresent() {
    var bytes = area(mask: 0)
    let file = RegisterFile(hasAVX: true)
    bytes.withUnsafeMutableBytes { file.giveExtendedState($0) }
    #expect(bytes[512] == 7)
    var narrow = area(mask: 0)
    let withoutAVX = RegisterFile()
    narrow.withUnsafeMutableBytes { withoutAVX.giveExtendedState($0) }
    #expect(narrow[512] == 3)
  }
}
