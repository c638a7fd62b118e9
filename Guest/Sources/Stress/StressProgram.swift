// A test under load: services that call each other by thread migration, clients of all of them, and a conductor that kills and
// restarts both at random and at the end accounts for memory, processes, threads and stacks.

import Pollux

@main enum StressProgram {
  /// Word 4 of a call to the conductor that passes a process, for which a token of the conductor's ring is to be made.
  static let tokenRequest: UInt64 = 0x6e65_6b6f_74
  /// What the ring's page says.
  static let ringMark: UInt64 = 0x5354_5245_5353

  static func main() {
    let mode = Program.start.text("mode") ?? Bytes("")
    do throws(SystemError) {
      if mode.equals("server") { try StressServer.serve() }
      if mode.equals("client") { try StressClient.run() }
      try WorkingClient.run(mode)
      var conductor = try Conductor()
      try conductor.run()
    } catch {
      var line = Text("stress: FAILED: ")
      line.add(error.name)
      line.add("\n")
      line.print()
      Kernel.exit(1)
    }
  }

  /// The value of the word `key=` of this program's arguments.
  static func argument(_ key: StaticString) -> Bytes? {
    var words = Parts(of: Program.start.text("arguments") ?? Bytes(""), separator: 0x20)
    while let word = words.next() {
      guard let equals = word.firstIndex(of: 0x3d), let name = word.slice(0, equals), name.equals(key) else { continue }
      return word.suffix(from: equals + 1)
    }
    return nil
  }
}

/// Numbers that differ from run to run unless they are seeded alike: xorshift64* (Marsaglia; Vigna).
struct Dice {
  private var state: UInt64
  init(_ seed: UInt64) { state = seed | 1 }
  mutating func roll(_ sides: UInt64) -> UInt64 {
    state ^= state >> 12
    state ^= state << 25
    state ^= state >> 27
    return (state &* 0x2545_f491_4f6c_dd1d).multipliedFullWidth(by: sides).high
  }
}
