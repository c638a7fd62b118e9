// The kernel's own test, started in init's place: every system call with good and bad arguments, faults of every kind, ends of
// processes at awkward moments, random system calls, preemption, several processors; and the cost of the short paths.
import CKernelTest
import CPollux
import Pollux
import Synchronization

@main enum KernelTest {
  static func main() {
    var checks = Checks()
    let root = InitialHandle.root
    _ = must(.systemControl, root, SystemControl.calibrate.rawValue, 0)
    checks.expect("the clock has a frequency", Kernel.info(KernelInfo.tscFrequency) > 1_000_000)
    checks.note("boot-ticks", Kernel.info(KernelInfo.bootTicks))
    checks.note("entry", Kernel.info(KernelInfo.entryKind))
    checks.note("tsc-frequency", Kernel.info(KernelInfo.tscFrequency))
    // Threads of equal priority need room above them.
    _ = must(.threadSetPriority, 0, 20)

    handles(&checks)
    memory(&checks)
    notifications(&checks)
    threads(&checks)
    messages(&checks)
    faults(&checks)
    ends(&checks)
    log(&checks)
    PagingTests.run(&checks)
    leaks(&checks)
    RpcTests.run(&checks)
    PassedFaultTests.run(&checks)
    TokenTests.run(&checks)
    costs(&checks)
    processors(&checks)
    TokenTests.onProcessors(&checks)
    fuzz(&checks)

    checks.expect("the test reached its end", true)
    _ = raw(.systemControl, root, SystemControl.exit.rawValue, checks.failures == 0 ? 0 : 1)
  }

  // MARK: Handles

  static func handles(_ checks: inout Checks) {
    checks.expect("an unknown number is refused", .badCall, raw(15))
    checks.expect("a huge number is refused", .badCall, raw(.max))
    checks.expect("handle 0 is refused", .badHandle, raw(.handleClose, 0))
    checks.expect("an unused handle is refused", .badHandle, raw(.handleClose, 77))
    checks.expect("a huge handle is refused", .badHandle, raw(.handleClose, .max))
    let notification = must(.notificationCreate)
    checks.expect("another kind is refused", .wrongKind, raw(.memorySize, notification))
    let kind = must(.handleKind, notification)
    checks.expect("a handle tells its kind", UInt8(truncatingIfNeeded: kind) == ObjectKind.notification.rawValue)
    let signalOnly = must(.handleDuplicate, notification, UInt64(Rights.signal.rawValue), 0)
    checks.expect("a missing right is refused", .denied, raw(.notificationPoll, signalOnly))
    checks.expect("without grant there is no duplicate", .denied, raw(.handleDuplicate, signalOnly, 1, 0))
    checks.expect("only endpoints have badges", .denied, raw(.handleDuplicate, notification, 0xffff, 5))
    _ = must(.handleClose, signalOnly)
    checks.expect("a closed handle is refused", .badHandle, raw(.notificationSignal, signalOnly, 1))
    checks.expect(
      "root is needed for physical memory", .wrongKind, raw(.memoryCreatePhysical, notification, 0, 4096, 0))
    checks.expect("root is needed for interrupts", .badHandle, raw(.interruptCreateLine, 99, 4, 0, notification, 1))
    _ = must(.handleClose, notification)
    var count: UInt64 = 0
    while raw(.notificationCreate) > 0 { count += 1 }
    checks.expect("the handle table fills and says so", .tableFull, raw(.notificationCreate))
    for handle in 0..<UInt64(300) where handle > 5 {
      if raw(.handleKind, handle) & 0xff == Int64(ObjectKind.notification.rawValue) { _ = raw(.handleClose, handle) }
    }
    checks.expect("closed handles can be used again", raw(.handleClose, must(.notificationCreate)) == 0)
  }

  // MARK: Memory

