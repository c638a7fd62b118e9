// What dies with a service, in each composition of file system and memory manager (HongMeng §4.3): the test kills the services that its
// arguments `files=NAME memory=NAME` name and looks at the other one, at a process that has a file mapped (mode `child`), and at what
// init starts again. `Tests/GuestTests/CompositionTests.swift` reads the lines and the exit code.

import MemoryClient
import Pollux

@main enum CompositionTest {
  static var files: Bytes { argument("files") ?? Bytes("memory") }
  static var memory: Bytes { argument("memory") ?? Bytes("memory") }
  private static var child: Bytes { Bytes("child") }
  /// Init starts it again only when told to, so that its end can be seen.
  private static var isSplit: Bool { argument("files") != nil }
  private static let fileName: UInt64 = 0x656c_6966  // "file"
  private static let pages: UInt64 = 8

  private static func argument(_ key: StaticString) -> Bytes? {
    CommandLine(Program.start.text("arguments") ?? Bytes("")).value(key)
  }

  static func main() {
    do throws(SystemError) {
      if (Program.start.text("mode") ?? Bytes("")).equals("child") { try MappingChild.serve() }
      try test()
    } catch {
      var line = Text("FAILED with an error: ")
      line.add(error.name)
      line.add("\n")
      line.print()
    }
    do throws(SystemError) { try Program.control(.exit, 1) } catch {}
    Kernel.exit(1)
  }

  private nonisolated(unsafe) static var failures: UInt64 = 0  // one thread

  private static func expect(_ name: StaticString, _ holds: Bool) {
    if !holds { failures += 1 }
    // One piece: init's lines come in between others.
    var line = Text(holds ? "ok " : "FAILED ")
    line.add(name)
    line.add("\n")
    line.print()
  }

  private static func test() throws(SystemError) {
    // Ends of the file system's process.
    var client = try filled()
    var eyes = try Eyes(client.inode, pages: pages)
    expect("a mapping shows the file", eyes.look(at: 0) == 100 && eyes.look(at: 3) == 103)
    try Services.kill(files)
    expect(
      "a call to the dead file system ends with an error",
      endsClosed { () throws(SystemError) in _ = try client.parts.read(client.inode, page: 0) })
    if isSplit { expect("the memory manager lives", try Services.state(memory) == .running) }
    expect("a page that was not there ends the process that asks for it", eyes.look(at: 5) == nil)
    expect("which is a fault of its own", try Services.becomes(.faulted, child))
    expect("init starts the file system again", try Services.becomes(.running, files))
    client.parts.close()
    eyes.close()

    // The new one has no files; all works again.
    client = try filled()
    try Services.restart(child)
    eyes = try Eyes(client.inode, pages: pages)
    expect("a new file is mapped in a new process", eyes.look(at: 2) == 102)
    try client.parts.write(client.inode, page: 2, value: 777)
    expect("and the mapping follows it", eyes.look(at: 2) == 777)
    guard isSplit else { return try end() }

    // Ends of the memory manager's process: the files live.
    try Services.kill(memory)
    expect("the file system lives", try client.parts.read(client.inode, page: 3) == 103)
    try client.parts.write(client.inode, page: 3, value: 888)
    expect("and takes writes to what was mapped", try client.parts.read(client.inode, page: 3) == 888)
    expect("what the dead manager had mapped is out of reach", eyes.look(at: 2) == nil)
    expect("which is a fault of its own, too", try Services.becomes(.faulted, child))
    expect("init starts the memory manager again", try Services.becomes(.running, memory))
    eyes.close()
    try Services.restart(child)
    eyes = try Eyes(client.inode, pages: pages)
    expect("the same file is mapped again", eyes.look(at: 3) == 888 && eyes.look(at: 4) == 104)
    try client.parts.write(client.inode, page: 4, value: 999)
    expect("and the new mapping follows it", eyes.look(at: 4) == 999)
    try end()
  }

  private static func end() throws(SystemError) {
    if failures == 0 { Console.write("ok the test reached its end\n") }
    try Program.control(.exit, failures == 0 ? 0 : 1)
  }

  /// A client, and a file whose page n holds 100 + n.
  private static func filled() throws(SystemError) -> (parts: FilesAndMemory, inode: UInt64) {
    let parts = try FilesAndMemory(files: files, memory: memory)
    let inode = try parts.create(fileName)
    for page in 0..<pages { try parts.write(inode, page: page, value: 100 + page) }
    return (parts, inode)
  }

  private static func endsClosed(_ body: () throws(SystemError) -> Void) -> Bool {
    do throws(SystemError) {
      try body()
      return false
    } catch { return error == .peerClosed }
  }
}

/// The child's mapping of a file, seen from outside.
struct Eyes {
  private let connection: Connection

  init(_ inode: UInt64, pages: UInt64) throws(SystemError) {
    connection = try Services.open(Bytes("child"))
    var message = Message(0, inode, pages)
    try connection.call(&message)
    if message[0] != 0 { throw .badArgument }
  }

  /// The first word of a mapped page, as the child reads it; nil if that ends the child.
  func look(at page: UInt64) -> UInt64? {
    var message = Message(1, page)
    do throws(SystemError) { try connection.call(&message) } catch { return nil }
    return message[1]
  }

  func close() { connection.handle.close() }
}

/// The process with the mapping. Call 0: inode, pages: maps. Call 1: page → its first word.
enum MappingChild {
  private static let address: UInt64 = 0x30_0000_0000

  static func serve() throws(SystemError) -> Never {
    var parts: FilesAndMemory?
    let service = try RPCService.create(stacks: 1) { _, message in
      let request = message
      message = Message()
      if request[0] == 0 {
        do throws(SystemError) {
          let made = try FilesAndMemory(files: CompositionTest.files, memory: CompositionTest.memory)
          try made.attach()
          try made.map(request[1], at: address, pages: request[2])
          parts = made
        } catch { message[0] = 1 }
      } else if parts != nil, let base = UnsafePointer<UInt64>(bitPattern: UInt(address)) {
        // Mapped by call 0; where the file's page cannot be had, this process ends.
        message[1] = base[Int(request[1]) * FilesAndMemory.pageWords]
      }
    }
    try service.publish()
    let forever = try Notification.create()
    while true { _ = forever.wait() }
  }
}
