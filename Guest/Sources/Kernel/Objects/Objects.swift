// When objects are born and die: counts of handles and uses, what the last one takes with it, and how threads and processes end.
import CArch
import KernelCore
import PolluxABI

enum Objects {
  // MARK: Counts

  /// Another handle exists.
  static func retain(_ entry: HandleEntry) {
    switch ObjectKind(rawValue: entry.kind) {
    case .process: Reference<Process>(trusted: entry.object).pointee.references += 1
    case .thread: Reference<Thread>(trusted: entry.object).pointee.references += 1
    case .memory: Reference<MemoryObject>(trusted: entry.object).pointee.references += 1
    case .endpoint:
      let endpoint = Reference<Endpoint>(trusted: entry.object)
      endpoint.pointee.references += 1
      if entry.rights & UInt16(Rights.receive.rawValue) != 0 { endpoint.pointee.receivers += 1 }
    case .notification: Reference<Notification>(trusted: entry.object).pointee.references += 1
    case .interrupt: Reference<Interrupt>(trusted: entry.object).pointee.references += 1
    case .token: Reference<TokenObject>(trusted: entry.object).pointee.references += 1
    case .service: Reference<Service>(trusted: entry.object).pointee.references += 1
    case .connection: Reference<Connection>(trusted: entry.object).pointee.references += 1
    case .pager: Reference<Pager>(trusted: entry.object).pointee.references += 1
    case .root, nil: break
    }
  }

  /// A handle is gone.
  static func release(_ entry: HandleEntry) {
    switch ObjectKind(rawValue: entry.kind) {
    case .process: release(process: Reference(trusted: entry.object))
    case .thread: release(thread: Reference(trusted: entry.object))
    case .memory: release(memory: Reference(trusted: entry.object))
    case .endpoint:
      let endpoint = Reference<Endpoint>(trusted: entry.object)
      if entry.rights & UInt16(Rights.receive.rawValue) != 0 {
        endpoint.pointee.receivers -= 1
        if endpoint.pointee.receivers == 0 { close(endpoint) }
      }
      endpoint.pointee.references -= 1
      if endpoint.pointee.references == 0 { destroy(endpoint) }
    case .notification: release(notification: Reference(trusted: entry.object))
    case .interrupt: release(interrupt: Reference(trusted: entry.object))
    case .token: Tokens.release(Reference(trusted: entry.object))
    case .service: release(service: Reference(trusted: entry.object))
    case .connection:
      // A call on another processor may have read the handle just before it was removed.
      Scheduler.stopOthers()
      release(connection: Reference(trusted: entry.object))
    case .pager: release(pager: Reference(trusted: entry.object))
    case .root, nil: break
    }
  }

  static func release(thread: Reference<Thread>) {
    thread.pointee.references -= 1
    guard thread.pointee.references == 0 else { return }
    store64(threadSlot(thread.pointee.identifier), 0)
    release(process: thread.pointee.home)
    kernel.pointee.heap.release(thread.address - Thread.floatSize, Thread.blockSize)
  }

  static func release(process: Reference<Process>) {
    process.pointee.references -= 1
    guard process.pointee.references == 0 else { return }
    // Never started, and nobody can any more.
    if !process.pointee.hasEnded {
      process.pointee.references = 1
      process.pointee.isEnding = true
      Scheduler.stopOthers()
      Unwinding.closeServices(of: process)
      dismantle(process)
      Scheduler.followAll()
      process.pointee.references = 0
    }
    store64(processSlot(process.pointee.identifier), 0)
    kernel.pointee.heap.destroy(process)
  }

  static func release(memory: Reference<MemoryObject>) {
    memory.pointee.references -= 1
    guard memory.pointee.references == 0 else { return }
    if memory.pointee.isOwned {
      kernel.pointee.frames.release(memory.pointee.physical, size: memory.pointee.size)
      if let owner = process(memory.pointee.owner) { owner.uncharge(memory.pointee.size) }
    }
    let whole = memory.pointee.whole
    kernel.pointee.heap.destroy(memory)
    // A part is made of an object that is no part, so this goes no deeper.
    if let whole { release(memory: whole) }
  }

  static func release(service: Reference<Service>) {
    service.pointee.references -= 1
    if service.pointee.references == 0 { Migration.destroy(service) }
  }

  static func release(connection: Reference<Connection>) {
    connection.pointee.references -= 1
    if connection.pointee.references == 0 { Migration.close(connection) }
  }

  static func release(notification: Reference<Notification>) {
    notification.pointee.references -= 1
    if notification.pointee.references == 0 { kernel.pointee.heap.destroy(notification) }
  }

  static func release(interrupt: Reference<Interrupt>) {
    interrupt.pointee.references -= 1
    guard interrupt.pointee.references == 0 else { return }
    interrupt.setMask(true)
    kernel.pointee.vectors[Int(interrupt.pointee.vector)] = nil
    release(notification: interrupt.pointee.notification)
    if let table = interrupt.pointee.table { release(memory: table) }
    kernel.pointee.heap.destroy(interrupt)
  }

