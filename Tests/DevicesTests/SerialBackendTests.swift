import Glibc
import HostSystem
import Synchronization
import SystemPackage
import Testing

@testable import Devices

@Suite struct SerialDestinationTests {
  @Test func textAndValueAgree() throws {
    for text in ["stdio", "none", "pty", "file:/a b", "unix:x"] {
      #expect(try SerialDestination(parsing: text).description == text)
    }
    #expect(try SerialDestination(parsing: "file:pty") == .file("pty"))
  }

  @Test(arguments: ["", "file:", "unix:", "file", "tty", "Stdio", "file :x"])
  func unknownTextIsNamedInTheError(text: String) {
    #expect(throws: SerialBackendError.unknownDestination(text)) { try SerialDestination(parsing: text) }
  }
}

@Suite struct EscapeFilterTests {
  /// Feeds `typed` in pieces of `size` bytes and notes what came out, commands as capital letters.
  private func split(_ typed: [UInt8], pieces size: Int) -> [UInt8] {
    var filter = EscapeFilter()
    var result: [UInt8] = []
    for start in stride(from: 0, to: typed.count, by: size) {
      Array(typed[start..<min(typed.count, start + size)]).withUnsafeBytes { piece in
        filter.split(piece) {
          result.append($0)
        } command: {
          result.append($0 == .quit ? 0xf0 : $0 == .help ? 0xf1 : 0xf2)
        }
      }
    }
    return result
  }

  @Test(arguments: 1...5)
  func commandsAreTakenOutWhereverTheReadsAreCut(size: Int) {
    #expect(split([97, 1, 120, 98], pieces: size) == [97, 0xf0, 98])
    #expect(split([1, 1, 1, 104, 1, 63, 1, 98], pieces: size) == [1, 0xf1, 0xf1, 0xf2])
    #expect(split([1, 113, 120, 3, 0, 255], pieces: size) == [120, 3, 0, 255])
  }
}

@Suite struct SerialBackendTests {
  let scratch = ScratchDirectory()
  let serial = WiredSerial(outputCapacity: 100_000)
  let loop: EventLoop

  init() throws { loop = try EventLoop() }

  private func backend(_ destination: SerialDestination) throws -> SerialBackend {
    try SerialBackend(destination, serial: serial.port, loop: loop) { _ in }
  }

  @Test func fileHoldsAllOutputAfterClose() throws {
    let path = scratch.file("console")
    let console = try backend(.file(path))
    let line = String(repeating: "0123456789", count: 20) + "\n"
    for _ in 0..<2000 { serial.send(line) }
    console.close()
    #expect(readFile(path) == Array(String(repeating: line, count: 2000).utf8))
    #expect(serial.port.counters.dropped == 0)
  }

