import Glibc
import Logging
import Testing

@testable import GDBRemote

@Suite struct DebugAddressTests {
  @Test(arguments: [
    ("1234", DebugAddress.tcp(host: "127.0.0.1", port: 1234)), (":1234", .tcp(host: "127.0.0.1", port: 1234)),
    ("localhost:1", .tcp(host: "127.0.0.1", port: 1)), ("0.0.0.0:65535", .tcp(host: "0.0.0.0", port: 65535)),
    ("[::1]:99", .tcp(host: "::1", port: 99)), ("unix:gdb.sock", .unix(path: "gdb.sock")),
    ("/run/gdb.sock", .unix(path: "/run/gdb.sock")), ("./x", .unix(path: "./x")),
  ])
  func formsAreRead(text: String, address: DebugAddress) throws {
    #expect(try DebugAddress(text) == address)
  }

  @Test(arguments: ["", ":", "65536", "-1", "host:", "nowhere:12", "1.2.3:4", "unix:", "12x"])
  func nonsenseIsRefusedByName(text: String) {
    #expect(throws: DebugServerError.invalidAddress(text)) { try DebugAddress(text) }
  }
}

@Suite struct DebugServerTests {
  @Test func portInUseIsNamed() throws {
    let first = try DebugServer(
      listeningOn: .tcp(host: "127.0.0.1", port: 0), target: MockTarget(), logger: Logger(label: "test"))
    #expect(throws: DebugServerError.addressInUse("\(first.address)")) {
      try DebugServer(listeningOn: first.address, target: MockTarget(), logger: Logger(label: "test"))
    }
  }

  @Test func socketPathIsReusedOnlyWhenNobodyListens() throws {
    let path = "/tmp/castor-gdb-test-\(getpid())-\(UInt32.random(in: 0 ... .max)).sock"
    let server = try DebugServer(listeningOn: .unix(path: path), target: MockTarget(), logger: Logger(label: "test"))
    try server.start()
    #expect(throws: DebugServerError.addressInUse(path)) {
      try DebugServer(listeningOn: .unix(path: path), target: MockTarget(), logger: Logger(label: "test"))
    }
    server.stop()
    #expect(access(path, F_OK) != 0)
    // A socket file left over from a killed process: bound once, never unlinked.
    let stale = socket(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0)
    var address = sockaddr_un()
    address.sun_family = sa_family_t(AF_UNIX)
    withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: Array(path.utf8)) }
    let bound = withUnsafePointer(to: &address) {
      $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
        bind(stale, $0, socklen_t(MemoryLayout<sockaddr_un>.size))
      }
    }
    close(stale)
    #expect(bound == 0)
    let second = try DebugServer(listeningOn: .unix(path: path), target: MockTarget(), logger: Logger(label: "test"))
    try second.start()
    second.stop()
  }

  @Test func debuggersComeOneAfterTheOtherAndASecondAtOnceIsTurnedAway() throws {
    let target = MockTarget()
    let server = try DebugServer(
      listeningOn: .tcp(host: "127.0.0.1", port: 0), target: target, logger: Logger(label: "test"))
    try server.start()
    defer { server.stop() }
    guard case .tcp(_, let port) = server.address else { return }

    let first = try SocketDebugger(port: port)
    #expect(first.request("qC") == "+$QC1#c5")
    let second = try SocketDebugger(port: port)
    #expect(second.receive(1) == "", "the second connection is closed")
    #expect(first.request("D") == "+$OK#9a")
    #expect(first.receive(1) == "", "the server closes after a detach")
    #expect(target.state.withLock { !$0.isAttached })

    // One that vanishes while the target runs lets it run, and the next finds it.
    let third = try SocketDebugger(port: port)
    #expect(third.request("qC") == "+$QC1#c5")
    #expect(third.request("c") == "+")
    third.hangUp()
    for _ in 0..<2000 where target.state.withLock({ $0.isAttached }) { usleep(1000) }
    #expect(target.state.withLock { !$0.isAttached })
    let fourth = try SocketDebugger(port: port)
    #expect(fourth.request("qC") == "+$QC1#c5")
    #expect(target.state.withLock { $0.attachCount } == 3)
    fourth.hangUp()
  }

  @Test func debuggerThatDoesNotReadIsServedWhenItReadsAgain() throws {
    let server = try DebugServer(
      listeningOn: .tcp(host: "127.0.0.1", port: 0), target: MockTarget(), logger: Logger(label: "test"))
    try server.start()
    defer { server.stop() }
    guard case .tcp(_, let port) = server.address else { return }
    let debugger = try SocketDebugger(port: port)
    #expect(debugger.request("QStartNoAckMode") == "+$OK#9a")
    // Far more than socket buffers hold: 2000 answers of 8 KiB.
    let packet = PacketEncoder.encode("m1000,1000".utf8)
    let answer = 4 + 2 * 4096
    let count = 2000
    debugger.sendInBackground(packet, count: count)
    var received = 0
    while received < count * answer {
      let chunk = debugger.receiveCount(65536)
      guard chunk > 0 else { break }
      received += chunk
    }
    #expect(received == count * answer)
  }
}

