// Why a vCPU came out of the guest, when a debugger may be the reason, and how one instruction is executed in each ring.
//
// Where ring 0 is emulated, KVM's guest debugging ends at ring 3: #DB and #BP from there go to the guest's own handlers.
// But the emulator honours hardware breakpoints, so DR0 and DR1 stand on the first instructions of those two handlers:
// the vCPU stops there before the guest has seen anything, the frame on the stack says what happened, and the state of
// ring 3 is put back as if the trap had not been delivered. The guest's debug port (docs/platform.md) serves for the
// time before the handlers are known.

import CLinux
import GDBRemote
import GuestMemory
import KVM

extension MachineDebugTarget: ProcessorDebugger {
  private static let debugVector: UInt64 = 1
  private static let breakpointVector: UInt64 = 3
  /// DR6.BS: a single step.
  private static let stepBit: UInt64 = 1 << 14

  // MARK: Stopping

  /// Ends the run: every vCPU is held. Returns what reports the event, to be called without the lock; nil when a stop
  /// is under way already.
  func beginStop(_ event: StopEvent, _ state: inout State) -> (() -> Void)? {
    guard let completion = state.completion else { return nil }
    state.completion = nil
    for index in state.running.keys { processors[index].hold() }
    state.running = [:]
    endStep(&state)
    return { completion(event) }
  }

  /// Takes away the breakpoint at which a step over a system call ends.
  func endStep(_ state: inout State) {
    guard let end = state.stepEnd else { return }
    state.breakpoints.remove(end)
    state.stepEnd = nil
  }

  func stopped(_ exit: Exit, on thread: ProcessorThread) -> Bool {
    let (handled, report) = state.withLock { state -> (Bool, (() -> Void)?) in
      let outcome = capability.isEmulated ? judgeEmulated(exit, thread, &state) : judgeNative(exit, thread, &state)
      switch outcome {
      case .notOurs: return (false, nil)
      case .goOn: return (true, nil)
      case .stop(let reason):
        // Without a debugger a failure is the machine's; a breakpoint that was hit while it left is gone by now.
        guard state.isAttached else { return (reason != .fault && reason != .illegalInstruction, nil) }
        return (true, beginStop(StopEvent(thread: identifier(thread), reason: reason), &state))
      case .stepDone:
        return (true, finishStep(thread, &state))
      }
    }
    report?()
    return handled
  }

  private enum Outcome {
    case notOurs
    case goOn
    case stop(StopReason)
    case stepDone
  }

  private func identifier(_ thread: ProcessorThread) -> ThreadIdentifier {
    ThreadIdentifier(vCPU: thread.processor.index)
  }

  /// One instruction is done: the step is complete, or goes on while RIP is in the range.
  private func finishStep(_ thread: ProcessorThread, _ state: inout State) -> (() -> Void)? {
    let own = thread.processor.index
    // The guest may have moved the stepped context to another vCPU.
    let steppers = state.running.filter { $0.value != .continue }.keys
    let stepper = steppers.contains(own) ? own : steppers.first
    guard let stepper, let action = state.running[stepper] else {
      program(own, &state)
      return nil
    }
    let event = StopEvent(thread: identifier(thread), reason: .stepped)
    guard case .stepWhileIn(let range) = action, range.contains(thread.processor.registers.rip) else {
      return beginStop(event, &state)
    }
    endStep(&state)
    return prepare(own, action, &state) ? nil : beginStop(event, &state)
  }

  private func judgeNative(_ exit: Exit, _ thread: ProcessorThread, _ state: inout State) -> Outcome {
    let processor = thread.processor
    switch exit {
    case .debug(_, _, let exception) where exception == UInt32(Self.breakpointVector):
      if isTrap(at: processor.registers.rip, processor, state) { return .stop(.softwareBreakpoint) }
      return inject(UInt32(KVM_GUESTDBG_INJECT_BP), processor, &state)
    case .debug(_, let dr6, _):
      for (position, breakpoint) in state.hardware.enumerated() where dr6 >> UInt64(position) & 1 == 1 {
        if breakpoint.kind == .hardware { return .stop(.hardwareBreakpoint) }
        return .stop(.watchpoint(breakpoint.kind, address: breakpoint.address))
      }
      if dr6 & Self.stepBit != 0, state.running[processor.index] != .continue { return .stepDone }
      guard state.isAttached else { return .goOn }
      return inject(UInt32(KVM_GUESTDBG_INJECT_DB), processor, &state)
    case .internalError: return .stop(.illegalInstruction)
    case .shutdown: return .stop(.fault)
    default: return .notOurs
    }
  }

