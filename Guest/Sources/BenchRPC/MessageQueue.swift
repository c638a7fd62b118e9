// The baseline: a message queue with two threads and a scheduler. A call wakes the server's thread and the caller sleeps until the
// reply wakes it, as in every microkernel without thread migration.

import BenchReport
import Pollux

enum MessageQueue {
  /// Measures a call and its reply between this process and the service `queue`, which is this program in mode `server`.
  static func measure(_ bench: inout Bench) throws(SystemError) {
    let server = try Program.connect(Bytes("queue"))
    for words in [0, 8] {
      var failure: SystemError?
      bench.measure(FigureName("message-queue/") + words + "-words") {
        var message = Message()
        for index in 0..<words { message[index] = UInt64(index) }
        do throws(SystemError) { try server.call(&message) } catch { failure = error }
      }
      if let failure { throw failure }
    }
  }

  /// Answers every call with its own words.
  static func serve() throws(SystemError) -> Never {
    guard let handle = Program.start.handle("service") else { throw .notFound }
    var server = Server(Handle(handle))
    var message = Message()
    while true { _ = try server.replyReceive(&message) }
  }
}
