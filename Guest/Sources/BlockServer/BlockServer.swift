// The loop of a block service: takes requests from the clients' rings, keeps the plane full, answers waiting clients.
//
// What keeps the device busy while processes are switched (a switch costs some hundred microseconds where ring 0 is
// emulated): one `enter` submits any number of requests and comes back when as many results wait as the client wants,
// typically half of what it has in flight; the device works on the other half during the switches. Completions are put
// into the client's ring as they are found, so that a client takes all of them with one call.
//
// Submissions that nothing has to wait for also come through the *door*, which planes have that need no thread of their own: the client's
// thread migrates in (HongMeng §4.1), gives its own submissions to the device, and goes. Nobody waits in the door. A lock keeps it and
// the server's thread apart; a client that finds the server at work sends a message instead, which is then as quick.

import BlockInterface
import CPollux
import DriverVirtqueue
import Pollux
import Synchronization

/// One client's rings.
private final class Session {
  let identifier: UInt64
  let badge: UInt64
  var rings: BlockDriverRings
  let mapping: Mapping
  let memory: Handle
  var region: BlockRegion?
  var regionMapping: Mapping?
  var regionHandle: Handle?
  /// The client's process, if it showed it.
  var owner: Process?
  /// Its way in by thread migration, if it asked for one.
  var door: Handle?
  var waiter: ReplyToken?
  var waitsFor = 0
  var isBroken = false
  /// Its process has ended.
  var isOrphan = false
  /// It has called detach and waits for its last requests.
  var isClosing = false

  init(identifier: UInt64, badge: UInt64, rings: consuming BlockDriverRings, mapping: Mapping, memory: Handle) {
    self.identifier = identifier
    self.badge = badge
    self.rings = rings
    self.mapping = mapping
    self.memory = memory
  }

  var isIdle: Bool { rings.inFlight == 0 && (region == nil || !rings.hasSubmissions) }
  var isSatisfied: Bool { isIdle || isBroken || (!isClosing && rings.untaken >= waitsFor) }

  func release() {
    mapping.unmap()
    memory.close()
    regionMapping?.unmap()
    regionHandle?.close()
    owner?.handle.close()
    door?.close()
  }
}

/// A request that the plane has.
private struct InFlight {
  var session: Session?
  var request: BlockRequest
  /// The device's slot, where the client has been told of it; else -1.
  var slot = -1
  /// Ticks of the request clock that it has seen, and whether the device was reset for its sake.
  var age = 0
  var isRetried = false
}

public final class BlockServer<Plane: BlockPlane>: DoorKeeper {
  private let plane: Plane
  private var server: Server
  private var sessions: [Session] = []
  private var nextIdentifier: UInt64 = 1
  private var requests: [InFlight] = []
  /// The first `freeCount` are free.
  private var freeTokens: [Int] = []
  private var freeCount = 0
  private var emptyPolls: UInt64 = 0
  /// How long to look for completions; shortened while looking has been in vain.
  private var pollNow: UInt64
  private var served: UInt64 = 0
  /// Sessions are served in turn, so that a full queue starves none.
  private var turn = 0

  /// Whether clients may come in by the door, and the door, when the first has asked for it.
  private let hasDoor: Bool
  private var door: RPCService?
  private var lastInDoor: Session?
  private let lock: ServerLock

  private static var maximumSessions: Int { 80 }
  private static var maximumRequests: Int { 512 }

  private let events: Notification
  /// Half of the time that the device has for a request, in ticks; 0: any time.
  private let patience: UInt64
  private lazy var clock = AlarmClock.make(events, bits: Self.clockTicked, for: "block service")
  private var clockRuns = false
  /// The request that the plane had no room for.
  private var stalled: Int?
  /// The bit of `events` that says that a client's process has ended.
  private static var clientEnded: UInt64 { 1 << 62 }
  /// That of the request clock.
  private static var clockTicked: UInt64 { 1 << 61 }
  /// A client that came by the door has found what another waits for.
  private static var answersWait: UInt64 { 1 << 60 }
  private static var ownEvents: UInt64 { clientEnded | clockTicked | answersWait }

  /// The device's name in the registry, and the sectors that it was told of last.
  private let name: StaticString
  private var announcedSectors: UInt64?

