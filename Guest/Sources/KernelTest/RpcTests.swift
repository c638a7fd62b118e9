// Calls by thread migration (HongMeng §4.1): what they carry, what happens when stacks run out, when somebody dies in the middle,
// when time runs out; whose priority and time a server uses; and that nothing is left behind.
import CKernelTest
import CPollux
import Pollux

/// A process without threads that serves `child_rpc_server`'s scripts.
struct ScriptServer {
  let process: UInt64
  let service: UInt64

  /// Stacks lie from 0x200_0000 up, a page each, their windows from 0x1000_0000.
  init(_ code: ChildCode, stacks: Int, entry: UInt64 = child_offset_rpc_server()) {
    process = code.process()
    service = must(.serviceCreate, process, 0x40_0000 + entry, 0x40_0000)
    guard stacks > 0 else { return }
    let memory = must(.memoryCreate, UInt64(stacks) * 4096)
    _ = must(.memoryMap, process, memory, 0x200_0000, 0, UInt64(stacks) * 4096, 3)
    _ = must(.handleClose, memory)
    for index in 1...UInt64(stacks) {
      _ = must(.serviceAddStack, service, 0x200_0000 + index * 4096, 0x1000_0000 + index << 20)
    }
  }

  func connect(badge: UInt64 = 0, refuse: Bool = false) -> UInt64 {
    must(.connectionCreate, service, badge, refuse ? 1 : 0)
  }
  /// Gives this server's process a connection, as its next handle.
  func give(_ connection: UInt64) {
    _ = must(.handleGrant, process, connection, UInt64(Rights([.call, .grant]).rawValue), 0)
  }
  func query(_ query: ServiceQuery) -> Int64 { raw(.serviceQuery, service, query.rawValue) }
  /// Waits up to two seconds until so many stacks are in use: threads that finish without their callers take what time they get.
  func becomes(inUse count: Int64) -> Bool {
    let end = deadline(milliseconds: 2000)
    while query(.inUse) != count {
      if pollux_time_stamp() > end { return false }
      _ = raw(.threadSleep, deadline(milliseconds: 1))
    }
    return true
  }
  func close() {
    _ = must(.handleClose, service)
    _ = must(.handleClose, process)
  }
}

/// Calls with a script: the call's own result, what came back in words 0 and 1.
func call(
  _ connection: UInt64, script: UInt64, until deadline: UInt64 = SystemCall.forever, handle: UInt64 = 0
) -> (result: Int64, status: Int64, count: UInt64) {
  var message = pollux_message()
  message.target = connection
  message.word0 = script
  message.handle = handle
  let number = deadline == SystemCall.forever ? SystemCall.rpcCall : .rpcCallTimed
  let result = pollux_rpc_message(number.rawValue, &message, deadline)
  return (result, Int64(bitPattern: message.word0), message.word1)
}

/// Through the message stub, since a return keeps no registers.
func returnWithoutCall() -> Int64 {
  var message = pollux_message()
  return pollux_rpc_message(SystemCall.rpcReturn.rawValue, &message, 0)
}

enum RpcTests {
  static func run(_ checks: inout Checks) {
    let code = ChildCode()
    basics(&checks, code)
    exhaustion(&checks, code)
    deaths(&checks, code)
    endings(&checks, code)
    resources(&checks, code)
    randomDeaths(&checks, code, milliseconds: 1000)
    cost(&checks, code)
    code.close()
  }

