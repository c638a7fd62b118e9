// Tests what the network interface promises, against a peer that sends every frame back with its addresses swapped. Prints a line a
// test, ends with 0 if all hold. With `exercise=on` it sends for `milliseconds=` whatever happens meanwhile (Exercise.swift).

import NetClient
import PacketBench
import Pollux

@main enum NetTestProgram {
  static func main() {
    let arguments = CommandLine(Program.start.text("arguments") ?? Bytes(""))
    let target = arguments.value("target") ?? Bytes("net")
    let holds: Bool
    if arguments.value("exercise")?.equals("on") ?? false {
      holds = exercise(target, milliseconds: arguments.value("milliseconds")?.number ?? 1000)
    } else {
      var test = NetTest(target: target)
      holds = test.run()
    }
    if arguments.value("exit")?.equals("on") ?? false {
      do throws(SystemError) { try Program.control(.exit, holds ? 0 : 1) } catch {}
    }
    Kernel.exit(holds ? 0 : 1)
  }

  private static func exercise(_ target: Bytes, milliseconds: UInt64) -> Bool {
    do throws(NetClientError) {
      var exercise = try Exercise(target: target)
      return try exercise.run(milliseconds: milliseconds)
    } catch {
      var line = Text("net test: ")
      NetTest.add(error, to: &line)
      line.print()
      return false
    }
  }
}

struct NetTest {
  private let target: Bytes
  private var isGood = true
  /// Whom the frames are for; nobody looks at that.
  static let peer: UInt64 = 0x0200_0000_0001

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
      line.add(": FAILED: ")
      Self.add(error, to: &line)
    }
    line.print()
  }

  static func add(_ error: NetClientError, to line: inout Text) {
    switch error {
    case .kernel(let reason):
      line.add("kernel: ")
      line.add(reason.name)
    case .refused(let reply):
      line.add("refused: ")
      line.add(reply.rawValue)
    case .interface: line.add("rings")
    }
    line.add("\n")
  }

  private func open(receive: Int = 32, transmit: Int = 32) throws(NetClientError) -> NetDevice {
    try Self.open(target, receive: receive, transmit: transmit)
  }

  static func open(_ target: Bytes, receive: Int = 32, transmit: Int = 32) throws(NetClientError) -> NetDevice {
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
    check("waiting for a frame that does not come has an end") { test throws(NetClientError) in
      let device = try test.open()
      defer { device.close() }
      let start = Clock.now
      var came = 0
      while try device.enter(waitForReceived: 1, atMost: 100_000), came < 100 {
        // What else is on the network.
        while let buffer = try device.nextReceived() { device.release(buffer) }
        came += 1
      }
      let waited = Clock.nanoseconds(Clock.now - start) / 1000
      guard came < 100, waited >= 100_000, waited < 3_000_000 else { return false }
      return try test.echo(device, length: 64, count: 4)
    }
    check("a hundred refused clients leave nothing behind") { test throws(NetClientError) in
      let device = try test.open()
      defer { device.close() }
      for _ in 0..<100 {
        do throws(NetClientError) {
          try test.open().close()
          return false
        } catch { guard case .refused(.busy) = error else { throw error } }
      }
      return try test.echo(device, length: 64, count: 4)
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
        TestFrame.fill(
          buffer.frame, length: length, number: UInt64(sent), from: device.link.address, to: Self.peer)
        device.send(buffer, length: length)
        sent += 1
      }
      try device.enter(waitForReceived: 1)
      while let buffer = try device.nextReceived() {
        // What else is on the network is not ours.
        if TestFrame.isOne(buffer.frame, length: buffer.frameLength) {
          guard buffer.frameLength == length, buffer.bufferCount == 1,
            TestFrame.number(buffer.frame) == UInt64(received),
            TestFrame.address(buffer.frame) == device.link.address,
            TestFrame.isEcho(buffer.frame, length: length)
          else { return false }
          received += 1
        }
        device.release(buffer)
      }
      if Clock.now > deadline { return false }
    }
    return true
  }
}
