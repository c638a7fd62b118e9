// What packets cost a program: round trips and streams of Ethernet frames with a peer, which is another guest with this program
// (`role=peer`) or a thread of `castor bench net`. Arguments: `target=` the network service, `role=`.

import BenchReport
import NetClient
import PacketBench
import Pollux

@main enum BenchNet {
  static func main() {
    let arguments = CommandLine(Program.start.text("arguments") ?? Bytes(""))
    let isPeer = arguments.value("role")?.equals("peer") ?? false
    var bench = Bench("net")
    do throws(NetClientError) {
      let device = try open(arguments.value("target") ?? Bytes("net"))
      if isPeer { try serve(device) }
      var client = try BenchClient(device)
      try client.run(&bench)
      device.close()
    } catch { bench.fail(name(error)) }
    bench.finish()
  }

  private static func name(_ error: NetClientError) -> StaticString {
    switch error {
    case .kernel: "the network service is gone, or the kernel refuses"
    case .refused(.timedOut): "nobody answers at the other end"
    case .refused: "the network service refuses"
    case .interface: "the network service's rings hold nonsense"
    }
  }

  private static func open(_ target: Bytes) throws(NetClientError) -> NetDevice {
    let end = Clock.now + Clock.frequency * 10
    while true {
      let endpoint: Endpoint
      do throws(SystemError) { endpoint = try Program.connect(target) } catch {
        // The driver may not have come so far.
        guard Clock.now < end else { throw .kernel(error) }
        Clock.sleep(microseconds: 10_000)
        continue
      }
      return try NetDevice(endpoint, receive: 256, transmit: 128)
    }
  }

  /// The passive side, for ever.
  private static func serve(_ device: NetDevice) throws(NetClientError) -> Never {
    var peer = BenchPeer()
    while true {
      while let buffer = try device.nextReceived() {
        peer.take(buffer.frame, length: buffer.frameLength)
        device.release(buffer)
        // An answer waits for no other frame.
        try send(&peer, device)
      }
      try send(&peer, device)
      try device.enter(waitForReceived: 1)
    }
  }

  private static func send(_ peer: inout BenchPeer, _ device: NetDevice) throws(NetClientError) {
    while peer.hasNext, let buffer = try device.transmitBuffer() {
      guard let length = peer.next(into: buffer.frame, from: device.link.address) else { return }
      device.send(buffer, length: length)
    }
  }
}

/// The active side.
struct BenchClient {
  private let device: NetDevice
  private var peer: UInt64 = 0
  private var number: UInt32 = 0
  private var lost: UInt64 = 0

  private static let patience: UInt64 = 200_000
  private static let lengths = [60, 512, 1514]
  /// Longest run of one sample.
  private static let mostFrames = 20_000

  /// Finds the peer.
  init(_ device: NetDevice) throws(NetClientError) {
    self.device = device
    let end = Clock.now + Clock.frequency * 30
    while peer == 0 {
      guard Clock.now < end else { throw .refused(.timedOut) }
      try post(.hello, to: BenchFrame.everybody)
      try device.enter(waitForReceived: 1, atMost: 100_000)
      try receive { kind, source, _ in if kind == .here { peer = source } }
    }
  }

  mutating func run(_ bench: inout Bench) throws(NetClientError) {
    let lengths = bench.options.isQuick ? [60, 1514] : Self.lengths
    for length in lengths { try measureRoundTrips(length, &bench) }
    for length in lengths { try measureStream(length, "send", &bench) }
    for length in lengths { try measureStream(length, "receive", &bench) }
    bench.add("lost", .count, lost, remark: "frames")
  }

  // MARK: Round trips

  private mutating func measureRoundTrips(_ length: Int, _ bench: inout Bench) throws(NetClientError) {
    var failure: NetClientError?
    bench.measure("round-trip/" + length, remark: "bytes each way") {
      guard failure == nil else { return }
      do throws(NetClientError) { try roundTrip(length) } catch { failure = error }
    }
    if let failure { throw failure }
  }

  private mutating func roundTrip(_ length: Int) throws(NetClientError) {
    number &+= 1
    let expected = BenchFrame.pong(number)
    try post(.ping(number), length: length)
    var isBack = false
    while !isBack {
      if try !device.enter(waitForReceived: 1, atMost: Self.patience) {
        lost += 1
        return
      }
      try receive { kind, _, received in if kind == expected, received == length { isBack = true } }
    }
  }

