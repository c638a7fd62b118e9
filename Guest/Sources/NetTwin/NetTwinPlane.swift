// The twin's data plane: receive and transmit queue of a virtio network device (virtio 1.2 §5.1.6), driven without copies and without the
// device's registers. A client's buffer is one descriptor, header included.

import DriverContract
import DriverControl
import DriverVirtqueue
import NetInterface
import NetServer
import Pollux

final class NetTwinPlane: NetPlane {
  private let control: Endpoint
  private let access: DoorbellAccess
  private var state: NetState
  private var news = NetPlaneState.working
  private var receive: Side
  private var transmit: Side
  private let polls: Bool

  let pollTicks: UInt64
  private(set) var doorbells: UInt64 = 0
  private(set) var interrupts: UInt64 = 0
  private(set) var resets: UInt64 = 0
  /// The device drops without telling (§5.1.6.3).
  var withoutBuffer: UInt64 { 0 }

  /// VIRTIO_RING_F_EVENT_IDX.
  private static let eventIndex: UInt64 = 1 << 29

  /// One queue, with what the container handed over for it.
  private struct Side: ~Copyable {
    let number: Int
    var queue: SplitQueue
    let memory: RingMemory
    let completions: RingMemory
    /// The server's token of each slot.
    var tokens: [Int]
    /// The queue's message interrupt, held so that it works while the container is away.
    var message: Handle?

    init(_ number: Int, _ state: NetState, _ memory: RingMemory, _ completions: RingMemory) throws(SystemError) {
      guard let queue = Side.queue(number, state, memory, completions) else { throw .badArgument }
      self.number = number
      tokens = [Int](repeating: 0, count: queue.slotCount)
      self.queue = queue
      self.memory = memory
      self.completions = completions
      message = nil
    }

    static func queue(
      _ number: Int, _ state: NetState, _ memory: RingMemory, _ completions: RingMemory
    ) -> SplitQueue? {
      guard let layout = QueueLayout(size: state.queues[number].size, tableEntries: 1) else { return nil }
      // Without indirect tables every slot is one descriptor; the tables' memory is not used.
      return SplitQueue(
        memory: memory, usedMemory: completions,
        tableMemory: RingMemory(
          unsafeBase: memory.unsafeBase, byteCount: layout.tablesByteCount, physical: memory.physical),
        layout: layout, indirect: false, eventIndex: state.features & NetTwinPlane.eventIndex != 0)
    }
  }

  /// Takes the queues over from the container that `control` calls.
  init(control: Endpoint, access: DoorbellAccess, polls: Bool) throws(SystemError) {
    var state = NetState()
    let receive = try Self.takeOver(control, NetQueue.receive, &state)
    let transmit = try Self.takeOver(control, NetQueue.transmit, &state)
    self.control = control
    self.access = access
    self.polls = polls
    self.state = state
    self.receive = receive
    self.transmit = transmit
    // Longer than a peer on the same host takes to answer; then the processor is better used by others.
    pollTicks = polls ? Clock.ticks(microseconds: 5000) : 0
    takeInterrupts()
  }

  private static func takeOver(_ control: Endpoint, _ queue: Int, _ state: inout NetState) throws(SystemError) -> Side {
    var message = Message(ControlCall.attach.rawValue, 0, UInt64(queue))
    try control.call(&message)
    let before = state
    state = NetState(queue: queue) { message[$0] }
    // A reply tells the addresses of one queue.
    for other in before.queues.indices where other != queue { state.queues[other] = before.queues[other] }
    guard !state.isLost, let memory = message.received else { throw .notFound }
    message = Message(ControlCall.completions.rawValue, 0, UInt64(queue))
    try control.call(&message)
    guard let completions = message.received else { throw .notFound }
    let mapping = try MemoryObject(memory).map([.read, .write])
    let completionMapping = try MemoryObject(completions).map([.read, .write])
    return try Side(
      queue, state,
      RingMemory(unsafeBase: mapping.base, byteCount: mapping.size, physical: state.queues[queue].address),
      RingMemory(
        unsafeBase: completionMapping.base, byteCount: completionMapping.size,
        physical: state.queues[queue].completionAddress))
  }

  private func interrupt(_ queue: Int) -> Handle? {
    var call = Message(ControlCall.interrupt.rawValue, 0, UInt64(queue))
    do throws(SystemError) { try control.call(&call) } catch { return nil }
    return call.received
  }

  private func takeInterrupts() {
    receive.message = interrupt(NetQueue.receive)
    transmit.message = interrupt(NetQueue.transmit)
  }

  var link: NetLink { state.link }
  var mode: NetMode {
    polls ? (access.isSplit ? .twinPoll : .twinPollUnsplit) : (access.isSplit ? .twin : .twinUnsplit)
  }
  var mapsRegion: Bool { false }

  // MARK: Packets

  func transmit(_ buffer: PacketBuffer, token: Int) -> Bool {
    Self.put(&transmit, buffer, token, deviceWrites: false)
  }
  func post(_ buffer: PacketBuffer, token: Int) -> Bool { Self.put(&receive, buffer, token, deviceWrites: true) }

