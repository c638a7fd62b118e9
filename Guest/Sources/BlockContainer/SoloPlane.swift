// The data plane inside the container, for comparison with the twin: what a driver does that has the device to itself and
// no knowledge of its clients' memory.
//
// Compared with the twin it has, as a driver reused from elsewhere in a container has:
//   - memory for DMA of its own, so every request's data is copied once in this process;
//   - one interrupt line for completions and configuration, so every interrupt reads and acknowledges InterruptStatus;
//   - an interrupt thread: a reused driver's interrupt handler may come while a request is half-way through the driver, so
//     it cannot run on the thread that serves the clients; it empties the ring and wakes that thread;
//   - the standard completion cycle: an interrupt for the next completion, not for the one the client waits for;
//   - requests dispatched one at a time, each followed by the question whether the device wants to be notified.
// It has the same rings, indirect descriptors and EVENT_IDX, and the same block interface towards the clients.

import BlockInterface
import BlockServer
import DriverContract
import DriverVirtqueue
import Pollux
import Synchronization

/// Keeps the interrupt thread and the serving thread apart.
private struct DriverLock: ~Copyable {
  private let isTaken = Atomic<Bool>(false)

  /// Runs `body` alone. The other thread holds the lock for microseconds, unless it was preempted.
  borrowing func hold<Value>(_ body: () -> Value) -> Value {
    var tries = 0
    while isTaken.exchange(true, ordering: .acquiring) {
      tries += 1
      if tries % 100 == 0 { Clock.sleep(microseconds: 50) } else { Clock.pause() }
    }
    defer { isTaken.store(false, ordering: .releasing) }
    return body()
  }
}

final class SoloPlane: BlockPlane {
  static let remark: StaticString = "solo: control and data plane in one process"
  private let device: ControlledDevice
  private var queue: BlockQueue
  private var news = PlaneState.working

  /// Memory for DMA: pages, handed out first fit.
  private let pool: RingMemory
  private var pageInUse: [Bool]
  private var nextPage = 0
  private static let poolPages = 1024
  private static let largestTransfer: UInt64 = 1 << 20

  /// What is in flight, by token.
  private struct Bounce {
    var page = 0
    var pages = 0
    var length = 0
    /// Where the data of a read goes.
    var destination: UnsafeMutableRawPointer?
  }
  private var bounces: [Bounce] = []

  private(set) var doorbells: UInt64 = 0
  private(set) var interrupts: UInt64 = 0
  private(set) var resets: UInt64 = 0

  private let lock = DriverLock()
  /// Taken from the ring by the interrupt thread, not yet by the serving thread. Under the lock, like queue and bounces.
  private var finished: [PlaneCompletion] = []
  private(set) var isSuspended = false
  /// Bits of `ContainerEvent` that the serving thread has to follow. Under the lock.
  private var wishes: UInt64 = 0
  /// A configuration interrupt came.
  private var isConfigurationDue = false
  /// Wakes the serving thread.
  private let wake: Notification

  /// Starts the interrupt thread on `line`; it wakes the serving thread through `wake`.
  init(_ device: ControlledDevice, line: Notification, wake: Notification) throws(SystemError) {
    self.wake = wake
    let memory = try MemoryObject.create(UInt64(Self.poolPages) * AddressSpace.pageSize)
    let mapping = try memory.map([.read, .write])
    guard let queue = Self.queue(device) else { throw .badArgument }
    self.device = device
    self.queue = queue
    pool = RingMemory(unsafeBase: mapping.base, byteCount: mapping.size, physical: try memory.physicalAddress())
    pageInUse = [Bool](repeating: false, count: Self.poolPages)
    let plane = self
    try Thread.start(priority: 13) { plane.serveInterrupts(line) }
  }

  private func serveInterrupts(_ line: Notification) {
    while true {
      let bits = line.wait()
      if bits & ~ContainerEvent.device != 0 {
        lock.hold { wishes |= bits }
        wake.signal(1)
      }
      guard bits & ContainerEvent.device != 0 else { continue }
      let reasons = device.takeInterrupt()
      lock.hold {
        interrupts += 1
        if reasons & 2 != 0 { isConfigurationDue = true }
        // The standard cycle: empty the ring, ask for the next interrupt, look again.
        repeat {
          while let completion = takeUsed() { finished.append(completion) }
        } while !device.state.isLost && !isSuspended && queue.inFlight > 0 && queue.armInterrupt(after: 1)
      }
      wake.signal(1)
    }
  }

  private static func queue(_ device: ControlledDevice) -> BlockQueue? {
    let state = device.state
    guard let ring = device.queueRing, let completions = device.completionRing,
      let layout = BlockQueueLayout(size: state.queueSize, dataSegments: state.dataSegments)
    else { return nil }
    return BlockQueue(
      memory: ring, completions: completions, layout: layout, features: state.features,
      segmentLimit: state.segmentLimit)
  }

  var geometry: BlockGeometry {
    var geometry = device.state.geometry
    geometry.maximumTransfer = min(geometry.maximumTransfer, Self.largestTransfer)
    return geometry
  }
  var mode: BlockMode { .solo }
  var mapsRegions: Bool { true }
  var pollTicks: UInt64 { 0 }
  var inFlight: Int { queue.inFlight }

  // MARK: Requests

