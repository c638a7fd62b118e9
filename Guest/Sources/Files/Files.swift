// Files as programs see them: calls of the file service with paths and data in pages that are granted for each call.

@_exported import FileInterface
import Pollux

/// A client's way to the file service. Used by one thread. When the service dies, the call under way and all files opened through it fail
/// with `serviceGone`; the next call looks for a service that has taken its place.
public final class Files {
  private let service: Bytes
  private let buffer: Mapping
  private var connection: Connection?
  /// Counts the connections, so that a file is not mistaken for one of a service that came later.
  private var epoch: UInt64 = 0
  /// How long a call waits for a service that is being started, in microseconds.
  public var patience: UInt64 = 3_000_000

  /// Bytes that one call can move.
  private static let bufferSize = 64 << 10

  /// The file service called `service`, which need not run yet.
  public init(service: Bytes = Bytes("vfs")) throws(SystemError) {
    self.service = service
    buffer = try MemoryObject.create(UInt64(Self.bufferSize)).map([.read, .write])
  }

  // MARK: Calls

  /// Whether the composition has such a service, running or not.
  public var isPresent: Bool {
    do throws(SystemError) {
      try Program.connect(service).handle.close()
      return true
    } catch { return error != .notFound }
  }

  private func connected() throws(FileError) -> Connection {
    if let connection { return connection }
    let deadline = Clock.now + Clock.ticks(microseconds: patience)
    while true {
      do throws(SystemError) {
        let made = try Connection.open(service)
        var hello = Message(FileCall.hello.rawValue)
        if let process = Program.ownProcess { hello.pass(process, [.observe]) }
        try made.call(&hello)
        guard hello[0] == 0 else { throw SystemError.denied }
        connection = made
        epoch += 1
        return made
      } catch {
        // Not published yet, or just being started again.
        guard error == .notFound || error == .peerClosed, Clock.now < deadline, isPresent else { throw .serviceGone }
        Clock.sleep(microseconds: 10_000)
      }
    }
  }

  /// Calls with the first `granted` bytes of the buffer.
  private func call(_ message: inout Message, granted: Int = 0) throws(FileError) {
    let connection = try connected()
    if granted > 0 {
      message.grant(Grant(address: buffer.address, pages: (UInt64(granted) + 4095) / 4096, writable: true))
    }
    do throws(SystemError) { try connection.call(&message) } catch {
      switch error {
      case .peerClosed, .badHandle:
        connection.handle.close()
        self.connection = nil
        throw .serviceGone
      case .noMemory: throw .noSpace
      default: throw .inputOutput
      }
    }
    if message[0] != 0 { throw FileError(rawValue: message[0]) ?? .inputOutput }
  }

  private func put(_ text: Bytes, at offset: Int = 0) throws(FileError) {
    guard offset + text.count <= Self.bufferSize else { throw .badName }
    ByteArea(unsafeBase: buffer.base, count: buffer.size).copy(text.area, at: offset)
  }

  private func callWithPath(
    _ call: FileCall, _ path: Bytes, _ word2: UInt64 = 0, _ word3: UInt64 = 0
  ) throws(FileError) -> Message {
    try put(path)
    var message = Message(call.rawValue, UInt64(path.count), word2, word3)
    try self.call(&message, granted: max(1, path.count))
    return message
  }

  private func callWithPaths(_ call: FileCall, _ first: Bytes, _ second: Bytes) throws(FileError) {
    try put(first)
    try put(second, at: first.count)
    var message = Message(call.rawValue, UInt64(first.count), UInt64(second.count))
    try self.call(&message, granted: max(1, first.count + second.count))
  }

  // MARK: Files

  /// An open file or directory; `close` gives it back, and so does the end of the process.
  public struct File {
    fileprivate let handle: UInt64
    fileprivate let epoch: UInt64
  }

  public func open(_ path: Bytes, _ flags: OpenFlags, permissions: UInt16 = 0o644) throws(FileError) -> File {
    let reply = try callWithPath(.open, path, flags.rawValue, UInt64(permissions))
    return File(handle: reply[1], epoch: epoch)
  }

  private func check(_ file: File) throws(FileError) {
    guard file.epoch == epoch, connection != nil else { throw .serviceGone }
  }

  public func close(_ file: File) throws(FileError) {
    try check(file)
    var message = Message(FileCall.close.rawValue, file.handle)
    try call(&message)
  }

  /// Reads at `offset` into the start of `area`; bytes read, 0 at the end of the file.
  public func read(_ file: File, _ offset: UInt64, into area: ByteArea) throws(FileError) -> Int {
    try check(file)
    var done = 0
    while done < area.count {
      let wanted = min(area.count - done, Self.bufferSize)
      var message = Message(FileCall.read.rawValue, file.handle, offset + UInt64(done), UInt64(wanted))
      try call(&message, granted: wanted)
      let count = Int(min(message[1], UInt64(wanted)))
      area.copy(ByteArea(unsafeBase: buffer.base, count: count), at: done)
      done += count
      if count < wanted { break }
    }
    return done
  }