  @Test func fileThatCannotBeOpenedIsNamed() throws {
    let missing = scratch.file("no/console")
    #expect(throws: SerialBackendError.cannotOpen(path: missing, .noSuchFileOrDirectory)) {
      try backend(.file(missing))
    }
    let fifo = scratch.file("fifo")
    mkfifo(fifo, 0o600)
    #expect(throws: SerialBackendError.cannotOpen(path: fifo, .noSuchAddressOrDevice)) { try backend(.file(fifo)) }
  }

  @Test func nowhereTakesEverything() throws {
    let console = try backend(.none)
    for _ in 0..<300 { serial.send(String(repeating: "x", count: 1000)) }
    #expect(serial.port.pendingOutput == 0)
    #expect(serial.port.counters.dropped == 0)
    console.close()
  }

  // MARK: Standard streams

  @Test func outputIsWrittenInBatches() throws {
    // A datagram socket keeps host writes apart.
    var ends: [CInt] = [-1, -1]
    socketpair(AF_UNIX, CInt(SOCK_SEQPACKET.rawValue), 0, &ends)
    defer { for end in ends { close(end) } }
    let input = TestPipe()
    let streams = try StandardStreams(serial: serial.port, loop: loop, input: input.reading, output: ends[0]) { _ in }
    let begin = monotonicNanoseconds()
    serial.send(String(repeating: "z", count: 400))
    let milliseconds = Int((monotonicNanoseconds() - begin) / 1_000_000)
    #expect(waitReadable(ends[1], milliseconds: 5000))
    streams.finish(milliseconds: 5000)
    _ = fcntl(ends[1], F_SETFL, O_NONBLOCK)
    var writes = 0
    var total = 0
    while case let piece = readAvailable(ends[1]), !piece.isEmpty {
      writes += 1
      total += piece.count
    }
    #expect(total == 400)
    // One batch a millisecond, and the rest.
    #expect(writes <= milliseconds + 2, "400 bytes in \(writes) host writes in \(milliseconds) ms")
  }

  @Test func pipeInputFlowsAsTheGuestTakesItAndItsEndMeansNothing() throws {
    let input = TestPipe()
    let output = TestPipe()
    let streams = try StandardStreams(
      serial: serial.port, loop: loop, input: input.reading, output: output.writing
    ) { _ in }
    let text = (0..<9000).map { UInt8(truncatingIfNeeded: $0 % 251) }
    #expect(write(input.writing, text, text.count) == text.count)
    input.closeWriting()
    for _ in 0..<20 { loop.poll(timeoutMilliseconds: 1) }
    serial.becomeReady()
    var read: [UInt8] = []
    #expect(
      poll(loop) {
        read += serial.readInput()
        return read.count >= text.count
      })
    #expect(read == text, "escape bytes included: this is no terminal")
    for _ in 0..<5 { loop.poll(timeoutMilliseconds: 1) }
    serial.send("still here")
    streams.finish(milliseconds: 5000)
    #expect(readAvailable(output.reading) == Array("still here".utf8))
  }

  @Test func regularFileAsInputIsReadToItsEnd() throws {
    let path = scratch.file("input")
    let text = (0..<10_000).map { UInt8(truncatingIfNeeded: $0 % 241) }
    let file = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0o600)
    defer { close(file) }
    #expect(write(file, text, text.count) == text.count)
    lseek(file, 0, SEEK_SET)
    let output = TestPipe()
    let streams = try StandardStreams(serial: serial.port, loop: loop, input: file, output: output.writing) { _ in }
    serial.becomeReady()
    var read: [UInt8] = []
    #expect(
      poll(loop) {
        read += serial.readInput()
        return read.count >= text.count
      })
    #expect(read == text)
    streams.finish(milliseconds: 5000)
  }

  @Test func brokenPipeIsReportedAndTheGuestGoesOn() throws {
    let input = TestPipe()
    var ends: [CInt] = [-1, -1]
    pipe(&ends)
    close(ends[0])
    defer { close(ends[1]) }
    let box = EventBox()
    let streams = try StandardStreams(serial: serial.port, loop: loop, input: input.reading, output: ends[1]) {
      box.note($0)
    }
    serial.send("into the void")
    #expect(poll(loop) { box.event != nil })
    #expect(box.event == .outputFailed(.brokenPipe))
    for _ in 0..<300 { serial.send(String(repeating: "x", count: 1000)) }
    #expect(poll(loop) { serial.port.pendingOutput == 0 })
    #expect(serial.status & 0x20 != 0)
    streams.finish(milliseconds: 5000)
  }

  // MARK: Unix socket

  private func connect(_ path: String) throws -> OwnedDescriptor {
    try UnixListener.connect(to: try UnixListener.address(of: path))
  }

  @Test func socketKeepsOutputForTheNextClientAndServesOneAtATime() throws {
    let path = scratch.file("console.sock")
    let console = try backend(.unixSocket(path))
    var status = stat()
    #expect(lstat(path, &status) == 0 && status.st_mode & 0o777 == 0o600)
    serial.send("before anyone came\n")
    for _ in 0..<5 { loop.poll(timeoutMilliseconds: 2) }
    do {
      let first = try connect(path)
      var got: [UInt8] = []
      #expect(
        poll(loop) {
          got += readAvailable(first.rawValue)
          return got.count >= 19
        })
      #expect(got == Array("before anyone came\n".utf8))

      let second = try connect(path)
      got = []
      #expect(
        poll(loop) {
          got += readAvailable(second.rawValue)
          return got.contains(10)
        })
      #expect(String(decoding: got, as: UTF8.self).contains("another client"))

      serial.becomeReady()
      writeAll(first.rawValue, "hello")
      var read: [UInt8] = []
      #expect(
        poll(loop) {
          read += serial.readInput()
          return read.count >= 5
        })
      #expect(read == Array("hello".utf8))
    }
    for _ in 0..<10 { loop.poll(timeoutMilliseconds: 2) }
    serial.send("between")
    for _ in 0..<5 { loop.poll(timeoutMilliseconds: 2) }
    let third = try connect(path)
    var got: [UInt8] = []
    #expect(
      poll(loop) {
        got += readAvailable(third.rawValue)
        return got.count >= 7
      })
    #expect(got == Array("between".utf8))
    serial.send("last words")
    console.close()
    #expect(readAvailable(third.rawValue) == Array("last words".utf8))
  }

  @Test func socketWithoutClientNeverStallsTheGuestAndKeepsTheNewest() throws {
    let path = scratch.file("console.sock")
    let console = try backend(.unixSocket(path))
    for index in 0..<8 {
      serial.send(String(repeating: "abcdefghij", count: 2_000) + "\(index)|")
      #expect(poll(loop) { serial.port.pendingOutput == 0 })
    }
    #expect(serial.status & 0x20 != 0)
    let client = try connect(path)
    var got: [UInt8] = []
    #expect(
      poll(loop) {
        got += readAvailable(client.rawValue)
        return got.suffix(2) == Array("7|".utf8)
      })
    #expect(got.count <= SerialConnection.retained && got.count > SerialConnection.retained - 8192)
    console.close()
  }

  @Test func slowSocketClientGetsEverything() throws {
    let path = scratch.file("console.sock")
    let console = try backend(.unixSocket(path))
    let client = try connect(path)
    for _ in 0..<3 { loop.poll(timeoutMilliseconds: 2) }
    let total = 400_000
    let port = serial.port
    let guest = try HostThread(name: "guest") {
      for index in 0..<total {
        while port.read(offset: 5) & 0x20 == 0 { sched_yield() }
        port.write(offset: 0, value: UInt8(truncatingIfNeeded: index % 251))
      }
    }
    var seen = 0
    var wrong = 0
    _ = poll(loop) {
      for byte in readAvailable(client.rawValue, atMost: 30_000) {
        if byte != UInt8(truncatingIfNeeded: seen % 251) { wrong += 1 }
        seen += 1
      }
      return seen >= total
    }
    #expect(seen == total && wrong == 0)
    if seen == total { guest.join() }
    console.close()
  }

  @Test func halfClosedClientStillReads() throws {
    let path = scratch.file("console.sock")
    let console = try backend(.unixSocket(path))
    serial.becomeReady()
    let client = try connect(path)
    writeAll(client.rawValue, "ls\n")
    shutdown(client.rawValue, CInt(SHUT_WR))
    var read: [UInt8] = []
    #expect(
      poll(loop) {
        read += serial.readInput()
        return read.count >= 3
      })
    for _ in 0..<5 { loop.poll(timeoutMilliseconds: 1) }
    serial.send("answer")
    var got: [UInt8] = []
    #expect(
      poll(loop) {
        got += readAvailable(client.rawValue)
        return got.count >= 6
      })
    console.close()
  }

  @Test func socketPathIsReplacedRefusedOrRejected() throws {
    let path = scratch.file("s")
    do {
      let listener = try UnixListener(path: path)
      #expect(throws: SocketPathError.inUse(path: path)) { try UnixListener(path: path) }
      #expect(listener.path == path)
    }
    #expect(access(path, F_OK) != 0, "removed with its listener")

    // A stale file: bound by a socket that nobody holds any more.
    do {
      let dead = try OwnedDescriptor { socket(AF_UNIX, CInt(SOCK_STREAM.rawValue), 0) }
      var address = try UnixListener.address(of: path)
      let descriptor = dead.rawValue
      withUnsafeMutablePointer(to: &address) {
        $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
          _ = bind(descriptor, $0, socklen_t(MemoryLayout<sockaddr_un>.size))
        }
      }
    }
    #expect(access(path, F_OK) == 0)
    do { _ = try UnixListener(path: path) }

    close(open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0o600))
    #expect(throws: SocketPathError.notASocket(path: path)) { try UnixListener(path: path) }
    #expect(access(path, F_OK) == 0, "somebody's file is left alone")
    let long = "/tmp/" + String(repeating: "x", count: 200)
    for bad in ["", "a\0b", long] {
      #expect(throws: SocketPathError.unusablePath(bad)) { try UnixListener(path: bad) }
    }
    let missing = scratch.file("no/s")
    #expect(throws: SocketPathError.cannotListen(path: missing, .noSuchFileOrDirectory)) {
      try UnixListener(path: missing)
    }
  }

  // MARK: Pseudo-terminal

  @Test func pseudoTerminalServesWhoeverOpensIt() throws {
    let console = try backend(.pseudoTerminal)
    let path = try #require(console.terminalPath)
    serial.send("early\n")
    for _ in 0..<5 { loop.poll(timeoutMilliseconds: 2) }
    serial.becomeReady()
    for round in 0..<3 {
      let user = try OwnedDescriptor { open(path, O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC) }
      var got: [UInt8] = []
      let expected = Array((round == 0 ? "early\n" : "between\n").utf8)
      #expect(
        poll(loop) {
          got += readAvailable(user.rawValue)
          return got.count >= expected.count
        })
      #expect(got == expected, "round \(round)")
      writeAll(user.rawValue, "\u{3}hi\r")
      var read: [UInt8] = []
      #expect(
        poll(loop) {
          read += serial.readInput()
          return read.count >= 4
        })
      #expect(read == [3, 104, 105, 13], "nothing is translated or taken as a signal")
      #expect(readAvailable(user.rawValue).isEmpty, "no echo")
      _ = consume user
      for _ in 0..<10 { loop.poll(timeoutMilliseconds: 2) }
      serial.send("between\n")
      for _ in 0..<5 { loop.poll(timeoutMilliseconds: 2) }
    }
    console.close()
  }
}

/// The last event that a backend reported.
final class EventBox: Sendable {
  private let content = Mutex<SerialEvent?>(nil)
  var event: SerialEvent? { content.withLock { $0 } }
  func note(_ event: SerialEvent) { content.withLock { $0 = event } }
}
