// File system and memory manager as one program in three compositions (HongMeng §4.3, Table 3), told apart by `mode` alone:
//
//   files, memory   two processes, each with one of the parts; the file's pages and the page cache are kept twice
//   separate        one process with both parts; two caches, but calls between the parts are calls of functions
//   shared          one process, one cache: a file's page is the page that is mapped

import FileInterface
import MemoryClient
import Pollux
import TmpFS

@main enum FileMemoryProgram {
  /// Pages of the files, and of a page cache of its own.
  static let pages = 2048

  static func main() {
    let mode = Program.start.text("mode") ?? Bytes("shared")
    do throws(SystemError) {
      let parts = Parts()
      if !mode.equals("memory") { parts.files = try FileSide(pages: pages) }
      if mode.equals("shared"), let files = parts.files {
        parts.memory = try MemorySide(sharing: files)
      } else if !mode.equals("files") {
        parts.memory = try MemorySide(pages: pages)
      }
      // One call at a time in each part: the part is its own lock.
      let service = try RPCService.create(stacks: 1) { badge, message in parts.serve(badge, &message) }
      parts.service = service
      if mode.equals("memory") { try parts.connectFiles() }
      try service.publish()
      // The process lives for its calls; it needs no thread, but its first must not end.
      let forever = try Notification.create()
      while true { _ = forever.wait() }
    } catch {
      var line = Text("file-memory: cannot start: ")
      line.add(error.name)
      line.add("\n")
      line.print()
      Kernel.exit(1)
    }
  }
}

/// What one process of the composition has.
final class Parts {
  var files: FileSide?
  var memory: MemorySide?
  var service: RPCService?
  private var clients: [Client] = []

  /// What is known of a client.
  private struct Client {
    var badge: UInt64
    var buffer: Mapping?
    var process: Handle?
  }

  /// The memory part's way to the file part where that is another process, and back.
  func connectFiles(patience: Int = 2000) throws(SystemError) {
    guard let memory, let service else { throw .notFound }
    let files = try Self.open(Bytes("files"), patience: patience)
    var message = Message(FileMemoryCall.attachCache.rawValue, UInt64(memory.pageCount))
    message.pass(memory.object.handle, [.read, .write, .grant])
    try files.call(&message)
    // The file part calls back through a connection of this service.
    let back = try service.connect(badge: Self.filesBadge)
    var second = Message(FileMemoryCall.attachCache.rawValue, 0)
    second.pass(back.handle, [.call])
    try files.call(&second)
    memory.remote = files
  }

  private static let filesBadge: UInt64 = 1 << 20
  /// Badges of faulting processes: this and the client's own.
  private static let faultBadge: UInt64 = 1 << 21

  /// `patience`: for how many milliseconds it asks for a service that is just being started.
  private static func open(_ name: Bytes, patience: Int) throws(SystemError) -> Connection {
    var tries = 0
    while true {
      do throws(SystemError) { return try Connection.open(name) } catch {
        tries += 1
        if (error != .notFound && error != .peerClosed) || tries > patience { throw error }
        Clock.sleep(microseconds: 1000)
      }
    }
  }

  /// Sees to it that the file part's process is there: a new one has other files, so that what is known of the old one's is forgotten.
  private func findFiles() throws(FileError) {
    guard let memory, files == nil else { return }
    if let remote = memory.remote {
      var probe = Message(FileMemoryCall.usage.rawValue)
      do throws(SystemError) {
        try remote.call(&probe)
        return
      } catch {
        if error == .deadlock { throw .busy }
        memory.forgetFiles()
      }
    }
    do throws(SystemError) { try connectFiles(patience: 500) } catch { throw .serviceGone }
  }

  func serve(_ badge: UInt64, _ message: inout Message) {
    if badge & Self.faultBadge != 0 {
      // Address, error code, instruction → 0: try again.
      let client = badge & ~Self.faultBadge
      message[0] = memory?.fault(client, address: message[0], isWrite: message[1] & 2 != 0, files) ?? 1
      return
    }
    let request = message
    message = Message()
    do throws(FileError) {
      try perform(badge, request, &message)
    } catch { message[0] = error.rawValue }
  }

  private func perform(_ badge: UInt64, _ request: Message, _ reply: inout Message) throws(FileError) {
    guard let call = FileMemoryCall(rawValue: request[0]) else { throw .invalid }
    switch call {
    case .attachBuffer:
      guard let handle = request.received else { throw .invalid }
      do throws(SystemError) {
        let mapping = try MemoryObject(handle).map([.read, .write])
        handle.close()
        let place = place(of: badge)
        clients[place].buffer?.unmap()
        clients[place].buffer = mapping
      } catch { reply[0] = FileMemoryCall.refused }
    case .create:
      guard let files else { throw .notFound }
      let name = request.text(at: 1, words: 2)
      reply[1] = UInt64(try files.create(name))
    case .write:
      guard let files else { throw .notFound }
      let area = try buffer(badge, request[3])
      try files.write(UInt32(truncatingIfNeeded: request[1]), request[2], area, memory)
    case .read:
      guard let files else { throw .notFound }
      let area = try buffer(badge, request[3])
      try files.system.readData(UInt32(truncatingIfNeeded: request[1]), request[2], into: area)
    case .attachProcess:
      guard let memory, let service, let process = request.received else { throw .invalid }
      let place = place(of: badge)
      clients[place].process?.close()
      clients[place].process = process
      // Who had this badge before is gone, and with it what was mapped there.
      memory.drop(badge)
      do throws(SystemError) {
        let faults = try service.connect(badge: Self.faultBadge | badge)
        try Pager.attach(process, to: faults)
        faults.handle.close()
        memory.add(badge, process)
      } catch { reply[0] = FileMemoryCall.refused }
    case .map:
      guard let memory else { throw .invalid }
      try findFiles()
      try memory.map(badge, UInt32(truncatingIfNeeded: request[1]), at: request[2], pages: request[3])
    case .dropMappings:
      memory?.drop(badge)
    case .usage:
      reply[1] = UInt64(files?.store.used ?? 0)
      reply[2] = UInt64(memory?.ownPagesUsed ?? 0)
    case .fetch:
      guard badge < Self.filesBadge, let files else { throw .invalid }
      try files.fetch(UInt32(truncatingIfNeeded: request[1]), request[2], toCachePage: request[3])
    case .changed:
      guard badge == Self.filesBadge, let memory else { throw .invalid }
      memory.changed(UInt32(truncatingIfNeeded: request[1]), first: request[2], pages: request[3])
    case .attachCache:
      guard let files, let handle = request.received else { throw .invalid }
      if request[1] == 0 {
        files.listener = Connection(handle)
      } else {
        files.forgetMemory()
        do throws(SystemError) {
          files.cache = try MemoryObject(handle).map([.read, .write])
          handle.close()
        } catch { reply[0] = FileMemoryCall.refused }
      }
    }
  }

  private func place(of badge: UInt64) -> Int {
    if let known = clients.firstIndex(where: { $0.badge == badge }) { return known }
    clients.append(Client(badge: badge))
    return clients.count - 1
  }

  /// The first `count` bytes of the client's buffer.
  private func buffer(_ badge: UInt64, _ count: UInt64) throws(FileError) -> ByteArea {
    guard let mapping = clients[place(of: badge)].buffer, count <= UInt64(mapping.size) else { throw .invalid }
    return ByteArea(unsafeBase: mapping.base, count: Int(count))
  }
}