  /// A run of free pages, from where the last search ended.
  private func takePages(_ count: Int) -> Int? {
    var candidate = nextPage
    var run = 0
    var looked = 0
    while looked < Self.poolPages + count {
      if candidate + run >= Self.poolPages {
        candidate = 0
        run = 0
      }
      if pageInUse[candidate + run] {
        candidate += run + 1
        run = 0
        if candidate >= Self.poolPages { candidate = 0 }
      } else {
        run += 1
        if run >= count {
          for page in candidate..<candidate + count { pageInUse[page] = true }
          nextPage = (candidate + count) % Self.poolPages
          return candidate
        }
      }
      looked += 1
    }
    return nil
  }

  private func release(_ token: Int) {
    let bounce = bounces[token]
    for page in bounce.page..<bounce.page + bounce.pages { pageInUse[page] = false }
    bounces[token] = Bounce()
  }

  func submit(_ request: BlockRequest, region: BlockRegion, token: Int) -> PlaneSubmission {
    lock.hold { dispatch(request, region: region, token: token) }
  }

  private func dispatch(_ request: BlockRequest, region: BlockRegion, token: Int) -> PlaneSubmission {
    if isSuspended { return .full }
    guard !device.state.isLost else { return .finished(.deviceLost) }
    guard queue.hasRoom else { return .full }
    while bounces.count <= token { bounces.append(Bounce()) }
    let type: BlockRequestType
    var bounce = Bounce()
    var address: UInt64 = 0
    switch request.operation {
    case .read: type = .read
    case .write: type = .write
    case .flush: type = .flush
    case .discard: type = .discard
    case .writeZeroes: type = .writeZeroes
    }
    if request.operation == .read || request.operation == .write {
      let length = Int(request.length)
      let pages = (length + Int(AddressSpace.pageSize) - 1) / Int(AddressSpace.pageSize)
      guard let base = region.base else { return .finished(.invalid) }
      guard let page = takePages(pages) else { return inFlight > 0 ? .full : .finished(.invalid) }
      let buffer = pool.part(page * Int(AddressSpace.pageSize), length)
      // The server has checked that the request's data lies in the region.
      let data = base + Int(request.offset)
      if request.operation == .write { buffer.unsafeBase.copyMemory(from: data, byteCount: length) }
      bounce = Bounce(page: page, pages: pages, length: length, destination: request.operation == .read ? data : nil)
      address = buffer.physical
    }
    bounces[token] = bounce
    do throws(SubmitError) {
      try queue.submit(type, sector: request.sector, address: address, length: request.length, tag: UInt64(token))
    } catch {
      release(token)
      return error == .full ? .full : .finished(.invalid)
    }
    notify()
    return .accepted
  }

  /// Every request has been followed by its notification already.
  func kick() {}

  private func notify() {
    guard queue.needsNotification() else { return }
    doorbells += 1
    device.notifyQueue()
  }

  var hasCompletions: Bool { lock.hold { !finished.isEmpty } }

  func nextCompletion() -> PlaneCompletion? {
    lock.hold { finished.isEmpty ? nil : finished.removeFirst() }
  }

  /// The next completion of the ring; the data of a read goes to the client. Under the lock.
  private func takeUsed() -> PlaneCompletion? {
    do throws(QueueError) {
      guard let completion = try queue.nextCompletion() else { return nil }
      let token = Int(completion.tag)
      let bounce = bounces[token]
      if let destination = bounce.destination, completion.status == 0 {
        // The pages belong to this request until `release`.
        destination.copyMemory(
          from: pool.part(bounce.page * Int(AddressSpace.pageSize), bounce.length).unsafeBase, byteCount: bounce.length)
      }
      release(token)
      let status: BlockStatus =
        completion.status == 0 ? .success : completion.status == 2 ? .unsupported : .inputOutputError
      return PlaneCompletion(token: token, status: status)
    } catch {
      ContainerProgram.complain("the device wrote nonsense into the ring; resetting it")
      _ = device.bringUp()
      restart()
      return nil
    }
  }

  /// The interrupt thread keeps the interrupt armed; `finished` is what there is to look at.
  func armInterrupt(after count: Int) -> Bool {
    lock.hold {
      if !finished.isEmpty { return true }
      if !device.state.isLost, queue.armInterrupt(after: 1) {
        // Already there: the interrupt may not come any more.
        while let completion = takeUsed() { finished.append(completion) }
      }
      return !finished.isEmpty
    }
  }
  func disarmInterrupt() {}

  func handle(events: UInt64) {
    lock.hold {
      let wishes = wishes
      self.wishes = 0
      if wishes & ContainerEvent.suspend != 0, !isSuspended {
        isSuspended = true
        device.suspend()
        Program.remark(Bytes("suspended"))
      }
      if wishes & ContainerEvent.resume != 0, isSuspended {
        isSuspended = false
        Program.remark(Bytes(Self.remark))
        _ = device.bringUp()
        restart()
      }
      guard !isSuspended else { return }
      guard isConfigurationDue else { return }
      isConfigurationDue = false
      let generation = device.state.generation
      _ = device.configurationChanged()
      if device.state.isLost || device.state.generation != generation { restart() }
    }
  }

  func reset() {
    lock.hold {
      guard !isSuspended else { return }
      _ = device.bringUp()
      restart()
    }
  }

  private func restart() {
    for token in bounces.indices { release(token) }
    // What was finished but not taken is in the server's table still, so it is submitted again like the rest.
    finished.removeAll()
    resets += 1
    guard !device.state.isLost, let fresh = Self.queue(device) else {
      news = .lost
      return
    }
    queue = fresh
    news = .restarted
  }

  func takeState() -> PlaneState {
    let taken = news
    if case .restarted = taken { news = .working }
    return taken
  }

  /// Clients cannot watch the device: their data still has to be copied when it is done.
  var completionMemory: (memory: MemoryObject, queueSize: Int)? { nil }
}