  /// A service on `endpoint`, which hears of its device and of the ends of its clients through `events`, and announces the device as `name`.
  /// A device that has not done a request after `timeout` milliseconds is reset; 0: never. `hasDoor`: the plane may be called by any
  /// thread, one at a time.
  public init(
    plane: Plane, endpoint: Handle, events: Notification, name: StaticString, timeout: UInt64, hasDoor: Bool = false
  ) throws(SystemError) {
    self.plane = plane
    self.hasDoor = hasDoor
    lock = try ServerLock()
    patience = Clock.ticks(microseconds: timeout * 1000 / 2)
    self.name = name
    self.events = events
    pollNow = plane.pollTicks
    server = Server(endpoint)
    super.init()
    try Endpoint(endpoint).bind(events)
    let empty = BlockRequest(operation: .flush, sector: 0, offset: 0, length: 0, tag: 0)
    for token in 0..<Self.maximumRequests {
      requests.append(InFlight(session: nil, request: empty))
      freeTokens.append(token)
    }
    freeCount = Self.maximumRequests
    // Both live as long as the process.
    plane.beforeReset { self.hideSlots() }
  }

  /// From now on clients learn of what is in flight by their completion rings alone.
  private func hideSlots() {
    for token in requests.indices where requests[token].slot >= 0 {
      requests[token].session?.rings.clearSlot(requests[token].slot)
      requests[token].slot = -1
    }
  }

  // MARK: The loop

  public func run() throws(SystemError) -> Never {
    var message = Message()
    while true {
      announce()
      let event = try server.replyReceive(&message)
      lock.take()
      switch event {
      case .notification(let bits):
        message = Message()
        if bits & ~Self.ownEvents != 0 { plane.handle(events: bits & ~Self.ownEvents) }
        if bits & Self.clockTicked != 0 { tick() }
        if bits & Self.clientEnded != 0 { dropOrphans() }
      case .call(let badge):
        answer(&message, badge: badge)
      }
      work(&message)
      lock.release()
    }
  }

  // MARK: The door

  /// A call through the door, on the client's thread: takes what session `identifier` has submitted.
  override func enter(_ identifier: UInt64) -> BlockReply {
    guard lock.tryTake() else { return .busy }
    defer { lock.release() }
    guard let session = sessionInDoor(identifier), !session.isClosing else { return .noSuchSession }
    // What is there for all sessions, and then again until nothing is, would be found by `pump`; here each is looked for once.
    var found = false
    if checkPlane() || stalled != nil || !take(from: session, &found) {
      pump()
    } else {
      plane.kick()
      while let completion = plane.nextCompletion() { finish(completion) }
    }
    if sessions.count > 1 { callForAnswers() }
    return session.isBroken ? .protocolError : .done
  }

  private func sessionInDoor(_ identifier: UInt64) -> Session? {
    if let session = lastInDoor, session.identifier == identifier { return session }
    lastInDoor = sessions.first { $0.identifier == identifier }
    return lastInDoor
  }

  /// Only the server's thread can answer those who wait for what a client in the door has found.
  private func callForAnswers() {
    for session in sessions where session.waiter != nil && session.isSatisfied {
      events.signal(Self.answersWait)
      return
    }
  }

  /// Lets the session's client come in by the door from now on; nil: there is none.
  private func openDoor(to session: Session) -> Handle? {
    guard hasDoor else { return nil }
    do throws(SystemError) {
      if door == nil {
        // Lives as long as the process.
        doorKeeper = Unmanaged.passRetained(self)
        // Those who find the door busy go at once.
        door = try RPCService.createShort(stacks: 4, stackSize: 32 << 10) { badge, _, _, _, _, _ in
          // Set before, and kept for ever.
          let reply = doorKeeper?._withUnsafeGuaranteedRef { $0.enter(badge) } ?? .badCall
          return pollux_short_words(word0: reply.rawValue, word1: 0)
        }
      }
      if session.door == nil { session.door = try door?.connect(badge: session.identifier).handle }
      return session.door
    } catch { return nil }
  }

  /// Tells the registry of the device, and of a new size.
  private func announce() {
    let sectors = plane.geometry.sectors
    guard sectors != announcedSectors else { return }
    announcedSectors = sectors
    Program.announce(Bytes(name), .block, size: sectors * 512)
  }

