// The calls of the file service: checks a message against what was granted, and has the VFS do it.

import FileInterface
import Pollux
import VFS

/// A process that has said hello.
private struct Client {
  let badge: UInt64
  let process: Process
  /// Its bit of the notification of ends, which others may share.
  let bit: UInt64
}

/// The one monitor of this program: its service has one stack, so one caller is in here at a time.
final class FileServer {
  private let vfs: VFS
  private let cache: PageCache?
  private let clock: WallClock
  /// Bit n % 63: a client whose number is n has ended.
  private let ends: Notification
  private var clients: [Client] = []
  private var nextClient: UInt64 = 0
  /// Something may have changed since the last sync.
  private(set) var isChanged = false

  init(_ vfs: VFS, cache: PageCache?, clock: WallClock, ends: Notification) {
    self.vfs = vfs
    self.cache = cache
    self.clock = clock
    self.ends = ends
  }

  func serve(_ badge: UInt64, _ message: inout Message) {
    let request = message
    let area = request.granted.flatMap { buffer in
      // Mapped here until this call returns.
      buffer.baseAddress.map { ByteArea(unsafeBase: $0, count: buffer.count) }
    }
    message = Message()
    vfs.now = clock.now
    do throws(FileError) {
      guard let call = FileCall(rawValue: request[0]) else { throw .invalid }
      if call == .hello {
        try greet(badge, request)
      } else {
        if area == nil, let stray = request.received { stray.close() }
        try perform(call, badge, request, area ?? nothing.area, &message)
      }
    } catch {
      message = Message(error.rawValue)
    }
  }

  private let nothing = ByteBlock(count: 0)

  // MARK: Clients

  private func greet(_ badge: UInt64, _ request: Message) throws(FileError) {
    guard request.granted == nil, let handle = request.received else { throw .invalid }
    let process = Process(handle)
    // Who ran under this badge before has ended, or this is its second hello.
    endClients { $0.badge == badge && $0.process.status.hasEnded }
    for client in clients where client.badge == badge {
      handle.close()
      return
    }
    let bit: UInt64 = 1 << (nextClient % 63)
    do throws(SystemError) { try process.watch(ends, bits: bit) } catch {
      handle.close()
      throw .invalid
    }
    nextClient += 1
    clients.append(Client(badge: badge, process: process, bit: bit))
  }

  private func endClients(_ choice: (Client) -> Bool) {
    var index = 0
    while index < clients.count {
      guard choice(clients[index]) else {
        index += 1
        continue
      }
      let client = clients.remove(at: index)
      vfs.endClient(client.badge)
      client.process.handle.close()
    }
  }

  // MARK: Calls

  /// The first `length` granted bytes from `offset`.
  private func part(_ area: ByteArea, _ offset: UInt64 = 0, _ length: UInt64) throws(FileError) -> ByteArea {
    guard offset <= UInt64(area.count), length <= UInt64(area.count) - offset else { throw .invalid }
    return area.slice(Int(offset), Int(length))
  }

  private func path(_ area: ByteArea, _ length: UInt64) throws(FileError) -> Bytes { try part(area, 0, length).bytes }

  /// As `part`, to be written into.
  private func room(_ area: ByteArea, _ request: Message, _ length: UInt64) throws(FileError) -> ByteArea {
    guard request.grantIsWritable else { throw .denied }
    return try part(area, 0, length)
  }

