// The machine as a debugger sees it: threads, registers, memory, breakpoints, running and stopping (GDBRemote's
// `DebugTarget`, over KVM). What happens at an exit is in DebugStops.swift.

import CLinux
import GDBRemote
import GuestMemory
import HostSystem
import KVM
import Loader
import Logging
import Synchronization
import SystemPackage

/// Binds the debug protocol to the machine's vCPUs.
final class MachineDebugTarget: DebugTarget, @unchecked Sendable {
  // @unchecked: everything that changes is in `state`, except `isSettled`, which belongs to the server's thread.
  struct State {
    var isAttached = false
    /// vCPUs that we hold from before the first instruction, for `--wait-gdb`.
    var holdsFromStart = false
    var breakpoints: BreakpointTable
    /// What stands in debug registers.
    var hardware: [Breakpoint] = []
    /// Hardware breakpoints in ring 3 of an emulated host, which are `int3` instead.
    var replaced: Set<UInt64> = []
    /// vCPUs that run, and what they were told.
    var running: [Int: ResumeAction] = [:]
    /// Called at the next stop; nil while the target is stopped.
    var completion: (@Sendable (StopEvent) -> Void)?
    /// How many ring-3 contexts have TF set for us and have not trapped yet.
    var pendingTraps = 0
    /// Where a ring-3 step ends that steps over a system call.
    var stepEnd: UInt64?
    /// vCPUs that execute one instruction of a handler whose trap was the guest's own.
    var passing: Set<Int> = []
  }

  unowned let machine: Machine
  let memory: GuestMemory
  let capability: DebugCapability
  let processors: [ProcessorThread]
  let log: Logger
  let state: Mutex<State>
  private let retry = Monitor(false)
  private var retryThread: HostThread?
  private var isSettled = false

  init(machine: Machine, waits: Bool) throws(KVMError) {
    self.machine = machine
    memory = machine.memory
    processors = machine.processors
    log = machine.log
    capability = try DebugCapability(system: machine.kvm)
    state = Mutex(State(breakpoints: BreakpointTable(memory: machine.memory)))
    if waits {
      for processor in processors { processor.hold() }
      state.withLock { $0.holdsFromStart = true }
    }
  }

  /// Starts the thread that looks for a place for breakpoints whose address is not mapped yet.
  func start() throws(Errno) {
    retryThread = try HostThread(name: "gdb-pending") { [weak self, retry] in
      while !retry.wait(milliseconds: 2, until: { $0 }) { self?.placeWaitingBreakpoints() }
    }
  }

  /// Tells the debugger that the machine has ended, and ends the thread of `start`.
  func finish(code: UInt8) {
    retry.update { $0 = true }
    retryThread?.join()
    retryThread = nil
    let completion = state.withLock { state in
      let completion = state.completion
      state.completion = nil
      return completion
    }
    completion?(StopEvent(thread: threads[0], reason: .exited(code: code)))
  }

  // MARK: Threads

  var threads: [ThreadIdentifier] { processors.indices.map { ThreadIdentifier(vCPU: $0) } }

  func describe(_ thread: ThreadIdentifier) -> String {
    guard processors.indices.contains(thread.vCPU) else { return "" }
    settle()
    let processor = processors[thread.vCPU].processor
    switch processor.multiprocessingState {
    case UInt32(KVM_MP_STATE_UNINITIALIZED), UInt32(KVM_MP_STATE_INIT_RECEIVED): return "not started"
    case UInt32(KVM_MP_STATE_HALTED): return "ring \(processor.isInUserMode ? 3 : 0), halted"
    default: return "ring \(processor.isInUserMode ? 3 : 0)"
    }
  }

  var hasAVX: Bool { machine.hasAVX }

