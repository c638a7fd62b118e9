// A target small enough to reason about: every instruction is a no-op of one byte, except `hlt` (0xf4), which spins.

import Synchronization

@testable import GDBRemote

/// Two vCPUs and 4 KiB of memory at 0x1000, interpreted. `resume` runs until something happens, so that tests are
/// deterministic; when every running vCPU has reached a `hlt` the target counts as running until `interrupt`.
final class MockTarget: DebugTarget {
  static let base: UInt64 = 0x1000
  static let size = 4096
  static let noOperation: UInt8 = 0x90
  static let halt: UInt8 = 0xf4

  struct State {
    var registers: [RegisterFile]
    var memory: [UInt8]
    var breakpoints: Set<Breakpoint> = []
    var pending: (@Sendable (StopEvent) -> Void)?
    var isAttached = false
    var attachCount = 0
    var wasKilled = false
    var lastActions: [ThreadIdentifier: ResumeAction] = [:]
    var stopWithExitCode: UInt8?
  }
  let state: Mutex<State>
  let hasAVX: Bool
  let threads = [ThreadIdentifier(vCPU: 0), ThreadIdentifier(vCPU: 1)]
  let memoryMap = [MemoryMapRange(kind: .ram, start: 0, length: 1 << 47)]

  init(hasAVX: Bool = false, program: [UInt8]? = nil) {
    self.hasAVX = hasAVX
    var memory = [UInt8](repeating: Self.noOperation, count: Self.size)
    memory[0x80] = Self.halt
    memory[0x180] = Self.halt
    if let program { memory.replaceSubrange(0..<program.count, with: program) }
    var registers = [RegisterFile(hasAVX: hasAVX), RegisterFile(hasAVX: hasAVX)]
    registers[0][.rip] = Self.base
    registers[1][.rip] = Self.base + 0x100
    for index in registers.indices {
      registers[index][.rsp] = Self.base + 0xff0
      registers[index][.cs] = 8
      registers[index][.cr0] = 0x8000_0011
      registers[index][.efer] = 0xd01
    }
    state = Mutex(State(registers: registers, memory: memory))
  }

  func describe(_ thread: ThreadIdentifier) -> String { "ring 0 <& more>" }

  func attach() -> StopEvent {
    state.withLock {
      $0.isAttached = true
      $0.attachCount += 1
    }
    return StopEvent(thread: threads[0], reason: .interrupted)
  }

  func detach() {
    state.withLock {
      $0.isAttached = false
      $0.breakpoints = []
      $0.pending = nil
    }
  }

  func kill() { state.withLock { $0.wasKilled = true } }

  func resume(_ actions: [ThreadIdentifier: ResumeAction], completion: @escaping @Sendable (StopEvent) -> Void) {
    let event = state.withLock { state -> StopEvent? in
      state.lastActions = actions
      if let code = state.stopWithExitCode { return StopEvent(thread: threads[0], reason: .exited(code: code)) }
      let event = Self.run(&state, actions)
      if event == nil { state.pending = completion }
      return event
    }
    if let event { completion(event) }
  }

  private static func run(_ state: inout State, _ actions: [ThreadIdentifier: ResumeAction]) -> StopEvent? {
    let order = actions.keys.sorted()
    for round in 0..<10_000 {
      var allHalted = true
      for thread in order {
        let rip = state.registers[thread.vCPU][.rip]
        if round > 0 {
          // The breakpoint that a thread starts on does not stop it.
          for kind in [BreakpointKind.software, .hardware]
          where state.breakpoints.contains(Breakpoint(kind: kind, address: rip, length: 1)) {
            return StopEvent(
              thread: thread, reason: kind == .software ? .softwareBreakpoint : .hardwareBreakpoint)
          }
        }
        let offset = Int(rip) - Int(base)
        guard state.memory.indices.contains(offset) else { return StopEvent(thread: thread, reason: .fault) }
        guard state.memory[offset] != halt else { continue }
        allHalted = false
        state.registers[thread.vCPU][.rip] = rip + 1
        switch actions[thread] {
        case .step: return StopEvent(thread: thread, reason: .stepped)
        case .stepWhileIn(let range) where !range.contains(rip + 1):
          return StopEvent(thread: thread, reason: .stepped)
        default: break
        }
      }
      // Nothing happens any more; going on would only keep a debugger waiting for its answer.
      if allHalted { return nil }
    }
    return nil
  }

  func interrupt() {
    let pending = state.withLock { state in
      let pending = state.pending
      state.pending = nil
      return pending
    }
    pending?(StopEvent(thread: threads[0], reason: .interrupted))
  }

  func readRegisters(of thread: ThreadIdentifier) throws(DebugTargetError) -> RegisterFile {
    guard threads.contains(thread) else { throw .noThread(thread) }
    return state.withLock { $0.registers[thread.vCPU] }
  }

  func writeRegisters(_ registers: RegisterFile, of thread: ThreadIdentifier) throws(DebugTargetError) {
    guard threads.contains(thread) else { throw .noThread(thread) }
    state.withLock { $0.registers[thread.vCPU] = registers }
  }

  private func range(at address: UInt64, count: Int) throws(DebugTargetError) -> Range<Int> {
    guard address >= Self.base, address < Self.base + UInt64(Self.size) else { throw .unmapped(address: address) }
    let start = Int(address - Self.base)
    return start..<min(start + count, Self.size)
  }

  func readMemory(at address: UInt64, count: Int, thread: ThreadIdentifier) throws(DebugTargetError) -> [UInt8] {
    let range = try range(at: address, count: count)
    return state.withLock { Array($0.memory[range]) }
  }

  func writeMemory(_ bytes: [UInt8], at address: UInt64, thread: ThreadIdentifier) throws(DebugTargetError) {
    let range = try range(at: address, count: bytes.count)
    guard range.count == bytes.count else { throw .unmapped(address: Self.base + UInt64(Self.size)) }
    state.withLock { $0.memory.replaceSubrange(range, with: bytes) }
  }

  func insert(_ breakpoint: Breakpoint, thread: ThreadIdentifier) throws(DebugTargetError) {
    guard breakpoint.kind == .software || breakpoint.kind == .hardware else { throw .unsupported }
    _ = state.withLock { $0.breakpoints.insert(breakpoint) }
  }

  func remove(_ breakpoint: Breakpoint, thread: ThreadIdentifier) throws(DebugTargetError) {
    guard breakpoint.kind == .software || breakpoint.kind == .hardware else { throw .unsupported }
    _ = state.withLock { $0.breakpoints.remove(breakpoint) }
  }

  func monitor(_ command: String, thread: ThreadIdentifier) throws(DebugTargetError) -> String {
    switch command {
    case "long": String(repeating: "0123456789", count: 1000)
    case "silent": ""
    case "help": "commands: help long silent"
    default: throw .failed("unknown command '\(command)'")
    }
  }
}
