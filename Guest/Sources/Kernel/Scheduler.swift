// Which thread each processor runs: the highest priority first, round robin within one; switching, time slices, deadlines, and
// waking other processors.
import CArch
import KernelCore
import PolluxABI

extension Reference<Processor> {
  /// Priority of what runs here; below all priorities while idle.
  @inline(__always) var currentPriority: Int {
    guard let current = pointee.current else { return -1 }
    return Int(current.pointee.priority)
  }

  /// Chooses anew. The current thread, if it is still in state `running`, goes behind its equals.
  func schedule() {
    pointee.needsSchedule = false
    if let current = pointee.current {
      if current.pointee.isKilled, current.pointee.state != .ended {
        Objects.finish(current, on: self)
      } else if current.pointee.state == .running {
        if pointee.runQueue.highest < Int(current.pointee.priority) { return }
        current.pointee.state = .ready
        pointee.runQueue.append(current)
      } else if current.pointee.isInterrupted {
        Scheduler.interrupt(current)
      }
    }
    if let next = pointee.runQueue.popHighest() { resume(next) } else { idle() }
  }

  /// Runs a thread that is in no queue; the current one has been taken care of.
  func resume(_ next: Reference<Thread>) {
    next.pointee.state = .running
    if pointee.current == next { return }
    let now = time_stamp()
    install(next, now)
    pointee.sliceEnd = now &+ kernel.pointee.clock.slice
    pointee.timerStale = true
  }

  /// As `resume`, for the partner of a message: it runs in what is left of the current thread's slice, so the timer needs no
  /// change unless others wait for its end.
  func resumeInSlice(_ next: Reference<Thread>) {
    next.pointee.state = .running
    install(next, time_stamp())
    if pointee.runQueue.count != 0 { pointee.timerStale = true }
  }

  /// Makes a thread the current one: its stack, address space and registers outside the frame.
  @inline(__always) private func install(_ next: Reference<Thread>, _ now: UInt64) {
    charge(now)
    pointee.current = next
    pointee.contextSwitches &+= 1
    next.pointee.processor = self
    next.pointee.switches &+= 1
    setKernelStack(next.frameEnd)
    load(next.pointee.process)
    if pointee.floatOwner != next {
      pointee.floatOwner?.saveFloat()
      next.restoreFloat()
      pointee.floatOwner = next
    }
    if pointee.loadedThreadPointer != next.pointee.pointer {
      pointee.loadedThreadPointer = next.pointee.pointer
      msr_write(0xc000_0100, next.pointee.pointer)
    }
  }

  @inline(__always) private func load(_ process: Reference<Process>) {
    let root = process.pointee.pageTable
    // The page table of a domain maps no kernel: the way out loads it (domain.S).
    guard pointee.loadedPageTable != root, !process.pointee.space.isTableDomain else { return }
    pointee.loadedPageTable = root
    page_table_set(root)
  }

  /// The current thread may be in another domain than before. Only for the processor that runs this.
  func follow() {
    if let current = pointee.current { load(current.pointee.process) }
  }

  private func idle() {
    charge(time_stamp())
    pointee.current = nil
    setIdleStack()
    pointee.timerStale = true
    // Another processor may run the thread next.
    if kernel.pointee.processorCount > 1, let owner = pointee.floatOwner {
      owner.saveFloat()
      pointee.floatOwner = nil
    }
  }

  /// Accounts the time since the last switch.
  @inline(__always) func charge(_ now: UInt64) {
    let ran = now &- pointee.lastSwitch
    if let current = pointee.current {
      current.pointee.processorTime &+= ran
    } else {
      pointee.idleTime &+= ran
    }
    pointee.lastSwitch = now
  }

  /// The end of every stay in the kernel: what runs now, or nil to idle.
  @inline(__always) func leave() -> UInt64 {
    if pointee.needsSchedule { schedule() }
    if pointee.timerStale { updateTimer() }
    return pointee.current?.address ?? 0
  }

  /// Arms the timer for the earliest of deadlines and, if others wait at this priority, the end of the slice.
  private func updateTimer() {
    pointee.timerStale = false
    guard kernel.pointee.clock.slice != 0 else { return }
    var earliest = pointee.timers.earliest
    if pointee.runQueue.highest >= currentPriority, pointee.current != nil {
      earliest = min(earliest, pointee.sliceEnd)
    }
    if earliest < pointee.armedDeadline {
      pointee.armedDeadline = earliest
      kernel.pointee.clock.arm(earliest, now: kernel.pointee.clock.usesDeadline ? 0 : time_stamp())
    }
  }