  static func basics(_ checks: inout Checks, _ code: ChildCode) {
    checks.expect("a call needs a connection", .badHandle, call(99, script: 0).result)
    checks.expect("a call refuses huge handles", .badHandle, call(1 << 40, script: 0).result)
    checks.expect("a call refuses other kinds", .wrongKind, call(InitialHandle.archive, script: 0).result)
    checks.expect("nobody returns who was not called", .notFound, returnWithoutCall())
    let a = ScriptServer(code, stacks: 2)
    let b = ScriptServer(code, stacks: 1)
    let c = ScriptServer(code, stacks: 1)
    let toA = a.connect()
    a.give(b.connect())
    b.give(c.connect())
    b.give(a.connect())
    let one = call(toA, script: 0)
    checks.expect("a call returns with its words", one.result == 0 && one.status == 0 && one.count == 1)
    let three = call(toA, script: 0x0011)
    checks.expect("calls nest three deep", three.result == 0 && three.status == 0 && three.count == 3)
    let cycle = call(toA, script: 0x0021)
    checks.expect("a cycle finds its second stack", cycle.result == 0 && cycle.status == 0 && cycle.count == 3)
    let calls = call(toA, script: 0x088a8)
    checks.expect("a server makes system calls", calls.result == 0 && calls.count == 1)
    var good = true
    for _ in 0..<200 { good = good && call(toA, script: 0x0011).count == 3 }
    checks.expect("two hundred chains", good)

    // A page granted for one call.
    let page = must(.memoryCreate, 4096)
    let at: UInt64 = 0x52_0000_0000
    _ = must(.memoryMap, 0, page, at, 0, 4096, 3)
    if let words = UnsafeMutablePointer<UInt64>(bitPattern: UInt(at)) {
      // The page just mapped.
      for index in 0..<512 { words[index] = UInt64(index) }
      let grant = 1 << 63 | at | 1 << 11
      let sum = call(toA, script: 0x0d, handle: grant)
      checks.expect(
        "a granted page is read and written", sum.result == 0 && sum.count == 130_816 && words[0] == 130_816)
      let again = call(toA, script: 0x0d, handle: grant)
      checks.expect("and can be granted again", again.result == 0 && again.count == 261_632)
      checks.expect("no grant of what is not mapped", .badAddress, call(toA, script: 0xd, handle: grant + 8192).result)
      _ = must(.memoryProtect, 0, at, 4096, 1)
      checks.expect("no writable grant of a read-only page", .badAddress, call(toA, script: 0xd, handle: grant).result)
      checks.expect(
        "a read-only grant cannot be written", .peerClosed, call(toA, script: 0xd, handle: 1 << 63 | at).result)
    }
    _ = must(.memoryUnmap, 0, at, 4096)
    _ = must(.handleClose, page)
    checks.expect("a fault ends its server", .peerClosed, call(toA, script: 0).result)
    for server in [a, b, c] { server.close() }
  }

  static func exhaustion(_ checks: inout Checks, _ code: ChildCode) {
    // One stack each, in a circle.
    let a = ScriptServer(code, stacks: 1)
    let b = ScriptServer(code, stacks: 1)
    let toA = a.connect()
    let toB = b.connect()
    a.give(b.connect())
    b.give(a.connect())
    let cycle = call(toA, script: 0x0011)
    checks.expect("a cycle without stacks is told", cycle.result == 0 && cycle.status == SystemError.deadlock.rawValue)
    let refusing = a.connect(refuse: true)
    let done = must(.notificationCreate)
    try? Thread.start(priority: 10) {
      _ = call(toA, script: 0xb_bbbb)
      _ = raw(.notificationSignal, done, 1)
    }
    _ = a.becomes(inUse: 1)
    checks.expect("a full service refuses", .exhausted, call(refusing, script: 0).result)
    let waited = call(a.connect(), script: 0)
    checks.expect("or has its caller wait", waited.result == 0 && waited.count == 1)
    _ = must(.notificationWait, done, deadline(milliseconds: 5000))

    // Two threads, each in one server and wanting the other.
    let failures = SharedCounters()
    for (index, connection) in [toA, toB].enumerated() {
      try? Thread.start(priority: 10) {
        for _ in 0..<20 {
          let result = call(connection, script: 0x01b)
          if result.status == SystemError.deadlock.rawValue {
            failures.add(0)
          } else if result.count != 2 {
            failures.add(1)
          }
        }
        _ = raw(.notificationSignal, done, 1 << UInt64(index))
      }
    }
    var bits: UInt64 = 0
    while bits != 3 {
      let result = raw(.notificationWait, done, deadline(milliseconds: 20_000))
      if result <= 0 { break }
      bits |= UInt64(result)
    }
    checks.expect("two threads that want each other's server do not hang", bits == 3)
    checks.expect("since one of them is told", failures.value(0) > 0 && failures.value(1) == 0)

    // Five clients, four stacks.
    let few = ScriptServer(code, stacks: 4)
    for index in 0..<5 {
      let connection = few.connect()
      try? Thread.start(priority: 10) {
        var good = true
        for _ in 0..<50 {
          let result = call(connection, script: 0x0a8)
          good = good && result.result == 0 && result.count == 1
        }
        _ = raw(.notificationSignal, done, 1 << (UInt64(index) + (good ? 0 : 32)))
      }
    }
    bits = 0
    while bits & 31 != 31 {
      let result = raw(.notificationWait, done, deadline(milliseconds: 20_000))
      if result <= 0 { break }
      bits |= UInt64(result)
    }
    checks.expect("five clients share four stacks", bits == 31)
    checks.expect("no stack stays in use", a.becomes(inUse: 0) && b.becomes(inUse: 0) && few.becomes(inUse: 0))
    for server in [a, b, few] { server.close() }
    _ = must(.handleClose, done)
  }

