// The protocol of `castor bench net`, and its passive side, which answers pings, acknowledges streams and sends them on request. It runs in
// a guest or on the host; both ends count on nothing but frames.

/// What a frame's number says: the kind in bits 56 to 63, and for each kind the rest.
public enum BenchFrame: Equatable, Sendable {
  /// Is somebody there? To everybody, for the client does not know its peer's address.
  case hello
  case here
  /// A frame to be answered by `pong` with the same number and length, both full of the pattern.
  case ping(UInt32)
  case pong(UInt32)
  /// One of a stream. `wantsAcknowledgement`: the receiver tells how far it has come.
  case data(UInt32, wantsAcknowledgement: Bool)
  /// The stream has come to this number; so many of its frames have come, counted modulo 2²⁴.
  case acknowledge(UInt32, count: UInt32)
  /// A wish for a stream of `count` frames of `length` bytes.
  case pull(count: UInt32, length: UInt16)

  public var number: UInt64 {
    switch self {
    case .hello: 1 << 56
    case .here: 2 << 56
    case .ping(let number): 3 << 56 | UInt64(number)
    case .pong(let number): 4 << 56 | UInt64(number)
    case .data(let number, let wants): 5 << 56 | UInt64(number) | (wants ? 1 << 32 : 0)
    case .acknowledge(let number, let count): 6 << 56 | UInt64(count & 0xff_ffff) << 32 | UInt64(number)
    case .pull(let count, let length): 7 << 56 | UInt64(length) << 32 | UInt64(count)
    }
  }

  public init?(number: UInt64) {
    let low = UInt32(truncatingIfNeeded: number)
    switch number >> 56 {
    case 1: self = .hello
    case 2: self = .here
    case 3: self = .ping(low)
    case 4: self = .pong(low)
    case 5: self = .data(low, wantsAcknowledgement: number >> 32 & 1 != 0)
    case 6: self = .acknowledge(low, count: UInt32(number >> 32 & 0xff_ffff))
    case 7: self = .pull(count: low, length: UInt16(truncatingIfNeeded: number >> 32))
    default: return nil
    }
  }

  /// Frames of a stream that may be without acknowledgement, and how often the receiver is asked for one.
  public static let window: UInt32 = 64
  public static let acknowledgedEvery: UInt32 = 16
  public static let everybody: UInt64 = 0xffff_ffff_ffff
  /// The longest frame.
  public static let longest = 1514
}

/// The passive side.
public struct BenchPeer {
  private var client: UInt64 = 0
  private var answer: (frame: BenchFrame, length: Int)?
  private var counted: UInt32 = 0
  /// The stream that is being sent: the next number, its end, how far it is acknowledged, and its frames' length.
  private var stream: (next: UInt32, end: UInt32, acknowledged: UInt32, length: Int) = (0, 0, 0, 0)
  /// Frames whose contents were not those of their number.
  public private(set) var damaged = 0

  public init() {}

  /// Takes a frame of `length` bytes that has come. What it makes necessary `next` gives.
  public mutating func take(_ frame: UnsafeRawPointer, length: Int) {
    guard TestFrame.isOne(frame, length: length), let kind = BenchFrame(number: TestFrame.number(frame)) else { return }
    switch kind {
    case .hello:
      client = TestFrame.address(frame + 22)
      counted = 0
      stream = (0, 0, 0, 0)
      answer = (.here, TestFrame.shortest)
    case .ping(let number):
      // Without an answer the client counts it as lost.
      guard TestFrame.isIntact(frame, length: length) else {
        damaged += 1
        return
      }
      answer = (.pong(number), length)
    case .data(let number, let wants):
      counted &+= 1
      if wants { answer = (.acknowledge(number, count: counted & 0xff_ffff), TestFrame.shortest) }
    case .pull(let count, let length):
      let length = Int(length)
      guard (TestFrame.shortest...BenchFrame.longest).contains(length), count < 1 << 24 else { return }
      stream = (0, count, 0, length)
    case .acknowledge(let number, _):
      // Of an earlier stream it may be.
      if number < stream.next, number + 1 > stream.acknowledged { stream.acknowledged = number + 1 }
    case .here, .pong: break
    }
  }

  /// Whether `next` has a frame to send.
  public var hasNext: Bool { answer != nil || streams }
  private var streams: Bool {
    stream.next < stream.end && stream.next - stream.acknowledged < BenchFrame.window
  }

  /// Writes the next frame to send, of the address `own`, to `longest` bytes at `frame`; its length, or nil.
  public mutating func next(into frame: UnsafeMutableRawPointer, from own: UInt64) -> Int? {
    if let (kind, length) = answer {
      answer = nil
      TestFrame.fill(frame, length: length, number: kind.number, from: own, to: client)
      return length
    }
    guard streams else { return nil }
    let number = stream.next
    stream.next += 1
    let wants = BenchPeer.wantsAcknowledgement(number, end: stream.end)
    TestFrame.stamp(
      frame, number: BenchFrame.data(number, wantsAcknowledgement: wants).number, from: own, to: client)
    return stream.length
  }

  /// Whether the sender of frame `number` of a stream that ends before `end` asks how far it has come.
  public static func wantsAcknowledgement(_ number: UInt32, end: UInt32) -> Bool {
    (number + 1) % BenchFrame.acknowledgedEvery == 0 || number + 1 == end
  }
}
