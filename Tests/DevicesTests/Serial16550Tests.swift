import Glibc
import HostSystem
import Synchronization
import Testing

@testable import Devices

/// A 16550A with its interrupt line as an IOAPIC edge input latches it.
final class WiredSerial: Sendable {
  let edges: Latch
  let port: Serial16550

  final class Latch: Sendable {
    let count = Atomic<Int>(0)
    let pending = Atomic<Bool>(false)
    /// Takes the latched interrupt.
    func acknowledge() -> Bool { pending.exchange(false, ordering: .acquiringAndReleasing) }
  }

  init(outputCapacity: Int = 1 << 20) {
    let latch = Latch()
    edges = latch
    port = Serial16550(outputCapacity: outputCapacity) {
      latch.count.add(1, ordering: .relaxed)
      latch.pending.store(true, ordering: .releasing)
    }
  }

  func send(_ text: String) { for byte in text.utf8 { port.write(offset: 0, value: byte) } }
  func offer(_ bytes: [UInt8]) -> Int { bytes.withUnsafeBytes { port.receive($0) } }

  func output(atMost limit: Int = 1 << 20) -> [UInt8] {
    [UInt8](unsafeUninitializedCapacity: limit) { buffer, count in
      count = port.takeOutput(into: UnsafeMutableRawBufferPointer(buffer))
    }
  }

  var status: UInt8 { port.read(offset: 5) }
  var identification: UInt8 { port.read(offset: 2) }
}

@Suite struct Serial16550Tests {
  let serial = WiredSerial()
  var port: Serial16550 { serial.port }

  @Test func powerOnStateIsThatOfTheDataSheet() {
    #expect((0...7).map { port.read(offset: $0) } == [0, 0, 0x01, 0, 0, 0x60, 0xb0, 0])
  }

  @Test func outputComesOutInOrder() {
    serial.send("hello, ")
    serial.send("world\n")
    #expect(serial.output() == Array("hello, world\n".utf8))
    #expect(serial.output().isEmpty)
    #expect(port.counters.sent == 13)
  }

  @Test func scratchAndDivisorLatchHoldWhatWasWritten() {
    port.write(offset: 7, value: 0x5a)
    port.write(offset: 3, value: 0x83)
    port.write(offset: 0, value: 0x34)
    port.write(offset: 1, value: 0x12)
    #expect(port.read(offset: 0) == 0x34)
    #expect(port.read(offset: 1) == 0x12)
    port.write(offset: 3, value: 0x03)
    #expect(port.read(offset: 1) == 0, "IER, not the latch")
    #expect(port.read(offset: 7) == 0x5a)
    #expect(serial.output().isEmpty, "divisor bytes are not output")
  }

  /// The steps by which Linux' 8250 driver tells a 16550A from the other members of the family.
  @Test func probeSequenceFindsAPlain16550A() {
    port.write(offset: 1, value: 0)
    #expect(port.read(offset: 1) & 0x0f == 0)
    port.write(offset: 1, value: 0x0f)
    #expect(port.read(offset: 1) == 0x0f)
    port.write(offset: 1, value: 0)
    port.write(offset: 4, value: 0x1a)
    #expect(port.read(offset: 6) & 0xf0 == 0x90)
    port.write(offset: 4, value: 0)
    port.write(offset: 3, value: 0xbf)
    port.write(offset: 2, value: 0)
    port.write(offset: 3, value: 0)
    port.write(offset: 2, value: 0x01)
    #expect(port.read(offset: 2) >> 6 == 3, "FIFOs present and working")
    port.write(offset: 3, value: 0x80)
    #expect(port.read(offset: 2) != 0, "no enhanced feature register of a 16650")
    port.write(offset: 2, value: 0x21)
    #expect(port.read(offset: 2) & 0x20 == 0, "no 64-byte FIFO of a 16750")
    port.write(offset: 3, value: 0)
    port.write(offset: 1, value: 0x40)
    #expect(port.read(offset: 1) == 0, "no UUE bit of an XScale UART")
  }

  @Test func transmitterInterruptIsRaisedByEnableAndClearedByIdentification() {
    port.write(offset: 1, value: 0x02)
    #expect(serial.edges.count.load(ordering: .relaxed) == 1)
    #expect(serial.identification == 0x02)
    #expect(serial.identification == 0x01)
    serial.send("0123456789abcdef")
    #expect(serial.edges.count.load(ordering: .relaxed) == 2, "one edge for a burst")
    #expect(serial.identification == 0x02)
  }

