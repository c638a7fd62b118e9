import Glibc
import GuestMemory
import NetworkLink
import Testing

@testable import Virtio

/// A driver of a network device.
final class NetworkDriver {
  static let receive = 0
  static let transmit = 1
  static let control = 2
  let device: NetworkDevice
  let machine: TestMachine
  private var receiveBuffers: [UInt16: (GuestAddress, Int)] = [:]

  init(_ link: any PacketLink, address: [UInt8] = [0x52, 0x54, 0, 0, 0, 1], without: UInt64 = 0) throws {
    device = try NetworkDevice(link: link, address: address)
    machine = try TestMachine(device)
    try machine.initialize(size: 64, without: without)
  }

  func giveBuffers(_ number: Int, of count: Int) throws {
    let ring = machine.drivers[Self.receive]
    for _ in 0..<number {
      let buffer = ring.allocate(count)
      let head = try #require(try ring.add(writable: [(buffer, count)]))
      receiveBuffers[head] = (buffer, count)
    }
    try machine.kick(Self.receive)
  }

  func send(_ frame: [UInt8], header: [UInt8] = [UInt8](repeating: 0, count: 12)) throws {
    let ring = machine.drivers[Self.transmit]
    let (first, second) = (ring.allocate(12), ring.allocate(frame.count))
    try machine.memory.write(bytes: header, at: first)
    try machine.memory.write(bytes: frame, at: second)
    _ = try #require(try ring.add(readable: [(first, 12), (second, frame.count)]))
    try machine.kick(Self.transmit)
  }

  func sent() throws -> Bool { try machine.used(Self.transmit) != nil }

  /// The next frame, its header first, and into how many buffers it was put.
  func received() throws -> (bytes: [UInt8], buffers: Int)? {
    guard let first = try machine.used(Self.receive) else { return nil }
    var bytes = try contents(first)
    let buffers = Int(bytes[10]) | Int(bytes[11]) << 8
    for _ in 1..<max(1, buffers) {
      guard let next = try machine.used(Self.receive) else { return nil }
      bytes += try contents(next)
    }
    return (bytes, buffers)
  }

  private func contents(_ used: (head: UInt16, written: UInt32)) throws -> [UInt8] {
    let given = receiveBuffers.removeValue(forKey: used.head)
    let (buffer, count) = try #require(given)
    #expect(used.written <= count)
    return try machine.memory.readBytes(at: buffer, count: Int(used.written))
  }

  /// Nothing arrives although the device has looked.
  func receivesNothing() throws -> Bool {
    usleep(3000)
    _ = machine.transport.statistics()
    return try machine.drivers[Self.receive].takeUsed() == nil
  }

  func control(_ kind: UInt8, _ number: UInt8, _ data: [UInt8]) throws -> UInt8 {
    let ring = machine.drivers[Self.control]
    let (command, answer) = (ring.allocate(2 + data.count), ring.allocate(1))
    try machine.memory.write(bytes: [kind, number] + data, at: command)
    try machine.memory.write(UInt8(0xff), at: answer)
    _ = try #require(try ring.add(readable: [(command, 2 + data.count)], writable: [(answer, 1)]))
    try machine.kick(Self.control)
    _ = try #require(try machine.used(Self.control))
    return try machine.memory.read(UInt8.self, at: answer)
  }
}

/// A frame to `destination` with `count` bytes of payload.
private func frame(to destination: [UInt8] = [0x52, 0x54, 0, 0, 0, 2], _ count: Int, seed: Int = 0) -> [UInt8] {
  destination + [0x52, 0x54, 0, 0, 0, 1, 0x88, 0xb5] + (0..<count).map { UInt8(truncatingIfNeeded: $0 * 7 + seed) }
}

@Suite struct NetworkDeviceTests {
  private func twoGuests(without: UInt64 = 0) throws -> (NetworkDriver, NetworkDriver) {
    let (a, b) = try SocketLink.pair()
    return (
      try NetworkDriver(a, without: without),
      try NetworkDriver(b, address: [0x52, 0x54, 0, 0, 0, 2], without: without)
    )
  }