  /// Parts of a memory object of 5 MiB, whose page 5 holds its own address; `readOnly` is a handle on it.
  private static func slices(_ memory: UInt64, _ readOnly: UInt64, _ checks: inout Checks) {
    let at: UInt64 = 0x58_0000_0000
    for (offset, size) in [(0, 0), (1, 4096), (0, 4097), (5 << 20, 4096), (4096, 5 << 20), (0 &- 4096, 4096)]
      as [(UInt64, UInt64)]
    {
      checks.expect("no part beyond the whole", .badArgument, raw(.memorySlice, memory, offset, size))
    }
    let part = must(.memorySlice, memory, 0x4000, 0x2000)
    checks.expect("a part has its size", must(.memorySize, part) == 0x2000)
    checks.expect(
      "and its place", must(.memoryPhysicalAddress, part) == must(.memoryPhysicalAddress, memory) + 0x4000)
    checks.expect(
      "and no more pages", .badArgument,
      raw(.memoryMap, 0, part, at, 0x1000, 0x2000, Protection.read.rawValue))
    let inner = must(.memorySlice, part, 0x1000, 0x1000)
    _ = must(.handleClose, part)
    _ = must(.memoryMap, 0, inner, at, 0, 0x1000, Protection.read.rawValue)
    checks.expect("a part of a part shows the whole's page", word(at) == word(0x50_0000_5000))
    _ = must(.memoryUnmap, 0, at, 0x1000)
    _ = must(.handleClose, inner)
    let limited = must(.memorySlice, readOnly, 0, 0x1000)
    checks.expect(
      "a part has no more rights", .denied,
      raw(.memoryMap, 0, limited, at, 0, 0x1000, Protection([.read, .write]).rawValue))
    checks.expect("of any kind", .denied, raw(.memoryPhysicalAddress, limited))
    _ = must(.handleClose, limited)
  }

  static func memory(_ checks: inout Checks) {
    let readWrite = Protection([.read, .write]).rawValue
    let at: UInt64 = 0x50_0000_0000
    checks.expect("no memory of size 0", .badArgument, raw(.memoryCreate, 0, 0))
    checks.expect("no more memory than there is", .noMemory, raw(.memoryCreate, 1 << 39, 0))
    let free = must(.systemQuery, SystemQuery.memoryFree.rawValue)
    let memory = must(.memoryCreate, 5 << 20, 0)
    checks.expect("memory has its size", must(.memorySize, memory) == 5 << 20)
    checks.expect("large memory is aligned to 2 MiB", must(.memoryPhysicalAddress, memory) & 0x1f_ffff == 0)
    checks.expect("an address must be aligned", .badArgument, raw(.memoryMap, 0, memory, at + 1, 0, 4096, 1))
    checks.expect("kernel addresses are refused", .badAddress, raw(.memoryMap, 0, memory, 254 << 39, 0, 4096, 1))
    checks.expect("shared addresses are refused", .badAddress, raw(.memoryMap, 0, memory, 253 << 39, 0, 4096, 1))
    checks.expect("page 0 is refused", .badAddress, raw(.memoryMap, 0, memory, 0, 0, 4096, 1))
    checks.expect("a range that wraps is refused", .badAddress, raw(.memoryMap, 0, memory, at, 0, 0 &- 4096, 1))
    checks.expect("no more than the object", .badArgument, raw(.memoryMap, 0, memory, at, 5 << 20, 4096, 1))
    checks.expect("no offset beyond it", .badArgument, raw(.memoryMap, 0, memory, at, 0 &- 4096, 4096, 1))
    checks.expect("writable and executable is refused", .badArgument, raw(.memoryMap, 0, memory, at, 0, 4096, 7))
    checks.expect("unreadable is refused", .badArgument, raw(.memoryMap, 0, memory, at, 0, 4096, 2))
    _ = must(.memoryMap, 0, memory, at, 0, 5 << 20, readWrite)
    checks.expect("an overlap is refused", .exists, raw(.memoryMap, 0, memory, at + 0x10_0000, 0, 4096, 1))
    checks.expect("memory is zero and can be written", fill(at, 5 << 20))

    // Through two mappings the same memory.
    _ = must(.memoryMap, 0, memory, at + (1 << 30), 0x1000, 4096, Protection.read.rawValue)
    checks.expect("two mappings show the same", word(at + (1 << 30)) == word(at + 0x1000))
    checks.expect("a hole in a 2 MiB page", raw(.memoryUnmap, 0, at + 0x5000, 0x3000) == 0)
    checks.expect("what surrounds it stays", word(at + 0x4ff8) == at + 0x4ff8 && word(at + 0x8000) == at + 0x8000)
    _ = must(.memoryMap, 0, memory, at + 0x5000, 0x5000, 0x3000, readWrite)
    checks.expect("the hole can be filled again", word(at + 0x5000) == at + 0x5000)
    let readOnly = must(.handleDuplicate, memory, UInt64(Rights.read.rawValue), 0)
    checks.expect(
      "a handle's rights limit mappings", .denied, raw(.memoryMap, 0, readOnly, at + (2 << 30), 0, 4096, readWrite))
    checks.expect("and physical addresses", .denied, raw(.memoryPhysicalAddress, readOnly))
    _ = must(.memoryMap, 0, readOnly, at + (2 << 30), 0, 4096, 1)
    checks.expect("and later protection", .denied, raw(.memoryProtect, 0, at + (2 << 30), 4096, readWrite))
    checks.expect("protection can be taken", raw(.memoryProtect, 0, at, 5 << 20, 1) == 0)
    checks.expect("and given back", raw(.memoryProtect, 0, at, 5 << 20, readWrite) == 0 && fillAgain(at))
    slices(memory, readOnly, &checks)
    _ = must(.handleClose, memory)
    _ = must(.handleClose, readOnly)
    checks.expect("a mapping keeps memory alive", word(at + 0x1000) == 7)
    _ = must(.memoryUnmap, 0, at, 4 << 30)
    let after = must(.systemQuery, SystemQuery.memoryFree.rawValue)
    // The page tables of the addresses used stay until the process ends.
    checks.expect("unmapped memory is free again", free - after <= 12 * 4096)
    let again = must(.memoryCreate, 5 << 20, 0)
    _ = must(.memoryMap, 0, again, at, 0, 5 << 20, readWrite)
    checks.expect("and zero when it is used again", fill(at, 5 << 20))
    _ = must(.memoryUnmap, 0, at, 5 << 20)
    _ = must(.handleClose, again)
    checks.expect("bad buffers are refused", .badAddress, raw(.logWrite, at, 10))
    checks.expect("kernel buffers are refused", .badAddress, raw(.logWrite, 0x7f80_0060_0000, 10))
    checks.expect("read-only buffers are not written", .badAddress, raw(.logRead, 0, 0x40_0000, 10))
  }

