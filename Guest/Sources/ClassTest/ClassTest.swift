// Calls between services of all isolation classes (HongMeng §4.2, Fig. 4), from a client in IC2: the composition has echo services
// `echo0`, `echo1` and `echo2`. It checks what a call carries, measures each pair, and kills the called.

import CPollux
import Pollux

@main enum ClassTest {
  static func main() {
    let names: [StaticString] = ["echo0", "echo1", "echo2"]
    var failures: UInt64 = 0
    for name in names {
      guard let connection = open(name) else {
        say("FAILED open ", name)
        failures += 1
        continue
      }
      var good = true
      for round in 0..<UInt64(50) {
        let reply = try? connection.call(EchoRequest.echo.rawValue, round &* 0x1_0000_0001)
        if reply == nil || reply!.0 != 0 || reply!.1 != round &* 0x1_0000_0001 { good = false }
      }
      say(good ? "ok calls " : "FAILED calls ", name)
      if !good { failures += 1 }
      for other in names {
        var words = Message()
        words.put(Bytes(other), at: 0, words: 2)
        let reply = try? connection.call(EchoRequest.measure.rawValue, words[0], words[1], 100)
        var line = Text(reply?.0 == 0 ? "pair " : "FAILED pair ")
        line.add(name)
        line.add(" ")
        line.add(other)
        line.add(" ")
        line.add((reply?.1 ?? 0) / 100)
        line.add("\n")
        line.print()
        if reply?.0 != 0 { failures += 1 }
      }
    }
    killed(&failures)
    say(failures == 0 ? "ok the test " : "FAILED the test ", "ends")
    try? Program.control(.exit, failures == 0 ? 0 : 1)
  }

  /// A killed service closes its connections, whatever its class.
  static func killed(_ failures: inout UInt64) {
    var index: UInt64 = 0
    while true {
      var message = Message(RegistryCall.service.rawValue, index)
      do throws(SystemError) { try Program.ask(&message) } catch { return }
      let name = message.text(at: 1, words: 2)
      if name.count == 5, name[0] == 0x65 {
        let connection = name.withUnsafeBytes { bytes in
          bytes.baseAddress.flatMap { try? Connection.open(Bytes(unsafeBase: $0, count: bytes.count)) }
        }
        message = Message(RegistryCall.kill.rawValue, index)
        try? Program.ask(&message)
        var result = SystemError.badCall
        do throws(SystemError) { _ = try connection?.call(EchoRequest.echo.rawValue) } catch { result = error }
        say(result == .peerClosed ? "ok its death closes its connections: " : "FAILED death: ", "echo")
        if result != .peerClosed { failures += 1 }
      }
      index += 1
    }
  }

  static func open(_ name: StaticString) -> Connection? {
    for _ in 0..<200 {
      if let connection = try? Connection.open(Bytes(name)) { return connection }
      Clock.sleep(microseconds: 5000)
    }
    return nil
  }

  static func say(_ text: StaticString, _ detail: StaticString) {
    var line = Text(text)
    line.add(detail)
    line.add("\n")
    line.print()
  }
}