  /// Nobody can receive any more: all callers learn it.
  private static func close(_ endpoint: Reference<Endpoint>) {
    while let caller = endpoint.pointee.callers.popFirst() { fail(caller, .peerClosed) }
    while let receiver = endpoint.pointee.waiting.popFirst() { fail(receiver, .badHandle) }
    unbind(endpoint)
  }

  /// The notification is free for another endpoint.
  private static func unbind(_ endpoint: Reference<Endpoint>) {
    guard let notification = endpoint.pointee.notification else { return }
    endpoint.pointee.notification = nil
    notification.pointee.endpoint = nil
    release(notification: notification)
  }

  private static func destroy(_ endpoint: Reference<Endpoint>) {
    unbind(endpoint)
    kernel.pointee.heap.destroy(endpoint)
  }

  /// Ends a thread's wait with an error.
  private static func fail(_ thread: Reference<Thread>, _ error: SystemError) {
    thread.pointee.frame.rax = UInt64(bitPattern: error.rawValue)
    Scheduler.ready(thread)
  }

  // MARK: Identifiers

  static func threadSlot(_ identifier: UInt32) -> UInt64 { address_of_thread_table() + UInt64(identifier) * 8 }
  static func processSlot(_ identifier: UInt32) -> UInt64 { address_of_process_table() + UInt64(identifier) * 8 }

  static func thread(_ identifier: UInt32) -> Reference<Thread>? {
    guard identifier < UInt32(THREAD_LIMIT) else { return nil }
    return Reference(address: load64(threadSlot(identifier)))
  }
  static func process(_ identifier: UInt32) -> Reference<Process>? {
    guard identifier < UInt32(PROCESS_LIMIT) else { return nil }
    return Reference(address: load64(processSlot(identifier)))
  }

  /// A free identifier, the least recently used first; 0 is never given.
  private static func freeIdentifier(_ next: inout UInt32, limit: UInt32, table: UInt64) throws(SystemError) -> UInt32 {
    for _ in 1..<limit {
      next = next + 1 < limit ? next + 1 : 1
      if load64(table + UInt64(next) * 8) == 0 { return next }
    }
    throw .tableFull
  }

  // MARK: Processes

  /// A process without threads, with one reference for its caller's handle.
  static func makeProcess(
    name: (UInt64, UInt64, UInt64, UInt64), parent: UInt32
  ) throws(SystemError) -> Reference<Process> {
    let identifier = try freeIdentifier(
      &kernel.pointee.nextProcess, limit: UInt32(PROCESS_LIMIT), table: address_of_process_table())
    guard let root = kernel.pointee.frames.allocate(size: 4096) else { throw .noMemory }
    guard let handleFrame = kernel.pointee.frames.allocate(size: 4096) else {
      kernel.pointee.frames.release(root, size: 4096)
      throw .noMemory
    }
    let handles = HandleTable(
      entries: Reference(trusted: DirectMemory.address(handleFrame)), capacity: Process.handleCapacity)
    let process: Reference<Process>
    do throws(SystemError) {
      process = try kernel.pointee.heap.make(
        Process(
          pageTable: root, handles: handles, keys: 0, space: ProcessSpace(), identifier: identifier, parent: parent,
          references: 1, threadCount: 0, status: 0, hasEnded: false, isEnding: false, tableFrames: 2,
          handleFrame: handleFrame, watches: nil, paging: nil, name: name, processorTime: 0, memoryBytes: 0))
    } catch {
      kernel.pointee.frames.release(root, size: 4096)
      kernel.pointee.frames.release(handleFrame, size: 4096)
      throw error
    }
    kernel.pointee.tableFrames += 2
    let memory = DirectMemory()
    for slot in UInt64(251)...255 {
      memory.store(root + slot * 8, load64(address_of_kernel_pml4() + slot * 8))
    }
    store64(processSlot(identifier), process.address)
    return process
  }

  /// Begins a process's end. Its threads go at once, except those that run on other processors, which go as soon as these are in
  /// the kernel; with the last one the rest is dismantled. The caller holds a reference if it goes on using the process.
  static func end(_ process: Reference<Process>, status: ProcessStatus, on processor: Reference<Processor>) {
    guard !process.pointee.isEnding else { return }
    process.pointee.isEnding = true
    process.pointee.status = status.rawValue
    process.pointee.references += 1
    Scheduler.stopOthers()
    Unwinding.closeServices(of: process)
    var next = process.pointee.threads.first
    while let thread = next {
      next = thread.pointee.processLink.next
      if thread.pointee.activation != nil {
        Unwinding.orphan(thread)
      } else if thread.pointee.state == .running, thread.pointee.processor != processor {
        thread.pointee.isKilled = true
        thread.pointee.isVoid = true
        thread.pointee.processor.pointee.needsSchedule = true
        Scheduler.kick(thread.pointee.processor)
      } else {
        finish(thread, on: processor)
      }
    }
    if process.pointee.threadCount == 0, !process.pointee.hasEnded { dismantle(process) }
    Scheduler.followAll()
    release(process: process)
  }