  var memoryMap: [MemoryMapRange] {
    // Guest-virtual addresses: both canonical halves. With the boot ROM in use, gdb must not plant traps there.
    let upper = MemoryMapRange(kind: .ram, start: 0xffff_8000_0000_0000, length: 1 << 47)
    guard machine.configuration.firmware else { return [MemoryMapRange(kind: .ram, start: 0, length: 1 << 47), upper] }
    return [
      MemoryMapRange(kind: .ram, start: 0, length: 0xffff_0000),
      MemoryMapRange(kind: .rom, start: 0xffff_0000, length: 0x1_0000),
      MemoryMapRange(kind: .ram, start: 1 << 32, length: 1 << 47 - 1 << 32), upper,
    ]
  }

  // MARK: Attaching

  func attach() -> StopEvent {
    state.withLock { state in
      if !state.holdsFromStart { for processor in processors { processor.hold() } }
      state.holdsFromStart = false
      state.isAttached = true
    }
    machine.debugPort.wantsTraps = capability.isEmulated
    isSettled = false
    settle()
    return StopEvent(thread: threads[0], reason: .interrupted)
  }

  func detach() {
    machine.debugPort.wantsTraps = false
    let wasRunning = state.withLock { state in
      state.isAttached = false
      state.completion = nil
      let running = state.running
      for index in running.keys { processors[index].hold() }
      state.running = [:]
      return !running.isEmpty
    }
    if wasRunning { isSettled = false }
    settle()
    state.withLock { state in
      state.breakpoints.removeAll()
      state.hardware = []
      state.replaced = []
      noteWaiting(state)
      state.stepEnd = nil
      state.passing = []
      for index in processors.indices { program(index, &state) }
    }
    // A machine at its end executes nothing more.
    if !machine.isEnding { for processor in processors { processor.release() } }
  }

  func kill() {
    machine.end(.ended(.success))
    detach()
  }

  // MARK: Running

  func resume(_ actions: [ThreadIdentifier: ResumeAction], completion: @escaping @Sendable (StopEvent) -> Void) {
    settle()
    let plan = actions.filter { processors.indices.contains($0.key.vCPU) && $0.value != .stay }
    let finished = state.withLock { state -> StopEvent? in
      for (thread, action) in plan {
        let index = thread.vCPU
        state.running[index] = action
        if !prepare(index, action, &state) {
          // The step needed no execution at all.
          state.running = [:]
          endStep(&state)
          return StopEvent(thread: thread, reason: .stepped)
        }
      }
      state.completion = completion
      noteWaiting(state)
      isSettled = false
      return nil
    }
    if let finished { return completion(finished) }
    for thread in plan.keys { processors[thread.vCPU].release() }
  }

  func interrupt() {
    let stop = state.withLock { state -> (() -> Void)? in
      let index = state.running.keys.min() ?? 0
      return beginStop(StopEvent(thread: ThreadIdentifier(vCPU: index), reason: .interrupted), &state)
    }
    stop?()
  }

  /// Waits until every vCPU is out of the guest. Only from the server's thread, and never with the lock held: a vCPU
  /// thread may need it to get here.
  func settle() {
    guard !isSettled else { return }
    for processor in processors { processor.waitUntilParked() }
    isSettled = true
    state.withLock { state in
      // A step in ring 3 that was cut off leaves no trap flag behind.
      for processor in processors.map(\.processor) where state.pendingTraps > 0 && processor.isInUserMode {
        var registers = processor.registers
        guard registers.rflags & Self.trapFlag != 0 else { continue }
        registers.rflags &= ~Self.trapFlag
        processor.registers = registers
        state.pendingTraps -= 1
      }
    }
  }

  static let trapFlag: UInt64 = 1 << 8

  // MARK: Registers

  private func processor(_ thread: ThreadIdentifier) throws(DebugTargetError) -> VirtualCPU {
    settle()
    guard processors.indices.contains(thread.vCPU) else { throw .noThread(thread) }
    return processors[thread.vCPU].processor
  }

  private static let kernelGSBase: UInt32 = 0xc000_0102

