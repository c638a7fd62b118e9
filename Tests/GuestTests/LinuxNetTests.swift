// Debian's virtio_net in the driver container, against a peer on the host that sends every frame back.

import Foundation
import Testing

/// The other end of a guest's network cable: sends frames of one EtherType back to where they came from.
final class EchoPeer: @unchecked Sendable {
  // @unchecked: the descriptor is set before the thread starts; the counter is behind the lock.
  private let descriptor: Int32
  private let headerSize: Int
  private let lock = NSLock()
  private var echoed = 0
  private var isClosed = false

  /// Connects to the socket at which Castor listens (packets with a virtio header), once it does.
  static func castor(path: String) throws -> EchoPeer {
    let descriptor = socket(AF_UNIX, Int32(SOCK_SEQPACKET.rawValue), 0)
    guard descriptor >= 0 else { throw POSIXError(.EIO) }
    for _ in 0..<500 {
      if withAddress(path, { connect(descriptor, $0, $1) }) == 0 { return EchoPeer(descriptor, headerSize: 12) }
      usleep(10_000)
    }
    throw POSIXError(.ECONNREFUSED)
  }

  /// Binds a datagram socket at `path` for QEMU's `-netdev dgram`, whose own is at `guest`.
  static func qemu(path: String, guest: String) throws -> EchoPeer {
    let descriptor = socket(AF_UNIX, Int32(SOCK_DGRAM.rawValue), 0)
    guard descriptor >= 0, withAddress(path, { bind(descriptor, $0, $1) }) == 0 else { throw POSIXError(.EIO) }
    return EchoPeer(descriptor, headerSize: 0, guest: guest)
  }

  private static func withAddress(_ path: String, _ body: (UnsafePointer<sockaddr>, socklen_t) -> Int32) -> Int32 {
    var address = sockaddr_un()
    address.sun_family = sa_family_t(AF_UNIX)
    withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: Array(path.utf8).prefix($0.count - 1)) }
    return withUnsafePointer(to: &address) { pointer in
      pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { body($0, socklen_t(MemoryLayout<sockaddr_un>.size)) }
    }
  }

  private init(_ descriptor: Int32, headerSize: Int, guest: String? = nil) {
    self.descriptor = descriptor
    self.headerSize = headerSize
    let thread = Thread { [self] in serve(guest) }
    thread.start()
  }

  /// Frames that have gone back.
  var count: Int { lock.withLock { echoed } }

  func close() {
    lock.withLock { isClosed = true }
    shutdown(descriptor, Int32(SHUT_RDWR))
  }

  private func serve(_ guest: String?) {
    var packet = [UInt8](repeating: 0, count: 70_000)
    while true {
      let count = recv(descriptor, &packet, packet.count, 0)
      if count <= 0 || lock.withLock({ isClosed }) { break }
      let frame = headerSize
      guard count >= frame + 14, packet[frame + 12] == 0x88, packet[frame + 13] == 0xb5 else { continue }
      for index in 0..<6 { packet.swapAt(frame + index, frame + 6 + index) }
      let sent =
        if let guest {
          Self.withAddress(guest) { Int32(sendto(descriptor, packet, count, 0, $0, $1)) }
        } else {
          Int32(send(descriptor, packet, count, Int32(MSG_NOSIGNAL)))
        }
      if sent == Int32(count) { lock.withLock { echoed += 1 } }
    }
    Glibc.close(descriptor)
  }
}

@Suite(
  .serialized, .enabled(if: LinuxDrivers.arePresent, "make drivers has not put Linux's modules into the boot archive"))
struct LinuxNetTests {
  @Test(arguments: Host.available, LinuxDrivers.modes)
  func theInterfaceKeepsItsPromises(host: Host, mode: String) throws {
    try check(PlacementCase(host: host, choice: .ic2), mode)
  }

  /// The twin in kernel space, beside Linux's driver in its process.
  @Test(arguments: PlacementCase.all.filter { $0.choice != .ic2 })
  func theTwinKeepsThemInKernelSpace(_ place: PlacementCase) throws { try check(place, "twin") }

  private func check(_ place: PlacementCase, _ mode: String) throws {
    let folder = try ScratchFolder()
    let cable = "\(folder.path)/net"
    let host = place.host
    var description = place.description([
      "name=net,program=linux-container,mode=\(mode),device=\(host == .castor ? "net0" : "net"),class=CLASS",
      "name=test,program=net-test,arguments=exit=on",
    ])
    let peer: EchoPeer
    let guest: GuestMachine
    switch host {
    case .castor:
      description.extra = ["net=listen=\(cable)"]
      guest = try description.start(on: host)
      peer = try EchoPeer.castor(path: cable)
    case .qemu:
      description.extra = [
        "-netdev", "dgram,id=net0,local.type=unix,local.path=\(cable),remote.type=unix,remote.path=\(cable).peer",
        "-device", "virtio-net-device,netdev=net0",
      ]
      peer = try EchoPeer.qemu(path: "\(cable).peer", guest: cable)
      guest = try description.start(on: host)
    }
    let run = guest.finish(seconds: 60)
    peer.close()
    #expect(run.lines.filter { $0.contains("net test:") && $0.hasSuffix("ok") }.count == 7, "\(run.console)")
    #expect(!run.console.contains("isolation class"), "\(run.console)")
    #expect(run.exitCode == 0, "\(run.console)\(run.errors)")
    #expect(peer.count >= 693)
  }
}
