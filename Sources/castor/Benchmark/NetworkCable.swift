// What `castor bench net` connects a machine with: another machine, or the host by a TAP interface.

import CLinux
import Configuration
import Foundation
import PacketBench
import Synchronization

/// What is at the other end of a machine's cable.
enum NetworkCable: String, CaseIterable {
  /// A second machine with the same driver.
  case guests
  /// The host, by a TAP interface.
  case tap

  /// Why this host cannot have it; nil: it can.
  var reasonForAbsence: String? {
    guard self == .tap else { return nil }
    let descriptor = castor_packet_socket("lo", TestFrame.type)
    guard descriptor >= 0 else { return "a TAP interface needs CAP_NET_ADMIN and CAP_NET_RAW" }
    close(descriptor)
    guard access("/dev/net/tun", R_OK | W_OK) == 0 else {
      return "/dev/net/tun: \(String(cString: strerror(errno)))"
    }
    return nil
  }
}

/// The passive side of the benchmark on the host: a thread with a packet socket on an interface.
final class HostPeer: @unchecked Sendable {
  // @unchecked: the descriptor is constant, and the rest is an atomic and a semaphore.
  private let descriptor: CInt
  private let isOver = Atomic<Bool>(false)
  private let ended = DispatchSemaphore(value: 0)

  /// Nil: there is no such interface yet.
  init?(interface: String) throws {
    descriptor = castor_packet_socket(interface, TestFrame.type)
    if descriptor < 0 {
      let reason = errno
      if reason == ENODEV { return nil }
      throw CommandFailure(
        message: "\(interface): a packet socket is refused: \(String(cString: strerror(reason)))",
        exitCode: .operatingSystemError)
    }
    Thread.detachNewThread { [self] in serve() }
  }

  /// Ends the thread and closes the socket.
  func stop() {
    isOver.store(true, ordering: .releasing)
    ended.wait()
    close(descriptor)
  }

  private func serve() {
    var peer = BenchPeer()
    // The kernel sends from any address.
    let own: UInt64 = 0x0200_0000_00fe
    let frame = UnsafeMutableRawPointer.allocate(byteCount: 2048, alignment: 64)
    defer {
      frame.deallocate()
      ended.signal()
    }
    frame.initializeMemory(as: UInt8.self, repeating: 0, count: 2048)
    while !isOver.load(ordering: .acquiring) {
      var state = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
      guard poll(&state, 1, 50) > 0 else { continue }
      while true {
        let count = recv(descriptor, frame, 2048, Int32(MSG_DONTWAIT))
        guard count > 0 else { break }
        // The socket shows what it sends itself, too.
        guard TestFrame.isOne(frame, length: count), TestFrame.address(frame + 6) != own else { continue }
        peer.take(frame, length: count)
        send(&peer, frame, own)
      }
    }
  }

  private func send(_ peer: inout BenchPeer, _ frame: UnsafeMutableRawPointer, _ own: UInt64) {
    while let length = peer.next(into: frame, from: own) {
      // A frame for which there is no room is lost, as on a network.
      _ = Glibc.send(descriptor, frame, length, 0)
    }
  }
}
