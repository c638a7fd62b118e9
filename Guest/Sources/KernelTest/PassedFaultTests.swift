// Faults that are passed on to a memory manager (HongMeng §4.5): every register comes back, whoever dies in the middle takes nobody
// else with it, and nothing stays behind.
import CKernelTest
import CPollux
import Pollux

enum PassedFaultTests {
  private static let place: UInt64 = 0x60_0000_0000

  static func run(_ checks: inout Checks) {
    let code = ChildCode()
    served(&checks)
    exceptions(&checks, code)
    deaths(&checks, code)
    let free = must(.systemQuery, SystemQuery.memoryFree.rawValue)
    for _ in 0..<3 { deaths(&checks, code) }
    checks.expect(
      "passed-on faults leave no memory behind", must(.systemQuery, SystemQuery.memoryFree.rawValue) == free)
    code.close()
  }

  /// This process pages itself: a handler maps the page that is asked for.
  private static func served(_ checks: inout Checks) {
    let shared = MemoryObject(Handle(must(.memoryCreate, 4096)))
    let memory = MemoryObject(Handle(must(.memoryCreate, 16 * 4096)))
    guard let pager = try? Pager.create(shared: shared, memory: memory) else {
      return checks.expect("a pager can be made", false)
    }
    let seen = SharedCounters()
    let service = try? RPCService.create(stacks: 2) { _, message in
      seen.add(0)
      // The handler uses vector registers, which must not show in what faulted.
      if float_registers_survive(0x1234_5678_9abc, pollux_time_stamp()) == 0 { seen.add(1) }
      let page = (message[0] - place) / 4096
      guard page < 16 else {
        message[0] = 1
        return
      }
      let address = message[0] & ~4095
      message[0] = (try? Pager.map(in: Handle(0), at: address, page: page, mode: PageMode.write)) == nil ? 1 : 0
    }
    guard let service, let connection = try? service.connect(badge: 0) else {
      return checks.expect("a manager can be made", false)
    }
    let mode = Protection([.read, .write]).rawValue | RegionMode.managed
    checks.expect(
      "a managed region", (try? pager.createRegion(in: Handle(0), at: place, size: 20 * 4096, mode: mode)) != nil)
    checks.expect("a manager is attached", (try? Pager.attach(Handle(0), to: connection)) != nil)
    checks.expect("registers survive a passed-on fault", registers_survive_fault(place + 8, 0x1111) == 1)
    checks.expect("and again, in another page", registers_survive_fault(place + 4096 + 8, 0x2222) == 1)
    checks.expect("without a fault too", registers_survive_fault(place + 8, 0x3333) == 1)
    checks.expect("each page asked the manager once", seen.value(0) == 2 && seen.value(1) == 0)
    checks.expect("a system call does not follow a managed page", .badAddress, raw(.logWrite, place + 8 * 4096, 8))
    try? Pager.remove(from: Handle(0), at: place, size: 20 * 4096)
    checks.expect("nobody returns from a fault that was not", .notFound, raw(.faultReturn))
    for handle in [pager.handle, shared.handle, memory.handle, connection.handle] { handle.close() }
  }

  /// Exceptions of instructions are passed on where that is wanted, and the manager says where the thread goes on.
  private static func exceptions(_ checks: inout Checks, _ code: ChildCode) {
    let seen = SharedCounters()
    let service = try? RPCService.create(stacks: 1) { _, message in
      seen.add(Int(message[3]) == 6 ? 0 : Int(message[3]) == 13 ? 1 : 2)
      if message[0] != 0 || message[1] != 0 { seen.add(2) }
      // `ud2` has two bytes, and so has the load.
      message[1] = message[2] + 2
      message[0] = FaultDecision.goOnElsewhere.rawValue
    }
    guard let connection = try? service?.connect(badge: 0) else {
      return checks.expect("a manager of exceptions can be made", false)
    }
    checks.expect(
      "a manager of exceptions is attached", (try? Pager.attach(Handle(0), to: connection, exceptions: true)) != nil)
    checks.expect("the thread goes on behind what is no instruction", passed_undefined(7) == 8)
    checks.expect("and behind an address that is none", passed_protection(9) == 10)
    checks.expect(
      "each exception asked the manager once", seen.value(0) == 1 && seen.value(1) == 1 && seen.value(2) == 0)
    connection.handle.close()

    // Of children: not without being asked for, and not to where no code can be.
    let wild = try? RPCService.create(stacks: 1) { _, message in
      message[0] = FaultDecision.goOnElsewhere.rawValue
      message[1] = 0x8000_0000_0000
    }
    for (name, exceptions) in [
      ("exceptions are not passed on unless that is wanted", 0),
      ("a manager cannot send a thread to the upper half", 1),
    ] as [(StaticString, UInt64)] {
      guard let connection = try? wild?.connect(badge: 0) else { return checks.expect(name, false) }
      let process = code.process()
      _ = must(.pagingAttach, process, connection.handle.rawValue, exceptions)
      code.start(process, child_offset_undefined(), 0, priority: 5)
      checks.expect(name, waitForEnd(process) == .faulted(vector: 6))
      connection.handle.close()
      _ = must(.handleClose, process)
    }
  }

  /// A child faults; its manager refuses, dies, or is killed while it has the fault.
  private static func deaths(_ checks: inout Checks, _ code: ChildCode) {
    let shared = must(.memoryCreate, 4096)
    let memory = must(.memoryCreate, 4096)
    let pager = must(.pagerCreate, shared, memory)
    func child(_ server: ScriptServer, script: UInt64) -> UInt64 {
      let process = code.process()
      // The address that faults is word 0, so the script.
      _ = must(.regionCreate, process, pager, script & ~4095, 4096, 3 | RegionMode.managed)
      let connection = server.connect()
      _ = must(.pagingAttach, process, connection)
      _ = must(.handleClose, connection)
      code.start(process, child_offset_touch(), script, priority: 5)
      return process
    }
    for (name, script) in [
      ("a manager that maps nothing is asked again until it is killed", 0x10_0000_0000),
      ("a manager that faults", 0x10_0000_0004), ("a manager that exits", 0x10_0000_0005),
      ("a manager whose thread ends", 0x10_0000_0006), ("a manager that runs for ever", 0x10_0000_000c),
    ] as [(StaticString, UInt64)] {
      let server = ScriptServer(code, stacks: 1)
      let process = child(server, script: script)
      _ = must(.threadSleep, deadline(milliseconds: 3))
      _ = raw(.processKill, server.process, 1)
      checks.expect(name, waitForEnd(process) == .faulted(vector: 14))
      server.close()
      _ = must(.handleClose, process)
    }
    // The client dies while its fault is with the manager.
    let server = ScriptServer(code, stacks: 1)
    let process = child(server, script: 0x10_0000_000b)
    _ = raw(.processKill, process, 7)
    checks.expect("a client that dies in its manager", waitForEnd(process) == .exited(7))
    checks.expect("leaves no stack in use", server.becomes(inUse: 0))
    server.close()
    for handle in [process, pager, memory, shared] { _ = must(.handleClose, handle) }
  }
}
