import Testing

@testable import Devices

@Suite struct PlatformPortsTests {
  @Test func powerControlKnowsItsValuesAndNoOthers() {
    #expect(PowerControl.event(size: 4, value: 0) == .powerOff)
    #expect(PowerControl.event(size: 4, value: 1) == .reboot)
    #expect(PowerControl.event(size: 4, value: 0x100) == .exit(0))
    #expect(PowerControl.event(size: 4, value: 0x1ff) == .exit(255))
    for value in [2, 0xff, 0x200, .max] as [UInt32] { #expect(PowerControl.event(size: 4, value: value) == nil) }
    for size in [1, 2] { #expect(PowerControl.event(size: size, value: 0) == nil) }
  }

  @Test func debugPortReportsTrapsOnlyToAnAttachedDebugger() {
    let port = DebugPort()
    #expect(port.read(size: 1) == 0 && !port.isTrap(size: 4))
    port.wantsTraps = true
    #expect(port.read(size: 1) == 1 && port.isTrap(size: 4) && !port.isTrap(size: 1))
  }

  @Test func bootMarkKeepsTheFirstTimeOfEachStage() {
    let marks = BootMarks(start: 1000)
    marks.write(size: 4, value: 2, now: 5000)
    marks.write(size: 4, value: 2, now: 9000)
    marks.write(size: 1, value: 1, now: 2000)
    for value in [0, 9, .max] as [UInt32] { marks.write(size: 4, value: value, now: 3000) }
    #expect(marks.time(of: 2) == 4000)
    #expect(marks.time(of: 1) == nil)
    for stage in [-1, 0, 9, .max] { #expect(marks.time(of: stage) == nil) }
  }

  @Test func powerButtonWaitsUntilTheGuestClearsIt() {
    let edges = CounterBox()
    let button = PowerButton { edges.value.add(1, ordering: .relaxed) }
    #expect(button.read() == 0)
    button.press()
    #expect(edges.value.load(ordering: .relaxed) == 1)
    #expect(button.read() == 1 && button.read() == 1)
    button.write(value: 0xfe)
    #expect(button.read() == 1 && !button.isAcknowledged)
    button.write(value: 0x01)
    #expect(button.read() == 0 && button.isAcknowledged)
    button.press()
    #expect(!button.isAcknowledged)
    button.reset()
    #expect(button.read() == 0)
  }
}

@Suite struct AddressMapTests {
  @Test func findsTheDeviceAndTheOffset() throws {
    var map = PortMap<String>()
    try map.add("power", at: 0x600, count: 4)
    try map.add("serial", at: 0x3f8...0x3ff)
    try map.add("debug", at: 0x604, count: 4)
    try map.add("last", at: 0xffff, count: 1)
    #expect(map.find(0x3f8)?.device == "serial")
    #expect(map.find(0x3ff)?.offset == 7)
    #expect(map.find(0x603)?.device == "power")
    #expect(map.find(0x604, size: 4)?.device == "debug")
    #expect(map.find(0xffff)?.device == "last")
    for port in [0, 0x3f7, 0x400, 0x608, 0xfffe] as [UInt16] { #expect(map.find(port) == nil) }
  }

  @Test func accessAcrossTheEndOfARangeFindsNobody() throws {
    var map = MMIOMap<Int>()
    try map.add(1, at: 0x1000, count: 0x1000)
    try map.add(2, at: UInt64.max - 3, count: 4)
    #expect(map.find(0x1ffc, size: 4) != nil)
    #expect(map.find(0x1ffd, size: 4) == nil)
    #expect(map.find(0xffc, size: 8) == nil)
    #expect(map.find(UInt64.max, size: 1)?.offset == 3)
    #expect(map.find(UInt64.max, size: 2) == nil)
    #expect(map.find(0x1000, size: 0) == nil)
  }

  @Test func overlappingRangesAreRefused() throws {
    var map = PortMap<Int>()
    try map.add(1, at: 0x100...0x1ff)
    for range in [0x100...0x100, 0x1ff...0x200, 0x0...0x100, 0x80...0x300] as [ClosedRange<UInt16>] {
      #expect(
        throws: AddressMapError.overlap(UInt64(range.lowerBound)...UInt64(range.upperBound), taken: 0x100...0x1ff)
      ) {
        try map.add(2, at: range)
      }
    }
    #expect(throws: AddressMapError.empty(at: 0xfff0)) { try map.add(2, at: 0xfff0, count: 0x11) }
    #expect(throws: AddressMapError.empty(at: 0x10)) { try map.add(2, at: 0x10, count: 0) }
    try map.add(2, at: 0x200...0x200)
    #expect(map.find(0x200)?.device == 2)
  }

  @Test(arguments: 0..<10 as Range<UInt64>)
  func agreesWithALinearSearch(seed: UInt64) {
    var random = SplitMix(state: seed)
    var map = PortMap<Int>()
    var model: [(ClosedRange<UInt16>, Int)] = []
    for device in 0..<60 {
      let first = UInt16.random(in: 0..<2000, using: &random)
      let range = first...first + UInt16.random(in: 0..<20, using: &random)
      let overlaps = model.contains { $0.0.overlaps(range) }
      #expect(((try? map.add(device, at: range)) == nil) == overlaps)
      if !overlaps { model.append((range, device)) }
    }
    for port in 0..<2100 as Range<UInt16> {
      #expect(map.find(port)?.device == model.first { $0.0.contains(port) }?.1)
    }
  }
}