  @Test func framesGoBetweenTwoGuests() throws {
    let (first, second) = try twoGuests()
    try second.giveBuffers(32, of: 2048)
    try first.giveBuffers(32, of: 2048)
    for round in 0..<20 {
      try first.send(frame(60 + round * 40, seed: round))
      #expect(try first.sent())
      let got = try #require(try second.received())
      #expect(got.buffers == 1)
      #expect(Array(got.bytes[12...]) == frame(60 + round * 40, seed: round))
      try second.send(frame(100, seed: round))
      #expect(try second.sent())
      #expect(try first.received()?.bytes.count == 126)
    }
    let statistics = first.machine.transport.statistics()
    #expect(statistics[NetworkDriver.transmit].requests == 20)
    #expect(statistics[NetworkDriver.receive].bytesToGuest == 20 * 114)
  }

  @Test func largePacketIsSpreadOverMergeableBuffers() throws {
    let (first, second) = try twoGuests()
    try second.giveBuffers(20, of: 4096)
    // A TCP segment larger than any frame: header says TSO for IPv4.
    let header: [UInt8] = [1, 1, 54, 0, 0xb4, 5, 34, 0, 16, 0, 0, 0]
    let bytes = frame(60_000, seed: 3)
    try first.send(bytes, header: header)
    let got = try #require(try second.received())
    #expect(got.buffers == 15)
    #expect(Array(got.bytes[..<10]) == Array(header[..<10]))
    #expect(Array(got.bytes[12...]) == bytes)
  }

  @Test func packetWaitsUntilTheDriverHasGivenEnoughBuffers() throws {
    let (first, second) = try twoGuests()
    try second.giveBuffers(1, of: 512)
    try first.send(frame(1400, seed: 1))
    try first.send(frame(100, seed: 2))
    #expect(try second.receivesNothing())
    try second.giveBuffers(1, of: 512)
    #expect(try second.receivesNothing())
    try second.giveBuffers(4, of: 512)
    let got = try #require(try second.received())
    #expect(got.buffers == 3 && Array(got.bytes[12...]) == frame(1400, seed: 1))
    #expect(try second.received().map { Array($0.bytes[12...]) } == frame(100, seed: 2))
  }

  @Test func withoutMergingAPacketTooLargeForItsBufferIsLost() throws {
    let (first, second) = try twoGuests(without: NetworkDevice.Feature.mergeableBuffers)
    try second.giveBuffers(2, of: 256)
    try first.send(frame(1000))
    try first.send(frame(100, seed: 5))
    let got = try #require(try second.received())
    #expect(got.buffers == 1 && Array(got.bytes[12...]) == frame(100, seed: 5))
    #expect(second.machine.transport.statistics()[NetworkDriver.receive].errors == 1)
  }

  @Test func checksumIsCompletedForADriverThatCannot() throws {
    let (a, b) = try SocketLink.pair()
    let first = try NetworkDriver(a)
    let without =
      NetworkDevice.Feature.guestChecksum | NetworkDevice.Feature.guestSegmentation4
      | NetworkDevice.Feature.guestSegmentation6
    let second = try NetworkDriver(b, address: [0x52, 0x54, 0, 0, 0, 2], without: without)
    try second.giveBuffers(4, of: 2048)
    // The example of RFC 1071 §3 as data, its sum is ddf2; the checksum's place holds no pseudo-header.
    var bytes = frame(0) + [0, 0, 0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]
    try first.send(bytes, header: [1, 0, 0, 0, 0, 0, 14, 0, 0, 0, 0, 0])
    let got = try #require(try second.received())
    bytes.replaceSubrange(14..<16, with: [0x22, 0x0d])
    #expect(Array(got.bytes[12...]) == bytes)
    #expect(got.bytes[0] == 0)
    // Headers that point outside the packet, and segments that the driver cannot take, are dropped.
    try first.send(bytes, header: [1, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0])
    try first.send(bytes, header: [1, 1, 0, 0, 0, 0, 14, 0, 0, 0, 0, 0])
    try first.send(frame(50, seed: 9))
    #expect(try second.received().map { Array($0.bytes[12...]) } == frame(50, seed: 9))
  }