  private func perform(
    _ call: FileCall, _ badge: UInt64, _ request: Message, _ area: ByteArea, _ reply: inout Message
  ) throws(FileError) {
    let permissions = UInt16(truncatingIfNeeded: request[2])
    switch call {
    case .hello: throw .invalid
    case .open:
      guard clients.contains(where: { $0.badge == badge }) else { throw .denied }
      let flags = OpenFlags(rawValue: request[2])
      if !flags.isDisjoint(with: [.create, .truncate]) { isChanged = true }
      reply[1] = try vfs.open(
        badge, try path(area, request[1]), flags, permissions: UInt16(truncatingIfNeeded: request[3]))
    case .close: try vfs.close(badge, request[1])
    case .read:
      reply[1] = UInt64(try vfs.read(badge, request[1], request[2], into: try room(area, request, request[3])))
    case .write:
      isChanged = true
      reply[1] = UInt64(try vfs.write(badge, request[1], request[2], from: try part(area, 0, request[3])))
    case .readDirectory:
      var cursor = request[2]
      reply[1] = UInt64(
        try vfs.readDirectory(badge, request[1], &cursor, into: try room(area, request, request[3])))
      reply[2] = cursor
    case .attributes:
      let attributes = try vfs.attributes(at: try path(area, request[1]), followsLink: request[2] == 1)
      reply.put(attributes)
    case .attributesOfOpen: reply.put(try vfs.attributes(badge, request[1]))
    case .truncate:
      isChanged = true
      try vfs.truncate(badge, request[1], request[2])
    case .makeDirectory:
      isChanged = true
      try vfs.makeDirectory(try path(area, request[1]), permissions: permissions)
    case .removeDirectory:
      isChanged = true
      try vfs.removeDirectory(try path(area, request[1]))
    case .unlink:
      isChanged = true
      try vfs.unlink(try path(area, request[1]))
    case .rename, .link, .makeLink:
      isChanged = true
      let first = try path(area, request[1])
      let second = try part(area, request[1], request[2]).bytes
      if call == .rename {
        try vfs.rename(first, to: second)
      } else if call == .link {
        try vfs.link(first, to: second)
      } else {
        try vfs.makeLink(first, target: second)
      }
    case .readLink:
      let target = try vfs.readLink(try path(area, request[1]))
      let room = try room(area, request, UInt64(target.count))
      for index in target.indices { room.store(target[index], at: index) }
      reply[1] = UInt64(target.count)
    case .setPermissions:
      isChanged = true
      try vfs.setPermissions(try path(area, request[1]), permissions)
    case .mounted:
      guard request[1] < UInt64(VFS.maximumMounts), let (path, space) = vfs.mounted(Int(request[1])) else {
        throw .notFound
      }
      let room = try room(area, request, UInt64(path.count))
      for index in path.indices { room.store(path[index], at: index) }
      reply[1] = UInt64(space.blockSize) | (space.isReadOnly ? 1 << 63 : 0)
      reply[2] = space.blocks
      reply[3] = space.freeBlocks
      reply[4] = space.inodes
      reply[5] = space.freeInodes
      reply[6] = UInt64(path.count)
    case .sync:
      try vfs.sync()
      isChanged = false
    case .cache:
      guard let counters = cache?.counters else { throw .unsupported }
      reply[1] = counters.capacity
      reply[2] = counters.used
      reply[3] = counters.dirty
      reply[4] = counters.hits
      reply[5] = counters.misses
      reply[6] = counters.written
    case .clientsEnded:
      guard badge == 0 else { throw .denied }
      endClients { $0.bit & request[1] != 0 && $0.process.status.hasEnded }
    }
  }
}

extension Message {
  fileprivate mutating func put(_ attributes: FileAttributes) {
    let words = attributes.words
    for index in words.indices { self[index + 1] = words[index] }
  }
}

/// Seconds since 1970: the machine's clock, or where it has none what a disk was last written at, and the time since the start.
struct WallClock {
  private let base: UInt64

  /// `fallback`: a time that has certainly passed.
  init(fallback: UInt32) {
    let known = Kernel.info(KernelInfo.wallClockBase) / 1_000_000_000
    base = known != 0 ? known : UInt64(fallback)
  }

  var now: UInt32 {
    let passed = Clock.nanoseconds(Clock.now &- Kernel.info(KernelInfo.tscBase)) / 1_000_000_000
    return UInt32(truncatingIfNeeded: base + passed)
  }
}