  private static func put(_ side: inout Side, _ buffer: PacketBuffer, _ token: Int, deviceWrites: Bool) -> Bool {
    guard let slot = side.queue.nextSlot else { return false }
    side.tokens[slot] = token
    do throws(SubmitError) {
      _ = try side.queue.publish(count: 1) { _ in
        QueueSegment(address: buffer.physical, length: buffer.length, deviceWrites: deviceWrites)
      }
      return true
    } catch { return false }
  }

  func kick() {
    if receive.queue.needsNotification() { ring(NetQueue.receive) }
    if transmit.queue.needsNotification() { ring(NetQueue.transmit) }
  }

  private func ring(_ queue: Int) {
    doorbells += 1
    access.ring(queue)
  }

  func nextSent() -> Int? {
    do throws(QueueError) {
      guard !state.isLost, let used = try transmit.queue.nextUsed() else { return nil }
      return transmit.tokens[used.slot]
    } catch {
      failed(NetQueue.transmit, error)
      return nil
    }
  }

  func nextReceived() -> (token: Int, length: UInt32)? {
    do throws(QueueError) {
      guard !state.isLost, let used = try receive.queue.nextUsed() else { return nil }
      return (receive.tokens[used.slot], used.written)
    } catch {
      failed(NetQueue.receive, error)
      return nil
    }
  }

  private func failed(_ queue: Int, _ error: QueueError) {
    var line = Text("net-twin: the device wrote nonsense into the ring of queue ")
    line.add(queue)
    switch error {
    case .usedIndexOutOfRange(let used, let inFlight):
      line.add(": used index ")
      line.add(Int(used))
      line.add(" with ")
      line.add(inFlight)
      line.add(" in flight")
    case .unknownChain(let id):
      line.add(": unknown chain ")
      line.add(Int(id))
    case .lengthTooLong(let id, let length):
      line.add(": too many bytes in chain ")
      line.add(Int(id))
      line.add(": ")
      line.add(Int(length))
    }
    line.add("; having it reset\n")
    line.print()
    line.log()
    synchronise(.failed)
  }

  var hasCompletions: Bool { !state.isLost && (receive.queue.hasUsed || transmit.queue.hasUsed) }

  func armInterrupts(received: Int, sent: Int) -> Bool {
    var isThere = false
    if received > 0 {
      isThere = receive.queue.armInterrupt(after: received)
    } else {
      receive.queue.disarmInterrupt()
    }
    if sent > 0 {
      isThere = transmit.queue.armInterrupt(after: sent) || isThere
    } else {
      transmit.queue.disarmInterrupt()
    }
    return isThere
  }

  func disarmInterrupts() {
    receive.queue.disarmInterrupt()
    transmit.queue.disarmInterrupt()
  }

  // MARK: The container

  func handle(events: UInt64) {
    if events & (TwinEvent.device | TwinEvent.secondQueue) != 0 {
      interrupts += 1
      access.acknowledge()
    }
    if events & TwinEvent.control != 0 { synchronise(.synchronise) }
  }

  /// Fetches the state from the container; a new generation means that the rings are empty and all is to be given again.
  private func synchronise(_ call: ControlCall) {
    // The end of an interrupt masks its entry of the device's table, and the container may be about to fill that anew.
    receive.message?.close()
    transmit.message?.close()
    receive.message = nil
    transmit.message = nil
    var request = Message(call.rawValue, state.generation)
    do throws(SystemError) { try control.call(&request) } catch {
      // The container is gone: the data plane goes on as long as the device does.
      if call == .failed { lose() }
      return
    }
    takeInterrupts()
    take(NetState(queue: NetQueue.receive) { request[$0] })
  }

  private func take(_ next: NetState) {
    if next.isLost {
      lose()
      return
    }
    let isNew = next.generation != state.generation
    let places = state.queues
    state = next
    // The reply tells the addresses of one queue; they stay where they were.
    for index in places.indices {
      state.queues[index].address = places[index].address
      state.queues[index].completionAddress = places[index].completionAddress
    }
    guard isNew else { return }
    resets += 1
    guard next.queues[NetQueue.receive].address == places[NetQueue.receive].address, Self.renew(&receive, state),
      Self.renew(&transmit, state)
    else {
      lose()
      return
    }
    news = .restarted
  }

  private static func renew(_ side: inout Side, _ state: NetState) -> Bool {
    guard let fresh = Side.queue(side.number, state, side.memory, side.completions) else { return false }
    side.queue = fresh
    side.tokens = [Int](repeating: 0, count: side.queue.slotCount)
    return true
  }

  private func lose() {
    state.isLost = true
    news = .lost
  }

  func reset() { synchronise(.failed) }

  func takeState() -> NetPlaneState {
    let taken = news
    if case .restarted = taken { news = .working }
    return taken
  }

  /// Only a reset takes buffers back from the device.
  func recall() {
    guard receive.queue.inFlight > 0 || transmit.queue.inFlight > 0 else { return }
    synchronise(.failed)
    if case .restarted = news { news = .working }
  }

  func setAddress(_ address: UInt64) -> Bool {
    var request = Message(ControlCall.perform.rawValue, NetCommand.setAddress, address)
    do throws(SystemError) { try control.call(&request) } catch { return false }
    let isDone = request[0] == ControlReply.working
    let next = NetState(queue: NetQueue.receive) { request[$0] }
    if isDone { take(next) }
    return isDone
  }
}