  func readRegisters(of thread: ThreadIdentifier) throws(DebugTargetError) -> RegisterFile {
    let processor = try processor(thread)
    var file = RegisterFile(hasAVX: hasAVX)
    file.take(processor.registers, processor.systemRegisters)
    file[.kernelGSBase] = processor.modelSpecificRegister(Self.kernelGSBase) ?? 0
    do throws(KVMError) {
      let area = try processor.extendedState()
      withUnsafeBytes(of: area) { file.takeExtendedState($0) }
    } catch { throw .failed("\(error)") }
    return file
  }

  func writeRegisters(_ registers: RegisterFile, of thread: ThreadIdentifier) throws(DebugTargetError) {
    let processor = try processor(thread)
    let before = try readRegisters(of: thread)
    var general = processor.registers
    var system = processor.systemRegisters
    guard registers.give(&general, &system) else {
      throw .failed("segment selectors cannot be changed from outside")
    }
    processor.registers = general
    processor.systemRegisters = system
    if registers[.kernelGSBase] != before[.kernelGSBase] {
      processor.setModelSpecificRegister(Self.kernelGSBase, registers[.kernelGSBase])
    }
    var wanted = before
    wanted.take(general, system)
    wanted[.kernelGSBase] = registers[.kernelGSBase]
    guard wanted != registers else { return }
    // What is left to differ is x87, SSE or AVX.
    do throws(KVMError) {
      var area = try processor.extendedState()
      withUnsafeMutableBytes(of: &area) { registers.giveExtendedState($0) }
      try processor.setExtendedState(area)
    } catch { throw .failed("\(error)") }
  }

  // MARK: Memory

  /// Where a guest-virtual address lies: by the thread's page tables; before the kernel has its own, by where its
  /// segments are linked and loaded.
  func physical(_ address: UInt64, _ processor: VirtualCPU) -> GuestAddress? {
    processor.pageWalk(in: memory).translate(address)?.physical ?? linkedPlace(address)
  }

  /// Where the loader has put the kernel's byte that is linked at a guest-virtual address.
  private func linkedPlace(_ address: UInt64) -> GuestAddress? {
    for segment in machine.bootPlan?.segments ?? []
    where address >= segment.virtualAddress && address - segment.virtualAddress < segment.count {
      return GuestAddress(segment.address + (address - segment.virtualAddress))
    }
    return nil
  }

  /// Cuts a guest-virtual range at page borders, and gives each piece with its physical address until one is unmapped.
  private func pieces(_ address: UInt64, _ count: Int, _ processor: VirtualCPU) -> [(GuestAddress, Range<Int>)] {
    var pieces: [(GuestAddress, Range<Int>)] = []
    var done = 0
    while done < count {
      let current = address &+ UInt64(done)
      guard let place = physical(current, processor) else { break }
      let size = min(count - done, 4096 - Int(current & 4095))
      pieces.append((place, done..<done + size))
      done += size
    }
    return pieces
  }

  func readMemory(at address: UInt64, count: Int, thread: ThreadIdentifier) throws(DebugTargetError) -> [UInt8] {
    let pieces = pieces(address, count, try processor(thread))
    let bytes = state.withLock { state in
      var bytes: [UInt8] = []
      for (place, range) in pieces {
        guard let part = try? state.breakpoints.read(at: place, count: range.count) else { break }
        bytes += part
      }
      return bytes
    }
    guard !bytes.isEmpty else { throw .unmapped(address: address) }
    return bytes
  }

  func writeMemory(_ bytes: [UInt8], at address: UInt64, thread: ThreadIdentifier) throws(DebugTargetError) {
    let pieces = pieces(address, bytes.count, try processor(thread))
    guard pieces.last?.1.upperBound == bytes.count else { throw .unmapped(address: address) }
    let failure = state.withLock { state -> UInt64? in
      for (place, range) in pieces {
        do { try state.breakpoints.write(Array(bytes[range]), at: place) } catch {
          return address &+ UInt64(range.lowerBound)
        }
      }
      return nil
    }
    if let failure { throw .unmapped(address: failure) }
  }

  // MARK: Breakpoints