/// A blocking socket that speaks for a debugger.
final class SocketDebugger: @unchecked Sendable {
  // @unchecked: the descriptor is constant; sockets may be used from two threads.
  private let descriptor: Int32
  struct Failure: Error {}

  init(port: UInt16) throws {
    descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
    var timeout = timeval(tv_sec: 120, tv_usec: 0)
    setsockopt(descriptor, SOL_SOCKET, SO_RCVTIMEO, &timeout, socklen_t(MemoryLayout<timeval>.size))
    var address = sockaddr_in()
    address.sin_family = sa_family_t(AF_INET)
    address.sin_port = port.bigEndian
    address.sin_addr.s_addr = UInt32(0x7f00_0001).bigEndian
    let result = withUnsafePointer(to: &address) {
      $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
        connect(descriptor, $0, socklen_t(MemoryLayout<sockaddr_in>.size))
      }
    }
    guard result == 0 else { throw Failure() }
  }

  deinit { close(descriptor) }

  func hangUp() { shutdown(descriptor, Int32(SHUT_RDWR)) }

  /// Sends a packet and returns what comes back at once, up to the end of one packet where one comes.
  func request(_ text: String) -> String {
    send(PacketEncoder.encode(text.utf8))
    var answer = receive(1)
    guard text != "c" else { return answer }
    while !answer.isEmpty, answer.dropLast(2).last != "#" {
      let next = receive(1)
      guard !next.isEmpty else { break }
      answer += next
    }
    return answer
  }

  func send(_ bytes: [UInt8]) { _ = Glibc.send(descriptor, bytes, bytes.count, Int32(MSG_NOSIGNAL)) }

  func sendInBackground(_ bytes: [UInt8], count: Int) {
    var thread = pthread_t()
    let work = Unmanaged.passRetained(Work(debugger: self, bytes: bytes, count: count)).toOpaque()
    let result = pthread_create(
      &thread, nil,
      { argument in
        guard let argument else { return nil }
        let work = Unmanaged<Work>.fromOpaque(argument).takeRetainedValue()
        for _ in 0..<work.count { work.debugger.send(work.bytes) }
        return nil
      }, work)
    if result == 0 { pthread_detach(thread) }
  }

  private final class Work {
    let debugger: SocketDebugger
    let bytes: [UInt8]
    let count: Int
    init(debugger: SocketDebugger, bytes: [UInt8], count: Int) {
      self.debugger = debugger
      self.bytes = bytes
      self.count = count
    }
  }

  func receive(_ count: Int) -> String {
    var buffer = [UInt8](repeating: 0, count: count)
    let received = recv(descriptor, &buffer, count, 0)
    return String(decoding: buffer.prefix(max(0, received)), as: UTF8.self)
  }

  func receiveCount(_ count: Int) -> Int {
    var buffer = [UInt8](repeating: 0, count: count)
    return recv(descriptor, &buffer, count, 0)
  }
}