  // MARK: Streams

  private mutating func measureStream(
    _ length: Int, _ direction: StaticString, _ bench: inout Bench
  ) throws(NetClientError) {
    let isSending = direction.utf8CodeUnitCount == 4
    func stream(_ count: Int) throws(NetClientError) {
      try isSending ? send(count, length) : pull(count, length)
    }
    // As many frames as take some milliseconds.
    try stream(64)
    let start = Clock.now
    try stream(256)
    let ticks = max(1, (Clock.now - start) / 256)
    let wanted = Clock.ticks(microseconds: bench.options.batchMicroseconds * 4)
    let count = max(128, min(Self.mostFrames, Int(wanted / ticks)))
    var samples: [UInt64] = []
    let begin = Clock.now
    while bench.options.wantsBatch(after: samples.count, ticks: Clock.now - begin, frequency: Clock.frequency) {
      let start = Clock.now
      try stream(count)
      samples.append(Clock.now - start)
    }
    bench.add(
      FigureName(Bytes(direction)) + "/" + length, bytes: UInt64(count * length), ticks: samples,
      remark: "stream of frames")
  }

  /// Sends `count` frames and waits until the last has been acknowledged.
  private mutating func send(_ count: Int, _ length: Int) throws(NetClientError) {
    let end = UInt32(count)
    var next: UInt32 = 0
    var acknowledged: UInt32 = 0
    while acknowledged < end {
      while next < end, next - acknowledged < BenchFrame.window, let buffer = try device.transmitBuffer() {
        let wants = BenchPeer.wantsAcknowledgement(next, end: end)
        TestFrame.stamp(
          buffer.frame, number: BenchFrame.data(next, wantsAcknowledgement: wants).number, from: device.link.address,
          to: peer)
        device.send(buffer, length: length)
        next += 1
      }
      if try !device.enter(waitForReceived: 1, atMost: Self.patience) {
        lost += UInt64(next - acknowledged)
        acknowledged = next
      }
      try receive { kind, _, _ in
        if case .acknowledge(let number, _)? = kind, number < next { acknowledged = max(acknowledged, number + 1) }
      }
    }
  }

  /// Has the peer send `count` frames.
  private mutating func pull(_ count: Int, _ length: Int) throws(NetClientError) {
    try post(.pull(count: UInt32(count), length: UInt16(length)))
    var received = 0
    var isOver = false
    while !isOver {
      // More would wait for an acknowledgement that is not asked for yet.
      if try !device.enter(waitForReceived: 1, atMost: Self.patience) { break }
      var due: UInt32?
      try receive { kind, _, size in
        guard case .data(let number, let wants)? = kind, size == length else { return }
        received += 1
        if wants { due = number }
        if Int(number) + 1 == count { isOver = true }
      }
      if let due { try post(.acknowledge(due, count: UInt32(received))) }
    }
    lost += UInt64(max(0, count - received))
  }

  // MARK: Frames

  /// Puts a frame into the ring, for the next `enter`.
  private func post(_ kind: BenchFrame, length: Int = TestFrame.shortest, to other: UInt64? = nil)
    throws(NetClientError)
  {
    while true {
      if let buffer = try device.transmitBuffer() {
        TestFrame.fill(
          buffer.frame, length: length, number: kind.number, from: device.link.address, to: other ?? peer)
        device.send(buffer, length: length)
        return
      }
      try device.waitForRoom()
    }
  }

  /// Takes what has come: kind, sender, length. A pong with other contents than it should have is none.
  private func receive(_ body: (BenchFrame?, UInt64, Int) -> Void) throws(NetClientError) {
    while let buffer = try device.nextReceived() {
      let length = buffer.frameLength
      if TestFrame.isOne(buffer.frame, length: length) {
        let kind = BenchFrame(number: TestFrame.number(buffer.frame))
        var isRight = true
        if case .pong? = kind { isRight = TestFrame.isIntact(buffer.frame, length: length) }
        if isRight { body(kind, TestFrame.address(buffer.frame + 6), length) }
      }
      device.release(buffer)
    }
  }
}
