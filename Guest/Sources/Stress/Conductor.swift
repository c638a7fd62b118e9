// The conductor: kills and restarts the services and clients of the composition, calls them itself, and accounts for everything.

import Pollux

/// What there is of everything that could leak.
private struct Books: Equatable {
  /// Bytes free, and the kernel's own in frames that it keeps once it has had them.
  var free = Kernel.query(.memoryFree)
  var kernel = Kernel.query(.memoryKernel)
  var processes: UInt64 = 0
  var threads: UInt64 = 0
}

struct Conductor {
  /// A service that may be killed.
  private struct Victim {
    let index: UInt64
    let name: [UInt8]
  }

  private var victims: [Victim] = []
  private var dice: Dice
  private let service: RPCService
  /// Clients have tokens of it.
  private let ring: Token
  private var kills: UInt64 = 0
  private var restarts: UInt64 = 0

  init() throws(SystemError) {
    dice = Dice(StressProgram.argument("seed")?.number ?? Clock.now)
    // The one service that lives through it all: its stacks must all be free at the end, whoever died in it.
    let ring = try Token.create(.ring)
    ring.store(StressProgram.ringMark, at: RingPage.tail)
    self.ring = ring
    service = try RPCService.create(stacks: 3) { _, message in
      if message[4] == StressProgram.tokenRequest, let process = message.received {
        message = Message(0, (try? ring.grant(to: process, [.read])) ?? 0)
        process.close()
        return
      }
      if message[3] == 1 { Clock.sleep(microseconds: 300) }
      message[0] = message[0] &* 3 &+ 1
      message[2] = 0
    }
    try service.publish()
    var index: UInt64 = 0
    while true {
      var message = Message(RegistryCall.service.rawValue, index)
      do throws(SystemError) { try Program.ask(&message) } catch {
        if error == .notFound { break }
        throw error
      }
      let mode = message.text(at: 5, words: 2)
      let program = message.text(at: 3, words: 2)
      // The conductor itself has no mode, and a driver's parts start together only.
      let isOurs =
        Self.spells(program, "stress")
        ? !mode.isEmpty
        : ["memdisk", "echo", "vfs", "file-memory", "memory-manager"].contains { Self.spells(program, $0) }
      if isOurs {
        victims.append(Victim(index: index, name: message.text(at: 1, words: 2)))
      }
      index += 1
    }
  }

  private static func spells(_ text: [UInt8], _ word: StaticString) -> Bool {
    text.withUnsafeBytes { buffer in
      guard let base = buffer.baseAddress else { return false }
      // The array lives as long as this closure.
      return Bytes(unsafeBase: base, count: buffer.count).equals(word)
    }
  }

  mutating func run() throws(SystemError) {
    guard victims.count >= 4 else { throw .notFound }
    let seconds = StressProgram.argument("seconds")?.number ?? 10
    // What is made once and kept (tables, the allocators' frames) is made before the books are opened.
    try rage(milliseconds: 1500)
    let before = try settle()
    try rage(milliseconds: seconds * 1000)
    let after = try settle()
    report("kills", kills)
    report("restarts", restarts)
    report("free-before", before.free)
    report("free-after", after.free)
    report("kernel-before", before.kernel)
    report("kernel-after", after.kernel)
    var isGood = true
    isGood = check("no memory is lost", before.free + before.kernel == after.free + after.kernel) && isGood
    isGood = check("the processes are those of before", before.processes == after.processes) && isGood
    isGood = check("the threads are those of before", before.threads == after.threads) && isGood
    isGood = check("no stack is bound to a call", service.query(.inUse) == 0 && service.query(.waiting) == 0) && isGood
    isGood = check("no token of the ring is left", (try? ring.info().derived) == 0) && isGood
    isGood = check("all stacks are there", service.query(.stacks) == 3) && isGood
    isGood = check("something was killed", kills > 0 && restarts > 0) && isGood
    Console.write(isGood ? "stress: done\n" : "stress: FAILED\n")
    try Program.control(.exit, isGood ? 0 : 1)
  }

  private func check(_ what: StaticString, _ isGood: Bool) -> Bool {
    var line = Text(isGood ? "stress: ok " : "stress: FAILED ")
    line.add(what)
    line.add("\n")
    line.print()
    return isGood
  }

  private func report(_ what: StaticString, _ value: UInt64) {
    var line = Text("stress: note ")
    line.add(what)
    line.add(" ")
    line.add(value)
    line.add("\n")
    line.print()
  }

  /// Kills and restarts at random, with everything alive in between for long enough to work.
  private mutating func rage(milliseconds: UInt64) throws(SystemError) {
    for victim in victims { try restart(victim) }
    let end = Clock.now + Clock.ticks(microseconds: milliseconds * 1000)
    while Clock.now < end {
      let victim = victims[Int(dice.roll(UInt64(victims.count)))]
      if dice.roll(2) == 0 { try kill(victim) } else { try restart(victim) }
      Clock.sleep(microseconds: dice.roll(12_000))
    }
  }

  /// Ends all victims, waits until they are gone, and opens the books.
  private mutating func settle() throws(SystemError) -> Books {
    for victim in victims { try kill(victim) }
    // What is killed ends when its processors have seen it, which takes long on a busy host.
    let deadline = Clock.now + Clock.frequency * 20
    for victim in victims { while try isRunning(victim), Clock.now < deadline { Clock.sleep(microseconds: 20_000) } }
    // Servers finish calls whose callers are dead; init closes what it held. Then nothing changes any more.
    var books = try count()
    var isQuiet = 0
    while isQuiet < 3, Clock.now < deadline {
      Clock.sleep(microseconds: 200_000)
      let next = try count()
      isQuiet = next == books ? isQuiet + 1 : 0
      books = next
    }
    return books
  }

  private func count() throws(SystemError) -> Books {
    // Init keeps the last few handles that it passed on: let them be the same every time.
    for _ in 0..<6 { try Connection.open(Bytes("stress")).handle.close() }
    var books = Books()
    let processes = UnsafeMutableBufferPointer<ProcessInfo>.allocate(capacity: 64)
    let threads = UnsafeMutableBufferPointer<ThreadInfo>.allocate(capacity: 64)
    processes.initialize(repeating: ProcessInfo())
    threads.initialize(repeating: ThreadInfo())
    books.processes = UInt64(Kernel.processes(from: 0, into: processes))
    books.threads = UInt64(Kernel.threads(from: 0, into: threads))
    processes.deallocate()
    threads.deallocate()
    books.free = Kernel.query(.memoryFree)
    books.kernel = Kernel.query(.memoryKernel)
    return books
  }

  private func isRunning(_ victim: Victim) throws(SystemError) -> Bool {
    var message = Message(RegistryCall.service.rawValue, victim.index)
    try Program.ask(&message)
    return message[7] & 0xff == ServiceState.running.rawValue
  }

  private mutating func kill(_ victim: Victim) throws(SystemError) {
    guard try isRunning(victim) else { return }
    var message = Message(RegistryCall.kill.rawValue, victim.index)
    // It may have ended by itself in between.
    do throws(SystemError) { try Program.ask(&message) } catch { if error != .notFound { throw error } }
    kills += 1
  }

  private mutating func restart(_ victim: Victim) throws(SystemError) {
    guard try !isRunning(victim) else { return }
    var message = Message(RegistryCall.restart.rawValue, victim.index)
    try Program.ask(&message)
    restarts += 1
  }
}