  /// Moves requests and completions until there is nothing to do but wait for the device or for a client.
  private func work(_ message: inout Message) {
    var answered = false
    while true {
      pump()
      removeOrphans()
      // Whoever is answered goes on at the next `replyReceive`, so nothing is polled for then; but others may still wait, and nobody
      // else asks for the interrupt that they need.
      if answerWaiters(&message) { answered = true }
      guard let wanted = fewestMissing() else {
        plane.disarmInterrupt()
        return
      }
      if plane.pollTicks > 0, !answered, everybodyWaits {
        if poll(for: wanted) { continue }
      }
      if !plane.armInterrupt(after: wanted) {
        startClock()
        return
      }
    }
  }

  // MARK: Requests that take too long

  /// Has the request clock tick once, if there is one and it does not run.
  private func startClock() {
    guard patience > 0, !clockRuns else { return }
    clockRuns = true
    clock?.set(Clock.now + patience)
  }

  private func resetPlane() {
    plane.reset()
    // What was done before that.
    while let completion = plane.nextCompletion() { finish(completion) }
  }

  /// A request that the third tick finds has taken between one and one and a half times the limit. Then the device is reset: what it had goes
  /// to it again, and what has been too late twice fails.
  private func tick() {
    clockRuns = false
    if plane.isSuspended {
      // Nobody's fault; the time begins anew with the device.
      for token in requests.indices { requests[token].age = 0 }
      return
    }
    // Perhaps it is only the interrupt that is missing.
    pump()
    var late = 0
    var gone: [Int] = []
    for token in requests.indices where requests[token].session != nil {
      requests[token].age += 1
      guard requests[token].age > 2 else { continue }
      late += 1
      if requests[token].isRetried { gone.append(token) }
    }
    guard late > 0 else { return }
    var line = Text("block service: the device has not done ")
    line.add(late)
    line.add(late == 1 ? " request in time; it is reset\n" : " requests in time; it is reset\n")
    line.print()
    line.log()
    resetPlane()
    // The device has let go of all of them.
    for token in gone { finish(PlaneCompletion(token: token, status: .timedOut)) }
    for token in requests.indices where requests[token].session != nil {
      if requests[token].age > 2 { requests[token].isRetried = true }
      requests[token].age = 0
    }
  }

  private func pump() {
    var moved = true
    while moved {
      moved = checkPlane()
      moved = takeSubmissions() || moved
      plane.kick()
      while let completion = plane.nextCompletion() {
        finish(completion)
        moved = true
      }
    }
  }

  /// Follows a restart or a loss of the device; true if something changed.
  private func checkPlane() -> Bool {
    switch plane.takeState() {
    case .working: return false
    case .restarted:
      // What was done before must not be done twice.
      while let completion = plane.nextCompletion() { finish(completion) }
      for token in requests.indices {
        guard let session = requests[token].session, let region = session.region, token != stalled else { continue }
        if requests[token].slot >= 0 { session.rings.clearSlot(requests[token].slot) }
        switch plane.submit(requests[token].request, region: region, token: token) {
        case .finished(let status): finish(PlaneCompletion(token: token, status: status))
        case .acceptedInSlot(let slot, let usedIndex): note(token, slot, usedIndex)
        case .accepted: break
        // There was room before the restart, so there is now; a device that came back smaller loses the rest.
        case .full: finish(PlaneCompletion(token: token, status: .inputOutputError))
        }
      }
      return true
    case .lost:
      while let completion = plane.nextCompletion() { finish(completion) }
      var changed = false
      for token in requests.indices where requests[token].session != nil {
        finish(PlaneCompletion(token: token, status: .deviceLost))
        changed = true
      }
      return changed
    }
  }

  /// Ends a session, of which the device has nothing.
  private func remove(at index: Int) {
    sessions[index].release()
    sessions.remove(at: index)
    lastInDoor = nil
  }

  /// Takes what the clients submitted, as far as the plane has room; true if there was something.
  private func takeSubmissions() -> Bool {
    var found = false
    if let stalled {
      guard submit(stalled) else { return false }
      found = true
    }
    let count = sessions.count
    var step = 0
    while step < count {
      // The turn stays with this session until there is room.
      if !take(from: sessions[(turn + step) % count], &found) { return true }
      step += 1
    }
    if count > 0 { turn = (turn + 1) % count }
    return found
  }

