// The serial port's other end when it comes and goes: a client of a Unix socket or whoever opens a pseudo-terminal.

import CLinux
import Glibc
import HostSystem
import SystemPackage

/// Carries bytes between a serial port and at most one non-blocking descriptor at a time, on an event loop's thread.
///
/// While nobody is there, the newest `retained` bytes of output are kept for who comes next, and the guest never waits.
final class SerialConnection {
  static let retained = 64 << 10

  private let serial: Serial16550
  private let loop: EventLoop
  private let gathering: TimerDescriptor
  private let roomAgain: EventDescriptor
  private var queue = ByteQueue(limit: SerialConnection.retained)
  private var peer: (descriptor: CInt, isSocket: Bool)?
  private var peerSendsNoMore = false
  private var peerIsFull = false
  private var onDisconnect: (() -> Void)?

  init(serial: Serial16550, loop: EventLoop) throws(Errno) {
    self.serial = serial
    self.loop = loop
    gathering = try TimerDescriptor()
    roomAgain = try EventDescriptor()
    try loop.add(gathering.fileDescriptor, for: .readable) { [unowned self] _ in
      gathering.drain()
      pump()
    }
    try loop.add(roomAgain.fileDescriptor, for: .readable) { [unowned self] _ in
      roomAgain.drain()
      updateInterest()
    }
    let timer = gathering
    let room = roomAgain
    serial.connect(
      onOutput: { timer.arm(nanoseconds: outputGathering) },
      onInputRoom: { room.signal() })
  }

  var isConnected: Bool { peer != nil }

  /// Serves `descriptor`, which stays the caller's, until its other side goes away; then calls `onDisconnect`, once.
  func connect(_ descriptor: CInt, isSocket: Bool, onDisconnect: @escaping () -> Void) throws(Errno) {
    try loop.add(descriptor, for: .readable) { [unowned self] readiness in serve(readiness) }
    peer = (descriptor, isSocket)
    peerSendsNoMore = false
    peerIsFull = false
    self.onDisconnect = onDisconnect
    pump()
    updateInterest()
  }

  /// Tries for at most `milliseconds` to hand over what waits, then lets go of the port and the loop.
  func finish(milliseconds: UInt64) {
    let deadline = monotonicNanoseconds() + milliseconds * 1_000_000
    pump()
    while let peer, !queue.isEmpty, monotonicNanoseconds() < deadline {
      var entry = pollfd(fd: peer.descriptor, events: Int16(POLLOUT), revents: 0)
      poll(&entry, 1, 20)
      peerIsFull = false
      pump()
    }
    serial.disconnect()
    loop.remove(gathering.fileDescriptor)
    loop.remove(roomAgain.fileDescriptor)
    if let peer { loop.remove(peer.descriptor) }
    peer = nil
  }

  private func serve(_ readiness: Readiness) {
    if readiness.contains(.writable) {
      peerIsFull = false
      pump()
    }
    if readiness.contains(.readable) { readInput() }
    if !readiness.intersection(.hangUp).isEmpty, !readiness.contains(.readable) || peerSendsNoMore { disconnect() }
    updateInterest()
  }

  private func readInput() {
    guard let peer else { return }
    let room = min(serial.inputRoom, Serial16550.inputCapacity)
    guard room > 0 else { return }
    withUnsafeTemporaryAllocation(byteCount: room, alignment: 1) { buffer in
      do {
        let count = try systemCall { read(peer.descriptor, buffer.baseAddress, room) }
        if count == 0 { peerSendsNoMore = true }
        // No other thread adds input, so what fitted a moment ago fits now.
        _ = serial.receive(UnsafeRawBufferPointer(rebasing: buffer[..<count]))
      } catch .wouldBlock {
      } catch { disconnect() }
    }
  }

  /// Moves output from the port to the queue and from there to the peer, until neither goes on.
  private func pump() {
    while fill() + send() > 0 {}
    updateInterest()
  }

  /// Moves output from the port to the queue and returns how much. Without a peer the oldest bytes make room.
  private func fill() -> Int {
    withUnsafeTemporaryAllocation(byteCount: 4096, alignment: 1) { buffer in
      if peer == nil, queue.room < buffer.count { queue.dropFirst(buffer.count - queue.room) }
      let amount = min(buffer.count, queue.room)
      guard amount > 0 else { return 0 }
      let taken = serial.takeOutput(into: UnsafeMutableRawBufferPointer(rebasing: buffer[..<amount]))
      return queue.append(UnsafeRawBufferPointer(rebasing: buffer[..<taken]))
    }
  }

  /// Sends what the peer takes without waiting, and returns how much.
  private func send() -> Int {
    guard let peer, !peerIsFull, !queue.isEmpty else { return 0 }
    do {
      let written = try queue.withFirstRun { bytes throws(Errno) in
        try systemCall {
          peer.isSocket
            ? Glibc.send(peer.descriptor, bytes.baseAddress, bytes.count, CInt(MSG_NOSIGNAL))
            : write(peer.descriptor, bytes.baseAddress, bytes.count)
        }
      }
      queue.dropFirst(written)
      return written
    } catch .wouldBlock { peerIsFull = true } catch { disconnect() }
    return 0
  }

  private func updateInterest() {
    guard let peer else { return }
    var interest: Readiness = []
    if !peerSendsNoMore, serial.inputRoom > 0 { interest.insert(.readable) }
    if peerIsFull { interest.insert(.writable) }
    do { try loop.modify(peer.descriptor, for: interest) } catch { disconnect() }
  }

  private func disconnect() {
    guard let peer else { return }
    loop.remove(peer.descriptor)
    self.peer = nil
    gathering.arm(nanoseconds: 1)  // What the peer held up flows on.
    let tell = onDisconnect
    onDisconnect = nil
    tell?()
  }
}
