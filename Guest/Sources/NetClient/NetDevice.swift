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

/// Memory that is shared with the service, given back by `release`.
private struct SharedMemory {
  let object: MemoryObject
  let mapping: Mapping

  init(_ size: Int) throws(NetClientError) {
    do throws(SystemError) {
      let object = try MemoryObject.create(UInt64(size))
      do throws(SystemError) { mapping = try object.map([.read, .write]) } catch {
        object.handle.close()
        throw error
      }
      self.object = object
    } catch { throw .kernel(error) }
  }

  func release() {
    mapping.unmap()
    object.handle.close()
  }
}

/// A session with a network service. Used by one thread.
public final class NetDevice {
  private let endpoint: Endpoint
  private let identifier: UInt64
  private var rings: PacketClientRings
  private let ringMemory: SharedMemory
  private let dataMemory: SharedMemory
  private let bufferSize: Int
  private let receiveCount: Int
  private var freeTransmit: [UInt32] = []
  /// Whether a transmit buffer is with the driver, by its number among them.
  private var isOnItsWay: [Bool]
  public let mode: NetMode
  /// Calls of the service so far.
  public private(set) var calls: UInt64 = 0

  private static func call(_ endpoint: Endpoint, _ message: inout Message) throws(NetClientError) {
    do throws(SystemError) { try endpoint.call(&message) } catch { throw .kernel(error) }
    if message[0] != 0 { throw .refused(NetReply(rawValue: message[0]) ?? .badCall) }
  }

  /// Opens the interface with `receive` buffers for what comes and `transmit` for what goes (powers of two), each of `bufferSize`
  /// bytes, and gives it all of the former. `endpoint` belongs to the device from then on, and is closed if it fails.
  public init(
    _ endpoint: Endpoint, receive: Int = 128, transmit: Int = 128, bufferSize: Int = 2048
  ) throws(NetClientError) {
    // In the reverse order of their making.
    var undo: [() -> Void] = [{ endpoint.handle.close() }]
    do throws(NetClientError) {
      guard let layout = PacketRingLayout(receive: receive, transmit: transmit), bufferSize >= 64,
        bufferSize * (receive + transmit) < 1 << 31
      else { throw .refused(.badMemory) }
      var message = Message(NetCall.describe.rawValue)
      try Self.call(endpoint, &message)
      mode = NetMode(rawValue: message[3]) ?? .solo
      let rings = try SharedMemory(layout.byteCount)
      undo.append { rings.release() }
      let data = try SharedMemory(bufferSize * (receive + transmit))
      undo.append { data.release() }
      let memory = RingMemory(unsafeBase: rings.mapping.base, byteCount: rings.mapping.size, physical: 0)
      guard let ends = PacketClientRings(memory: memory, layout: layout) else { throw .refused(.badMemory) }
      message = Message(NetCall.attach.rawValue, UInt64(receive) | UInt64(transmit) << 16)
      message.pass(rings.object.handle, [.read, .write])
      try Self.call(endpoint, &message)
      let session = message[1]
      undo.append { Self.detach(endpoint, session) }
      message = Message(NetCall.region.rawValue, session)
      message.pass(data.object.handle, [.read, .write, .physical])
      try Self.call(endpoint, &message)
      if let process = Program.ownProcess {
        message = Message(NetCall.owner.rawValue, session)
        message.pass(process, [.observe])
        try Self.call(endpoint, &message)
      }
      self.endpoint = endpoint
      self.rings = ends
      identifier = session
      ringMemory = rings
      dataMemory = data
      self.bufferSize = bufferSize
      receiveCount = receive
      isOnItsWay = [Bool](repeating: false, count: transmit)
    } catch {
      while let step = undo.popLast() { step() }
      throw error
    }
    for tag in 0..<receive { postBuffer(UInt32(tag)) }
    var tag = receive + transmit
    while tag > receive {
      tag -= 1
      freeTransmit.append(UInt32(tag))
    }
    do throws(NetClientError) { try enter() } catch {
      close()
      throw error
    }
  }

  private static func detach(_ endpoint: Endpoint, _ session: UInt64) {
    var message = Message(NetCall.detach.rawValue, session)
    do throws(NetClientError) { try call(endpoint, &message) } catch {}
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
    NetBuffer(header: dataMemory.mapping.base + Int(tag) * bufferSize, frameLength: length, tag: tag)
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
    isOnItsWay[Int(buffer.tag) - receiveCount] = true
    rings.submit(
      PacketEntry(
        offset: buffer.tag * UInt32(bufferSize), length: UInt32(length + packetHeaderSize), tag: buffer.tag))
  }

  private func takeSent() throws(NetClientError) {
    do throws(PacketRingError) {
      while let entry = try rings.nextSent() {
        let number = Int(entry.tag) - receiveCount
        guard isOnItsWay.indices.contains(number), isOnItsWay[number] else { throw .badTag }
        isOnItsWay[number] = false
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
  /// the link changes; 0 and 0: does not wait. False: `microseconds` were over before that; 0 sets no limit.
  @discardableResult public func enter(
    waitForReceived received: Int = 0, waitForSent sent: Int = 0, atMost microseconds: UInt64 = 0
  ) throws(NetClientError) -> Bool {
    calls += 1
    var message = Message(NetCall.enter.rawValue, identifier, UInt64(received), UInt64(sent))
    message[4] = microseconds
    do throws(NetClientError) {
      try Self.call(endpoint, &message)
      return true
    } catch {
      guard case .refused(.timedOut) = error else { throw error }
      return false
    }
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

  /// Ends the session and gives the memory back. Nothing else may be called afterwards.
  public func close() {
    Self.detach(endpoint, identifier)
    ringMemory.release()
    dataMemory.release()
    endpoint.handle.close()
  }
}
