// A network interface as a client sees it: packet memory and rings shared with the driver, and the calls of the interface.

import DriverVirtqueue
@_exported import NetInterface
import Pollux

/// Why a network interface cannot be used.
public enum NetClientError: Error {
  /// The kernel refused; `peerClosed` means that the service is gone.
  case kernel(SystemError)
  /// The service refused.
  case refused(NetReply)
  /// The rings hold nonsense.
  case interface(PacketRingError)
}

/// A buffer of the packet memory: the virtio header, then the frame.
public struct NetBuffer {
  /// The first byte of the header; `frame` follows it.
  public let header: UnsafeMutableRawPointer
  /// Bytes of the Ethernet frame that are there, or that have room.
  public let frameLength: Int
  let tag: UInt32
  public var frame: UnsafeMutableRawPointer { header + packetHeaderSize }
  /// In how many buffers the packet lies; for the first of a received one.
  public var bufferCount: Int { Int(header.load(fromByteOffset: 10, as: UInt16.self)) }
}

/// A session with a network service. Used by one thread.
public final class NetDevice {
  private let endpoint: Endpoint
  private let identifier: UInt64
  private var rings: PacketClientRings
  private let ringMemory: MemoryObject
  private let ringMapping: Mapping
  private let dataMemory: MemoryObject
  private let dataMapping: Mapping
  private let bufferSize: Int
  private let receiveCount: Int
  private var freeTransmit: [UInt32] = []
  public let mode: NetMode
  /// Calls of the service so far.
  public private(set) var calls: UInt64 = 0

  private static func call(_ endpoint: Endpoint, _ message: inout Message) throws(NetClientError) {
    do throws(SystemError) { try endpoint.call(&message) } catch { throw .kernel(error) }
    if message[0] != 0 { throw .refused(NetReply(rawValue: message[0]) ?? .badCall) }
  }

  /// Opens the interface with `receive` buffers for what comes and `transmit` for what goes (powers of two), each of `bufferSize`
  /// bytes, and gives it all of the former.
  public init(
    _ endpoint: Endpoint, receive: Int = 128, transmit: Int = 128, bufferSize: Int = 2048
  ) throws(NetClientError) {
    guard let layout = PacketRingLayout(receive: receive, transmit: transmit), bufferSize >= 64,
      bufferSize * (receive + transmit) < 1 << 31
    else { throw .refused(.badMemory) }
    var message = Message(NetCall.describe.rawValue)
    try Self.call(endpoint, &message)
    mode = NetMode(rawValue: message[3]) ?? .solo
    do throws(SystemError) {
      ringMemory = try MemoryObject.create(UInt64(layout.byteCount))
      ringMapping = try ringMemory.map([.read, .write])
      dataMemory = try MemoryObject.create(UInt64(bufferSize * (receive + transmit)))
      dataMapping = try dataMemory.map([.read, .write])
    } catch { throw .kernel(error) }
    let memory = RingMemory(unsafeBase: ringMapping.base, byteCount: ringMapping.size, physical: 0)
    guard let rings = PacketClientRings(memory: memory, layout: layout) else { throw .refused(.badMemory) }
    message = Message(NetCall.attach.rawValue, UInt64(receive) | UInt64(transmit) << 16)
    message.pass(ringMemory.handle, [.read, .write])
    try Self.call(endpoint, &message)
    identifier = message[1]
    message = Message(NetCall.region.rawValue, identifier)
    message.pass(dataMemory.handle, [.read, .write, .physical])
    try Self.call(endpoint, &message)
    if let process = Program.ownProcess {
      message = Message(NetCall.owner.rawValue, identifier)
      message.pass(process, [.observe])
      try Self.call(endpoint, &message)
    }
    self.endpoint = endpoint
    self.rings = rings
    self.bufferSize = bufferSize
    receiveCount = receive
    for tag in 0..<receive { postBuffer(UInt32(tag)) }
    var tag = receive + transmit
    while tag > receive {
      tag -= 1
      freeTransmit.append(UInt32(tag))
    }
    try enter()
  }

