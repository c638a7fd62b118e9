// The test of isolation class IC1 (HongMeng §4.2), started in init's place: domains in kernel space live, call and die as processes
// do, and every way out of them is closed, for both mechanisms.
import CIsolationTest
import CPollux
import Pollux

@main enum IsolationTest {
  static func main() {
    var checks = Checks()
    let root = InitialHandle.root
    _ = must(.systemControl, root, SystemControl.calibrate.rawValue, 0)
    _ = must(.threadSetPriority, 0, 20)
    let hasKeys = must(.domainQuery, 0, DomainQuery.hasKeys.rawValue) == 1
    checks.note("keys", hasKeys ? 1 : 0)
    checks.note("kernel-loop", must(.domainQuery, 0, DomainQuery.kernelLoop.rawValue))
    boundary(&checks)
    attack(&checks, .pageTable)
    if hasKeys { attack(&checks, .protectionKeys) }
    checks.expect("the test reached its end", true)
    _ = raw(.systemControl, root, SystemControl.exit.rawValue, checks.failures == 0 ? 0 : 1)
  }

  /// What the calls themselves refuse.
  static func boundary(_ checks: inout Checks) {
    let notification = must(.notificationCreate)
    checks.expect("a domain needs root", .wrongKind, raw(.domainCreate, notification, 0, 0, 3))
    checks.expect(
      "user mode is no domain", .badArgument, raw(.domainCreate, InitialHandle.root, 0x40_0000, 1, 1))
    checks.expect("nor is 9", .badArgument, raw(.domainCreate, InitialHandle.root, 0x40_0000, 1, 9))
    _ = must(.handleClose, notification)
    let domain = Domain(.pageTable)
    let start = domain.start
    let page = must(.memoryCreate, 4096)
    let (read, execute) = (Protection.read.rawValue, Protection([.read, .execute]).rawValue)
    checks.expect(
      "no memory below its window", .badAddress, raw(.memoryMap, domain.process, page, 0x40_0000, 0, 4096, read))
    checks.expect("nor above", .badAddress, raw(.memoryMap, domain.process, page, start + (1 << 33), 0, 4096, read))
    checks.expect("nor kernel space in a process", .badAddress, raw(.memoryMap, 0, page, start, 0, 4096, read))
    checks.expect("no entry outside", .badAddress, raw(.domainEntry, domain.process, 0x40_0000))
    checks.expect(
      "no thread outside the entry table", .badAddress, raw(.threadCreate, domain.process, domain.code + 1, 0, 0, 0, 5))
    domain.start(intruder_offset_exit(), 7)
    _ = waitForEnd(domain.process)
    let living = Domain(.pageTable)
    living.start(intruder_offset_spin())
    checks.expect(
      "nothing becomes executable later", .denied, raw(.memoryMap, living.process, page, living.start, 0, 4096, execute)
    )
    _ = must(.memoryMap, living.process, page, living.start, 0, 4096, read)
    checks.expect("by protection either", .denied, raw(.memoryProtect, living.process, living.start, 4096, execute))
    checks.expect("no entry is added later", .denied, raw(.domainEntry, living.process, living.code))
    _ = must(.processKill, living.process, 3)
    checks.expect("a spinning domain can be killed", waitForEnd(living.process) == .exited(3))
    living.close()
    domain.close()
    _ = must(.handleClose, page)
  }

