// Thousands of deaths in the middle of calls: servers and clients at random, in every place of nested chains, with deadlines running
// out meanwhile; and then not a byte and not a thread more or less than before (HongMeng §4.1).
import CKernelTest
import CPollux
import Pollux

struct RandomNumbers {
  private var state: UInt64
  init(seed: UInt64) { state = seed &* 0x9e37_79b9_7f4a_7c15 | 1 }
  /// Marsaglia's xorshift64.
  mutating func next(below bound: UInt64) -> UInt64 {
    state ^= state << 13
    state ^= state >> 7
    state ^= state << 17
    return (state >> 11) % bound
  }
}

extension RpcTests {
  /// As many rounds as fit in the time, at least 60; each ends seven processes or more.
  static func randomDeaths(_ checks: inout Checks, _ code: ChildCode, milliseconds: UInt64) {
    var random = RandomNumbers(seed: pollux_time_stamp())
    // What the heap and the kernel keep for ever is there after a few rounds.
    var deaths: UInt64 = 0
    for _ in 0..<10 { deaths &+= round(&random, code) }
    let free = must(.systemQuery, SystemQuery.memoryFree.rawValue)
    let threads = threadCount()
    let end = deadline(milliseconds: milliseconds)
    var rounds: UInt64 = 0
    while rounds < 60 || pollux_time_stamp() < end && rounds < 2000 {
      deaths &+= round(&random, code)
      rounds += 1
    }
    // Threads that were on their way when their processes ended.
    letOthersRun(milliseconds: 20)
    checks.note("random-deaths", deaths)
    checks.expect("deaths leave no thread behind", threadCount() == threads)
    let left = must(.systemQuery, SystemQuery.memoryFree.rawValue)
    if left != free {
      checks.note("free-before", free)
      checks.note("free-after", left)
    }
    checks.expect("and no memory", left == free)
  }

  /// Servers that call each other in all directions, clients that call them, and their ends in random order; how many processes ended.
  private static func round(_ random: inout RandomNumbers, _ code: ChildCode) -> UInt64 {
    let servers = (0..<4).map { _ in ScriptServer(code, stacks: Int(1 + random.next(below: 2))) }
    let gate = must(.notificationCreate)
    for (index, server) in servers.enumerated() {
      for step in 1...3 {
        let to = servers[(index + step) % servers.count].connect(refuse: random.next(below: 4) == 0)
        server.give(to)
        _ = must(.handleClose, to)
      }
      _ = must(.handleGrant, server.process, gate, UInt64(Rights.all.rawValue), 0)
    }
    var processes: [UInt64] = servers.map { $0.process }
    for _ in 0..<3 {
      let client = code.process()
      let to = servers[Int(random.next(below: 4))].connect()
      _ = must(.handleGrant, client, to, UInt64(Rights.call.rawValue), 0)
      _ = must(.handleClose, to)
      code.start(client, child_offset_rpc_client(), script(&random), priority: 3 + random.next(below: 6))
      processes.append(client)
    }
    // This thread calls too, in time or not.
    let own = servers[Int(random.next(below: 4))].connect()
    for _ in 0..<2 {
      _ = call(own, script: script(&random), until: pollux_time_stamp() &+ 20_000 &+ random.next(below: 400_000))
    }
    _ = must(.handleClose, own)
    var living = Array(processes.indices)
    while !living.isEmpty {
      let victim = living.remove(at: Int(random.next(below: UInt64(living.count))))
      if random.next(below: 2) == 0 { _ = raw(.threadSleep, pollux_time_stamp() &+ random.next(below: 300_000)) }
      if random.next(below: 8) == 0 { _ = raw(.notificationSignal, gate, 1) }
      _ = raw(.processKill, processes[victim], 1)
    }
    for server in servers { _ = must(.handleClose, server.service) }
    for process in processes { _ = must(.handleClose, process) }
    _ = must(.handleClose, gate)
    return UInt64(processes.count)
  }

  /// Up to six steps: mostly calls, some system calls and waits, now and then a death.
  private static func script(_ random: inout RandomNumbers) -> UInt64 {
    var script: UInt64 = 0
    for _ in 0..<random.next(below: 7) {
      let step: UInt64 =
        switch random.next(below: 32) {
        case 0...15: 1 + random.next(below: 3)
        case 16...19: 8
        case 20, 21: 10
        case 22, 23: 11
        case 24, 25: 7
        case 26: 9
        case 27: 12
        case 28: 4
        case 29: 5
        case 30: 6
        default: 0
        }
      script = script << 4 | step
    }
    return script
  }

  private static func threadCount() -> Int {
    let records = UnsafeMutableBufferPointer<ThreadInfo>.allocate(capacity: 256)
    defer { records.deallocate() }
    records.initialize(repeating: ThreadInfo())
    return Kernel.threads(from: 0, into: records)
  }
}