  @Test(arguments: zip([0x01, 0x41, 0x81, 0xc1] as [UInt8], [1, 4, 8, 14]))
  func receiveInterruptTellsTriggerLevelFromTimeout(control: UInt8, level: Int) {
    port.write(offset: 2, value: control)
    port.write(offset: 1, value: 0x01)
    for count in 1...16 {
      #expect(serial.offer([UInt8(count)]) == 1)
      #expect(serial.identification == (count >= level ? 0xc4 : 0xcc))
    }
    #expect(serial.edges.count.load(ordering: .relaxed) == 1)
    for count in 1...16 { #expect(port.read(offset: 0) == UInt8(count)) }
    #expect(serial.identification == 0xc1)
    #expect(serial.status == 0x60)
  }

  @Test func uncoveredConditionRaisesAnotherEdge() {
    port.write(offset: 1, value: 0x03)
    #expect(serial.edges.acknowledge())
    #expect(serial.offer([65]) == 1)
    #expect(serial.edges.acknowledge())
    #expect(serial.identification == 0x04)
    #expect(port.read(offset: 0) == 65)
    #expect(serial.edges.acknowledge(), "the transmitter's condition is still there")
    #expect(serial.identification == 0x02)
    #expect(!serial.edges.acknowledge())
  }

  @Test func inputWaitsUntilTheGuestIsReady() {
    #expect(serial.offer(Array("early".utf8)) == 5)
    #expect(serial.status & 1 == 0)
    port.write(offset: 2, value: 0x07)
    _ = port.read(offset: 0)
    port.write(offset: 4, value: 0x0b)
    var read: [UInt8] = []
    while serial.status & 1 != 0 { read.append(port.read(offset: 0)) }
    #expect(read == Array("early".utf8))
  }

  @Test func inputBeyondTheQueueIsRefusedAndAskedForLater() {
    let counter = CounterBox()
    port.connect(onOutput: {}, onInputRoom: { counter.value.add(1, ordering: .relaxed) })
    let offered = [UInt8](repeating: 7, count: 5000)
    #expect(serial.offer(offered) == Serial16550.inputCapacity)
    #expect(serial.offer(offered) == 0)
    port.write(offset: 4, value: 0x02)
    port.write(offset: 2, value: 0x01)
    for _ in 0..<1000 { _ = port.read(offset: 0) }
    #expect(counter.value.load(ordering: .relaxed) == 0)
    for _ in 0..<2000 { _ = port.read(offset: 0) }
    #expect(counter.value.load(ordering: .relaxed) == 1)
    #expect(port.inputRoom > 2048)
  }

  @Test func breakIsMarkedOnlyWhenItIsTheOldestCharacter() {
    port.write(offset: 2, value: 0xc1)
    port.write(offset: 1, value: 0x05)
    #expect(serial.offer([65]) == 1)
    port.receiveBreak()
    #expect(serial.status == 0xe1, "an error is in the FIFO, but not at its top")
    #expect(port.read(offset: 0) == 65)
    #expect(serial.identification == 0xc6)
    #expect(serial.status == 0xf1)
    #expect(serial.status == 0xe1, "reading LSR cleared it")
    #expect(port.read(offset: 0) == 0)
    #expect(serial.status == 0x60)
  }

  @Test func loopbackReturnsCharactersAndOverruns() {
    port.write(offset: 2, value: 0x01)
    port.write(offset: 4, value: 0x10)
    for byte in 1...17 as ClosedRange<UInt8> { port.write(offset: 0, value: byte) }
    #expect(serial.status & 0x02 != 0, "the 17th overran")
    for byte in 1...16 as ClosedRange<UInt8> { #expect(port.read(offset: 0) == byte) }
    #expect(serial.status & 0x03 == 0)
    #expect(serial.output().isEmpty)
    #expect(serial.offer([9]) == 1)
    #expect(serial.status & 1 == 0, "the line is disconnected")
    port.write(offset: 4, value: 0x02)
    #expect(port.read(offset: 0) == 9)
  }

  @Test func modemStatusInterruptFollowsLoopbackLines() {
    port.write(offset: 4, value: 0x1f)
    _ = port.read(offset: 6)
    port.write(offset: 1, value: 0x08)
    #expect(!serial.edges.acknowledge())
    port.write(offset: 4, value: 0x1b)
    #expect(serial.edges.acknowledge())
    #expect(serial.identification == 0x00)
    #expect(port.read(offset: 6) == 0xb4, "trailing edge of the ring indicator")
    #expect(serial.identification == 0x01)
    port.write(offset: 4, value: 0x10)
    #expect(port.read(offset: 6) == 0x0b)
  }

  @Test func fullOutputIsBackPressureAndBounded() {
    let serial = WiredSerial(outputCapacity: 1000)
    serial.port.write(offset: 1, value: 0x02)
    var sent = 0
    while serial.status & 0x20 != 0 {
      serial.send("x")
      sent += 1
    }
    #expect(sent == 1000)
    #expect(serial.identification == 0x01, "no interrupt while the transmitter is full")
    for _ in 0..<Serial16550.overcommit + 5 { serial.send("y") }
    #expect(serial.port.pendingOutput == 1000 + Serial16550.overcommit)
    #expect(serial.port.counters.dropped == 5)
    _ = serial.edges.acknowledge()
    #expect(serial.output(atMost: Serial16550.overcommit).count == Serial16550.overcommit)
    #expect(serial.status & 0x20 == 0)
    #expect(serial.output(atMost: 250).count == 250)
    #expect(serial.status & 0x60 == 0x60)
    #expect(serial.edges.acknowledge())
    #expect(serial.identification == 0x02)
  }

  @Test func fastGuestLosesNothingAgainstASlowReader() throws {
    let serial = WiredSerial(outputCapacity: 4096)
    let total = 300_000
    let wake = try EventDescriptor()
    serial.port.connect(onOutput: { wake.signal() }, onInputRoom: {})
    let guest = try HostThread(name: "guest") {
      for index in 0..<total {
        while serial.port.read(offset: 5) & 0x20 == 0 { sched_yield() }
        serial.port.write(offset: 0, value: UInt8(truncatingIfNeeded: index &* 31 >> 3))
      }
    }
    var seen = 0
    var wrong = 0
    while seen < total {
      // Output is announced once each time the queue goes from taken-empty to filled.
      guard waitReadable(wake.fileDescriptor, milliseconds: 10_000) else { break }
      wake.drain()
      while true {
        let chunk = serial.output(atMost: 777)
        if chunk.isEmpty { break }
        for byte in chunk {
          if byte != UInt8(truncatingIfNeeded: seen &* 31 >> 3) { wrong += 1 }
          seen += 1
        }
      }
    }
    #expect(seen == total)
    #expect(wrong == 0)
    if seen == total { guest.join() }
  }

  /// How a guest's handler treats one interrupt.
  enum Handler: CaseIterable {
    /// Loops until IIR says "none", as Linux does.
    case untilNone
    /// Reads IIR once and serves that condition alone.
    case once
  }

  @Test(arguments: Handler.allCases, 0..<20 as Range<UInt64>)
  func edgesAloneCarryAllInputAndOutput(handler: Handler, seed: UInt64) {
    var random = SplitMix(state: seed)
    let serial = WiredSerial(outputCapacity: 100)
    let port = serial.port
    var toSend = (0..<2000).map { UInt8(truncatingIfNeeded: $0) }[...]
    let toReceive = (0..<2000).map { UInt8(truncatingIfNeeded: $0 * 7) }
    var offered = 0
    var read: [UInt8] = []
    var written: [UInt8] = []
    port.write(offset: 2, value: 0x81)
    port.write(offset: 4, value: 0x0b)
    port.write(offset: 1, value: 0x07)

    func serveInterrupt() {
      while true {
        switch port.read(offset: 2) & 0x0f {
        case 0x04, 0x0c: while port.read(offset: 5) & 1 != 0 { read.append(port.read(offset: 0)) }
        case 0x02:
          for _ in 0..<Int.random(in: 1...16, using: &random) {
            if port.read(offset: 5) & 0x20 == 0 { break }
            if let byte = toSend.popFirst() { port.write(offset: 0, value: byte) }
          }
        case 0x06: _ = port.read(offset: 5)
        default: return
        }
        if handler == .once { return }
      }
    }
    for _ in 0..<200_000 where read.count < 2000 || written.count < 2000 {
      switch UInt8.random(in: 0..<4, using: &random) {
      case 0:
        let end = min(2000, offered + Int.random(in: 1...40, using: &random))
        offered += serial.offer(Array(toReceive[offered..<end]))
      case 1: written += serial.output(atMost: Int.random(in: 1...60, using: &random))
      default: if serial.edges.acknowledge() { serveInterrupt() }
      }
    }
    #expect(read == toReceive)
    #expect(written == (0..<2000).map { UInt8(truncatingIfNeeded: $0) })
  }

  @Test(arguments: 0..<8 as Range<UInt64>)
  func randomAccessesKeepTheRegistersWithinTheirTables(seed: UInt64) {
    var random = SplitMix(state: seed)
    for _ in 0..<20_000 {
      let offset = UInt8.random(in: 0...255, using: &random)
      switch UInt8.random(in: 0..<8, using: &random) {
      case 0..<4: port.write(offset: offset, value: .random(in: 0...255, using: &random))
      case 4: _ = serial.offer([1, 2, 3])
      case 5: port.receiveBreak()
      case 6: _ = serial.output(atMost: 64)
      default: _ = port.read(offset: offset)
      }
      #expect([0, 1, 2, 4, 6, 0xc].contains(serial.identification & 0x3f))
      #expect(serial.status & 0x0c == 0)
      #expect(port.read(offset: 4) & 0xe0 == 0)
    }
  }
}

/// A small repeatable random number generator (Steele, Lea and Flood's SplitMix64).
struct SplitMix: RandomNumberGenerator {
  var state: UInt64
  mutating func next() -> UInt64 {
    state &+= 0x9e37_79b9_7f4a_7c15
    var mixed = state
    mixed = (mixed ^ mixed >> 30) &* 0xbf58_476d_1ce4_e5b9
    mixed = (mixed ^ mixed >> 27) &* 0x94d0_49bb_1331_11eb
    return mixed ^ mixed >> 31
  }
}

final class CounterBox: Sendable {
  let value = Atomic<Int>(0)
}

/// Waits until a descriptor is readable (or hung up); false when `milliseconds` passed first.
func waitReadable(_ descriptor: CInt, milliseconds: CInt) -> Bool {
  var entry = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
  return poll(&entry, 1, milliseconds) > 0
}
