// The baseline: a message queue with two threads and a scheduler. A call wakes the server's thread and the caller sleeps until the
// reply wakes it, as in every microkernel without thread migration.

import BenchReport
import Pollux

enum MessageQueue {
  /// Measures a call and its reply between this process and the service `queue`.
  static func measure(_ bench: inout Bench) throws(SystemError) {
    let server = try Program.connect(Bytes("queue"))
    var failure: SystemError?
    for words in [0, 8] {
      bench.measure(FigureName("message-queue/") + words + "-words") {
        var message = Message()
        for index in 0..<words { message[index] = UInt64(index) }
        do throws(SystemError) { try server.call(&message) } catch { failure = error }
      }
    }
    // Larger messages go through memory that both map: the client copies them there.
    let largest = 64 << 10
    let memory = try MemoryObject.create(UInt64(largest))
    let shared = try memory.map([.read, .write])
    let source = try MemoryObject.create(UInt64(largest)).map([.read, .write])
    var message = Message()
    message.pass(memory.handle, [.read])
    try server.call(&message)
    for size in [4096, largest] {
      bench.measure(FigureName("message-queue/") + size + "-bytes") {
        // Both mappings are `largest` bytes long.
        shared.base.copyMemory(from: source.base, byteCount: size)
        var message = Message(UInt64(size))
        do throws(SystemError) { try server.call(&message) } catch { failure = error }
      }
    }
    source.unmap()
    shared.unmap()
    if let failure { throw failure }
  }

  /// Answers every call with its own words, after a look at each page of `message[0]` bytes of the memory that came last.
  static func serve() throws(SystemError) -> Never {
    guard let handle = Program.start.handle("service") else { throw .notFound }
    var server = Server(Handle(handle))
    var message = Message()
    var shared: Mapping?
    while true {
      _ = try server.replyReceive(&message)
      if let memory = message.received {
        shared = try MemoryObject(memory).map(.read)
        message = Message()
      } else if let shared, message[0] >= AddressSpace.pageSize, message[0] <= UInt64(shared.size) {
        message[1] = Servers.look(shared.base, Int(message[0]))
      }
    }
  }
}