  static func word(_ address: UInt64) -> UInt64 {
    UnsafePointer<UInt64>(bitPattern: UInt(address)).map { $0.pointee } ?? 0
  }

  /// Checks that a range is zero and writes each page's own address at its two ends.
  static func fill(_ address: UInt64, _ size: UInt64) -> Bool {
    var at = address
    while at < address + size {
      guard let first = UnsafeMutablePointer<UInt64>(bitPattern: UInt(at)) else { return false }
      if first[0] != 0 || first[511] != 0 { return false }
      first[0] = at
      first[511] = at + 0xff8
      at += 4096
    }
    return true
  }

  static func fillAgain(_ address: UInt64) -> Bool {
    UnsafeMutablePointer<UInt64>(bitPattern: UInt(address + 0x1000))?.pointee = 7
    return word(address + 0x1000) == 7
  }

  // MARK: Notifications

  static func notifications(_ checks: inout Checks) {
    let notification = must(.notificationCreate)
    checks.expect("nothing at first", must(.notificationPoll, notification) == 0)
    _ = must(.notificationSignal, notification, 5)
    _ = must(.notificationSignal, notification, 8)
    checks.expect("bits add up and are taken", must(.notificationPoll, notification) == 13)
    checks.expect("taken bits are gone", must(.notificationPoll, notification) == 0)
    checks.expect("no bits is refused", .badArgument, raw(.notificationSignal, notification, 0))
    checks.expect("bit 63 is refused", .badArgument, raw(.notificationSignal, notification, 1 << 63))
    let start = pollux_time_stamp()
    checks.expect("a wait times out", .timedOut, raw(.notificationWait, notification, deadline(milliseconds: 20)))
    let waited = Clock.nanoseconds(pollux_time_stamp() &- start)
    checks.expect("not too early", waited >= 20_000_000)
    checks.note("timeout-late-us", (waited - min(waited, 20_000_000)) / 1000)
    checks.expect("a past deadline comes at once", .timedOut, raw(.notificationWait, notification, 1))
    checks.expect("deadline 0 too", .timedOut, raw(.notificationWait, notification, 0))
    let before = pollux_time_stamp()
    letOthersRun(milliseconds: 10)
    checks.expect("sleep sleeps", Clock.nanoseconds(pollux_time_stamp() &- before) >= 10_000_000)
    _ = must(.handleClose, notification)
  }

  // MARK: Threads

