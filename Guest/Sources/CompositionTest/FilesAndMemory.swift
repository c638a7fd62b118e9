// The composed services as a client sees them, and as the registry shows them.

import FileInterface
import Pollux

/// A client of file system and memory manager, whose services may be the same.
struct FilesAndMemory {
  let files: Connection
  let memory: Connection
  private let buffer: Mapping
  private let shared: MemoryObject

  static let pageWords = 512

  /// Connects to the services of these names and gives `process` to the memory manager.
  init(files: Bytes, memory: Bytes) throws(SystemError) {
    self.files = try Services.open(files)
    self.memory = try Services.open(memory)
    shared = try MemoryObject.create(4096)
    buffer = try shared.map([.read, .write])
    var message = Message(FileMemoryCall.attachBuffer.rawValue, 4096)
    message.pass(shared.handle, [.read, .write, .grant])
    try Self.call(self.files, &message)
  }

  func close() {
    buffer.unmap()
    shared.handle.close()
    files.handle.close()
    if memory.handle.rawValue != files.handle.rawValue { memory.handle.close() }
  }

  private static func call(_ service: Connection, _ message: inout Message) throws(SystemError) {
    try service.call(&message)
    if message[0] != 0 { throw .badArgument }
  }

  /// Makes the memory manager serve this process's faults.
  func attach() throws(SystemError) {
    guard let own = Program.start.handle("process") else { throw .badHandle }
    var message = Message(FileMemoryCall.attachProcess.rawValue)
    message.pass(Handle(own), [.manage, .observe, .grant])
    try Self.call(memory, &message)
  }

  /// An empty file of that name (at most 8 bytes); its inode.
  func create(_ name: UInt64) throws(SystemError) -> UInt64 {
    var message = Message(FileMemoryCall.create.rawValue, name)
    try Self.call(files, &message)
    return message[1]
  }

  /// Fills a page of a file with `value`.
  func write(_ inode: UInt64, page: UInt64, value: UInt64) throws(SystemError) {
    // The buffer is one page of this process's own.
    let words = buffer.base.assumingMemoryBound(to: UInt64.self)
    for word in 0..<Self.pageWords { words[word] = value }
    var message = Message(FileMemoryCall.write.rawValue, inode, page * 4096, 4096)
    try Self.call(files, &message)
  }

  /// The first word of a page of a file.
  func read(_ inode: UInt64, page: UInt64) throws(SystemError) -> UInt64 {
    var message = Message(FileMemoryCall.read.rawValue, inode, page * 4096, 4096)
    try Self.call(files, &message)
    return buffer.base.assumingMemoryBound(to: UInt64.self)[0]
  }

  func map(_ inode: UInt64, at address: UInt64, pages: UInt64) throws(SystemError) {
    var message = Message(FileMemoryCall.map.rawValue, inode, address, pages)
    try Self.call(memory, &message)
  }
}

/// Services by name, through the registry.
enum Services {
  /// Waits up to three seconds for a service that is being started.
  static func open(_ name: Bytes) throws(SystemError) -> Connection {
    let end = Clock.now + Clock.ticks(microseconds: 3_000_000)
    while true {
      do throws(SystemError) { return try Connection.open(name) } catch {
        guard error == .notFound || error == .peerClosed, Clock.now < end else { throw error }
        Clock.sleep(microseconds: 1000)
      }
    }
  }

  private static func find(_ name: Bytes) throws(SystemError) -> (index: UInt64, state: ServiceState) {
    var index: UInt64 = 0
    while true {
      var message = Message(RegistryCall.service.rawValue, index)
      try Program.ask(&message)
      let text = message.text(at: 1, words: 2)
      if text.count == name.count, text.indices.allSatisfy({ text[$0] == name.byte($0) }) {
        return (index, ServiceState(rawValue: message[7] & 0xff) ?? .notStarted)
      }
      index += 1
    }
  }

  static func state(_ name: Bytes) throws(SystemError) -> ServiceState { try find(name).state }

  /// Waits up to three seconds.
  static func becomes(_ wanted: ServiceState, _ name: Bytes) throws(SystemError) -> Bool {
    let end = Clock.now + Clock.ticks(microseconds: 3_000_000)
    while try state(name) != wanted {
      guard Clock.now < end else { return false }
      Clock.sleep(microseconds: 1000)
    }
    return true
  }

  static func kill(_ name: Bytes) throws(SystemError) {
    var message = Message(RegistryCall.kill.rawValue, try find(name).index)
    try Program.ask(&message)
  }

  static func restart(_ name: Bytes) throws(SystemError) {
    var message = Message(RegistryCall.restart.rawValue, try find(name).index)
    try Program.ask(&message)
  }
}