  /// Takes what a session submitted; false: the plane has no more room.
  private func take(from session: Session, _ found: inout Bool) -> Bool {
    guard let region = session.region, !session.isBroken, !session.isOrphan else { return true }
    while freeCount > 0, session.rings.hasSubmissions {
      let token = freeTokens[freeCount - 1]
      let taken: BlockDriverRings.Taken
      do throws(BlockInterfaceError) { taken = try session.rings.take() } catch {
        session.isBroken = true
        return true
      }
      if case .none = taken { return true }
      found = true
      if !start(taken, session, region, token) { return false }
    }
    return true
  }

  /// Gives a request to the plane; false if the plane is full, and then the request is `stalled`, before all others.
  private func start(_ taken: BlockDriverRings.Taken, _ session: Session, _ region: BlockRegion, _ token: Int) -> Bool {
    served += 1
    switch taken {
    case .none: return true
    case .invalid(let tag):
      session.rings.complete(BlockResult(tag: tag, status: .invalid, bytes: 0))
      return true
    case .request(let request):
      if let refusal = plane.geometry.refusal(request, regionSize: region.size) {
        session.rings.complete(BlockResult(tag: request.tag, status: refusal, bytes: 0))
        return true
      }
      freeCount -= 1
      requests[token] = InFlight(session: session, request: request)
      return submit(token, session, region)
    }
  }

  /// Gives the plane a request of the table; false: it has no room, which comes with a completion. There is always one to come, or the plane
  /// would have room.
  private func submit(_ token: Int) -> Bool {
    guard let session = requests[token].session, let region = session.region else {
      stalled = nil
      return true
    }
    return submit(token, session, region)
  }

  private func submit(_ token: Int, _ session: Session, _ region: BlockRegion) -> Bool {
    stalled = nil
    let request = requests[token].request
    switch plane.submit(request, region: region, token: token) {
    case .accepted: break
    case .acceptedInSlot(let slot, let usedIndex):
      requests[token].slot = slot
      session.rings.noteSlot(slot, tag: request.tag, usedIndex: usedIndex)
    case .finished(let status): finish(PlaneCompletion(token: token, status: status))
    case .full:
      stalled = token
      return false
    }
    return true
  }

  /// Tells the client which slot of the device has the request.
  private func note(_ token: Int, _ slot: Int, _ usedIndex: UInt16) {
    requests[token].slot = slot
    guard let session = requests[token].session else { return }
    session.rings.noteSlot(slot, tag: requests[token].request.tag, usedIndex: usedIndex)
  }

  /// The next completion, waited for actively; nil if the device brings none for ten seconds.
  private func waitForCompletion() -> PlaneCompletion? {
    let deadline = Clock.now + Clock.frequency * 10
    while Clock.now < deadline {
      if let completion = plane.nextCompletion() { return completion }
      Clock.pause()
    }
    return nil
  }

  private func finish(_ completion: PlaneCompletion) {
    guard requests.indices.contains(completion.token), let session = requests[completion.token].session else { return }
    let tag = requests[completion.token].request.tag
    let length = requests[completion.token].request.length
    let slot = requests[completion.token].slot
    if slot >= 0 { session.rings.clearSlot(slot) }
    requests[completion.token].session = nil
    if stalled == completion.token { stalled = nil }
    freeTokens[freeCount] = completion.token
    freeCount += 1
    session.rings.complete(
      BlockResult(
        tag: tag, status: completion.status, bytes: completion.status == .success ? length : 0))
  }

  // MARK: Waiting

  private var everybodyWaits: Bool {
    for session in sessions where session.waiter == nil && !session.isOrphan { return false }
    return true
  }

  /// How many completions the client that misses fewest still misses; nil: nobody waits.
  private func fewestMissing() -> Int? {
    var fewest: Int?
    for session in sessions where session.isOrphan {
      // Its memory is held until the device is done with it.
      let held = max(1, session.rings.inFlight)
      fewest = min(fewest ?? held, held)
    }
    for session in sessions where session.waiter != nil {
      let missing = max(1, min(session.waitsFor - session.rings.untaken, session.rings.inFlight))
      fewest = min(fewest ?? missing, missing)
    }
    return fewest
  }

