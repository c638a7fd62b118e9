// The memory that a network client and its driver share: four rings with one producer and one consumer each, and a page of indices.
//
// Layout, little endian, offsets in bytes. Indices run freely and are taken modulo the number of entries.
//   each ring: the producer's tail (u32) and, 64 bytes on, the consumer's head (u32)
//     0x000 submit: client → driver, packets to be sent          0x080 sent: driver → client
//     0x100 post: client → driver, empty buffers                 0x180 received: driver → client
//   0x200 driver: link state (`NetLink.flags`), 0x208 MAC address, 0x210 counters (64 bits each)
//   0x1000 entries of submit, sent, post, received, 16 bytes each:
//     submit and post: offset in the packet memory u32, length u32, tag u32, 0
//     sent and received: tag u32, length u32 (received: bytes that the device wrote), 0
//
// Each buffer begins with a `virtio_net_hdr_v1` of 12 bytes (virtio 1.2 §5.1.6), then comes the Ethernet frame: as on a TAP interface with
// IFF_VNET_HDR. A received packet that does not fit into one buffer goes on in the next ones; `num_buffers` of its header says
// in how many. Neither side believes what the other writes: every entry is copied out once and then checked.

import DriverVirtqueue

/// Why the other side cannot be worked with any more.
public enum PacketRingError: Error, Equatable, Sendable {
  /// A ring index moved further than the ring is long.
  case badIndex
  /// A completion has a tag that is not in flight.
  case badTag
}

/// Bytes of the header before each packet.
public let packetHeaderSize = 12

/// Counters that the driver keeps for its client to see.
public enum NetCounter: Int, Sendable {
  case doorbells = 0
  case interrupts = 1
  case resets = 2
  /// Packets that came when no buffer was there, as far as the driver saw them.
  case withoutBuffer = 3
}

/// Where things lie in the shared memory.
public struct PacketRingLayout: Equatable, Sendable {
  static let submit = 0x000
  static let sent = 0x080
  static let post = 0x100
  static let received = 0x180
  static let link = 0x200
  static let address = 0x208
  static let counters = 0x210
  static let entries = 0x1000

  /// Entries of the rings for receiving and for sending, powers of two.
  public let receive: Int
  public let transmit: Int

  /// Both powers of two, 2...1024.
  public init?(receive: Int, transmit: Int) {
    for count in [receive, transmit] where !(2...1024).contains(count) || count & (count - 1) != 0 { return nil }
    self.receive = receive
    self.transmit = transmit
  }

  var submitEntries: Int { Self.entries }
  var sentEntries: Int { submitEntries + transmit * 16 }
  var postEntries: Int { sentEntries + transmit * 16 }
  var receivedEntries: Int { postEntries + receive * 16 }
  /// Bytes of the whole, without rounding to pages.
  public var byteCount: Int { receivedEntries + receive * 16 }
}

/// A packet's place, or what became of it.
public struct PacketEntry: Equatable, Sendable {
  /// Where it begins in the packet memory, in bytes; 0 in completions.
  public var offset: UInt32
  /// Bytes, header included.
  public var length: UInt32
  /// Names the buffer; comes back with the completion.
  public var tag: UInt32

  public init(offset: UInt32 = 0, length: UInt32, tag: UInt32) {
    self.offset = offset
    self.length = length
    self.tag = tag
  }
}

/// The end of a ring at which entries are put in.
struct PacketProducer {
  private let memory: RingMemory
  private let indices: Int
  private let entries: Int
  private let count: Int
  private var tail: UInt32 = 0

  init(_ memory: RingMemory, _ indices: Int, _ entries: Int, _ count: Int) {
    self.memory = memory
    self.indices = indices
    self.entries = entries
    self.count = count
  }

  /// Entries that the other side has not taken; more than the ring holds if it lies.
  var untaken: Int { Int(tail &- memory.load32(indices + 0x40)) }
  var hasRoom: Bool { untaken < count }

  mutating func put(_ entry: PacketEntry) {
    let place = entries + Int(tail) % count * 16
    memory.store64(UInt64(entry.offset) | UInt64(entry.length) << 32, at: place)
    memory.store64(UInt64(entry.tag), at: place + 8)
    tail &+= 1
    // The release store makes the entry visible before the index.
    memory.store32(tail, at: indices)
  }
}

/// The end of a ring at which entries are taken out.
struct PacketConsumer {
  private let memory: RingMemory
  private let indices: Int
  private let entries: Int
  private let count: Int
  private var head: UInt32 = 0

  init(_ memory: RingMemory, _ indices: Int, _ entries: Int, _ count: Int) {
    self.memory = memory
    self.indices = indices
    self.entries = entries
    self.count = count
  }