  /// Writes all of `area` at `offset`.
  public func write(_ file: File, _ offset: UInt64, from area: ByteArea) throws(FileError) {
    try check(file)
    var done = 0
    while done < area.count {
      let wanted = min(area.count - done, Self.bufferSize)
      ByteArea(unsafeBase: buffer.base, count: buffer.size).copy(area.slice(done, wanted))
      var message = Message(FileCall.write.rawValue, file.handle, offset + UInt64(done), UInt64(wanted))
      try call(&message, granted: wanted)
      let count = Int(min(message[1], UInt64(wanted)))
      guard count > 0 else { throw .inputOutput }
      done += count
    }
  }

  public func truncate(_ file: File, to size: UInt64) throws(FileError) {
    try check(file)
    var message = Message(FileCall.truncate.rawValue, file.handle, size)
    try call(&message)
  }

  public func attributes(_ file: File) throws(FileError) -> FileAttributes {
    try check(file)
    var message = Message(FileCall.attributesOfOpen.rawValue, file.handle)
    try call(&message)
    return try Self.attributes(message)
  }

  // MARK: Names

  public func attributes(at path: Bytes, followsLink: Bool = true) throws(FileError) -> FileAttributes {
    try Self.attributes(try callWithPath(.attributes, path, followsLink ? 1 : 0))
  }

  private static func attributes(_ message: Message) throws(FileError) -> FileAttributes {
    let words: InlineArray<6, UInt64> = [message[1], message[2], message[3], message[4], message[5], message[6]]
    guard let attributes = FileAttributes(words: words) else { throw .inputOutput }
    return attributes
  }

  /// All entries of a directory but `.` and `..`.
  public func list(_ path: Bytes) throws(FileError) -> [DirectoryEntry] {
    let directory = try open(path, [.read, .directory])
    var entries: [DirectoryEntry] = []
    var cursor: UInt64 = 0
    while true {
      try check(directory)
      var message = Message(FileCall.readDirectory.rawValue, directory.handle, cursor, 4096)
      try call(&message, granted: 4096)
      guard message[1] > 0, message[1] <= 4096 else { break }
      cursor = message[2]
      let area = ByteArea(unsafeBase: buffer.base, count: Int(message[1]))
      var position = 0
      while let entry = DirectoryRecord.take(at: &position, from: area) { entries.append(entry) }
    }
    try close(directory)
    return entries
  }

  public func makeDirectory(_ path: Bytes, permissions: UInt16 = 0o755) throws(FileError) {
    _ = try callWithPath(.makeDirectory, path, UInt64(permissions))
  }
  public func removeDirectory(_ path: Bytes) throws(FileError) { _ = try callWithPath(.removeDirectory, path) }
  /// Removes a name that is no directory's.
  public func unlink(_ path: Bytes) throws(FileError) { _ = try callWithPath(.unlink, path) }
  public func rename(_ path: Bytes, to newPath: Bytes) throws(FileError) { try callWithPaths(.rename, path, newPath) }
  /// A further name for a file.
  public func link(_ path: Bytes, to newPath: Bytes) throws(FileError) { try callWithPaths(.link, path, newPath) }
  /// A symbolic link at `path` that names `target`.
  public func makeLink(_ path: Bytes, target: Bytes) throws(FileError) { try callWithPaths(.makeLink, path, target) }
  public func readLink(_ path: Bytes) throws(FileError) -> [UInt8] {
    try put(path)
    var message = Message(FileCall.readLink.rawValue, UInt64(path.count))
    try call(&message, granted: 4096)
    guard message[1] <= 4096 else { throw .inputOutput }
    return ByteArea(unsafeBase: buffer.base, count: Int(message[1])).bytes.array
  }
  public func setPermissions(_ path: Bytes, _ permissions: UInt16) throws(FileError) {
    _ = try callWithPath(.setPermissions, path, UInt64(permissions))
  }

  /// The mounted file system of that index, the root's first: where it lies and its space; nil behind the last.
  public func mounted(_ index: Int) throws(FileError) -> (path: [UInt8], space: FileSystemSpace)? {
    var message = Message(FileCall.mounted.rawValue, UInt64(index))
    do throws(FileError) { try call(&message, granted: 4096) } catch {
      if error == .notFound { return nil }
      throw error
    }
    guard message[6] <= 4096 else { throw .inputOutput }
    let path = ByteArea(unsafeBase: buffer.base, count: Int(message[6])).bytes.array
    let space = FileSystemSpace(
      blockSize: UInt32(truncatingIfNeeded: message[1]), blocks: message[2], freeBlocks: message[3],
      inodes: message[4], freeInodes: message[5], isReadOnly: message[1] >> 63 != 0)
    return (path, space)
  }

  /// Everything written before, by whomever, is on stable storage when this returns.
  public func sync() throws(FileError) {
    var message = Message(FileCall.sync.rawValue)
    try call(&message)
  }

  /// What the page cache holds and has done; nil where the service has none.
  public func cache() throws(FileError) -> PageCacheReport? {
    var message = Message(FileCall.cache.rawValue)
    do throws(FileError) { try call(&message) } catch {
      if error == .unsupported { return nil }
      throw error
    }
    var report = PageCacheReport()
    report.capacity = message[1]
    report.used = message[2]
    report.dirty = message[3]
    report.hits = message[4]
    report.misses = message[5]
    report.written = message[6]
    return report
  }
}