  func insert(_ breakpoint: Breakpoint, thread: ThreadIdentifier) throws(DebugTargetError) {
    let processor = try processor(thread)
    let failure = state.withLock { state -> DebugTargetError? in
      if breakpoint.kind == .software {
        plant(breakpoint.address, processor, &state)
        return nil
      }
      guard DebugSettings.condition(of: breakpoint) != nil else { return .unsupported }
      guard !state.hardware.contains(breakpoint) else { return nil }
      let hasRoom = state.hardware.count < capability.userDebugRegisters
      guard capability.isEmulated else {
        guard hasRoom else { return .failed("all \(capability.userDebugRegisters) debug registers are taken") }
        state.hardware.append(breakpoint)
        return nil
      }
      // Watchpoints never hit where ring 0 is emulated, and breakpoints are sure to hit in ring 0 only. Elsewhere, and
      // when the registers are taken, a trap instruction does the same.
      guard breakpoint.kind == .hardware else { return .unsupported }
      let isSure =
        placeForBreakpoint(breakpoint.address, processor) != nil && !isUserPage(breakpoint.address, processor)
      if !isSure || !hasRoom {
        state.replaced.insert(breakpoint.address)
        plant(breakpoint.address, processor, &state)
      }
      if hasRoom { state.hardware.append(breakpoint) }
      return nil
    }
    if let failure { throw failure }
  }

  func remove(_ breakpoint: Breakpoint, thread: ThreadIdentifier) throws(DebugTargetError) {
    settle()
    state.withLock { state in
      state.hardware.removeAll { $0 == breakpoint }
      guard breakpoint.kind == .software || breakpoint.kind == .hardware else { return }
      if breakpoint.kind == .hardware, state.replaced.remove(breakpoint.address) == nil { return }
      state.breakpoints.remove(breakpoint.address)
    }
  }

  private func plant(_ address: UInt64, _ processor: VirtualCPU, _ state: inout State) {
    state.breakpoints.insert(address) { address in
      let ordered = [processor] + processors.map(\.processor).filter { $0 !== processor }
      return ordered.lazy.compactMap { self.placeForBreakpoint(address, $0) }.first
    }
  }

  /// Where a breakpoint's trap instruction belongs. Under the identity mapping of the start an address says nothing about
  /// where its program will be, so that there only the kernel's own segments count.
  private func placeForBreakpoint(_ address: UInt64, _ processor: VirtualCPU) -> GuestAddress? {
    let walk = processor.pageWalk(in: memory)
    let isStart = !walk.isPaging || walk.cr3 == machine.bootPlan?.state.cr3
    return isStart ? linkedPlace(address) : walk.translate(address)?.physical
  }

  /// Whether ring 3 can execute at this address.
  private func isUserPage(_ address: UInt64, _ processor: VirtualCPU) -> Bool {
    let walk = processor.pageWalk(in: memory)
    return walk.isPaging && walk.translate(address)?.isUser ?? false
  }

  /// Stops the vCPUs for a moment and looks whether addresses of waiting breakpoints are mapped by now.
  private func placeWaitingBreakpoints() {
    let running = state.withLock { state in
      state.completion != nil && state.breakpoints.hasWaiting ? Array(state.running.keys) : []
    }
    guard !running.isEmpty else { return }
    for index in running { processors[index].hold() }
    for index in running { processors[index].waitUntilParked() }
    state.withLock { state in
      for index in running { placeBreakpoints(of: processors[index].processor, &state) }
    }
    for index in running { processors[index].release() }
  }

  func placeBreakpoints(on thread: ProcessorThread) {
    state.withLock { placeBreakpoints(of: thread.processor, &$0) }
  }

  private func placeBreakpoints(of processor: VirtualCPU, _ state: inout State) {
    if state.breakpoints.resolveWaiting(translate: { self.placeForBreakpoint($0, processor) }) { noteWaiting(state) }
  }

  private func noteWaiting(_ state: borrowing State) {
    machine.breakpointsWait.store(state.isAttached && state.breakpoints.hasWaiting, ordering: .relaxed)
  }
}