  /// Looks for completions until some are there (true) or the plane's time is over (false).
  private func poll(for wanted: Int) -> Bool {
    plane.disarmInterrupt()
    let deadline = Clock.now + max(pollNow, plane.pollTicks / 16)
    while true {
      var tries = 0
      while tries < 64 {
        if plane.hasCompletions {
          pollNow = min(plane.pollTicks, pollNow * 2 + 1024)
          return true
        }
        Clock.pause()
        tries += 1
      }
      emptyPolls += 1
      if Clock.now > deadline {
        // In vain: perhaps the host needs this processor to make progress.
        pollNow /= 2
        return false
      }
    }
  }

  /// Answers the clients whose wish is fulfilled: one by the next `replyReceive`, others at once. True if any.
  private func answerWaiters(_ message: inout Message) -> Bool {
    var answered = false
    var index = 0
    while index < sessions.count {
      let session = sessions[index]
      index += 1
      guard let waiter = session.waiter, session.isSatisfied else { continue }
      session.waiter = nil
      publishCounters(session)
      var reply = Message(
        session.isBroken ? BlockReply.protocolError.rawValue : BlockReply.done.rawValue, UInt64(session.rings.untaken))
      if session.isClosing || (session.isBroken && session.rings.inFlight == 0) {
        index -= 1
        remove(at: index)
      }
      answered = true
      if server.resume(waiter) {
        message = reply
      } else {
        server.reply(waiter, &reply)
      }
    }
    return answered
  }

  private func publishCounters(_ session: Session) {
    session.rings.setCounter(.doorbells, plane.doorbells)
    session.rings.setCounter(.interrupts, plane.interrupts)
    session.rings.setCounter(.emptyPolls, emptyPolls)
    session.rings.setCounter(.requests, served)
    session.rings.setCounter(.resets, plane.resets)
  }

  /// Closes the sessions of processes that have ended, as soon as the device has let go of their memory.
  private func dropOrphans() {
    for session in sessions {
      guard let owner = session.owner, owner.status.hasEnded else { continue }
      session.isOrphan = true
      session.waiter = nil
    }
  }

  /// Waits until the device has done what a process that has ended asked for under this badge, so that none of it reaches the disk after
  /// what its successor does.
  private func settleOrphans(of badge: UInt64) {
    dropOrphans()
    while sessions.contains(where: { $0.isOrphan && $0.badge == badge && $0.rings.inFlight > 0 }) {
      _ = takeSubmissions()
      plane.kick()
      if let completion = waitForCompletion() {
        finish(completion)
        continue
      }
      // After a reset the device has none of them any more.
      resetPlane()
      for token in requests.indices where requests[token].session?.isOrphan ?? false {
        finish(PlaneCompletion(token: token, status: .timedOut))
      }
    }
    removeOrphans()
  }

  private func removeOrphans() {
    var index = 0
    while index < sessions.count {
      let session = sessions[index]
      if session.isOrphan, session.rings.inFlight == 0 {
        remove(at: index)
      } else {
        index += 1
      }
    }
  }

  // MARK: Calls

  private func session(_ identifier: UInt64, badge: UInt64) -> Session? {
    for session in sessions where session.identifier == identifier && session.badge == badge { return session }
    return nil
  }

