// The loop of a network service: takes packets and buffers from the client's rings, keeps the plane full, wakes the client.

import DriverVirtqueue
import NetInterface
import Pollux

/// The client's rings and memory.
private final class NetSession {
  let identifier: UInt64
  let badge: UInt64
  let layout: PacketRingLayout
  var rings: PacketDriverRings
  let mapping: Mapping
  let memory: Handle
  var region: (physical: UInt64, size: UInt64)?
  var regionMapping: Mapping?
  var regionHandle: Handle?
  /// The client's process, if it showed it.
  var owner: Process?
  var waiter: ReplyToken?
  var wanted = (received: 0, sent: 0)
  /// Until when the client waits, a time-stamp.
  var deadline = SystemCall.forever
  /// The link state that the client has been woken for.
  var shownLink: NetLink
  var isBroken = false

  init(
    identifier: UInt64, badge: UInt64, layout: PacketRingLayout, rings: PacketDriverRings, mapping: Mapping,
    memory: Handle, link: NetLink
  ) {
    self.identifier = identifier
    self.badge = badge
    self.layout = layout
    self.rings = rings
    self.mapping = mapping
    self.memory = memory
    shownLink = link
  }

  func release() {
    mapping.unmap()
    memory.close()
    regionMapping?.unmap()
    regionHandle?.close()
    owner?.handle.close()
  }
}

/// Buffers that the plane has, or that wait for room in it, of one direction.
private struct Buffers {
  /// By token; nil: the token is free.
  var entries: [PacketEntry?] = []
  var free: [Int] = []
  /// Taken from the client, and not yet by the plane, which had no room; in their order.
  var waiting: [Int] = []
  var inPlane = 0

  init(_ count: Int) {
    var token = count
    while token > 0 {
      token -= 1
      entries.append(nil)
      free.append(token)
    }
  }
}

public final class NetServer<Plane: NetPlane> {
  private let plane: Plane
  private var server: Server
  private let events: Notification
  private let name: StaticString
  private var session: NetSession?
  private var nextIdentifier: UInt64 = 1
  private var posted: Buffers
  private var submitted: Buffers
  private var isLost = false
  private var receivedCount: UInt64 = 0
  private var sentCount: UInt64 = 0
  private lazy var alarm = AlarmClock.make(events, bits: Self.alarmRang, for: "network service")
  /// How long the device may take to send a packet, in ticks; 0: any time.
  private let patience: UInt64
  /// Until when the device has to have sent another packet; nil: it has none.
  private var sendDeadline: UInt64?
  /// How long to look for packets; shortened while looking has been in vain.
  private var pollNow: UInt64

  /// The bit of `events` that says that a client's process has ended.
  private static var clientEnded: UInt64 { 1 << 62 }
  /// That of the alarm clock: a client's limit or the device's has passed, perhaps.
  private static var alarmRang: UInt64 { 1 << 61 }
  private static var ownEvents: UInt64 { clientEnded | alarmRang }

  /// A service on `endpoint`, which hears of its device and of the ends of its clients through `events`, and announces the device as `name`.
  /// A device that has sent none of its packets for `timeout` milliseconds is reset; 0: never.
  public init(
    plane: Plane, endpoint: Handle, events: Notification, name: StaticString, timeout: UInt64
  ) throws(SystemError) {
    self.plane = plane
    patience = Clock.ticks(microseconds: timeout * 1000)
    self.events = events
    self.name = name
    pollNow = plane.pollTicks
    posted = Buffers(0)
    submitted = Buffers(0)
    server = Server(endpoint)
    try Endpoint(endpoint).bind(events)
  }

  // MARK: The loop

  public func run() throws(SystemError) -> Never {
    Program.announce(Bytes(name), .network)
    var message = Message()
    while true {
      switch try server.replyReceive(&message) {
      case .notification(let bits):
        message = Message()
        if bits & ~Self.ownEvents != 0 { plane.handle(events: bits & ~Self.ownEvents) }
        if bits & Self.alarmRang != 0 { checkDevice() }
        if bits & Self.clientEnded != 0, let owner = session?.owner, owner.status.hasEnded { endSession() }
      case .call(let badge):
        answer(&message, badge: badge)
      }
      work(&message)
    }
  }

