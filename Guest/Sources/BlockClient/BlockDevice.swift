// A block device as a client sees it: rings and data memory shared with the driver, and the calls of the interface.

@_exported import BlockInterface
import DriverVirtqueue
import Pollux

/// Why a block device cannot be used.
public enum BlockClientError: Error {
  /// The kernel refused; `peerClosed` means that the service is gone.
  case kernel(SystemError)
  /// The service refused.
  case refused(BlockReply)
  /// The rings hold nonsense.
  case interface(BlockInterfaceError)
}

/// A session with a block service. Used by one thread.
public final class BlockDevice {
  private let endpoint: Endpoint
  private let identifier: UInt64
  private var rings: BlockClientRings
  private let ringMemory: MemoryObject
  private let ringMapping: Mapping
  private let dataMemory: MemoryObject
  private let dataMapping: Mapping
  /// The way into a driver that this thread can enter itself to have submissions taken.
  private let door: Connection?
  /// The device's completion memory, where the driver shows it.
  private let shownMapping: Mapping?
  /// How long to look at the device before having the driver wait for it, in ticks.
  private let pollTicks: UInt64
  /// The same, shortened while looking has been in vain.
  private var pollNow: UInt64 = 0
  /// Waits that were over soon.
  private var quickWaits = 0
  public let geometry: BlockGeometry
  public let mode: BlockMode
  /// Calls of the service so far.
  public private(set) var calls: UInt64 = 0
  /// Ticks that went into looking at the device for results that were not there yet.
  public private(set) var lookingTicks: UInt64 = 0

  /// Data memory of `regionSize` bytes; requests name it by offset.
  public var region: UnsafeMutableRawPointer { dataMapping.base }

  /// In pauses of the processor, some 100 cycles each.
  private static let longestRest = 16

  private static func call(_ endpoint: Endpoint, _ message: inout Message) throws(BlockClientError) {
    do throws(SystemError) { try endpoint.call(&message) } catch { throw .kernel(error) }
    if message[0] != 0 { throw .refused(BlockReply(rawValue: message[0]) ?? .badCall) }
  }

  /// What the service behind `endpoint` offers.
  public static func describe(_ endpoint: Endpoint) throws(BlockClientError) -> (BlockGeometry, BlockMode) {
    var message = Message(BlockCall.describe.rawValue)
    try call(endpoint, &message)
    var geometry = BlockGeometry(
      sectors: message[1], blockSize: UInt32(truncatingIfNeeded: message[2]), maximumTransfer: message[3])
    geometry.flags = message[4]
    return (geometry, BlockMode(rawValue: message[5]) ?? .memory)
  }

  /// Opens a session with rings of `entries` entries (a power of two) and `regionSize` bytes of data memory.
  /// `watchesDevice`: look at the device's used ring, where the driver shows it. That suits a thread that does all of its
  /// process's I/O; one of many had better sleep until its request is done, so that the others' come to the device.
  public init(
    _ endpoint: Endpoint, entries: Int, regionSize: UInt64, watchesDevice: Bool = true
  ) throws(BlockClientError) {
    _ = try Self.describe(endpoint)
    let before = Clock.now
    let described = try Self.describe(endpoint)
    let callTicks = min(Clock.now - before, Clock.ticks(microseconds: 1000))
    guard let layout = BlockRingLayout(entries: entries) else { throw .refused(.badMemory) }
    let ringMemory: MemoryObject
    let ringMapping: Mapping
    let dataMemory: MemoryObject
    let dataMapping: Mapping
    // A session that does not come about leaves nothing behind, neither here nor in the driver.
    var attached: UInt64?
    var made: [MemoryObject] = []
    var mapped: [Mapping] = []
    defer {
      if let attached { Self.detach(endpoint, attached) }
      for mapping in mapped { mapping.unmap() }
      for memory in made { memory.handle.close() }
    }
    do throws(SystemError) {
      ringMemory = try MemoryObject.create(UInt64(layout.byteCount))
      made.append(ringMemory)
      ringMapping = try ringMemory.map([.read, .write])
      mapped.append(ringMapping)
      dataMemory = try MemoryObject.create(regionSize)
      made.append(dataMemory)
      dataMapping = try dataMemory.map([.read, .write])
      mapped.append(dataMapping)
    } catch { throw .kernel(error) }
    let memory = RingMemory(unsafeBase: ringMapping.base, byteCount: ringMapping.size, physical: 0)
    guard let rings = BlockClientRings(memory: memory, layout: layout) else { throw .refused(.badMemory) }
    var message = Message(BlockCall.attach.rawValue, UInt64(entries))
    message.pass(ringMemory.handle, [.read, .write])
    try Self.call(endpoint, &message)
    let session = message[1]
    attached = session
    message = Message(BlockCall.region.rawValue, session)
    message.pass(dataMemory.handle, [.read, .write, .physical])
    try Self.call(endpoint, &message)
    if let process = Program.ownProcess {
      message = Message(BlockCall.owner.rawValue, session)
      message.pass(process, [.observe])
      try Self.call(endpoint, &message)
    }
    var ends = rings
    message = Message(BlockCall.completions.rawValue)
    var shown: Mapping?
    do throws(BlockClientError) {
      if watchesDevice {
        try Self.call(endpoint, &message)
        shown = Self.watch(message, &ends)
        if let shown { mapped.append(shown) }
      }
    } catch {
      // A driver that does not show its device: completions come by the completion ring alone.
      if case .kernel = error { throw error }
    }
    message = Message(BlockCall.door.rawValue, session)
    do throws(BlockClientError) { try Self.call(endpoint, &message) } catch {
      if case .kernel = error { throw error }
    }
    door = message.received.map { Connection($0) }
    attached = nil
    made = []
    mapped = []
    shownMapping = shown
    self.endpoint = endpoint
    self.rings = ends
    self.ringMemory = ringMemory
    self.ringMapping = ringMapping
    self.dataMemory = dataMemory
    self.dataMapping = dataMapping
    identifier = session
    geometry = described.0
    mode = described.1
    // Having the driver wait costs a message there and back, an interrupt and the switches for it, some one and a half calls. Looking is
    // worth a little more than that, because it is cut to half whenever it was in vain. Whoever chose to poll looks for as long as a slow
    // disk takes for a whole ring.
    pollTicks =
      mode == .twinPoll || mode == .twinPollUnsplit ? Clock.ticks(microseconds: 20_000) : callTicks * 4
    pollNow = pollTicks
  }