  private func answer(_ message: inout Message, badge: UInt64) {
    guard let call = BlockCall(rawValue: message[0]) else {
      message.received?.close()
      message = Message(BlockReply.badCall.rawValue)
      return
    }
    let handle = message.received
    let first = message[1]
    let second = message[2]
    message = Message()
    switch call {
    case .describe:
      let geometry = plane.geometry
      message[1] = geometry.sectors
      message[2] = UInt64(geometry.blockSize)
      message[3] = geometry.maximumTransfer
      message[4] = geometry.flags
      message[5] = plane.mode.rawValue
    case .attach:
      message = attach(entries: first, memory: handle, badge: badge)
      return
    case .region:
      message = Message(addRegion(session(first, badge: badge), memory: handle).rawValue)
      return
    case .completions:
      guard let shown = plane.completionMemory else {
        message = Message(BlockReply.badCall.rawValue)
        break
      }
      message[1] = UInt64(shown.queueSize)
      message.pass(shown.memory.handle, [.read])
    case .enter, .detach:
      guard let session = session(first, badge: badge), !session.isClosing else {
        message = Message(BlockReply.noSuchSession.rawValue)
        break
      }
      // A session is used by one thread: if a call of it still waits, that call was cancelled, and nobody hears its answer.
      if let cancelled = session.waiter {
        var nothing = Message(BlockReply.noSuchSession.rawValue)
        server.reply(cancelled, &nothing)
      }
      session.waiter = server.setAside()
      session.waitsFor = Int(min(second, 4096))
      session.isClosing = call == .detach
    case .door:
      guard let session = session(first, badge: badge), let door = openDoor(to: session) else {
        message = Message(BlockReply.badCall.rawValue)
        break
      }
      message.pass(door, [.call])
    case .owner:
      guard let session = session(first, badge: badge), session.owner == nil, let handle else {
        message = Message(BlockReply.noSuchSession.rawValue)
        break
      }
      do throws(SystemError) {
        try Process(handle).watch(events, bits: Self.clientEnded)
        session.owner = Process(handle)
        return
      } catch { message = Message(BlockReply.badMemory.rawValue) }
    case .report:
      message[1] = plane.resets
      message[2] = plane.doorbells
      message[3] = plane.interrupts
      message[4] = served
    }
    handle?.close()
  }

  private func attach(entries: UInt64, memory: Handle?, badge: UInt64) -> Message {
    guard let memory, let layout = BlockRingLayout(entries: Int(min(entries, 4096))) else {
      memory?.close()
      return Message(BlockReply.badMemory.rawValue)
    }
    settleOrphans(of: badge)
    guard sessions.count < Self.maximumSessions else {
      memory.close()
      return Message(BlockReply.tooManySessions.rawValue)
    }
    do throws(SystemError) {
      let mapping = try MemoryObject(memory).map([.read, .write])
      let ring = RingMemory(unsafeBase: mapping.base, byteCount: mapping.size, physical: 0)
      guard let rings = BlockDriverRings(memory: ring, layout: layout) else {
        mapping.unmap()
        memory.close()
        return Message(BlockReply.badMemory.rawValue)
      }
      let session = Session(
        identifier: nextIdentifier, badge: badge, rings: rings, mapping: mapping, memory: memory)
      nextIdentifier += 1
      sessions.append(session)
      return Message(BlockReply.done.rawValue, session.identifier)
    } catch {
      memory.close()
      return Message(BlockReply.badMemory.rawValue)
    }
  }

  private func addRegion(_ session: Session?, memory: Handle?) -> BlockReply {
    guard let session, session.region == nil, let memory else {
      memory?.close()
      return .noSuchSession
    }
    do throws(SystemError) {
      let object = MemoryObject(memory)
      let size = try object.size()
      let physical = try object.physicalAddress()
      if plane.mapsRegions { session.regionMapping = try object.map([.read, .write]) }
      session.region = BlockRegion(physical: physical, size: size, base: session.regionMapping?.base)
      session.regionHandle = memory
      publishCounters(session)
      return .done
    } catch {
      memory.close()
      return .badMemory
    }
  }
}

/// Whom the door's service calls: its function can hold nothing, and a program has one block service.
nonisolated(unsafe) private var doorKeeper: Unmanaged<DoorKeeper>?

/// A block server of any plane, as its door sees it.
public class DoorKeeper {
  func enter(_ identifier: UInt64) -> BlockReply { .badCall }
}

/// Keeps clients in the door and the server's thread apart. Only the latter ever waits.
private final class ServerLock {
  private let isTaken = Atomic<Bool>(false)
  private let isAwaited = Atomic<Bool>(false)
  private let released: Notification

  init() throws(SystemError) { released = try Notification.create() }

  func tryTake() -> Bool { !isTaken.exchange(true, ordering: .acquiring) }

  /// The server's thread only.
  func take() {
    while !tryTake() {
      isAwaited.store(true, ordering: .sequentiallyConsistent)
      if tryTake() {
        isAwaited.store(false, ordering: .relaxed)
        return
      }
      _ = released.wait()
    }
  }

  func release() {
    isTaken.store(false, ordering: .sequentiallyConsistent)
    if isAwaited.exchange(false, ordering: .sequentiallyConsistent) { released.signal(1) }
  }
}
