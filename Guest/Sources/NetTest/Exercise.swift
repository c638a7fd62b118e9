// Keeps an interface busy for a while with numbered frames that a peer sends back, whatever happens to device and driver meanwhile, and
// accounts for every one: what docs/net-driver.md promises of faults is tested with this.

import BenchmarkCore
import NetClient
import PacketBench
import Pollux

/// What happened in a time.
struct ExerciseCounts {
  var sent: UInt64 = 0
  /// Came back, as they were, the first time.
  var received: UInt64 = 0
  /// Did not come back within their time.
  var lost: UInt64 = 0
  /// Came back later than that; counted as lost before.
  var late: UInt64 = 0
  /// Came back once more.
  var twice: UInt64 = 0
  /// Other contents than were sent, or a number that was not.
  var wrong: UInt64 = 0
  var reconnections: UInt64 = 0
  /// The link was found down.
  var linkDown: UInt64 = 0
  /// The longest time without a frame, in ticks.
  var longestGap: UInt64 = 0

  mutating func add(_ other: ExerciseCounts) {
    sent += other.sent
    received += other.received
    lost += other.lost
    late += other.late
    twice += other.twice
    wrong += other.wrong
    reconnections += other.reconnections
    linkDown += other.linkDown
    longestGap = max(longestGap, other.longestGap)
  }
}

struct Exercise {
  /// Frames on their way at a time.
  private static let depth = 8
  /// Time between two lines of the report, and after which a frame is taken for lost, in microseconds.
  private static let window: UInt64 = 100_000
  private static let patience: UInt64 = 50_000
  /// How many numbers back it is known what became of a frame.
  private static let memory = 4096

  private enum Fate { case none, sent, received, lost }

  private let target: Bytes
  private var device: NetDevice
  private var fates = [Fate](repeating: .none, count: memory)
  private var next: UInt64 = 0
  private var onTheirWay = 0
  private var totals = ExerciseCounts()
  private var now = ExerciseCounts()
  private var lastFrame = Clock.now

  init(target: Bytes) throws(NetClientError) {
    self.target = target
    device = try NetTest.open(target)
  }

  /// True: no frame was wrong, and each has come back or counts as lost.
  mutating func run(milliseconds: UInt64) throws(NetClientError) -> Bool {
    let end = Clock.now + Clock.ticks(microseconds: milliseconds * 1000)
    var windowEnd = Clock.now + Clock.ticks(microseconds: Self.window)
    lastFrame = Clock.now
    while Clock.now < end {
      do throws(NetClientError) { try step() } catch { try reconnect(error, until: end) }
      if Clock.now >= windowEnd { closeWindow(&windowEnd) }
    }
    // Those that are still on their way; the driver gives none back twice.
    do throws(NetClientError) { if onTheirWay > 0 { try collect() } } catch {
      try reconnect(error, until: Clock.now + Clock.frequency * 10)
    }
    giveUp()
    closeWindow(&windowEnd)
    report("exercise-end", totals)
    device.close()
    return totals.wrong == 0 && totals.sent == totals.received + totals.lost
  }

  private mutating func closeWindow(_ windowEnd: inout UInt64) {
    now.longestGap = max(now.longestGap, Clock.now &- lastFrame)
    report("exercise", now)
    totals.add(now)
    now = ExerciseCounts()
    windowEnd = Clock.now + Clock.ticks(microseconds: Self.window)
  }

  private func report(_ kind: StaticString, _ counts: ExerciseCounts) {
    var line = JSONLine(report: kind)
    func member(_ name: StaticString, _ value: UInt64) { line.member(name, thousandths: value * 1000) }
    member("sent", counts.sent)
    member("received", counts.received)
    member("lost", counts.lost)
    member("late", counts.late)
    member("twice", counts.twice)
    member("wrong", counts.wrong)
    member("reconnections", counts.reconnections)
    member("link_down", counts.linkDown)
    member("gap_ns", Clock.nanoseconds(counts.longestGap))
    member("address", device.link.address)
    Console.write(line.closed)
  }

  private mutating func step() throws(NetClientError) {
    guard device.link.isUp else {
      now.linkDown += 1
      try device.enter(waitForReceived: 1, atMost: Self.patience)
      try take()
      giveUp()
      return
    }
    while onTheirWay < Self.depth, let buffer = try device.transmitBuffer() {
      // All lengths from the shortest to the longest, in no order.
      let length = TestFrame.shortest + Int(next &* 977 % 1455)
      TestFrame.fill(
        buffer.frame, length: length, number: next, from: device.link.address, to: NetTest.peer)
      device.send(buffer, length: length)
      let place = Int(next % UInt64(Self.memory))
      if fates[place] == .sent {
        // Others came back all the time, but this one did not.
        now.lost += 1
        onTheirWay -= 1
      }
      fates[place] = .sent
      next += 1
      now.sent += 1
      onTheirWay += 1
    }
    try collect()
  }

  /// Waits for half of what is on its way, and gives it up if nothing comes.
  private mutating func collect() throws(NetClientError) {
    let before = now.received
    if try !device.enter(waitForReceived: max(1, onTheirWay / 2), atMost: Self.patience) {
      try take()
      if now.received == before { giveUp() }
      return
    }
    try take()
  }

  private mutating func giveUp() {
    guard onTheirWay > 0 else { return }
    for index in fates.indices where fates[index] == .sent {
      fates[index] = .lost
      now.lost += 1
    }
    onTheirWay = 0
  }

  private mutating func take() throws(NetClientError) {
    while let buffer = try device.nextReceived() {
      // What else is on the network is not ours.
      if TestFrame.isOne(buffer.frame, length: buffer.frameLength) { judge(buffer) }
      device.release(buffer)
    }
  }

  private mutating func judge(_ buffer: NetBuffer) {
    now.longestGap = max(now.longestGap, Clock.now &- lastFrame)
    lastFrame = Clock.now
    let number = TestFrame.number(buffer.frame)
    guard buffer.bufferCount == 1, number < next, number &+ UInt64(Self.memory) > next,
      buffer.frameLength == TestFrame.shortest + Int(number &* 977 % 1455),
      TestFrame.isEcho(buffer.frame, length: buffer.frameLength)
    else {
      now.wrong += 1
      return
    }
    let place = Int(number % UInt64(Self.memory))
    switch fates[place] {
    case .sent:
      fates[place] = .received
      now.received += 1
      onTheirWay -= 1
    case .lost:
      fates[place] = .received
      now.late += 1
    case .received: now.twice += 1
    case .none: now.wrong += 1
    }
  }

  /// The service has died: what was on its way is lost, and once somebody has started it again, work goes on.
  private mutating func reconnect(_ error: NetClientError, until end: UInt64) throws(NetClientError) {
    guard case .kernel(let reason) = error, reason == .peerClosed || reason == .notFound || reason == .aborted else {
      throw error
    }
    now.reconnections += 1
    giveUp()
    device.close()
    while true {
      do throws(NetClientError) {
        device = try NetTest.open(target)
        return
      } catch {
        if Clock.now > end { throw error }
        Clock.sleep(microseconds: 5000)
      }
    }
  }
}