  /// The trap is the guest's own: KVM delivers it.
  private func inject(_ flag: UInt32, _ processor: VirtualCPU, _ state: inout State) -> Outcome {
    var settings = settings(processor.index, state)
    settings.control |= flag
    do throws(KVMError) { try processor.apply(settings) } catch {
      log.warning("vCPU \(processor.index): \(error)")
      return .notOurs
    }
    return .goOn
  }

  private func judgeEmulated(_ exit: Exit, _ thread: ProcessorThread, _ state: inout State) -> Outcome {
    let processor = thread.processor
    let rip = processor.registers.rip
    switch exit {
    case .debug(_, let dr6, _):
      if state.passing.remove(processor.index) != nil {
        program(processor.index, &state)
        return .goOn
      }
      if dr6 & Self.stepBit != 0 { return .stepDone }
      if rip == processor.handler(of: Self.breakpointVector, in: memory) { return userBreakpoint(processor, &state) }
      if rip == processor.handler(of: Self.debugVector, in: memory) { return userStep(processor, &state) }
      if state.hardware.contains(where: { $0.address == rip }) { return .stop(.hardwareBreakpoint) }
      program(processor.index, &state)
      return .goOn
    case .internalError:
      if isTrap(at: rip, processor, state) { return .stop(kind(of: rip, state)) }
      return .stop(.illegalInstruction)
    case .shutdown: return .stop(.fault)
    default: return .notOurs
    }
  }

  /// The vCPU is at the guest's #BP handler.
  private func userBreakpoint(_ processor: VirtualCPU, _ state: inout State) -> Outcome {
    guard var frame = processor.interruptFrame(in: memory), frame.isFromUser,
      isTrap(at: frame.rip &- 1, processor, state)
    else { return pass(processor, &state) }
    frame.rip &-= 1
    clearTrap(&frame, &state)
    processor.resumeUser(frame, in: memory)
    return state.stepEnd == frame.rip ? .stepDone : .stop(kind(of: frame.rip, state))
  }

  /// The vCPU is at the guest's #DB handler.
  private func userStep(_ processor: VirtualCPU, _ state: inout State) -> Outcome {
    guard var frame = processor.interruptFrame(in: memory), frame.isFromUser, frame.rflags & Self.trapFlag != 0,
      state.pendingTraps > 0
    else { return pass(processor, &state) }
    clearTrap(&frame, &state)
    processor.resumeUser(frame, in: memory)
    return .stepDone
  }

  private func clearTrap(_ frame: inout InterruptFrame, _ state: inout State) {
    guard frame.rflags & Self.trapFlag != 0, state.pendingTraps > 0 else { return }
    frame.rflags &= ~Self.trapFlag
    state.pendingTraps -= 1
  }

  /// The trap is the guest's own: its handler runs. The breakpoint on its first instruction must not hit again, so that
  /// one instruction is stepped without it.
  private func pass(_ processor: VirtualCPU, _ state: inout State) -> Outcome {
    var settings = DebugSettings()
    settings.step(blockingInterrupts: capability.blocksInterrupts)
    do throws(KVMError) { try processor.apply(settings) } catch {
      log.warning("vCPU \(processor.index): \(error)")
      return .notOurs
    }
    state.passing.insert(processor.index)
    return .goOn
  }

  func trapped(frame address: UInt64, on thread: ProcessorThread) {
    let processor = thread.processor
    state.withLock { state in
      // The handlers are known now, so that the trap, repeated, will stop the vCPU at them.
      program(processor.index, &state)
      // The vector and RIP in the trap frame of docs/platform.md.
      guard let vector: UInt64 = word(address &+ 15 * 8, processor), vector == Self.breakpointVector,
        processor.handler(of: Self.breakpointVector, in: memory) != nil,
        let rip: UInt64 = word(address &+ 17 * 8, processor), isTrap(at: rip &- 1, processor, state),
        let place = physical(address &+ 17 * 8, processor)
      else { return }
      try? memory.write(rip &- 1, at: place)
    }
  }

  private func word(_ address: UInt64, _ processor: VirtualCPU) -> UInt64? {
    guard let place = physical(address, processor) else { return nil }
    return try? memory.read(UInt64.self, at: place)
  }

  private func isTrap(at address: UInt64, _ processor: VirtualCPU, _ state: State) -> Bool {
    physical(address, processor).map { state.breakpoints.isTrap(at: $0) } ?? false
  }