  /// The interface's address and the state of its link, as the driver knows them.
  public var link: NetLink { rings.link }
  public func counter(_ counter: NetCounter) -> UInt64 { rings.counter(counter) }
  /// The largest frame that a buffer holds, in bytes.
  public var frameCapacity: Int { bufferSize - packetHeaderSize }

  private func postBuffer(_ tag: UInt32) {
    rings.post(PacketEntry(offset: tag * UInt32(bufferSize), length: UInt32(bufferSize), tag: tag))
  }

  private func buffer(_ tag: UInt32, _ length: Int) -> NetBuffer {
    // Tags are checked where they come from the driver, so the buffer lies in the packet memory.
    NetBuffer(header: dataMapping.base + Int(tag) * bufferSize, frameLength: length, tag: tag)
  }

  // MARK: Sending

  /// A buffer to fill with a frame, its header zeroed; nil: all are on their way.
  public func transmitBuffer() throws(NetClientError) -> NetBuffer? {
    if freeTransmit.isEmpty { try takeSent() }
    guard let tag = freeTransmit.popLast() else { return nil }
    let buffer = buffer(tag, frameCapacity)
    buffer.header.initializeMemory(as: UInt8.self, repeating: 0, count: packetHeaderSize)
    return buffer
  }

  /// Submits the buffer with a frame of `length` bytes; the driver takes it at the next `enter`.
  public func send(_ buffer: NetBuffer, length: Int) {
    precondition(length > 0 && length <= frameCapacity)
    rings.submit(
      PacketEntry(
        offset: buffer.tag * UInt32(bufferSize), length: UInt32(length + packetHeaderSize), tag: buffer.tag))
  }

  private func takeSent() throws(NetClientError) {
    do throws(PacketRingError) {
      while let entry = try rings.nextSent() {
        guard Int(entry.tag) >= receiveCount, (Int(entry.tag) + 1) * bufferSize <= dataMapping.size,
          !freeTransmit.contains(entry.tag)
        else { throw .badTag }
        freeTransmit.append(entry.tag)
      }
    } catch { throw .interface(error) }
  }

  // MARK: Receiving

  /// The next received buffer that is there, without a call; it is the caller's until it gives it back by `release`.
  public func nextReceived() throws(NetClientError) -> NetBuffer? {
    do throws(PacketRingError) {
      guard let entry = try rings.nextReceived() else { return nil }
      guard Int(entry.tag) < receiveCount, Int(entry.length) <= bufferSize else { throw .badTag }
      return buffer(entry.tag, max(0, Int(entry.length) - packetHeaderSize))
    } catch { throw .interface(error) }
  }

  /// Gives a received buffer back for another packet; the driver takes it at the next `enter`.
  public func release(_ buffer: NetBuffer) { postBuffer(buffer.tag) }

  // MARK: Calls

  /// Has the driver take what was sent and released, and waits until `received` packets more or `sent` transmitted ones are there, or
  /// the link changes; 0 and 0: does not wait.
  public func enter(waitForReceived received: Int = 0, waitForSent sent: Int = 0) throws(NetClientError) {
    calls += 1
    var message = Message(NetCall.enter.rawValue, identifier, UInt64(received), UInt64(sent))
    try Self.call(endpoint, &message)
  }

  /// Waits for room for another packet.
  public func waitForRoom() throws(NetClientError) {
    try takeSent()
    if freeTransmit.isEmpty { try enter(waitForSent: 1) }
  }

  /// Gives the interface another MAC address.
  public func setAddress(_ address: UInt64) throws(NetClientError) {
    var message = Message(NetCall.setAddress.rawValue, identifier, address)
    try Self.call(endpoint, &message)
  }

  /// Ends the session and gives the memory back.
  public func close() {
    var message = Message(NetCall.detach.rawValue, identifier)
    do throws(NetClientError) { try Self.call(endpoint, &message) } catch {}
    ringMapping.unmap()
    dataMapping.unmap()
    ringMemory.handle.close()
    dataMemory.handle.close()
  }
}