  static func threads(_ checks: inout Checks) {
    let progress = SharedCounters()
    let done = must(.notificationCreate)
    checks.expect("priority above one's own is refused", .badArgument, raw(.threadCreate, 0, 0x40_0000, 0, 0, 0, 31))
    checks.expect("a kernel entry is refused", .badAddress, raw(.threadCreate, 0, 254 << 39, 0, 0, 0, 5))
    let end = deadline(milliseconds: 200)
    for index in 0..<2 {
      try? Thread.start(priority: 15) {
        while pollux_time_stamp() < end { progress.add(index) }
        _ = raw(.notificationSignal, done, 1 << UInt64(index))
      }
    }
    var bits: UInt64 = 0
    while bits != 3 {
      let result = raw(.notificationWait, done, deadline(milliseconds: 2000))
      if result <= 0 { break }
      bits |= UInt64(result)
    }
    checks.expect("two spinning threads both end", bits == 3)
    let (a, b) = (progress.value(0), progress.value(1))
    checks.note("progress-a", a)
    checks.note("progress-b", b)
    checks.expect("and share the processor", min(a, b) > max(a, b) / 4)

    let floats = SharedCounters()
    for index in 0..<4 {
      try? Thread.start(priority: 15) {
        let seed = 0x1234_5678 &* UInt64(index + 3)
        for _ in 0..<10 where float_registers_survive(seed, deadline(milliseconds: 12)) == 1 { floats.add(index) }
        _ = raw(.notificationSignal, done, 1 << UInt64(index))
      }
    }
    bits = 0
    while bits != 15 {
      let result = raw(.notificationWait, done, deadline(milliseconds: 5000))
      if result <= 0 { break }
      bits |= UInt64(result)
    }
    var kept: UInt64 = 0
    for index in 0..<4 { kept += floats.value(index) }
    checks.expect("floating-point state survives preemption", kept == 40)

    // A more urgent thread runs before the call that woke it returns.
    let wake = must(.notificationCreate)
    let order = SharedCounters()
    try? Thread.start(priority: 20) {
      _ = raw(.notificationWait, wake, SystemCall.forever)
      order.add(0)
    }
    Thread.yield()
    _ = must(.threadSetPriority, 0, 10)
    _ = must(.notificationSignal, wake, 1)
    checks.expect("a woken urgent thread runs at once", order.value(0) == 1)
    checks.expect("priority can not be raised again", .badArgument, raw(.threadSetPriority, 0, 20))
    _ = must(.handleClose, wake)
    _ = must(.handleClose, done)
  }

  // MARK: Messages

  static func messages(_ checks: inout Checks) {
    let endpoint = must(.endpointCreate)
    let badged = must(.handleDuplicate, endpoint, UInt64(Rights([.call, .grant]).rawValue), 42)
    checks.expect("a badge can not be changed", .denied, raw(.handleDuplicate, badged, 0xffff, 43))
    checks.expect("a caller's handle can not receive", .denied, raw(.replyReceive, badged))
    let seen = SharedCounters()
    let notification = must(.notificationCreate)
    let bound = raw(.endpointBind, endpoint, notification)
    checks.expect("a notification can be bound", bound == 0)
    checks.expect("the same again changes nothing", raw(.endpointBind, endpoint, notification) == 0)
    let other = must(.endpointCreate)
    checks.expect("but to one only", .exists, raw(.endpointBind, other, notification))
    let another = must(.notificationCreate)
    checks.expect("and one only", .exists, raw(.endpointBind, endpoint, another))
    // As when a server has gone whose clients still hold the endpoint.
    let closing = must(.endpointCreate)
    let kept = must(.handleDuplicate, closing, UInt64(Rights.call.rawValue), 0)
    _ = must(.endpointBind, closing, another)
    _ = must(.handleClose, closing)
    checks.expect("free again when nobody receives any more", raw(.endpointBind, other, another) == 0)
    for handle in [kept, other, another] { _ = must(.handleClose, handle) }
    try? Thread.start(priority: 10) {
      var message = pollux_message()
      message.target = endpoint
      var passed: UInt64 = 0
      while true {
        let badge = pollux_message_call(SystemCall.replyReceive.rawValue, &message)
        if badge == SystemCall.notificationBadge {
          seen.add(0)
          message.target = endpoint
          if message.word0 == 4 { break }
          continue
        }
        if badge != 42 || message.word7 != 8 { seen.add(1) }
        if message.handle != 0 {
          passed = message.handle
          _ = raw(.notificationSignal, passed, 0x70)
        }
        message.word0 = message.word0 &* 2
        message.word7 = 80
        message.handle = 0
      }
      if passed != 0 { _ = raw(.handleClose, passed) }
    }
    var good = true
    for round in 0..<UInt64(100) {
      var message = pollux_message()
      message.target = badged
      message.word0 = round
      message.word7 = 8
      if round == 50 { message.handle = UInt64(Rights.signal.rawValue) << 32 | notification }
      good = good && pollux_message_call(SystemCall.call.rawValue, &message) == 0 && message.word0 == round &* 2
      good = good && message.word7 == 80
    }
    checks.expect("a hundred calls are answered", good)
    checks.expect("badge and words arrive", seen.value(1) == 0)
    _ = must(.notificationSignal, notification, 2)
    Thread.yield()
    _ = must(.notificationSignal, notification, 4)
    letOthersRun(milliseconds: 10)
    checks.expect("a bound notification reaches the receiver", seen.value(0) >= 1)
    checks.expect("a false token is not found", .notFound, raw(.reply, 0x1234_5001 << 32))
    _ = must(.handleClose, endpoint)
    checks.expect("without a receiver a call fails", .peerClosed, raw(.call, badged))
    _ = must(.handleClose, badged)
    _ = must(.handleClose, notification)
  }