  /// The timer fired.
  func timerExpired() {
    let now = time_stamp()
    pointee.armedDeadline = .max
    pointee.timerStale = true
    while let thread = pointee.timers.popExpired(now: now) {
      thread.pointee.hasTimer = false
      Scheduler.expire(thread)
    }
    if now >= pointee.sliceEnd, pointee.current != nil, pointee.runQueue.highest >= currentPriority {
      pointee.needsSchedule = true
    }
  }
}

enum Scheduler {
  /// Makes a thread that is in no queue ready, on its last processor, or an idle one if that is busy.
  static func ready(_ thread: Reference<Thread>) {
    if thread.pointee.hasTimer { cancelTimer(thread) }
    thread.pointee.state = .ready
    var processor = thread.pointee.processor
    if kernel.pointee.processorCount > 1, processor.pointee.current != nil || processor.pointee.runQueue.count > 0 {
      for index in 0..<kernel.pointee.processorCount {
        let other = Processor.at(index)
        if other.pointee.current == nil, other.pointee.runQueue.count == 0 {
          processor = other
          break
        }
      }
      thread.pointee.processor = processor
    }
    processor.pointee.runQueue.append(thread)
    let running = processor.currentPriority
    if Int(thread.pointee.priority) > running {
      processor.pointee.needsSchedule = true
      kick(processor)
    } else if Int(thread.pointee.priority) == running {
      // It needs a slice timer now; another processor arms it when it is kicked.
      processor.pointee.timerStale = true
      if processor.pointee.armedDeadline > processor.pointee.sliceEnd { kick(processor) }
    }
  }

  /// Has another processor come into the kernel. Nothing to do for the one that asks: it is on its way out.
  static func kick(_ processor: Reference<Processor>) {
    guard kernel.pointee.processorCount > 1, processor != currentProcessor() else { return }
    LocalController.send(Vector.reschedule, to: processor.pointee.identifier)
  }

  /// The processor that runs this code.
  static func currentProcessor() -> Reference<Processor> {
    // Kernel stacks lie in the CPU blocks, which are aligned to their size.
    Reference(trusted: stack_pointer() & ~(UInt64(CPU_SIZE) - 1))
  }

  static func startTimer(_ thread: Reference<Thread>, deadline: UInt64, on processor: Reference<Processor>) {
    guard deadline != SystemCall.forever else { return }
    thread.pointee.deadline = deadline
    thread.pointee.hasTimer = true
    thread.pointee.timerProcessor = UInt8(truncatingIfNeeded: processor.pointee.index)
    processor.pointee.timers.insert(thread)
    processor.pointee.timerStale = true
  }

  static func cancelTimer(_ thread: Reference<Thread>) {
    thread.pointee.hasTimer = false
    Processor.at(Int(thread.pointee.timerProcessor)).pointee.timers.remove(thread)
  }

  /// A deadline passed.
  static func expire(_ thread: Reference<Thread>) {
    switch thread.pointee.state {
    case .spare: return Migration.expire(thread)
    case .sleeping:
      thread.pointee.frame.rax = 0
    case .waiting:
      Reference<Notification>(trusted: thread.pointee.waitsFor).pointee.waiting.remove(thread)
      thread.pointee.frame.rax = UInt64(bitPattern: SystemError.timedOut.rawValue)
    default:
      return
    }
    ready(thread)
  }

  /// Takes a thread out of whatever queue it is in.
  static func withdraw(_ thread: Reference<Thread>) {
    if thread.pointee.hasTimer { cancelTimer(thread) }
    switch thread.pointee.state {
    case .ready: thread.pointee.processor.pointee.runQueue.remove(thread)
    case .waiting: Reference<Notification>(trusted: thread.pointee.waitsFor).pointee.waiting.remove(thread)
    case .calling: Reference<Endpoint>(trusted: thread.pointee.waitsFor).pointee.callers.remove(thread)
    case .receiving: Reference<Endpoint>(trusted: thread.pointee.waitsFor).pointee.waiting.remove(thread)
    case .awaitingStack:
      let service = Reference<Service>(trusted: thread.pointee.waitsFor)
      Migration.dropSpare(thread.pointee.spare)
      Objects.release(connection: StackWaits.take(thread))
      StackWaits.settle(service)
    case .running, .sleeping, .awaitingReply, .ended, .spare: break
    }
  }