  /// Takes everything from a process without threads, and tells those who watch it.
  private static func dismantle(_ process: Reference<Process>) {
    process.pointee.hasEnded = true
    process.pointee.isEnding = true
    let own = UInt32(kernel.pointee.highestThread)
    if own > 0 {
      for identifier in 1...own {
        if let caller = thread(identifier), caller.pointee.state == .awaitingReply, caller.pointee.replier == process {
          fail(caller, .peerClosed)
        }
      }
    }
    var first: UInt64 = 0
    while let entry = process.pointee.handles.removeNext(from: &first) { release(entry) }
    let root = process.pointee.pageTable
    process.pointee.pageTable = 0
    Scheduler.flush(root, replacement: DirectMemory.physical(image: address_of_kernel_pml4()))
    Tokens.holderEnded(process)
    var source = SpaceSource(process: process)
    Domains.unmap(process, root, &source)
    _ = process.pointee.regions.remove(start: 0, end: .max, source: &source)
    PageTable(memory: DirectMemory(), root: root).destroy(slots: 253, source: &source)
    source.releaseTable(process.pointee.handleFrame)
    Paging.end(process)
    while let watch = process.pointee.watches {
      process.pointee.watches = watch.pointee.next
      watch.pointee.notification.signal(watch.pointee.bits)
      release(notification: watch.pointee.notification)
      kernel.pointee.heap.destroy(watch)
    }
  }

  // MARK: Threads

  /// A thread that is ready to start at `entry`, not yet scheduled, with one reference for its life. An orphan does not count among
  /// the process's threads.
  static func makeThread(
    _ process: Reference<Process>, entry: UInt64, stack: UInt64, arguments: (UInt64, UInt64), priority: UInt8,
    on processor: Reference<Processor>, isOrphan: Bool = false
  ) throws(SystemError) -> Reference<Thread> {
    let identifier = try freeIdentifier(
      &kernel.pointee.nextThread, limit: UInt32(THREAD_LIMIT), table: address_of_thread_table())
    guard let block = kernel.pointee.heap.allocate(Thread.blockSize) else { throw .noMemory }
    // FXSAVE area (Intel SDM vol. 1, 10.5.1): FCW and MXCSR as after reset, the rest zero.
    clear_words(block, Thread.floatSize / 8)
    store32(block, 0x37f)
    store32(block + 24, 0x1f80)
    var frame = trap_frame()
    frame.rip = entry
    frame.rsp = stack
    frame.rdi = arguments.0
    frame.rsi = arguments.1
    frame.cs = process.pointee.space.codeSelector
    frame.ss = process.pointee.space.stackSelector
    frame.rflags = 0x202
    let thread = Reference<Thread>(trusted: block + Thread.floatSize)
    thread.initialize(
      to: Thread(
        frame: frame, processor: processor, process: process, activation: nil, isVoid: false, home: process, pointer: 0,
        identifier: identifier, references: 1, state: .ready, priority: priority, ownPriority: priority,
        isOrphan: isOrphan, isKilled: false, isInterrupted: false, hasTimer: false,
        timerProcessor: 0, badge: 0, token: 0, deadline: 0, waitsFor: 0, connection: nil, spare: nil, replier: nil,
        processorTime: 0, switches: 0))
    process.pointee.references += 1
    if !isOrphan {
      process.pointee.threadCount += 1
      process.pointee.threads.append(thread)
    }
    store64(threadSlot(identifier), thread.address)
    kernel.pointee.highestThread = max(kernel.pointee.highestThread, identifier)
    return thread
  }

  /// Ends a thread that runs on no other processor. The process ends with its last thread.
  static func finish(_ thread: Reference<Thread>, on processor: Reference<Processor>) {
    guard thread.pointee.state != .ended else { return }
    if processor.pointee.current == thread {
      processor.charge(time_stamp())
      processor.pointee.current = nil
      processor.pointee.needsSchedule = true
    } else {
      Scheduler.withdraw(thread)
    }
    for index in 0..<kernel.pointee.processorCount where Processor.at(index).pointee.floatOwner == thread {
      Processor.at(index).pointee.floatOwner = nil
    }
    thread.pointee.state = .ended
    PassedFault.drop(thread, in: nil)
    Tokens.threadEnded(thread)
    let process = thread.pointee.home
    process.pointee.processorTime &+= thread.pointee.processorTime
    guard !thread.pointee.isOrphan else { return release(thread: thread) }
    process.pointee.threads.remove(thread)
    process.pointee.threadCount -= 1
    let isLast = process.pointee.threadCount == 0
    if isLast, !process.pointee.isEnding {
      process.pointee.isEnding = true
      process.pointee.status = ProcessStatus.exited(0).rawValue
    }
    process.pointee.references += 1
    if isLast, !process.pointee.hasEnded {
      Scheduler.stopOthers()
      Unwinding.closeServices(of: process)
      dismantle(process)
      Scheduler.followAll()
    }
    release(thread: thread)
    release(process: process)
  }

  /// Frees a thread that never ran.
  static func discard(_ thread: Reference<Thread>) {
    thread.pointee.state = .ended
    release(thread: thread)
  }
}