  static func deaths(_ checks: inout Checks, _ code: ChildCode) {
    for (name, step) in [("a fault", 4), ("an exit", 5)] as [(StaticString, UInt64)] {
      for depth in 1...UInt64(3) {
        let servers = (0..<3).map { _ in ScriptServer(code, stacks: 1) }
        let first = servers[0].connect()
        servers[0].give(servers[1].connect())
        servers[1].give(servers[2].connect())
        // The nearest living caller hears of it.
        var script = step
        for _ in 1..<depth { script = script << 4 | 1 }
        let result = call(first, script: script)
        let heard = depth == 1 ? result.result : result.status
        checks.expect(name, heard == SystemError.peerClosed.rawValue)
        checks.expect("and no other dies of it", depth == 1 || call(first, script: 0).result == 0)
        for server in servers { server.close() }
      }
    }
    let a = ScriptServer(code, stacks: 1)
    let b = ScriptServer(code, stacks: 1)
    let toA = a.connect()
    a.give(b.connect())
    checks.expect("a server's thread that ends gives up its call", .aborted, call(toA, script: 6).result)
    checks.expect("and its service lives", call(toA, script: 0).count == 1)

    // Killed while a call is further on: the middle, with the thread waiting in the last.
    let gate = must(.notificationCreate)
    let fill = must(.notificationCreate)
    for _ in 0..<3 { _ = must(.handleGrant, b.process, fill, UInt64(Rights.all.rawValue), 0) }
    _ = must(.handleGrant, b.process, gate, UInt64(Rights.all.rawValue), 0)
    let done = must(.notificationCreate)
    let outcome = SharedCounters()
    try? Thread.start(priority: 10) {
      let result = call(toA, script: 0x071)
      if result.result == SystemError.peerClosed.rawValue { outcome.add(0) }
      _ = raw(.notificationSignal, done, 1)
    }
    letOthersRun(milliseconds: 5)
    checks.expect("the call is in the last server", b.becomes(inUse: 1) && a.becomes(inUse: 1))
    _ = must(.processKill, a.process, 1)
    _ = raw(.notificationWait, done, deadline(milliseconds: 5000))
    checks.expect("the middle's death reaches the client through the last", outcome.value(0) == 1)
    checks.expect("the last goes on", b.becomes(inUse: 0) && call(b.connect(), script: 0).count == 1)

    // The client is killed inside the server.
    let c = ScriptServer(code, stacks: 1)
    for _ in 0..<3 { _ = must(.handleGrant, c.process, fill, UInt64(Rights.all.rawValue), 0) }
    _ = must(.handleGrant, c.process, gate, UInt64(Rights.all.rawValue), 0)
    let client = code.process()
    _ = must(.handleGrant, client, c.connect(), UInt64(Rights.call.rawValue), 0)
    code.start(client, child_offset_rpc_client(), 0x07)
    letOthersRun(milliseconds: 5)
    checks.expect("a client waits in the server", c.becomes(inUse: 1))
    _ = must(.processKill, client, 3)
    checks.expect("it ends at once", waitForEnd(client) == .exited(3))
    letOthersRun(milliseconds: 5)
    checks.expect("its call finishes without it", c.becomes(inUse: 0))
    checks.expect("the server serves others", call(c.connect(), script: 0).count == 1)
    for server in [a, b, c] { server.close() }
    for handle in [client, gate, fill, done] { _ = must(.handleClose, handle) }
  }