  /// Maps the completion memory that came with `message` and has the rings look at it.
  private static func watch(_ message: Message, _ rings: inout BlockClientRings) -> Mapping? {
    guard let handle = message.received else { return nil }
    do throws(SystemError) {
      let mapping = try MemoryObject(handle).map(.read)
      handle.close()
      let memory = RingMemory(unsafeBase: mapping.base, byteCount: mapping.size, physical: 0)
      guard let view = DeviceView(memory: memory, queueSize: Int(min(message[1], 4096))) else {
        mapping.unmap()
        return nil
      }
      rings.use(view)
      return mapping
    } catch { return nil }
  }

  public var inFlight: Int { rings.inFlight }
  public var hasRoom: Bool { rings.hasRoom }
  public func counter(_ counter: BlockCounter) -> UInt64 { rings.counter(counter) }

  /// Puts a request into the ring; the driver takes it at the next `enter`.
  public func submit(_ request: BlockRequest) throws(BlockClientError) {
    do throws(BlockInterfaceError) { try rings.submit(request) } catch { throw .interface(error) }
  }

  /// The next result that is there, without a call.
  public func nextResult() throws(BlockClientError) -> BlockResult? {
    do throws(BlockInterfaceError) { return try rings.nextResult() } catch { throw .interface(error) }
  }

  /// Has the driver take all that was submitted, and waits until `least` new results are there or nothing is in flight.
  public func enter(waitFor least: Int) throws(BlockClientError) {
    calls += 1
    if least == 0, let door {
      let status: UInt64
      do throws(SystemError) { status = try door.call(0).0 } catch { throw .kernel(error) }
      if status == 0 { return }
      let reply = BlockReply(rawValue: status) ?? .badCall
      if reply != .busy { throw .refused(reply) }
    }
    // Results taken early come once more by the completion ring and do not count.
    let wanted = least > 0 ? least + rings.earlyCount : 0
    var message = Message(BlockCall.enter.rawValue, identifier, UInt64(wanted))
    try Self.call(endpoint, &message)
  }

  /// Gets the submissions to the driver and comes back when `nextResult` may have something; `least` is how many results
  /// are worth waiting for where the driver has to be waited for. Where the driver shows its device, it is only called
  /// to take submissions, and waited for only if the device has nothing yet.
  public func advance(waitFor least: Int) throws(BlockClientError) {
    guard rings.seesDevice else {
      try enter(waitFor: least)
      return
    }
    if rings.hasUntaken {
      // Nothing but these to wait for, and looking has been in vain lately: one call does both. Now and then try again.
      if least > 0, least >= rings.inFlight, pollNow < pollTicks / 4, calls % 16 != 0 {
        try enter(waitFor: least)
        return
      }
      try enter(waitFor: 0)
      if rings.mayHaveResults { pollNow = pollTicks }
      if least == 0 || rings.mayHaveResults || rings.inFlight == 0 { return }
    } else if least == 0 || rings.mayHaveResults {
      return
    }
    if pollTicks > 0 {
      let begin = Clock.now
      let deadline = begin + max(pollNow, pollTicks / 16)
      defer { lookingTicks &+= Clock.now - begin }
      // The longer it takes, the longer the rests between two looks, up to a small part of what a disk takes: fewer instructions, and more of
      // the core for the thread beside this one.
      var rest = 1
      repeat {
        for _ in 0..<32 {
          if rings.mayHaveResults {
            pollNow = pollTicks
            return
          }
          for _ in 0..<rest { Clock.pause() }
          if rest < Self.longestRest { rest *= 2 }
        }
      } while Clock.now < deadline
      // In vain: perhaps the host needs this processor to make progress.
      pollNow /= 2
    }
    let before = Clock.now
    try enter(waitFor: least)
    // Where waiting took hardly longer than it has to, the device was soon done, and looking may do again; if not, the processor is lost
    // to looking one time in four.
    if Clock.now - before < pollTicks * 2 {
      quickWaits &+= 1
      if quickWaits % 4 == 0 { pollNow = pollTicks }
    }
  }

  /// One request, start to end.
  public func perform(
    _ operation: BlockOperation, sector: UInt64, offset: UInt64 = 0, length: UInt32
  ) throws(BlockClientError) -> BlockStatus {
    try submit(BlockRequest(operation: operation, sector: sector, offset: offset, length: length, tag: 0))
    while true {
      if let result = try nextResult() { return result.status }
      try advance(waitFor: 1)
    }
  }

  private static func detach(_ endpoint: Endpoint, _ session: UInt64) {
    var message = Message(BlockCall.detach.rawValue, session)
    do throws(BlockClientError) { try call(endpoint, &message) } catch {}
  }

  /// Ends the session and gives the memory back.
  public func close() {
    Self.detach(endpoint, identifier)
    door?.handle.close()
    shownMapping?.unmap()
    ringMapping.unmap()
    dataMapping.unmap()
    ringMemory.handle.close()
    dataMemory.handle.close()
  }
}
