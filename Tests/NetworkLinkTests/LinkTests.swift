import Glibc
import NetworkLink
import SystemPackage
import Testing

extension PacketLink {
  func send(_ bytes: [UInt8]) -> SendResult {
    var bytes = bytes
    return bytes.withUnsafeMutableBytes { buffer in
      // Two segments, as a driver with a header buffer of its own has.
      var segments = [
        iovec(iov_base: buffer.baseAddress, iov_len: packetHeaderSize),
        iovec(iov_base: buffer.baseAddress.map { $0 + packetHeaderSize }, iov_len: buffer.count - packetHeaderSize),
      ]
      return segments.withUnsafeMutableBufferPointer { send($0) }
    }
  }

  func receive() -> [UInt8]? {
    var buffer = [UInt8](repeating: 0, count: largestPacket)
    guard let count = buffer.withUnsafeMutableBytes({ receive(into: $0) }) else { return nil }
    return Array(buffer[..<count])
  }

  /// Whether the descriptor is readable now.
  var isReadable: Bool {
    var entry = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
    return poll(&entry, 1, 0) == 1
  }
}

func packet(_ count: Int, _ seed: UInt8) -> [UInt8] {
  [UInt8](repeating: 0, count: packetHeaderSize) + (0..<count).map { UInt8(truncatingIfNeeded: $0) &+ seed }
}

@Suite struct SocketLinkTests {
  @Test func packetsKeepTheirBoundariesBothWays() throws {
    let (a, b) = try SocketLink.pair()
    for count in [60, 1514, 65550 - 12] { #expect(a.send(packet(count, 1)) == .sent) }
    #expect(b.send(packet(99, 2)) == .sent)
    #expect(b.isReadable)
    for count in [60, 1514, 65550 - 12] { #expect(b.receive() == packet(count, 1)) }
    #expect(b.receive() == nil && !b.isReadable)
    #expect(a.receive() == packet(99, 2))
  }

  @Test func fullLinkSaysSoAndWakesWhenThereIsRoom() throws {
    let (a, b) = try SocketLink.pair()
    var sent = 0
    while a.send(packet(60000, 3)) == .sent {
      sent += 1
      try #require(sent < 10_000)
    }
    #expect(sent > 0)
    #expect(a.send(packet(60000, 3)) == .full)
    #expect(!a.isReadable)
    while b.receive() != nil {}
    #expect(a.isReadable)
    #expect(a.send(packet(60000, 3)) == .sent)
    #expect(!a.isReadable)
  }

  @Test func listenerTakesOneConnectionAfterTheOther() throws {
    let path = "/tmp/castor-link-\(getpid())-\(UInt32.random(in: 0 ... .max))"
    let listener = try SocketLink.listening(path: path)
    #expect(listener.send(packet(60, 1)) == .dropped)
    for round in 1...3 as ClosedRange<UInt8> {
      let caller = try SocketLink.connected(path: path)
      #expect(caller.send(packet(60, round)) == .sent)
      #expect(listener.isReadable)
      #expect(listener.receive() == packet(60, round))
      #expect(listener.isConnected)
      #expect(listener.send(packet(61, round)) == .sent)
      #expect(caller.receive() == packet(61, round))
      // A second caller waits and does not keep the first's loop awake.
      let second = try SocketLink.connected(path: path)
      #expect(!listener.isReadable)
      _ = second.isConnected
    }
    #expect(throws: NetworkLinkError.cannotListen(path: path, .addressInUse)) {
      try SocketLink.listening(path: path)
    }
  }

  @Test func socketThatADeadProcessLeftIsReplaced() throws {
    let path = "/tmp/castor-link-\(getpid())-\(UInt32.random(in: 0 ... .max))"
    let descriptor = socket(AF_UNIX, CInt(SOCK_SEQPACKET.rawValue), 0)
    var address = sockaddr_un()
    address.sun_family = sa_family_t(AF_UNIX)
    withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: Array(path.utf8)) }
    let bound = withUnsafePointer(to: &address) { pointer in
      pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
        bind(descriptor, $0, socklen_t(MemoryLayout<sockaddr_un>.size))
      }
    }
    #expect(bound == 0)
    close(descriptor)
    let listener = try SocketLink.listening(path: path)
    #expect(try SocketLink.connected(path: path).isConnected)
    #expect(!listener.isConnected)
  }

  @Test func connectingToNobodyNamesThePath() {
    #expect(throws: NetworkLinkError.cannotConnect(path: "/nonexistent/socket", .noSuchFileOrDirectory)) {
      try SocketLink.connected(path: "/nonexistent/socket")
    }
    let long = "/tmp/" + String(repeating: "x", count: 200)
    #expect(throws: NetworkLinkError.cannotListen(path: long, .fileNameTooLong)) {
      try SocketLink.listening(path: long)
    }
  }

  @Test func peerThatIsGoneDropsPackets() throws {
    var (a, b): (SocketLink, SocketLink?) = try SocketLink.pair()
    b = nil
    #expect(b == nil)
    #expect(a.receive() == nil)
    #expect(!a.isConnected && !a.isReadable)
    #expect(a.send(packet(60, 1)) == .dropped)
    (a, b) = try SocketLink.pair()
    b = nil
    #expect(a.send(packet(60, 1)) == .dropped)
  }
}

/// TAP interfaces can be made here.
private let canMakeTaps: Bool = {
  (try? TapLink(name: "castor-p\(getpid() % 100_000)")) != nil
}()

@Suite struct TapLinkTests {
  @Test(arguments: ["", "a/b", "sixteen-bytes-xx"]) func impossibleNamesAreRefused(name: String) {
    #expect(throws: NetworkLinkError.invalidName(name)) { try TapLink(name: name) }
  }

  @Test(.enabled(if: canMakeTaps)) func secondUserOfATapIsToldThatItIsBusy() throws {
    let name = "castor-a\(getpid() % 100_000)"
    let tap = try TapLink(name: name)
    #expect(tap.offloads == .all)
    #expect(throws: NetworkLinkError.busy(interface: name)) { try TapLink(name: name) }
    tap.accept([.checksum, .segmentation4])
    // The interface is down: the packet is lost, and that is all.
    #expect(tap.send(packet(60, 1)) == .dropped)
    #expect(tap.receive() == nil)
  }

  @Test(.enabled(if: canMakeTaps)) func interfaceThatIsNoTapIsNamed() {
    #expect(throws: NetworkLinkError.notATap(interface: "lo")) { try TapLink(name: "lo") }
  }
}