  static func endings(_ checks: inout Checks, _ code: ChildCode) {
    let a = ScriptServer(code, stacks: 1)
    let gate = must(.notificationCreate)
    for _ in 0..<4 { _ = must(.handleGrant, a.process, gate, UInt64(Rights.all.rawValue), 0) }
    let toA = a.connect()
    checks.expect("a call in time", call(toA, script: 0, until: deadline(milliseconds: 1000)).count == 1)
    checks.expect("a call times out", .timedOut, call(toA, script: 0x07, until: deadline(milliseconds: 5)).result)
    letOthersRun(milliseconds: 5)
    checks.expect("the server finishes without its caller", a.becomes(inUse: 0))
    checks.expect(
      "a running server's call times out", .timedOut, call(toA, script: 0x0c, until: deadline(milliseconds: 5)).result)
    checks.expect("the server runs on", a.becomes(inUse: 1))
    checks.expect(
      "waiting for a stack times out", .timedOut, call(toA, script: 0, until: deadline(milliseconds: 5)).result)
    _ = must(.processKill, a.process, 1)
    checks.expect("until it is killed", a.becomes(inUse: 0))
    a.close()

    let b = ScriptServer(code, stacks: 1)
    for _ in 0..<4 { _ = must(.handleGrant, b.process, gate, UInt64(Rights.all.rawValue), 0) }
    let client = code.process()
    _ = must(.handleGrant, client, b.connect(), UInt64(Rights.call.rawValue), 0)
    let thread = must(.threadCreate, client, 0x40_0000 + child_offset_rpc_client(), 0x80_1000 - 64, 0x07, 0, 10)
    letOthersRun(milliseconds: 5)
    checks.expect("a call can be cancelled", raw(.rpcCancel, thread) == 0)
    letOthersRun(milliseconds: 5)
    checks.expect("and its caller calls again", b.becomes(inUse: 1))
    _ = must(.processKill, client, 1)
    _ = waitForEnd(client)
    letOthersRun(milliseconds: 5)
    checks.expect("nothing stays in the server", b.becomes(inUse: 0))
    // The caller is lost while the server still computes; what it then waits for has nobody who could ask for it.
    checks.expect(
      "a call that computes times out", .timedOut,
      call(b.connect(), script: 0x799_9999_9999, until: deadline(milliseconds: 1)).result)
    checks.expect("a wait that comes after the timeout ends", b.becomes(inUse: 0))
    let late = code.process()
    _ = must(.handleGrant, late, b.connect(), UInt64(Rights.call.rawValue), 0)
    _ = must(.threadCreate, late, 0x40_0000 + child_offset_rpc_client(), 0x80_1000 - 64, 0x799_9999_9999, 0, 10)
    checks.expect("a client is in the server", b.becomes(inUse: 1))
    _ = must(.processKill, late, 1)
    _ = waitForEnd(late)
    checks.expect("a wait that comes after the client's death ends", b.becomes(inUse: 0))
    _ = must(.handleClose, late)
    checks.expect("a dead thread's call cannot be cancelled", .notFound, raw(.rpcCancel, thread))
    b.close()
    for handle in [client, thread, gate] { _ = must(.handleClose, handle) }
  }

  static func cost(_ checks: inout Checks, _ code: ChildCode) {
    let server = ScriptServer(code, stacks: 1, entry: child_offset_rpc_null())
    let connection = server.connect()
    let count: UInt64 = 500
    var status = measure_rpc(connection, 20)
    var start = pollux_time_stamp()
    status |= measure_rpc(connection, count)
    checks.note("rpc-ticks", (pollux_time_stamp() &- start) / count)
    let typed = Connection(Handle(connection))
    start = pollux_time_stamp()
    for _ in 0..<count {
      if (try? typed.call(1)) == nil { status = -1 }
    }
    checks.note("rpc-stub-ticks", (pollux_time_stamp() &- start) / count)
    checks.expect("measured calls succeed", status == 0)
    server.close()
  }
}