  private func kind(of address: UInt64, _ state: State) -> StopReason {
    state.replaced.contains(address) ? .hardwareBreakpoint : .softwareBreakpoint
  }

  // MARK: Going on

  /// Sets guest debugging as the breakpoints demand, without stepping.
  func program(_ index: Int, _ state: inout State) {
    do throws(KVMError) { try processors[index].processor.apply(settings(index, state)) } catch {
      log.warning("vCPU \(index): \(error)")
    }
  }

  private func settings(_ index: Int, _ state: State) -> DebugSettings {
    var settings = DebugSettings()
    // Contexts with a trap flag of ours may outlive the debugger; their traps are not for the guest.
    guard state.isAttached || state.pendingTraps > 0 else {
      settings.control = 0
      return settings
    }
    if capability.isEmulated {
      let processor = processors[index].processor
      for vector in [Self.debugVector, Self.breakpointVector] {
        if let handler = processor.handler(of: vector, in: memory) {
          settings.add(Breakpoint(kind: .hardware, address: handler, length: 1))
        }
      }
    } else {
      settings.control |= UInt32(KVM_GUESTDBG_USE_SW_BP)
    }
    for breakpoint in state.hardware { settings.add(breakpoint) }
    return settings
  }

  /// Sets a parked vCPU up for its action.
  /// - Returns: false when a step was done here, without running the guest.
  func prepare(_ index: Int, _ action: ResumeAction, _ state: inout State) -> Bool {
    let processor = processors[index].processor
    guard action != .continue else {
      program(index, &state)
      return true
    }
    guard capability.isEmulated else {
      var settings = settings(index, state)
      settings.step(blockingInterrupts: capability.blocksInterrupts)
      do throws(KVMError) { try processor.apply(settings) } catch { log.warning("vCPU \(index): \(error)") }
      return true
    }
    return processor.isInUserMode
      ? prepareUserStep(processor, &state) : prepareKernelStep(processor, &state)
  }

  /// One instruction of emulated ring 0. A return to ring 3 is done here: the emulator would run ring 3 on.
  private func prepareKernelStep(_ processor: VirtualCPU, _ state: inout State) -> Bool {
    let rip = processor.registers.rip
    let code = instruction(at: rip, 3, processor, state)
    if code.starts(with: [0x48, 0xcf]), let frame = processor.interruptFrame(in: memory), frame.isFromUser {
      processor.resumeUser(frame, in: memory)
      return false
    }
    if code.starts(with: [0x48, 0x0f, 0x07]) {
      let registers = processor.registers
      let star = (processor.modelSpecificRegister(0xc000_0081) ?? 0) >> 48
      processor.resumeUser(
        InterruptFrame(
          rip: registers.rcx, cs: star &+ 16 | 3, rflags: registers.r11, rsp: registers.rsp, ss: star &+ 8 | 3),
        in: memory)
      return false
    }
    var settings = DebugSettings()
    // The breakpoints where the vCPU stands would hit before the step is made.
    for breakpoint in state.hardware where breakpoint.address != rip { settings.add(breakpoint) }
    // HLT ends by an interrupt only.
    settings.step(blockingInterrupts: capability.blocksInterrupts && code.first != 0xf4)
    do throws(KVMError) { try processor.apply(settings) } catch { log.warning("vCPU \(processor.index): \(error)") }
    return true
  }

  /// One instruction of ring 3: by the trap flag, or for a system call by a breakpoint behind it, since the trap flag
  /// does not survive the kernel exactly.
  private func prepareUserStep(_ processor: VirtualCPU, _ state: inout State) -> Bool {
    program(processor.index, &state)
    var registers = processor.registers
    let code = instruction(at: registers.rip, 2, processor, state)
    if code.first == 0xcd || code == [0x0f, 0x05] || code == [0x0f, 0x34] {
      let end = registers.rip &+ 2
      // A breakpoint of the user that stands there already ends the step as well.
      guard !state.breakpoints.contains(end) else { return true }
      state.stepEnd = end
      state.breakpoints.insert(end) { physical($0, processor) }
      return true
    }
    if registers.rflags & Self.trapFlag == 0 {
      registers.rflags |= Self.trapFlag
      processor.registers = registers
      state.pendingTraps += 1
    }
    return true
  }

  private func instruction(at address: UInt64, _ count: Int, _ processor: VirtualCPU, _ state: State) -> [UInt8] {
    (0..<UInt64(count)).compactMap { offset in
      physical(address &+ offset, processor).flatMap { try? state.breakpoints.read(at: $0, count: 1).first }
    }
  }
}
