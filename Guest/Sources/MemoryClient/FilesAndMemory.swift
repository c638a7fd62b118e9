// File system and memory manager, in one process or two (docs/composition.md), as a client sees them.

import FileInterface
import Pollux

/// A client of file system and memory manager, whose services may be the same.
public struct FilesAndMemory {
  public let files: Connection
  public let memory: Connection
  private let buffer: Mapping
  private let shared: MemoryObject

  public static let pageWords = 512

  /// Connects to the services of these names and gives `process` to the memory manager.
  public init(files: Bytes, memory: Bytes) throws(SystemError) {
    self.files = try Services.open(files)
    self.memory = try Services.open(memory)
    shared = try MemoryObject.create(4096)
    buffer = try shared.map([.read, .write])
    var message = Message(FileMemoryCall.attachBuffer.rawValue, 4096)
    message.pass(shared.handle, [.read, .write, .grant])
    try Self.call(self.files, &message)
  }

  public func close() {
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
  public func attach() throws(SystemError) {
    guard let own = Program.start.handle("process") else { throw .badHandle }
    var message = Message(FileMemoryCall.attachProcess.rawValue)
    message.pass(Handle(own), [.manage, .observe, .grant])
    try Self.call(memory, &message)
  }

  /// An empty file of that name (at most 8 bytes); its inode.
  public func create(_ name: UInt64) throws(SystemError) -> UInt64 {
    var message = Message(FileMemoryCall.create.rawValue, name)
    try Self.call(files, &message)
    return message[1]
  }

  /// Fills a page of a file with `value`.
  public func write(_ inode: UInt64, page: UInt64, value: UInt64) throws(SystemError) {
    // The buffer is one page of this process's own.
    let words = buffer.base.assumingMemoryBound(to: UInt64.self)
    for word in 0..<Self.pageWords { words[word] = value }
    var message = Message(FileMemoryCall.write.rawValue, inode, page * 4096, 4096)
    try Self.call(files, &message)
  }

  /// The first word of a page of a file.
  public func read(_ inode: UInt64, page: UInt64) throws(SystemError) -> UInt64 {
    var message = Message(FileMemoryCall.read.rawValue, inode, page * 4096, 4096)
    try Self.call(files, &message)
    return buffer.base.assumingMemoryBound(to: UInt64.self)[0]
  }

  public func map(_ inode: UInt64, at address: UInt64, pages: UInt64) throws(SystemError) {
    var message = Message(FileMemoryCall.map.rawValue, inode, address, pages)
    try Self.call(memory, &message)
  }
}
