// The services under stress: each makes 3x + 1 of word 0, and first asks the next service as often as word 1 says.

import Pollux
import Synchronization

enum StressServer {
  /// The connection to the next service; 0 for none. Several callers are in the service at once.
  private static let next = Atomic<UInt64>(0)

  static func serve() throws(SystemError) -> Never {
    let name = StressProgram.argument("next")
    let stacks = Int(StressProgram.argument("stacks")?.number ?? 2)
    let service = try RPCService.create(stacks: stacks) { _, message in
      var value = message[0]
      let depth = message[1]
      message[2] = 0
      if message[3] == 1 { Clock.sleep(microseconds: 300) }
      if depth > 0, let name {
        var onward = Message(value, depth - 1, 0, message[3])
        do throws(SystemError) {
          try forward(&onward, name)
          value = onward[0]
          message[2] = onward[2]
        } catch { message[2] = UInt64(bitPattern: error.rawValue) }
      }
      message[0] = value &* 3 &+ 1
    }
    try service.publish()
    while true { Clock.sleep(microseconds: 1_000_000_000) }
  }

  /// Calls the next service, by a new connection where the old one's service has died.
  private static func forward(_ message: inout Message, _ name: Bytes) throws(SystemError) {
    var handle = next.load(ordering: .acquiring)
    if handle == 0 {
      let made = try Connection.open(name).handle.rawValue
      let (exchanged, found) = next.compareExchange(expected: 0, desired: made, ordering: .acquiringAndReleasing)
      // Another caller was quicker.
      if !exchanged { Handle(made).close() }
      handle = exchanged ? made : found
    }
    do throws(SystemError) { try Connection(Handle(handle)).call(&message) } catch {
      if error == .peerClosed,
        next.compareExchange(expected: handle, desired: 0, ordering: .acquiringAndReleasing).exchanged
      {
        Handle(handle).close()
      }
      throw error
    }
  }
}

/// Calls services at random until it is killed, checks every answer, and gives up (with code 99) at a wrong one.
enum StressClient {
  static func run() throws(SystemError) -> Never {
    let seed = Clock.now
    // Two threads of one process call, too.
    try Thread.start(priority: 7) { call(seed ^ 0x5555) }
    call(seed)
  }

  private static func call(_ seed: UInt64) -> Never {
    var dice = Dice(seed)
    let names: [Bytes] = [Bytes("server1"), Bytes("server2"), Bytes("server3"), Bytes("stress")]
    var connections: [Connection?] = [nil, nil, nil, nil]
    while true {
      let choice = Int(dice.roll(4))
      do throws(SystemError) {
        let connection: Connection
        if let open = connections[choice] {
          connection = open
        } else {
          connection = try Connection.open(names[choice], flags: dice.roll(2) == 0 ? .refuse : [])
          connections[choice] = connection
        }
        let value = dice.roll(1 << 40)
        let depth = choice == 3 ? 0 : dice.roll(4)
        var message = Message(value, depth, 0, dice.roll(4))
        let deadline =
          dice.roll(3) == 0 ? Clock.now + Clock.ticks(microseconds: 200 + dice.roll(3000)) : SystemCall.forever
        try connection.call(&message, until: deadline)
        var expected = value
        for _ in 0...depth { expected = expected &* 3 &+ 1 }
        if message[2] == 0, message[0] != expected {
          Console.write("stress: FAILED: a wrong answer\n")
          Kernel.exit(99)
        }
      } catch {
        switch error {
        case .peerClosed, .badHandle, .notFound:
          if let old = connections[choice] { old.handle.close() }
          connections[choice] = nil
          Clock.sleep(microseconds: 1000)
        case .timedOut, .exhausted, .deadlock, .aborted: break
        default:
          var line = Text("stress: FAILED: a call ends with: ")
          line.add(error.name)
          line.add("\n")
          line.print()
          Kernel.exit(99)
        }
      }
    }
  }
}