  // MARK: Faults

  static func faults(_ checks: inout Checks) {
    let code = ChildCode()
    func status(_ offset: UInt64, _ argument: UInt64 = 0) -> ProcessStatus {
      let process = code.process()
      code.start(process, offset, argument)
      let status = waitForEnd(process)
      _ = must(.handleClose, process)
      return status
    }
    checks.expect("a child exits with its code", status(child_offset_exit(), 42) == .exited(42))
    checks.expect("an undefined instruction ends the child", status(child_offset_undefined()) == .faulted(vector: 6))
    checks.expect("a breakpoint without debugger", status(child_offset_breakpoint()) == .faulted(vector: 3))
    checks.expect("a division by zero", status(child_offset_divide()) == .faulted(vector: 0))
    checks.expect("a read of page 0", status(child_offset_null_read()) == .faulted(vector: 14))
    checks.expect("a read of the kernel", status(child_offset_kernel_read()) == .faulted(vector: 14))
    checks.expect("a write to the direct map", status(child_offset_kernel_write()) == .faulted(vector: 14))
    checks.expect("a write to the info page", status(child_offset_info_write()) == .faulted(vector: 14))
    checks.expect("a write to its code", status(child_offset_code_write()) == .faulted(vector: 14))
    checks.expect("a jump to its stack", status(child_offset_stack_execute()) == .faulted(vector: 14))
    checks.expect("CLI", status(child_offset_disable_interrupts()) == .faulted(vector: 13))
    checks.expect("OUT", status(child_offset_port()) == .faulted(vector: 13))
    checks.expect("HLT", status(child_offset_halt()) == .faulted(vector: 13))
    checks.expect("RDMSR", status(child_offset_msr()) == .faulted(vector: 13))
    let interrupt = status(child_offset_interrupt())
    // #GP by the gate's level; #UD where a software KVM does not know the instruction in ring 3.
    checks.expect(
      "INT of a device's vector", interrupt == .faulted(vector: 13) || interrupt == .faulted(vector: 6))
    checks.expect("a non-canonical address", status(child_offset_noncanonical()) == .faulted(vector: 13))
    code.close()
  }

  // MARK: Ends

