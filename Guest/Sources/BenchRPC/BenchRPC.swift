// What a call between two services costs: the measuring side of §4.1 and Fig. 4.

import BenchReport
import Pollux

@main enum BenchRPC {
  static func main() {
    if Program.start.text("mode")?.equals("server") ?? false {
      do throws(SystemError) { try MessageQueue.serve() } catch { Kernel.exit(1) }
    }
    var bench = Bench("rpc")
    bench.measure("system-call/null") { Kernel.null() }
    do throws(SystemError) {
      try signal(&bench)
      try MessageQueue.measure(&bench)
    } catch { bench.fail("the message queue", error) }
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
}