  /// Changes what a thread runs at, wherever it is.
  static func setPriority(_ thread: Reference<Thread>, _ priority: UInt8) {
    guard thread.pointee.priority != priority, thread.pointee.state != .ended else { return }
    if thread.pointee.state == .ready {
      thread.pointee.processor.pointee.runQueue.remove(thread)
      thread.pointee.priority = priority
      thread.pointee.processor.pointee.runQueue.append(thread)
    } else {
      thread.pointee.priority = priority
    }
    thread.pointee.processor.pointee.needsSchedule = true
    kick(thread.pointee.processor)
  }

  /// Ends what a thread waits for with `cancelled`: now, or where it does not wait, its next wait.
  static func interrupt(_ thread: Reference<Thread>) {
    thread.pointee.isInterrupted = thread.pointee.state == .running || thread.pointee.state == .ready
    interruptWait(thread)
  }

  /// Ends whatever a thread waits for with `cancelled`. One that runs or is ready is left alone.
  static func interruptWait(_ thread: Reference<Thread>) {
    switch thread.pointee.state {
    case .running, .ready, .ended, .spare: return
    case .awaitingStack:
      let service = Reference<Service>(trusted: thread.pointee.waitsFor)
      let connection = StackWaits.take(thread)
      Migration.dropSpare(thread.pointee.spare)
      thread.pointee.spare = nil
      StackWaits.settle(service)
      Objects.release(connection: connection)
    default: withdraw(thread)
    }
    thread.pointee.frame.rax = UInt64(bitPattern: SystemError.cancelled.rawValue)
    ready(thread)
  }

  // MARK: Other processors

  /// Returns when all other processors have loaded their page tables again. Since the caller holds the big lock, they wait for it then:
  /// none is in ring 3, or in the lock-free part of a call, until the caller leaves the kernel.
  static func stopOthers() { interruptOthers { _ in true } }

  private static func interruptOthers(_ wanted: (Reference<Processor>) -> Bool) {
    guard kernel.pointee.processorCount > 1 else { return }
    let own = currentProcessor()
    var asked: UInt64 = 0
    for index in 0..<kernel.pointee.processorCount {
      let other = Processor.at(index)
      guard other != own, wanted(other) else { continue }
      asked |= 1 << UInt64(index)
      // An exchange, so that what `wanted` reads of the next is not older than what was changed before.
      _ = exchange64(other.address + UInt64(CPU_FLUSH), 1)
      LocalController.send(Vector.flush, to: other.pointee.identifier)
    }
    for index in 0..<kernel.pointee.processorCount where asked >> UInt64(index) & 1 != 0 {
      let other = Processor.at(index)
      while load64(other.address + UInt64(CPU_FLUSH)) != 0 { spin_pause() }
      // What a fast return left to do is done for it, since what it would look at may be gone by then. One that was not asked runs on,
      // and its thread's registers change under the eyes of who reads them here.
      if let current = other.pointee.current, !current.pointee.isVoid,
        current.pointee.frame.vector == UInt64(RPC_AFTER_VECTOR)
      {
        Migration.after(current)
        current.pointee.isVoid = true
      }
    }
  }

  /// Has all processors, which are stopped, run in the domains that their threads are in now.
  static func followAll() {
    currentProcessor().follow()
    interruptOthers { other in
      guard let current = other.pointee.current else { return false }
      let root = current.pointee.process.pointee.pageTable
      guard root != 0, root != other.pointee.loadedPageTable, !current.pointee.process.pointee.space.isTableDomain
      else {
        return false
      }
      other.pointee.loadedPageTable = root
      return true
    }
  }

  /// Waits until no processor has old translations of kernel space.
  static func flushAll() {
    page_table_set(page_table_get())
    stopOthers()
  }

  /// Waits until no other processor has translations of an address space that was changed; `replacement` is the root they load:
  /// the same, or the kernel's if the space is about to go.
  static func flush(_ root: UInt64, replacement: UInt64) {
    let own = currentProcessor()
    if own.pointee.loadedPageTable == root {
      own.pointee.loadedPageTable = replacement
      page_table_set(replacement)
    }
    // One that changes into this space meanwhile loads it afresh.
    if root != replacement { stopOthers() }
    interruptOthers { other in
      guard other.pointee.loadedPageTable == root else { return false }
      other.pointee.loadedPageTable = replacement
      return true
    }
  }
}
