// Whose time, memory and priority a server uses (HongMeng §4.1): the caller's.
import CKernelTest
import CPollux
import Pollux

extension RpcTests {
  static func resources(_ checks: inout Checks, _ code: ChildCode) {
    let server = ScriptServer(code, stacks: 1)
    let gate = must(.notificationCreate)
    for _ in 0..<4 { _ = must(.handleGrant, server.process, gate, UInt64(Rights.all.rawValue), 0) }
    let connection = server.connect()
    let done = must(.notificationCreate)

    // A caller of low priority waits in the server.
    try? Thread.start(priority: 5) {
      _ = call(connection, script: 0x07)
      _ = raw(.notificationSignal, done, 1)
    }
    _ = soon { visitor() != nil }
    let caller = visitor()
    checks.expect("a thread in a server is listed there", caller != nil)
    checks.expect("with its own priority", caller?.priority == 5)
    _ = must(.notificationSignal, gate, 1)
    _ = raw(.notificationWait, done, deadline(milliseconds: 2000))

    // Time spent in the server.
    let identifier = caller?.domain ?? 0
    let before = (time(of: 1), time(of: identifier))
    for _ in 0..<8 { _ = call(connection, script: 0x0999) }
    let after = (time(of: 1), time(of: identifier))
    let run: UInt64 = 8 * 3 << 20
    checks.expect("the caller's process pays for it", after.0 &- before.0 >= run)
    checks.expect("the server's does not", after.1 &- before.1 < run / 100)

    // One holds the only stack, one of middle priority keeps the processor, an urgent one calls.
    let seen = SharedCounters()
    try? Thread.start(priority: 5) {
      _ = call(connection, script: 0x0999_9999)
      _ = raw(.notificationSignal, done, 1)
    }
    _ = server.becomes(inUse: 1)
    let end = deadline(milliseconds: 400)
    for _ in 0..<4 {
      try? Thread.start(priority: 7) {
        while pollux_time_stamp() < end {}
        seen.add(0)
        _ = raw(.notificationSignal, done, 2)
      }
    }
    try? Thread.start(priority: 8) {
      if call(connection, script: 0).result == 0, seen.value(0) == 0 { seen.add(1) }
      _ = raw(.notificationSignal, done, 4)
    }
    var bits: UInt64 = 0
    while bits != 7 || seen.value(0) < 4 {
      let result = raw(.notificationWait, done, deadline(milliseconds: 5000))
      if result <= 0 { break }
      bits |= UInt64(result)
    }
    checks.expect("an urgent caller is not held up by the less urgent", bits == 7 && seen.value(1) == 1)

    checks.expect("a lent priority is given back", visitor() == nil && server.becomes(inUse: 0))
    server.close()
    for handle in [gate, done] { _ = must(.handleClose, handle) }
  }

  /// A thread of this process that is in another.
  private static func visitor() -> ThreadInfo? {
    let records = UnsafeMutableBufferPointer<ThreadInfo>.allocate(capacity: 64)
    defer { records.deallocate() }
    records.initialize(repeating: ThreadInfo())
    let count = Kernel.threads(from: 0, into: records)
    for index in 0..<count where records[index].process == 1 && records[index].domain != 1 { return records[index] }
    return nil
  }

  private static func time(of process: UInt32) -> UInt64 {
    let records = UnsafeMutableBufferPointer<ProcessInfo>.allocate(capacity: 1)
    defer { records.deallocate() }
    records.initialize(repeating: ProcessInfo())
    guard Kernel.processes(from: process, into: records) == 1, records[0].identifier == process else { return 0 }
    return records[0].processorTime
  }
}
