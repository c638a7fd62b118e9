// The twin's data plane: a virtio block queue, driven without copies and without the device's registers.

import BlockInterface
import BlockServer
import DriverContract
import DriverControl
import DriverVirtqueue
import Pollux

final class TwinPlane: BlockPlane {
  private let control: Endpoint
  private let access: DoorbellAccess
  private var queue: BlockQueue
  private var state: DeviceState
  private var news = PlaneState.working
  /// Taken out of rings that were about to be set up anew.
  private var kept: [PlaneCompletion] = []
  private var hideFromClients: (() -> Void)?
  private let queueMemory: RingMemory
  /// Request headers and indirect tables: memory of this process.
  private let work: RingMemory
  private let completions: RingMemory
  private let completionObject: MemoryObject
  /// The device's message interrupt, held so that it works while the container is away.
  private var message: Handle?

  /// Containers offer no more data segments a request than this.
  private static let mostSegments = 32

  let pollTicks: UInt64
  private let polls: Bool
  private(set) var doorbells: UInt64 = 0
  private(set) var interrupts: UInt64 = 0
  private(set) var resets: UInt64 = 0

  /// Takes the queue over from the container that `control` calls.
  init(control: Endpoint, access: DoorbellAccess, polls: Bool) throws(SystemError) {
    var message = Message(ControlCall.attach.rawValue)
    try control.call(&message)
    let state = DeviceState { message[$0] }
    guard !state.isLost, let memory = message.received else { throw .notFound }
    message = Message(ControlCall.completions.rawValue)
    try control.call(&message)
    guard let completionHandle = message.received else { throw .notFound }
    let completionMapping = try MemoryObject(completionHandle).map([.read, .write])
    let completions = RingMemory(
      unsafeBase: completionMapping.base, byteCount: completionMapping.size, physical: state.completionAddress)
    let mapping = try MemoryObject(memory).map([.read, .write])
    let ring = RingMemory(unsafeBase: mapping.base, byteCount: mapping.size, physical: state.queueAddress)
    // For the usual queue at least, so that a device that comes back with another size finds room.
    guard let largest = BlockQueueLayout(size: max(state.queueSize, 256), dataSegments: Self.mostSegments) else {
      throw .badArgument
    }
    let workObject = try MemoryObject.create(UInt64(largest.workByteCount))
    let workMapping = try workObject.map([.read, .write])
    let work = RingMemory(
      unsafeBase: workMapping.base, byteCount: workMapping.size, physical: try workObject.physicalAddress())
    guard let layout = BlockQueueLayout(size: state.queueSize, dataSegments: state.dataSegments),
      let queue = BlockQueue(
        memory: ring, completions: completions, work: work, layout: layout, features: state.features,
        segmentLimit: state.segmentLimit)
    else { throw .badArgument }
    self.work = work
    self.control = control
    self.access = access
    self.state = state
    self.queue = queue
    queueMemory = ring
    self.completions = completions
    completionObject = MemoryObject(completionHandle)
    self.polls = polls
    // Longer than a disk takes for a request; then the processor is better used by others.
    pollTicks = polls ? Clock.ticks(microseconds: 5000) : 0
    takeInterrupt()
  }

  private func takeInterrupt() {
    var call = Message(ControlCall.interrupt.rawValue)
    do throws(SystemError) { try control.call(&call) } catch { return }
    message = call.received
  }

  var geometry: BlockGeometry { state.geometry }
  var mode: BlockMode {
    polls ? (access.isSplit ? .twinPoll : .twinPollUnsplit) : (access.isSplit ? .twin : .twinUnsplit)
  }
  var mapsRegions: Bool { false }
  var inFlight: Int { queue.inFlight }

  func submit(_ request: BlockRequest, region: BlockRegion, token: Int) -> PlaneSubmission {
    guard !state.isLost else { return .finished(.deviceLost) }
    let type: BlockRequestType
    switch request.operation {
    case .read: type = .read
    case .write: type = .write
    case .flush: type = .flush
    case .discard: type = .discard
    case .writeZeroes: type = .writeZeroes
    }
    do throws(SubmitError) {
      let usedIndex = queue.takenIndex
      let slot = try queue.submit(
        type, sector: request.sector, address: region.physical + request.offset, length: request.length,
        tag: UInt64(token))
      return .acceptedInSlot(slot, usedIndex: usedIndex)
    } catch { return error == .full ? .full : .finished(.invalid) }
  }

  func kick() {
    guard queue.needsNotification() else { return }
    doorbells += 1
    access.ring()
  }

  var hasCompletions: Bool { !kept.isEmpty || queue.hasUsed }

  func beforeReset(_ hide: @escaping () -> Void) { hideFromClients = hide }

  private func take() throws(QueueError) -> PlaneCompletion? {
    guard let completion = try queue.nextCompletion() else { return nil }
    let status: BlockStatus =
      completion.status == 0 ? .success : completion.status == 2 ? .unsupported : .inputOutputError
    return PlaneCompletion(token: Int(completion.tag), status: status)
  }

  /// Keeps what the rings hold, which the container's reply may find empty. Clients are made blind first: whatever one of them has taken
  /// by then is among it, and what the device completes afterwards nobody takes for done.
  private func keepCompletions() {
    hideFromClients?()
    RingMemory.fullFence()
    do throws(QueueError) {
      while let completion = try take() { kept.append(completion) }
    } catch {}
  }

  func nextCompletion() -> PlaneCompletion? {
    if !kept.isEmpty { return kept.removeFirst() }
    guard !state.isLost else { return nil }
    do throws(QueueError) { return try take() } catch {
      let line = Text("block-twin: the device wrote nonsense into the ring; having it reset\n")
      line.print()
      line.log()
      synchronise(.failed)
      return nil
    }
  }

  func armInterrupt(after count: Int) -> Bool { queue.armInterrupt(after: count) }
  func disarmInterrupt() { queue.disarmInterrupt() }

  func handle(events: UInt64) {
    if events & TwinEvent.device != 0 {
      interrupts += 1
      access.acknowledge()
    }
    if events & TwinEvent.control != 0 { synchronise(.synchronise) }
  }

  func reset() { synchronise(.failed) }

  /// Fetches the state from the container; a new generation means that the rings are empty and all is to be sent again.
  private func synchronise(_ call: ControlCall) {
    // The end of an interrupt masks its entry of the device's table, and the container may be about to fill that anew.
    message?.close()
    message = nil
    keepCompletions()
    var request = Message(call.rawValue, state.generation)
    do throws(SystemError) { try control.call(&request) } catch {
      // The container is gone: the data plane goes on as long as the device does.
      if call == .failed { lose() }
      return
    }
    takeInterrupt()
    let next = DeviceState { request[$0] }
    if next.isLost {
      lose()
      return
    }
    let isNew = next.generation != state.generation
    state = next
    guard isNew else { return }
    resets += 1
    guard next.queueAddress == queueMemory.physical, next.completionAddress == completions.physical,
      let layout = BlockQueueLayout(size: next.queueSize, dataSegments: next.dataSegments),
      let fresh = BlockQueue(
        memory: queueMemory, completions: completions, work: work, layout: layout, features: next.features,
        segmentLimit: next.segmentLimit)
    else {
      lose()
      return
    }
    queue = fresh
    news = .restarted
  }

  private func lose() {
    state.isLost = true
    news = .lost
  }

  func takeState() -> PlaneState {
    let taken = news
    if case .restarted = taken { news = .working }
    return taken
  }

  var completionMemory: (memory: MemoryObject, queueSize: Int)? { (completionObject, state.queueSize) }
}
