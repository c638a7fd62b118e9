// File system and memory manager as one program in three compositions (HongMeng §4.3, Table 3), told apart by `mode` alone:
//
//   files, memory   two processes, each with one of the parts; the file's pages and the page cache are kept twice
//   separate        one process with both parts; two caches, but calls between the parts are calls of functions
//   shared          one process, one cache: a file's page is the page that is mapped

import FileInterface
import Pollux
import TmpFS

/// Operations of the service: word 0 of a call. Word 0 of the reply is 0, a `FileError`, or `FileMemoryCall.refused`.
enum FileMemoryCall: UInt64 {
  /// Passes a memory object of the client, size in word 1: where data travels from now on.
  case attachBuffer = 0
  /// Name in words 1–2, made anew if there is one → inode in word 1.
  case create = 1
  /// Inode, offset, count: writes from the buffer's start.
  case write = 2
  /// Inode, offset, count: reads into the buffer's start.
  case read = 3
  /// Passes the client's process with the right to manage it, whose faults in mappings are served from now on.
  case attachProcess = 4
  /// Inode, address, pages: maps the file there, read-only.
  case map = 5
  /// Takes all mappings of the client out, and forgets what the page cache holds.
  case dropMappings = 6
  /// → pages in use by files in word 1, by the page cache in word 2.
  case usage = 7
  /// Between the parts: inode, index, page of the cache object: copies the file's page there.
  case fetch = 8
  /// Between the parts: inode, first page, pages: the file has changed.
  case changed = 9
  /// Between the parts: passes the page cache's memory, pages in word 1.
  case attachCache = 10

  static let refused: UInt64 = 1 << 32
}

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
  func connectFiles() throws(SystemError) {
    guard let memory, let service else { throw .notFound }
    let files = try Self.open(Bytes("files"))
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

  private static func open(_ name: Bytes) throws(SystemError) -> Connection {
    var tries = 0
    while true {
      do throws(SystemError) { return try Connection.open(name) } catch {
        tries += 1
        if error != .notFound || tries > 2000 { throw error }
        Clock.sleep(microseconds: 1000)
      }
    }
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
      do throws(SystemError) {
        let faults = try service.connect(badge: Self.faultBadge | badge)
        try Pager.attach(process, to: faults)
        faults.handle.close()
        memory.add(badge, process)
      } catch { reply[0] = FileMemoryCall.refused }
    case .map:
      guard let memory else { throw .invalid }
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