  var ready: Int { Int(memory.load32(indices) &- head) }

  mutating func take() throws(PacketRingError) -> PacketEntry? {
    let ready = ready
    guard ready > 0 else { return nil }
    guard ready <= count else { throw .badIndex }
    let place = entries + Int(head) % count * 16
    let first = memory.load64(place)
    let second = memory.load64(place + 8)
    head &+= 1
    memory.store32(head, at: indices + 0x40)
    return PacketEntry(
      offset: UInt32(truncatingIfNeeded: first), length: UInt32(first >> 32), tag: UInt32(truncatingIfNeeded: second))
  }
}

/// The client's ends of the rings.
public struct PacketClientRings {
  private let memory: RingMemory
  private var submissions: PacketProducer
  private var sent: PacketConsumer
  private var posts: PacketProducer
  private var received: PacketConsumer

  /// Rings in zeroed `memory`; nil if it is shorter than the layout says.
  public init?(memory: RingMemory, layout: PacketRingLayout) {
    guard memory.byteCount >= layout.byteCount else { return nil }
    self.memory = memory
    submissions = PacketProducer(memory, PacketRingLayout.submit, layout.submitEntries, layout.transmit)
    sent = PacketConsumer(memory, PacketRingLayout.sent, layout.sentEntries, layout.transmit)
    posts = PacketProducer(memory, PacketRingLayout.post, layout.postEntries, layout.receive)
    received = PacketConsumer(memory, PacketRingLayout.received, layout.receivedEntries, layout.receive)
  }

  /// Puts a packet into the ring; the driver takes it at the next `enter`. The caller has no more buffers than the ring has entries.
  public mutating func submit(_ entry: PacketEntry) { submissions.put(entry) }
  /// Gives an empty buffer.
  public mutating func post(_ entry: PacketEntry) { posts.put(entry) }
  public mutating func nextSent() throws(PacketRingError) -> PacketEntry? { try sent.take() }
  public mutating func nextReceived() throws(PacketRingError) -> PacketEntry? { try received.take() }
  public var receivedCount: Int { received.ready }
  public var sentCount: Int { sent.ready }
  /// Whether the driver has yet to take something.
  public var hasUntaken: Bool { submissions.untaken > 0 || posts.untaken > 0 }
  public var hasUntakenPackets: Bool { submissions.untaken > 0 }

  public var link: NetLink {
    var link = NetLink(address: memory.load64(PacketRingLayout.address))
    link.flags = memory.load64(PacketRingLayout.link)
    return link
  }
  public func counter(_ counter: NetCounter) -> UInt64 {
    memory.load64(PacketRingLayout.counters + counter.rawValue * 8)
  }
}

/// The driver's ends of one client's rings.
public struct PacketDriverRings {
  private let memory: RingMemory
  private var submissions: PacketConsumer
  private var sent: PacketProducer
  private var posts: PacketConsumer
  private var received: PacketProducer

  public init?(memory: RingMemory, layout: PacketRingLayout) {
    guard memory.byteCount >= layout.byteCount else { return nil }
    self.memory = memory
    submissions = PacketConsumer(memory, PacketRingLayout.submit, layout.submitEntries, layout.transmit)
    sent = PacketProducer(memory, PacketRingLayout.sent, layout.sentEntries, layout.transmit)
    posts = PacketConsumer(memory, PacketRingLayout.post, layout.postEntries, layout.receive)
    received = PacketProducer(memory, PacketRingLayout.received, layout.receivedEntries, layout.receive)
  }

  public mutating func nextSubmission() throws(PacketRingError) -> PacketEntry? { try submissions.take() }
  public mutating func nextPost() throws(PacketRingError) -> PacketEntry? { try posts.take() }
  /// Whether the client has put in something that was not taken yet.
  public var hasSubmissions: Bool { submissions.ready != 0 || posts.ready != 0 }
  /// The client takes no more completions than it has buffers, so there is room unless it lies; then it has lost them itself.
  public mutating func complete(sent entry: PacketEntry) { sent.put(entry) }
  public mutating func complete(received entry: PacketEntry) { received.put(entry) }
  /// Completions that the client has not taken; more than the rings hold if it lies.
  public var untakenReceived: Int { received.untaken }
  public var untakenSent: Int { sent.untaken }

  public func show(_ link: NetLink) {
    memory.store64(link.address, at: PacketRingLayout.address)
    memory.store64(link.flags, at: PacketRingLayout.link)
  }
  public func setCounter(_ counter: NetCounter, _ value: UInt64) {
    memory.store64(value, at: PacketRingLayout.counters + counter.rawValue * 8)
  }
}