  static func attack(_ checks: inout Checks, _ mechanism: IsolationMechanism) {
    checks.expect(mechanism == .pageTable ? "mechanism: page table" : "mechanism: protection keys", true)
    let free = must(.systemQuery, SystemQuery.memoryFree.rawValue)
    // The neighbour that must not notice anything.
    let neighbour = Domain(mechanism)
    let ping = must(.notificationCreate)
    let pong = must(.notificationCreate)
    let all = UInt64(Rights.all.rawValue)
    let (theirs, ours) = (
      must(.handleGrant, neighbour.process, ping, all, 0), must(.handleGrant, neighbour.process, pong, all, 0)
    )
    neighbour.start(intruder_offset_echo(), ours << 32 | theirs)
    checks.expect("a domain makes system calls and waits", echo(ping, pong, 5))

    func expect(_ name: StaticString, _ offset: UInt64, _ argument: UInt64, _ second: UInt64 = 0, vector: UInt8 = 14) {
      let domain = Domain(mechanism)
      let logged = Kernel.query(.logEnd)
      domain.start(offset, argument, second)
      let status = waitForEnd(domain.process)
      if status != .faulted(vector: vector) { checks.note("status", UInt64(bitPattern: status.rawValue)) }
      checks.expect(name, status == .faulted(vector: vector))
      checks.expect("  that names it", logTells("(intruder, domain in kernel space", since: logged))
      checks.expect("  and its neighbour lives", echo(ping, pong, 3))
      domain.close()
    }
    let ended = Domain(mechanism)
    ended.start(intruder_offset_exit(), 7)
    checks.expect("a domain exits", waitForEnd(ended.process) == .exited(7))
    ended.close()

    let targets: [(StaticString, UInt64)] = [
      ("the kernel's data", 0x7f80_0061_0000), ("the kernel's text", 0x7f80_0020_8000),
      ("the direct map", 0x7f00_0000_0000),
      ("the local interrupt controller", 0x7f00_fee0_0000), ("a neighbour's stack", neighbour.stack - 64),
      ("a neighbour's data", neighbour.start + 0x900000), ("a program's memory", 0x40_0000),
      ("the shared pages of programs", 0x7eff_ffff_e000), ("nothing", 0x7e00_0000_0000),
    ]
    for (name, address) in targets {
      Console.write("target: ")
      Console.write(name)
      Console.write("\n")
      expect("reading is a fault", intruder_offset_read(), address)
      expect("writing is a fault", intruder_offset_write(), address)
      expect("its stack there is a fault", intruder_offset_stack(), address)
      expect("a gate call with its stack there is a fault", intruder_offset_gate_stack(), address)
    }
    expect("executing its stack is a fault", intruder_offset_execute(), neighbour.stack - 64)
    expect("executing kernel data is a fault", intruder_offset_execute(), 0x7f80_0061_0000)
    expect("executing a program is a fault", intruder_offset_execute(), 0x40_0000)
    expect("the gate page is not writable", intruder_offset_gate_write(), 0)
    expect("nor is the info page", intruder_offset_info_write(), 0)
    expect("nor its own code", intruder_offset_code_write(), 0)
    expect("the tables of the entry area are not writable", intruder_offset_write(), 0x7f80_0060_0000)
    if mechanism == .pageTable {
      expect("executing the kernel's text is a fault", intruder_offset_execute(), 0x7f80_0020_8000)
      expect("executing a neighbour's text is a fault", intruder_offset_execute(), neighbour.code)
    } else if let address = keysInstruction() {
      expect("forged rights are found out", intruder_offset_keys_forged(), address, 0x7f80_0061_0000, vector: 6)
    }
    expect("an undefined instruction ends it", intruder_offset_undefined(), 0, vector: 6)
    expect("a division by zero ends it", intruder_offset_divide(), 0, vector: 0)
    expect("a stack that overflows ends it", intruder_offset_overflow(), 0)

    // Two that spin share the processor with this thread and each other.
    let first = Domain(mechanism)
    let second = Domain(mechanism)
    first.start(intruder_offset_spin())
    second.start(intruder_offset_spin())
    checks.expect("domains are preempted", echo(ping, pong, 20))
    _ = must(.threadSleep, deadline(milliseconds: 20))
    _ = must(.processKill, first.process, 1)
    _ = must(.processKill, second.process, 2)
    checks.expect("and killed", waitForEnd(first.process) == .exited(1) && waitForEnd(second.process) == .exited(2))
    first.close()
    second.close()
    _ = must(.processKill, neighbour.process, 4)
    checks.expect("the neighbour ends when it is told", waitForEnd(neighbour.process) == .exited(4))
    neighbour.close()
    _ = must(.handleClose, ping)
    _ = must(.handleClose, pong)
    let after = must(.systemQuery, SystemQuery.memoryFree.rawValue)
    // Page tables of kernel space stay for the next domain; the kernel's heap keeps its frames.
    checks.note("memory-kept", free - min(free, after))
    checks.expect("what the domains had is free again", free - min(free, after) <= 64 * 4096)
  }

  /// Where the kernel sets PKRS on the way into a domain, as the host's test found it in the kernel's symbols.
  static func keysInstruction() -> UInt64? {
    let address = Kernel.info(KernelInfo.commandLine)
    guard address != 0 else { return nil }
    do throws(SystemError) {
      let page = address & ~(AddressSpace.pageSize - 1)
      let memory = try MemoryObject.physical(
        root: Handle(InitialHandle.root), address: page, size: 2 * AddressSpace.pageSize, flags: [])
      let mapping = try memory.map(.read)
      let offset = Int(address - page)
      return CommandLine(Bytes(unsafeBase: UnsafeRawPointer(mapping.base + offset), count: mapping.size - offset))
        .value("isolation.keys")?.number
    } catch { return nil }
  }

  /// Whether the kernel's log has the text since a position.
  static func logTells(_ text: StaticString, since position: UInt64) -> Bool {
    let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 256, alignment: 16)
    defer { buffer.deallocate() }
    guard let base = buffer.baseAddress else { return false }
    let count = Kernel.readLog(at: position, into: buffer)
    let found = Bytes(unsafeBase: UnsafeRawPointer(base), count: max(0, min(count, 256)))
    for start in 0..<256 {
      if let part = found.slice(start, text.utf8CodeUnitCount), part.equals(text) { return true }
    }
    return false
  }

  /// A signal to the neighbour and back, so many times.
  static func echo(_ ping: UInt64, _ pong: UInt64, _ count: Int) -> Bool {
    for _ in 0..<count {
      _ = raw(.notificationSignal, ping, 1)
      if raw(.notificationWait, pong, deadline(milliseconds: 2000)) != 1 { return false }
    }
    return true
  }
}