  /// Moves packets until there is nothing to do but wait for the device or for the client.
  private func work(_ message: inout Message) {
    while true {
      pump()
      let answered = answerWaiter(&message)
      guard let session, session.waiter != nil else {
        plane.disarmInterrupts()
        return
      }
      if plane.pollTicks > 0, !answered, poll() { continue }
      let missing = (
        received: session.wanted.received > 0 ? max(1, session.wanted.received - session.rings.untakenReceived) : 0,
        sent: session.wanted.sent > 0 ? max(1, session.wanted.sent - session.rings.untakenSent) : 0
      )
      if !plane.armInterrupts(received: missing.received, sent: missing.sent) {
        setAlarm(min(session.deadline, sendDeadline ?? SystemCall.forever))
        return
      }
    }
  }

  private func setAlarm(_ deadline: UInt64) {
    if deadline < SystemCall.forever { alarm?.set(deadline) }
  }

  /// Has a device reset that has packets to send and sends none.
  private func checkDevice() {
    guard !plane.isSuspended else {
      sendDeadline = nil
      return
    }
    // Perhaps it is only the interrupt that is missing.
    pump()
    guard let deadline = sendDeadline, Clock.now >= deadline else { return }
    var line = Text("network service: the device has sent nothing for too long, with ")
    line.add(submitted.inPlane)
    line.add(submitted.inPlane == 1 ? " packet to send; it is reset\n" : " packets to send; it is reset\n")
    line.print()
    line.log()
    sendDeadline = nil
    plane.reset()
  }

  private func pump() {
    var moved = true
    while moved {
      moved = followState()
      moved = takeFromClient() || moved
      plane.kick()
      while let (token, length) = plane.nextReceived() {
        finishReceive(token, length)
        moved = true
      }
      while let token = plane.nextSent() {
        finishSend(token)
        moved = true
      }
    }
    if submitted.inPlane == 0 {
      sendDeadline = nil
    } else if sendDeadline == nil, patience > 0 {
      sendDeadline = Clock.now + patience
    }
    guard let session else { return }
    session.rings.show(plane.link)
    session.rings.setCounter(.doorbells, plane.doorbells)
    session.rings.setCounter(.interrupts, plane.interrupts)
    session.rings.setCounter(.resets, plane.resets)
    session.rings.setCounter(.withoutBuffer, plane.withoutBuffer)
  }

  /// Follows a restart or a loss of the device; true if something changed.
  private func followState() -> Bool {
    switch plane.takeState() {
    case .working: return false
    case .restarted:
      // What was on its way may have gone out already; a packet that comes twice is what networks do.
      giveAgain(&posted) { plane.post($0, token: $1) }
      giveAgain(&submitted) { plane.transmit($0, token: $1) }
      return true
    case .lost:
      isLost = true
      return true
    }
  }

  private func giveAgain(_ buffers: inout Buffers, _ give: (PacketBuffer, Int) -> Bool) {
    buffers.inPlane = 0
    let before = buffers.waiting
    buffers.waiting.removeAll(keepingCapacity: true)
    for token in buffers.entries.indices where !before.contains(token) {
      guard let entry = buffers.entries[token], let buffer = buffer(entry) else { continue }
      // A device that came back smaller gets the rest as it has room.
      if buffers.waiting.isEmpty, give(buffer, token) {
        buffers.inPlane += 1
      } else {
        buffers.waiting.append(token)
      }
    }
    buffers.waiting += before
  }

  /// The buffer of an entry, if it lies in the packet memory.
  private func buffer(_ entry: PacketEntry) -> PacketBuffer? {
    guard let session, let region = session.region, entry.length > UInt32(packetHeaderSize),
      UInt64(entry.offset) + UInt64(entry.length) <= region.size
    else { return nil }
    return PacketBuffer(
      physical: region.physical + UInt64(entry.offset), base: session.regionMapping.map { $0.base + Int(entry.offset) },
      length: entry.length)
  }

  /// Takes what the client put into its rings, as far as the plane has room; true if there was something.
  private func takeFromClient() -> Bool {
    guard let session, session.region != nil, !session.isBroken, !isLost else { return false }
    var found = false
    do throws(PacketRingError) {
      while try take(&posted, { () throws(PacketRingError) in try session.rings.nextPost() }, plane.post) {
        found = true
      }
      while try take(&submitted, { () throws(PacketRingError) in try session.rings.nextSubmission() }, plane.transmit) {
        found = true
      }
    } catch { session.isBroken = true }
    return found
  }