  @Test func receiveFilterFollowsTheControlQueue() throws {
    let (first, second) = try twoGuests()
    try second.giveBuffers(40, of: 512)
    let (own, other) = ([0x52, 0x54, 0, 0, 0, 2] as [UInt8], [0x52, 0x54, 0, 0, 0, 3] as [UInt8])
    let (group, broadcast) = ([1, 0, 0x5e, 0, 0, 1] as [UInt8], [UInt8](repeating: 0xff, count: 6))
    /// Which of the four destinations arrive.
    func arriving() throws -> [Bool] {
      for destination in [own, other, group, broadcast] { try first.send(frame(to: destination, 50)) }
      // A frame that every mode delivers ends the round: promiscuous again.
      for _ in 0..<4 { #expect(try first.sent()) }
      var seen: [[UInt8]] = []
      usleep(3000)
      _ = second.machine.transport.statistics()
      while try second.machine.drivers[0].hasUsed() {
        seen.append(Array(try #require(try second.received()).bytes[12..<18]))
      }
      return [own, other, group, broadcast].map { seen.contains($0) }
    }
    #expect(try arriving() == [true, true, true, true])
    #expect(try second.control(0, 0, [0]) == 0)
    #expect(try arriving() == [true, false, false, true])
    #expect(try second.control(0, 1, [1]) == 0)
    #expect(try arriving() == [true, false, true, true])
    #expect(try second.control(0, 1, [0]) == 0)
    #expect(try second.control(1, 0, [1, 0, 0, 0] + other + [1, 0, 0, 0] + group) == 0)
    #expect(try arriving() == [true, true, true, true])
    #expect(try second.control(1, 0, [0, 0, 0, 0, 0, 0, 0, 0]) == 0)
    #expect(try second.control(0, 5, [1]) == 0)
    #expect(try arriving() == [true, false, false, false])
    #expect(try second.control(1, 1, other) == 0)
    #expect(try arriving() == [false, true, false, false])
    #expect(second.machine.transport.read(offset: 0x105, size: 1) == 3)
    // Malformed or unknown commands are refused and change nothing.
    #expect(try second.control(1, 1, [1, 2]) == 1)
    #expect(try second.control(1, 1, group) == 1)
    #expect(try second.control(1, 0, [0xff, 0xff, 0xff, 0xff]) == 1)
    #expect(try second.control(0, 9, [1]) == 1)
    #expect(try second.control(7, 0, [1]) == 1)
    #expect(try arriving() == [false, true, false, false])
  }

  @Test func addressFromOutsideIsToldAndOutlivesAReset() throws {
    let (first, second) = try twoGuests()
    try second.giveBuffers(8, of: 512)
    #expect(try second.control(0, 0, [0]) == 0)
    // What the guest chose itself gives way.
    #expect(try second.control(1, 1, [0x52, 0x54, 0, 0, 0, 7]) == 0)
    try second.device.setAddress([0x52, 0x54, 0, 0, 0, 9])
    #expect(second.machine.interrupts.line >= 1)
    #expect(second.machine.read(Register.interruptStatus) & 2 == 2)
    func address() -> [UInt64] { (0..<6).map { second.machine.transport.read(offset: 0x100 + $0, size: 1) } }
    #expect(address() == [0x52, 0x54, 0, 0, 0, 9])
    try first.send(frame(to: [0x52, 0x54, 0, 0, 0, 7], 50))
    try first.send(frame(to: [0x52, 0x54, 0, 0, 0, 9], 50, seed: 3))
    #expect(
      try second.received().map { Array($0.bytes[12...]) } == frame(to: [0x52, 0x54, 0, 0, 0, 9], 50, seed: 3))
    #expect(try second.control(1, 1, [0x52, 0x54, 0, 0, 0, 7]) == 0)
    try second.machine.initialize()
    #expect(address() == [0x52, 0x54, 0, 0, 0, 9])
    #expect(throws: (any Error).self) { try second.device.setAddress([1, 0, 0, 0, 0, 0]) }
  }

  @Test func pulledCableIsToldAndLosesFrames() throws {
    let (first, second) = try twoGuests()
    try second.giveBuffers(8, of: 512)
    #expect(second.machine.transport.read(offset: 0x106, size: 2) == 1)
    second.device.setLink(up: false)
    #expect(second.machine.transport.read(offset: 0x106, size: 2) == 0)
    #expect(second.machine.interrupts.line == 1)
    #expect(second.machine.read(Register.interruptStatus) == 2)
    try first.send(frame(50))
    #expect(try second.receivesNothing())
    try second.send(frame(50))
    #expect(try second.sent())
    second.machine.write(Register.interruptAcknowledge, 3)
    second.device.setLink(up: true)
    #expect(second.machine.read(Register.interruptStatus) == 2)
    try first.send(frame(50, seed: 4))
    #expect(try second.received().map { Array($0.bytes[12...]) } == frame(50, seed: 4))
  }

  @Test func pausedDeviceKeepsFramesInTheLink() throws {
    let (first, second) = try twoGuests()
    try second.giveBuffers(8, of: 512)
    second.machine.transport.pause()
    try first.send(frame(50, seed: 1))
    #expect(try second.receivesNothing())
    second.machine.transport.resume()
    #expect(try second.received() != nil)
  }

  @Test func manyFramesAgainstASlowReceiverAllArrive() throws {
    let (first, second) = try twoGuests()
    var sent = 0
    var got = 0
    var reclaimed = 0
    var random = SeededGenerator(state: 1)
    while got < 500 {
      // A frame takes two of the ring's 64 descriptors until the device has done with it.
      for _ in 0..<8 where sent - got < 40 && sent - reclaimed < 31 && sent < 500 {
        try first.send(frame(600, seed: sent))
        sent += 1
      }
      while try first.machine.drivers[1].takeUsed() != nil { reclaimed += 1 }
      try second.giveBuffers(Int(1 + random.next() % 3), of: 700)
      while try second.machine.drivers[0].hasUsed() {
        let bytes = try #require(try second.received()).bytes
        if Array(bytes[12...]) != frame(600, seed: got) { Issue.record("frame \(got) differs") }
        got += 1
      }
      usleep(200)
    }
    while try first.machine.drivers[1].takeUsed() != nil {}
  }

  @Test(arguments: [0, 1, 2]) func chainOfTheWrongShapeNeedsReset(queue: Int) throws {
    let (first, second) = try twoGuests()
    let ring = second.machine.drivers[queue]
    let buffer = ring.allocate(64)
    switch queue {
    case 0: _ = try ring.add(readable: [(buffer, 64)])
    case 1: _ = try ring.add(readable: [(buffer, 11)])
    default: _ = try ring.add(readable: [(buffer, 2)])
    }
    try second.machine.kick(queue)
    if queue == 0 { try first.send(frame(50)) }
    #expect(eventually { second.machine.status & DeviceStatus.needsReset != 0 })
    try second.machine.initialize(size: 64)
    #expect(try second.control(0, 0, [1]) == 0)
  }

  @Test func groupAddressOrWrongLengthIsNoAddressForADevice() throws {
    let (a, _) = try SocketLink.pair()
    for address in [[1, 0, 0, 0, 0, 0], [2, 0, 0]] as [[UInt8]] {
      #expect(throws: (any Error).self) { try NetworkDevice(link: a, address: address) }
    }
  }
}
