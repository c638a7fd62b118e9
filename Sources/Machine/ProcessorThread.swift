// The thread that runs one vCPU: enter the guest, serve the exit, enter again; and how it is paused and stopped.

import CLinux
import Glibc
import GuestMemory
import HostSystem
import KVM
import Synchronization
import SystemPackage

/// What the vCPU threads do with an exit that they cannot serve themselves.
protocol ProcessorEvents: AnyObject, Sendable {
  /// A port access; `data` is read or filled.
  func port(_ port: UInt16, size: Int, data: UnsafeMutableRawBufferPointer, isWrite: Bool, on thread: ProcessorThread)
  /// A guest-physical access outside RAM.
  func mmio(_ address: UInt64, data: UnsafeMutableRawBufferPointer, isWrite: Bool)
  /// The vCPU cannot go on, or a debugger asked for this exit. True: go on; false: the thread ends.
  func unusual(_ exit: Exit, on thread: ProcessorThread) -> Bool
  /// KVM itself failed.
  func failed(_ error: KVMError, on thread: ProcessorThread)
}

/// One vCPU and the thread that runs it.
///
/// Any number of parties (the control socket, the debugger) can hold the vCPU with `hold`; it runs while nobody does.
/// While it is held, its registers may be used from the holder's thread.
public final class ProcessorThread: @unchecked Sendable {
  // @unchecked: `processor` belongs to the thread, or to whoever holds it while it is parked; the rest is locked.
  private struct State {
    var holders = 0
    var parked = false
    var stopping = false
    var ended = false
  }

  public let processor: VirtualCPU
  public let statistics = ExitStatistics()
  private let state = Monitor(State(holders: 1))
  private weak let events: (any ProcessorEvents)?
  private var thread: HostThread?
  /// Whether KVM still has to finish the access that caused the last exit.
  private var completionPending = false

  /// The signal that ends KVM_RUN. Its handler does nothing; its arrival is the message.
  static let kick: CInt = SIGUSR1

  /// Prepares the thread, held once: it starts to run the guest with the first `release`.
  init(processor: VirtualCPU, events: any ProcessorEvents) {
    self.processor = processor
    self.events = events
  }

  /// Starts the host thread (the vCPU itself waits until nobody holds it).
  func start() throws(Errno) {
    thread = try HostThread(name: "vcpu-\(processor.index)") { [self] in
      var kick = sigset_t()
      sigemptyset(&kick)
      sigaddset(&kick, Self.kick)
      pthread_sigmask(SIG_UNBLOCK, &kick, nil)
      loop()
      state.update {
        $0.ended = true
        $0.parked = true
      }
    }
  }

  /// Installs the handler of the kick signal, once a process.
  static func installKickHandler() {
    var action = sigaction()
    action.__sigaction_handler.sa_handler = { _ in }
    sigaction(kick, &action, nil)
  }

  // MARK: From other threads

  /// Asks the vCPU to stay out of the guest; returns at once. Pair with `release`.
  public func hold() {
    state.update { $0.holders += 1 }
    interrupt()
  }

  /// Waits until a held vCPU is out of the guest, its registers valid.
  public func waitUntilParked() { state.wait(until: { $0.parked }, then: { _ in }) }

  /// Takes back one `hold`.
  public func release() { state.update { $0.holders -= 1 } }

  /// Makes the thread end; `join` waits for it.
  func stop() {
    state.update { $0.stopping = true }
    interrupt()
  }

  /// Waits for the thread's end. Not from the thread itself.
  func join() { thread?.join() }

  /// Whether the thread has ended.
  var hasEnded: Bool { state.read { $0.ended } }

  private func interrupt() {
    processor.requestExit()
    thread?.send(signal: Self.kick)
  }

  // MARK: The loop

  private func loop() {
    do throws(KVMError) { try processor.refreshRegisters() } catch {
      events?.failed(error, on: self)
      return
    }
    while checkpoint() {
      let exit: Exit
      do throws(KVMError) { exit = try processor.run() } catch {
        events?.failed(error, on: self)
        return
      }
      statistics.count(exit)
      completionPending = false
      guard let events else { return }
      switch exit {
      case .io(let port, let size, let count, let isWrite):
        completionPending = true
        let data = processor.ioData(size: size, count: count)
        for index in 0..<count {
          let item = UnsafeMutableRawBufferPointer(rebasing: data[(index * size)..<((index + 1) * size)])
          events.port(port, size: size, data: item, isWrite: isWrite, on: self)
        }
      case .mmio(let address, let count, let isWrite):
        completionPending = true
        events.mmio(address, data: processor.mmioData(count: count), isWrite: isWrite)
      case .interrupted:
        continue
      default:
        guard events.unusual(exit, on: self) else { return }
      }
    }
  }

  /// Parks the thread while somebody holds the vCPU. False: the thread shall end.
  private func checkpoint() -> Bool {
    if state.read({ $0.holders == 0 && !$0.stopping }) { return true }
    completeAccess()
    state.update { $0.parked = true }
    return state.wait(
      until: { $0.holders == 0 || $0.stopping },
      then: {
        $0.parked = false
        return !$0.stopping
      })
  }

  /// Lets KVM finish the port or MMIO access of the last exit, so that the registers are those after the instruction.
  func completeAccess() {
    guard completionPending else { return }
    completionPending = false
    processor.requestExit()
    _ = try? processor.run()
  }
}