  /// Takes one entry from the client, or the one that waits, and gives it to the plane; false: none, or no room.
  private func take(
    _ buffers: inout Buffers, _ next: () throws(PacketRingError) -> PacketEntry?, _ give: (PacketBuffer, Int) -> Bool
  ) throws(PacketRingError) -> Bool {
    let token: Int
    let hasWaited = !buffers.waiting.isEmpty
    if hasWaited {
      token = buffers.waiting[0]
    } else {
      guard let free = buffers.free.last, let entry = try next() else { return false }
      guard buffer(entry) != nil else { throw .badTag }
      buffers.free.removeLast()
      buffers.entries[free] = entry
      token = free
    }
    guard let entry = buffers.entries[token], let buffer = buffer(entry), give(buffer, token) else {
      if !hasWaited { buffers.waiting.append(token) }
      return false
    }
    if hasWaited { buffers.waiting.removeFirst() }
    buffers.inPlane += 1
    return true
  }

  private func finishReceive(_ token: Int, _ length: UInt32) {
    guard posted.entries.indices.contains(token), let entry = posted.entries[token], let session else { return }
    posted.entries[token] = nil
    posted.free.append(token)
    posted.inPlane -= 1
    receivedCount += 1
    session.rings.complete(received: PacketEntry(length: min(length, entry.length), tag: entry.tag))
  }

  private func finishSend(_ token: Int) {
    guard submitted.entries.indices.contains(token), let entry = submitted.entries[token], let session else { return }
    submitted.entries[token] = nil
    submitted.free.append(token)
    submitted.inPlane -= 1
    sentCount += 1
    // It works: the next one has its own time.
    sendDeadline = nil
    session.rings.complete(sent: PacketEntry(length: entry.length, tag: entry.tag))
  }

  // MARK: Waiting

  private func isSatisfied(_ session: NetSession) -> Bool {
    session.isBroken || isLost || (session.wanted.received == 0 && session.wanted.sent == 0)
      || (session.wanted.received > 0 && session.rings.untakenReceived >= session.wanted.received)
      || (session.wanted.sent > 0 && session.rings.untakenSent >= session.wanted.sent)
      || session.shownLink != plane.link
  }

  private func isLate(_ session: NetSession) -> Bool {
    session.deadline < SystemCall.forever && Clock.now >= session.deadline
  }

  /// Answers the client if its wish is fulfilled, by the next `replyReceive` where that is free.
  private func answerWaiter(_ message: inout Message) -> Bool {
    guard let session, let waiter = session.waiter else { return false }
    let isLate = !isSatisfied(session)
    guard !isLate || self.isLate(session) else { return false }
    session.waiter = nil
    session.deadline = SystemCall.forever
    session.shownLink = plane.link
    let result: NetReply =
      session.isBroken ? .protocolError : isLost ? .deviceLost : isLate ? .timedOut : .done
    var reply = Message(result.rawValue)
    if session.isBroken { endSession() }
    if server.resume(waiter) {
      message = reply
    } else {
      server.reply(waiter, &reply)
    }
    return true
  }

  /// Looks for packets until some are there (true) or the plane's time is over (false).
  private func poll() -> Bool {
    plane.disarmInterrupts()
    let deadline = Clock.now + max(pollNow, plane.pollTicks / 16)
    while true {
      for _ in 0..<64 {
        if plane.hasCompletions {
          pollNow = min(plane.pollTicks, pollNow * 2 + 1024)
          return true
        }
        Clock.pause()
      }
      if Clock.now > deadline {
        // In vain: perhaps the host needs this processor to make progress.
        pollNow /= 2
        return false
      }
    }
  }

  // MARK: Calls

  private func session(_ identifier: UInt64, badge: UInt64) -> NetSession? {
    guard let session, session.identifier == identifier, session.badge == badge else { return nil }
    return session
  }

  /// Ends the session: the device lets go of the client's memory first.
  private func endSession() {
    guard let ended = session else { return }
    if posted.inPlane > 0 || submitted.inPlane > 0 { plane.recall() }
    posted = Buffers(0)
    submitted = Buffers(0)
    sendDeadline = nil
    session = nil
    ended.release()
  }

