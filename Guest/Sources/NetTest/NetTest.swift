// Tests what the network interface promises, against a peer that sends every frame back with its addresses swapped. Prints a line a
// test, ends with 0 if all hold.

import NetClient
import Pollux

@main enum NetTestProgram {
  static func main() {
    let arguments = CommandLine(Program.start.text("arguments") ?? Bytes(""))
    var test = NetTest(target: arguments.value("target") ?? Bytes("net"))
    let holds = test.run()
    if arguments.value("exit")?.equals("on") ?? false {
      do throws(SystemError) { try Program.control(.exit, holds ? 0 : 1) } catch {}
    }
    Kernel.exit(holds ? 0 : 1)
  }
}

struct NetTest {
  private let target: Bytes
  private var isGood = true
  /// Local experimental EtherType 1 (IEEE 802).
  private static let type: UInt16 = 0x88b5
  private static let peer: UInt64 = 0x0200_0000_0001

  init(target: Bytes) { self.target = target }

  private mutating func check(_ what: StaticString, _ body: (borrowing NetTest) throws(NetClientError) -> Bool) {
    var line = Text("net test: ")
    line.add(what)
    do throws(NetClientError) {
      let holds = try body(self)
      line.add(holds ? " ok\n" : " FAILED\n")
      isGood = isGood && holds
    } catch {
      isGood = false
      switch error {
      case .kernel(let reason):
        line.add(": FAILED: kernel: ")
        line.add(reason.name)
      case .refused(let reply):
        line.add(": FAILED: refused: ")
        line.add(reply.rawValue)
      case .interface: line.add(": FAILED: rings")
      }
      line.add("\n")
    }
    line.print()
  }

  private func open(receive: Int = 32, transmit: Int = 32) throws(NetClientError) -> NetDevice {
    var tries = 0
    while true {
      let endpoint: Endpoint
      do throws(SystemError) { endpoint = try Program.connect(target) } catch {
        // The driver may not have come so far.
        if tries == 500 { throw .kernel(error) }
        tries += 1
        Clock.sleep(microseconds: 10_000)
        continue
      }
      return try NetDevice(endpoint, receive: receive, transmit: transmit)
    }
  }

  mutating func run() -> Bool {
    check("a frame of 60 bytes comes back") { test throws(NetClientError) in
      let device = try test.open()
      defer { device.close() }
      return try test.echo(device, length: 60, count: 1)
    }
    check("frames of all lengths come back in order") { test throws(NetClientError) in
      let device = try test.open()
      defer { device.close() }
      for length in [60, 61, 127, 128, 129, 511, 1000, 1513, 1514] {
        guard try test.echo(device, length: length, count: 20) else { return false }
      }
      return true
    }
    check("more frames than buffers come back") { test throws(NetClientError) in
      let device = try test.open(receive: 8, transmit: 8)
      defer { device.close() }
      return try test.echo(device, length: 200, count: 500)
    }
    check("a second client is refused while the first is there") { test throws(NetClientError) in
      let device = try test.open()
      defer { device.close() }
      do throws(NetClientError) {
        try test.open().close()
        return false
      } catch {
        if case .refused(.busy) = error { return try test.echo(device, length: 64, count: 4) }
        throw error
      }
    }
    check("the address can be set, and frames for it come") { test throws(NetClientError) in
      let device = try test.open()
      defer { device.close() }
      let before = device.link.address
      try device.setAddress(0x0200_00aa_bbcc)
      guard device.link.address == 0x0200_00aa_bbcc, try test.echo(device, length: 99, count: 4) else { return false }
      do throws(NetClientError) {
        try device.setAddress(0x0100_0000_0000)
        return false
      } catch { guard case .refused(.refused) = error else { throw error } }
      try device.setAddress(before)
      return try test.echo(device, length: 99, count: 4)
    }
    return isGood
  }

  /// Sends `count` frames, a few at a time, and checks what comes back.
  private func echo(_ device: NetDevice, length: Int, count: Int) throws(NetClientError) -> Bool {
    var sent = 0
    var received = 0
    let deadline = Clock.now + Clock.frequency * 10
    while received < count {
      while sent < count, sent - received < 6, let buffer = try device.transmitBuffer() {
        fill(buffer.frame, length, UInt32(sent), from: device.link.address)
        device.send(buffer, length: length)
        sent += 1
      }
      try device.enter(waitForReceived: 1)
      while let buffer = try device.nextReceived() {
        // What else is on the network is not ours.
        if buffer.frame.loadUnaligned(fromByteOffset: 12, as: UInt16.self) == Self.type.bigEndian {
          guard isRight(buffer, length, UInt32(received), for: device.link.address) else { return false }
          received += 1
        }
        device.release(buffer)
      }
      if Clock.now > deadline { return false }
    }
    return true
  }

  private static func put(_ address: UInt64, _ place: UnsafeMutableRawPointer) {
    for index in 0..<6 {
      place.storeBytes(
        of: UInt8(truncatingIfNeeded: address >> UInt64(40 - 8 * index)), toByteOffset: index, as: UInt8.self)
    }
  }

  private func fill(_ frame: UnsafeMutableRawPointer, _ length: Int, _ number: UInt32, from address: UInt64) {
    Self.put(Self.peer, frame)
    Self.put(address, frame + 6)
    frame.storeBytes(of: Self.type.bigEndian, toByteOffset: 12, as: UInt16.self)
    frame.storeBytes(of: number, toByteOffset: 14, as: UInt32.self)
    for index in 18..<length {
      frame.storeBytes(of: UInt8(truncatingIfNeeded: index &* 7 &+ Int(number)), toByteOffset: index, as: UInt8.self)
    }
  }

  private func isRight(_ buffer: NetBuffer, _ length: Int, _ number: UInt32, for address: UInt64) -> Bool {
    guard buffer.frameLength == length, buffer.bufferCount == 1,
      buffer.frame.loadUnaligned(fromByteOffset: 14, as: UInt32.self) == number
    else { return false }
    for index in 0..<6
    where buffer.frame.load(fromByteOffset: index, as: UInt8.self)
      != UInt8(truncatingIfNeeded: address >> UInt64(40 - 8 * index))
    { return false }
    for index in 18..<length
    where buffer.frame.load(fromByteOffset: index, as: UInt8.self)
      != UInt8(truncatingIfNeeded: index &* 7 &+ Int(number))
    { return false }
    return true
  }
}
