// What a call between two services costs (HongMeng §4.1, §4.2, Fig. 4). The program is client and servers alike: its mode says which.

import BenchReport
import Pollux

@main enum BenchRPC {
  static func main() {
    let mode = Program.start.text("mode") ?? Bytes("")
    do throws(SystemError) {
      if mode.equals("queue") { try MessageQueue.serve() }
      if mode.equals("short") { try Servers.serveShort() }
      if mode.equals("full") { try Servers.serveFull() }
    } catch { Kernel.exit(1) }
    var bench = Bench("rpc")
    do throws(SystemError) {
      // A form for each class of the client has its row of the matrix; the first has the rest too.
      if !(MeasureOptions.value("matrix", in: bench.arguments)?.equals("only") ?? false) {
        bench.measure("system-call/null") { Kernel.null() }
        try signal(&bench)
        try MessageQueue.measure(&bench)
        try Migration.measure(&bench)
      }
      try Matrix.measure(&bench)
    } catch { bench.fail("a service or the kernel refuses", error) }
    bench.finish()
  }

  /// A bit set and taken again by the same thread: two system calls.
  private static func signal(_ bench: inout Bench) throws(SystemError) {
    let notification = try Notification.create()
    bench.measure("notification/signal-and-poll") {
      notification.signal(1)
      _ = notification.poll()
    }
    notification.handle.close()
  }

  /// A connection to a service that may not have got so far yet.
  static func open(_ name: Bytes) throws(SystemError) -> Connection {
    var tries = 0
    while true {
      do throws(SystemError) { return try Connection.open(name) } catch {
        tries += 1
        if error != .notFound || tries > 2000 { throw error }
        Clock.sleep(microseconds: 1000)
      }
    }
  }
}