  private func answer(_ message: inout Message, badge: UInt64) {
    guard let call = NetCall(rawValue: message[0]) else {
      message.received?.close()
      message = Message(NetReply.badCall.rawValue)
      return
    }
    let handle = message.received
    let first = message[1]
    let second = message[2]
    let third = message[3]
    let fourth = message[4]
    message = Message()
    switch call {
    case .describe:
      message[1] = plane.link.address
      message[2] = UInt64(plane.link.mtu)
      message[3] = plane.mode.rawValue
      message[4] = plane.link.isUp ? 1 : 0
    case .attach:
      message = attach(entries: first, memory: handle, badge: badge)
      return
    case .region:
      message = Message(addRegion(session(first, badge: badge), memory: handle).rawValue)
      return
    case .enter:
      guard let session = session(first, badge: badge), session.region != nil else {
        message = Message(NetReply.noSuchSession.rawValue)
        break
      }
      // A session is used by one thread: if a call of it still waits, that call was cancelled, and nobody hears its answer.
      if let cancelled = session.waiter {
        var nothing = Message(NetReply.noSuchSession.rawValue)
        server.reply(cancelled, &nothing)
      }
      session.waiter = server.setAside()
      session.wanted = (Int(min(second, 1024)), Int(min(third, 1024)))
      session.deadline =
        fourth == 0 ? SystemCall.forever : Clock.now + Clock.ticks(microseconds: min(fourth, 3_600_000_000))
    case .detach:
      guard session(first, badge: badge) != nil else {
        message = Message(NetReply.noSuchSession.rawValue)
        break
      }
      endSession()
    case .report:
      message[1] = plane.resets
      message[2] = plane.doorbells
      message[3] = plane.interrupts
      message[4] = receivedCount
      message[5] = sentCount
      message[6] = plane.withoutBuffer
    case .owner:
      guard let session = session(first, badge: badge), session.owner == nil, let handle else {
        message = Message(NetReply.noSuchSession.rawValue)
        break
      }
      do throws(SystemError) {
        try Process(handle).watch(events, bits: Self.clientEnded)
        session.owner = Process(handle)
        return
      } catch { message = Message(NetReply.badMemory.rawValue) }
    case .setAddress:
      guard session(first, badge: badge) != nil else {
        message = Message(NetReply.noSuchSession.rawValue)
        break
      }
      // A group address is no address of an interface.
      let isAddress = second >> 48 == 0 && second >> 40 & 1 == 0 && second != 0
      message = Message((isAddress && plane.setAddress(second) ? NetReply.done : .refused).rawValue)
    }
    handle?.close()
  }

  private func attach(entries: UInt64, memory: Handle?, badge: UInt64) -> Message {
    guard let memory,
      let layout = PacketRingLayout(receive: Int(entries & 0xffff), transmit: Int(entries >> 16 & 0xffff))
    else {
      memory?.close()
      return Message(NetReply.badMemory.rawValue)
    }
    // Its end may not have been told yet.
    if let owner = session?.owner, owner.status.hasEnded { endSession() }
    guard session == nil else {
      memory.close()
      return Message(NetReply.busy.rawValue)
    }
    do throws(SystemError) {
      let mapping = try MemoryObject(memory).map([.read, .write])
      let ring = RingMemory(unsafeBase: mapping.base, byteCount: mapping.size, physical: 0)
      guard let rings = PacketDriverRings(memory: ring, layout: layout) else {
        mapping.unmap()
        memory.close()
        return Message(NetReply.badMemory.rawValue)
      }
      let session = NetSession(
        identifier: nextIdentifier, badge: badge, layout: layout, rings: rings, mapping: mapping, memory: memory,
        link: plane.link)
      nextIdentifier += 1
      self.session = session
      posted = Buffers(layout.receive)
      submitted = Buffers(layout.transmit)
      rings.show(plane.link)
      return Message(NetReply.done.rawValue, session.identifier)
    } catch {
      memory.close()
      return Message(NetReply.badMemory.rawValue)
    }
  }

  private func addRegion(_ session: NetSession?, memory: Handle?) -> NetReply {
    guard let session, session.region == nil, let memory else {
      memory?.close()
      return .noSuchSession
    }
    do throws(SystemError) {
      let object = MemoryObject(memory)
      let size = try object.size()
      let physical = try object.physicalAddress()
      if plane.mapsRegion { session.regionMapping = try object.map([.read, .write]) }
      session.region = (physical, size)
      session.regionHandle = memory
      return .done
    } catch {
      memory.close()
      return .badMemory
    }
  }
}
