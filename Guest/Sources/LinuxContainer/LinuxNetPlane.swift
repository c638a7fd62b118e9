// Mode solo with Linux's virtio_net: packets go through the container's networking layer. What is sent is not copied, for the driver gets its
// guest-physical address; what arrives is, from the driver's pages to the client's buffers.

import CLinuxContainer
import DriverContract
import NetInterface
import NetServer
import Pollux

final class LinuxNetPlane: NetPlane {
  private let linux: Linux
  private let registers: VirtioRegisters
  static let remark: StaticString = "solo: Linux's virtio_net"
  private(set) var isSuspended = false
  private var news = NetPlaneState.working
  /// Empty buffers of the client, in its order.
  private var posted: [(buffer: PacketBuffer, token: Int)] = []
  private var nextPosted = 0
  /// The packet that was given last. It is held back to be told together with those that follow, whose driver rings once for all.
  private var heldBack: (buffer: PacketBuffer, token: Int)?
  private var sending = 0
  /// Packets that are no more than a header, or that Linux refused: over at once.
  private var refused: [Int] = []
  private var sentAhead: Int?
  private(set) var link = NetLink()
  private(set) var doorbells: UInt64 = 0
  private(set) var resets: UInt64 = 0

  /// Nil: no driver brought an interface, or it does not start.
  init?(_ linux: Linux, _ registers: VirtioRegisters) {
    self.linux = linux
    self.registers = registers
    guard linux.openInterface(true), let link = linux.link else { return nil }
    self.link = link
  }

  var mode: NetMode { .solo }
  var mapsRegion: Bool { true }
  var pollTicks: UInt64 { 0 }
  var interrupts: UInt64 { linux.interrupts }
  var withoutBuffer: UInt64 { linux.droppedPackets }

  func transmit(_ buffer: PacketBuffer, token: Int) -> Bool {
    guard !isSuspended, passOn(more: true) else { return false }
    heldBack = (buffer, token)
    return true
  }

  /// Gives the packet that was held back to the driver; false: it has no room.
  private func passOn(more: Bool) -> Bool {
    guard let (buffer, token) = heldBack else { return true }
    guard let header = buffer.base else { return false }
    switch linux.transmit(
      token, header: header, physical: buffer.physical + UInt64(packetHeaderSize),
      length: buffer.length - UInt32(packetHeaderSize), more: more)
    {
    case CONTAINER_ACCEPTED: sending += 1
    case CONTAINER_FULL: return false
    default: refused.append(token)
    }
    heldBack = nil
    return true
  }

  func post(_ buffer: PacketBuffer, token: Int) -> Bool {
    guard !isSuspended else { return false }
    posted.append((buffer, token))
    return true
  }

  func kick() {
    guard heldBack != nil else { return }
    doorbells += 1
    _ = passOn(more: false)
  }

  func nextSent() -> Int? {
    if let token = refused.popLast() { return token }
    if let token = sentAhead {
      sentAhead = nil
      return token
    }
    guard let token = linux.nextSent() else { return nil }
    sending -= 1
    return token
  }

  func nextReceived() -> (token: Int, length: UInt32)? {
    guard nextPosted < posted.count, linux.hasArrived, let base = posted[nextPosted].buffer.base else { return nil }
    let (buffer, token) = posted[nextPosted]
    let length = linux.receive(into: base, size: buffer.length)
    guard length > 0 else { return nil }
    nextPosted += 1
    if nextPosted == posted.count {
      posted.removeAll(keepingCapacity: true)
      nextPosted = 0
    } else if nextPosted >= 64 {
      posted.removeFirst(nextPosted)
      nextPosted = 0
    }
    return (token, length)
  }

  var hasCompletions: Bool {
    if !refused.isEmpty || sentAhead != nil || (nextPosted < posted.count && linux.hasArrived) { return true }
    guard let token = linux.nextSent() else { return false }
    sending -= 1
    sentAhead = token
    return true
  }

  /// The driver keeps its interrupts armed itself.
  func armInterrupts(received: Int, sent: Int) -> Bool { hasCompletions }
  func disarmInterrupts() {}

  func handle(events: UInt64) {
    if events & ContainerEvent.suspend != 0, !isSuspended { suspend() }
    if events & ContainerEvent.resume != 0, isSuspended { resume() }
    guard events & ContainerEvent.device != 0, !isSuspended else { return }
    linux.handleInterrupt()
    if registers.needsReset {
      LinuxContainerProgram.complain("the device asks for a reset")
      restart()
    }
    linux.followAddress()
    if let now = linux.link { link = now }
  }

  /// Linux's driver does not look at what the device asks for; suspending and resuming it is what resets the device.
  private func restart() {
    resets += 1
    forget()
    guard linux.suspend(), linux.resume() else {
      LinuxContainerProgram.complain("the device did not come back")
      news = .lost
      return
    }
    news = .restarted
  }

  private func forget() {
    posted.removeAll(keepingCapacity: true)
    nextPosted = 0
    heldBack = nil
    sentAhead = nil
    refused.removeAll()
    sending = 0
  }

  func reset() { if !isSuspended { restart() } }

  private func suspend() {
    forget()
    isSuspended = true
    guard linux.suspend() else { return LinuxContainerProgram.complain("the driver does not let go of the device") }
    Program.remark(Bytes("suspended"))
  }

  /// The client's buffers are given to the device again.
  private func resume() {
    isSuspended = false
    resets += 1
    Program.remark(Bytes(Self.remark))
    news = linux.resume() ? .restarted : .lost
    if let now = linux.link { link = now }
  }

  func takeState() -> NetPlaneState {
    let taken = news
    if case .restarted = taken { news = .working }
    return taken
  }

  func recall() {
    let hadSome = sending > 0
    forget()
    // A suspended device has let go of everything.
    guard hadSome, !isSuspended else { return }
    // The device may still read them.
    restart()
    news = .working
  }

  func setAddress(_ address: UInt64) -> Bool {
    guard !isSuspended, linux.setAddress(address) else { return false }
    if let now = linux.link { link = now }
    return true
  }
}