  static func ends(_ checks: inout Checks) {
    let code = ChildCode()
    let spinning = code.process()
    code.start(spinning, child_offset_spin(), priority: 5)
    letOthersRun(milliseconds: 10)
    checks.expect("a spinning child runs", raw(.processStatus, spinning) == 0)
    _ = must(.processKill, spinning, 9)
    checks.expect("and can be killed", waitForEnd(spinning) == .exited(9))
    checks.expect("the dead get no threads", .notFound, raw(.threadCreate, spinning, 0x40_0000, 0x80_0000, 0, 0, 5))
    checks.expect("and no mappings", .notFound, raw(.memoryUnmap, spinning, 0x40_0000, 4096))
    _ = must(.handleClose, spinning)

    let endpoint = must(.endpointCreate)
    let caller = code.process()
    let callersHandle = must(.handleGrant, caller, endpoint, UInt64(Rights.call.rawValue), 7)
    code.start(caller, child_offset_call(), callersHandle)
    var message = pollux_message()
    message.target = endpoint
    checks.expect("a child's call arrives", pollux_message_call(SystemCall.replyReceive.rawValue, &message) == 7)
    _ = must(.processKill, caller, 1)
    checks.expect("a dead caller gets no reply", .notFound, raw(.reply, (message.target >> 32) << 32))
    _ = must(.handleClose, caller)

    let server = code.process()
    let serversHandle = must(.handleGrant, server, endpoint, UInt64(Rights.receive.rawValue), 0)
    code.start(server, child_offset_serve_and_die(), serversHandle)
    checks.expect("a server's death ends its calls", .peerClosed, raw(.call, endpoint))
    _ = must(.handleClose, server)

    let waiting = code.process()
    let waitersHandle = must(.handleGrant, waiting, endpoint, UInt64(Rights.call.rawValue), 0)
    code.start(waiting, child_offset_call(), waitersHandle)
    letOthersRun(milliseconds: 10)
    _ = must(.handleClose, endpoint)
    checks.expect(
      "a closed endpoint ends waiting calls",
      waitForEnd(waiting) == .exited(UInt32(-SystemError.peerClosed.rawValue)))
    _ = must(.handleClose, waiting)

    // Never started: its end comes with the last handle.
    let idle = code.process()
    _ = must(.handleClose, idle)
    code.close()
  }

  static func log(_ checks: inout Checks) {
    let text: StaticString = "kernel test was here\n"
    let before = must(.systemQuery, SystemQuery.logEnd.rawValue)
    let address = UInt64(UInt(bitPattern: text.utf8Start))
    let count = UInt64(text.utf8CodeUnitCount)
    checks.expect("the log takes text", must(.logWrite, address, count) == count)
    let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 64, alignment: 8)
    let read = Kernel.readLog(at: before, into: buffer)
    var same = read == text.utf8CodeUnitCount
    for index in 0..<min(read, text.utf8CodeUnitCount) { same = same && buffer[index] == text.utf8Start[index] }
    checks.expect("and gives it back", same)
    buffer.deallocate()
  }

  /// Processes come and go without a trace.
  static func leaks(_ checks: inout Checks) {
    let code = ChildCode()
    func round(_ count: Int) {
      for _ in 0..<count {
        let process = code.process()
        code.start(process, child_offset_exit(), 0)
        _ = waitForEnd(process)
        _ = must(.handleClose, process)
      }
    }
    round(5)
    let before = must(.systemQuery, SystemQuery.memoryFree.rawValue)
    round(20)
    let after = must(.systemQuery, SystemQuery.memoryFree.rawValue)
    checks.expect("twenty processes leave no memory behind", before == after)
    code.close()
  }

  // MARK: Costs, in ticks; under QEMU -icount shift=0 a tick is an instruction

  static func costs(_ checks: inout Checks) {
    let count: UInt64 = 200
    measure_null(10)
    var start = pollux_time_stamp()
    measure_null(count)
    checks.note("null-call-ticks", (pollux_time_stamp() &- start) / count)

    let notification = must(.notificationCreate)
    start = pollux_time_stamp()
    measure_signal(notification, count)
    checks.note("signal-and-poll-ticks", (pollux_time_stamp() &- start) / count)
    _ = must(.handleClose, notification)

    let endpoint = must(.endpointCreate)
    try? Thread.start(priority: 10) { serve_calls(endpoint) }
    _ = measure_calls(endpoint, 10)
    start = pollux_time_stamp()
    let status = measure_calls(endpoint, count)
    checks.note("call-ticks", (pollux_time_stamp() &- start) / count)
    checks.expect("calls within a process", status == 0)
    _ = must(.handleClose, endpoint)
  }

  // MARK: Processors

  static func processors(_ checks: inout Checks) {
    let root = InitialHandle.root
    _ = must(.systemControl, root, SystemControl.startProcessors.rawValue, 0)
    _ = must(.threadSleep, deadline(milliseconds: 100))
    let count = must(.systemQuery, SystemQuery.processorCount.rawValue)
    checks.note("processors", count)
    // On one processor the same must hold.

    // Threads of all processors hammer one endpoint and a notification.
    let done = must(.notificationCreate)
    let endpoint = must(.endpointCreate)
    try? Thread.start(priority: 10) { serve_calls(endpoint) }
    for index in 0..<4 {
      try? Thread.start(priority: 10) {
        let status = measure_calls(endpoint, 300)
        _ = raw(.notificationSignal, done, status == 0 ? 1 << UInt64(index) : 1 << 40)
      }
    }
    var bits: UInt64 = 0
    while bits != 15 {
      let result = raw(.notificationWait, done, deadline(milliseconds: 10_000))
      if result <= 0 { break }
      bits |= UInt64(result)
    }
    checks.expect("calls from all processors", bits == 15)
    _ = must(.handleClose, endpoint)

    // A page that another processor reads all the time goes away.
    let code = ChildCode()
    var gone = true
    for _ in 0..<10 {
      let process = code.process()
      let memory = must(.memoryCreate, 4096)
      _ = must(.memoryMap, process, memory, 0x90_0000, 0, 4096, 1)
      code.start(process, child_offset_touch(), 0x90_0000, priority: 5)
      _ = must(.threadSleep, deadline(milliseconds: 5))
      gone = gone && raw(.processStatus, process) == 0
      _ = must(.memoryUnmap, process, 0x90_0000, 4096)
      gone = gone && waitForEnd(process) == .faulted(vector: 14)
      _ = must(.handleClose, memory)
      _ = must(.handleClose, process)
    }
    checks.expect("an unmapped page is gone on every processor", gone)

    // Children that spin elsewhere are killed.
    var killed = true
    for _ in 0..<10 {
      let first = code.process()
      code.start(first, child_offset_spin(), priority: 5)
      let second = code.process()
      code.start(second, child_offset_spin(), priority: 5)
      _ = must(.threadSleep, deadline(milliseconds: 3))
      _ = must(.processKill, first, 3)
      _ = must(.processKill, second, 4)
      killed = killed && waitForEnd(first) == .exited(3) && waitForEnd(second) == .exited(4)
      _ = must(.handleClose, first)
      _ = must(.handleClose, second)
    }
    checks.expect("processes end that run on other processors", killed)
    code.close()
    _ = must(.handleClose, done)
  }

  // MARK: Random calls

  static func fuzz(_ checks: inout Checks) {
    let code = ChildCode()
    for seed in 1...UInt64(24) {
      let process = code.process()
      let memory = must(.memoryCreate, 16 << 10)
      let endpoint = must(.endpointCreate)
      let notification = must(.notificationCreate)
      let all = UInt64(Rights.all.rawValue)
      _ = must(.handleGrant, process, memory, all, 0)
      _ = must(.handleGrant, process, endpoint, all, 0)
      _ = must(.handleGrant, process, notification, all, 0)
      _ = must(.handleGrant, process, process, all, 0)
      code.start(process, child_offset_fuzz(), seed &* 0x9e37_79b9_7f4a_7c15, priority: 5)
      code.start(process, child_offset_fuzz(), seed &* 0xd1b5_4a32_d192_ed03, priority: 5)
      _ = must(.threadSleep, deadline(milliseconds: 25))
      _ = raw(.processKill, process, 1)
      if !waitForEnd(process).hasEnded { checks.expect("a process of random calls can be killed", false) }
      for handle in [memory, endpoint, notification, process] { _ = must(.handleClose, handle) }
    }
    code.close()
    checks.expect("random system calls do no harm", true)
  }
}

/// Counters that threads share.
final class SharedCounters: Sendable {
  private let a = Atomic<UInt64>(0)
  private let b = Atomic<UInt64>(0)
  private let c = Atomic<UInt64>(0)
  private let d = Atomic<UInt64>(0)

  func add(_ index: Int, _ amount: UInt64 = 1) {
    switch index {
    case 0: a.wrappingAdd(amount, ordering: .relaxed)
    case 1: b.wrappingAdd(amount, ordering: .relaxed)
    case 2: c.wrappingAdd(amount, ordering: .relaxed)
    default: d.wrappingAdd(amount, ordering: .relaxed)
    }
  }
  func value(_ index: Int) -> UInt64 {
    switch index {
    case 0: a.load(ordering: .relaxed)
    case 1: b.load(ordering: .relaxed)
    case 2: c.load(ordering: .relaxed)
    default: d.load(ordering: .relaxed)
    }
  }
}
