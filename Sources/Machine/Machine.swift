// One virtual machine from its description: memory, vCPUs, devices, the loaded guest, and its life until it ends.

import CLinux
import Configuration
import Devices
import Glibc
import GuestMemory
import HostSystem
import KVM
import Loader
import Logging
import Synchronization
import SystemPackage

/// How a machine came to its end.
public enum Ending: Equatable, Sendable {
  /// The guest powered itself off.
  case powerOff
  /// The guest asked for a reboot.
  case reboot
  /// The guest ended the machine with a code.
  case exit(UInt8)
  /// Somebody on the host ended it: a second SIGTERM, the escape key, the control socket, the debugger.
  case ended(ExitCode)
  /// The guest or KVM failed; the report says how.
  case failed(ExitCode)
}

/// A machine. Made and run by one thread, the main thread; its vCPUs and devices have threads of their own.
public final class Machine: @unchecked Sendable {
  // @unchecked: the stored parts are set in `init` and are safe to share themselves; `firstEnding` is locked.
  public let configuration: MachineConfiguration
  let log: Logger
  let memory: GuestMemory
  let virtualMachine: VirtualMachine
  let kvm: KVMSystem
  public let loop: EventLoop
  let serial: Serial16550
  let debugPort = DebugPort()
  let bootMarks: BootMarks
  /// When the program was executed, monotonic nanoseconds.
  let start: UInt64
  let powerButton: PowerButton
  var serialBackend: SerialBackend?
  var termination: Termination?
  private(set) var processors: [ProcessorThread] = []
  private(set) var bootPlan: BootPlan?
  var virtioDevices: [AttachedDevice] = []
  var windows = MMIOMap<AttachedDevice>()
  private let ending = Mutex<Ending?>(nil)
  /// Called on a vCPU thread for debug exits and ring-3 traps.
  let debugger = Mutex<(any ProcessorDebugger)?>(nil)
  /// Whether the debugger has breakpoints whose address was not mapped yet.
  let breakpointsWait = Atomic<Bool>(false)
  /// Whether vCPUs have AVX, for the debugger's register list.
  private(set) var hasAVX = false

  /// Builds everything up to the first instruction.
  /// - Throws: `MachineError` naming what cannot be had.
  public init(_ configuration: MachineConfiguration, log: Logger, start: UInt64) throws(MachineError) {
    self.configuration = configuration
    self.log = log
    self.start = start
    bootMarks = BootMarks(start: start)
    do {
      ProcessorThread.installKickHandler()
      loop = try EventLoop()
      kvm = try KVMSystem()
      guard configuration.cpus <= kvm.maximumCPUs else {
        throw MachineError(
          "cpus '\(configuration.cpus)': this host's KVM gives one machine at most \(kvm.maximumCPUs)",
          exitCode: .tooManyCPUs)
      }
      virtualMachine = try VirtualMachine(system: kvm)
      memory = try GuestMemory(
        ranges: PlatformLayout.memoryRanges(bytes: configuration.memory),
        backing: configuration.backing == .memfd ? .memfd : .anonymous, hugePages: configuration.hugePages)
      for (slot, region) in memory.regions.enumerated() {
        try virtualMachine.setMemory(
          slot: UInt32(slot), address: region.base.rawValue, count: region.count, host: region.host, readOnly: false)
      }
      let serialLine = try PinInterrupt(machine: virtualMachine, pin: 4)
      serial = Serial16550 { serialLine.trigger() }
      let buttonLine = try PinInterrupt(machine: virtualMachine, pin: UInt32(PowerButton.interruptPin))
      powerButton = PowerButton { buttonLine.trigger() }
    } catch { throw MachineError(wrapping: error) }
    try addVirtioDevices()
    try addProcessors()
    try loadKernel()
  }

  private func addProcessors() throws(MachineError) {
    do {
      let supported = try kvm.supportedCPUID()
      hasAVX = supported.contains { $0.function == 1 && $0.ecx >> 28 & 1 == 1 }
      let deadline = kvm.value(of: .tscDeadline) != 0
      for index in 0..<configuration.cpus {
        let processor = try VirtualCPU(
          machine: virtualMachine, index: index, cpuid: cpuid(for: index, from: supported, deadlineTimer: deadline))
        processors.append(ProcessorThread(processor: processor, events: self))
      }
    } catch { throw MachineError(wrapping: error) }
  }

  private func loadKernel() throws(MachineError) {
    guard let kernel = configuration.kernel else {
      throw MachineError("kernel: no kernel image was given", exitCode: .missingInput)
    }
    do {
      let request = BootRequest(
        kernelPath: kernel, archivePath: configuration.archive ?? configuration.initrd, platform: platformDescription(),
        throughFirmware: configuration.firmware)
      let plan = try loadGuest(request, into: memory)
      if configuration.firmware { try addBootROM() }
      bootPlan = plan
      // Linux expects a PC's timer beside its interrupt chip; Pollux does not use one.
      if plan.format != .castorELF { try virtualMachine.createPIT() }
      try processors[0].processor.start(in: plan.state)
    } catch { throw MachineError(wrapping: error) }
  }

  /// Maps the boot ROM at the reset vector.
  private func addBootROM() throws(KVMError) {
    let count = max(BootROM.count, 4096)
    let mapped = mmap(nil, count, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
    guard let mapped, mapped != MAP_FAILED else { throw .request("mmap of the boot ROM", Errno(rawValue: errno)) }
    // The mapping is `count` bytes, no fewer than the ROM has; it lives as long as the process.
    UnsafeMutableRawBufferPointer(start: mapped, count: count).copyMemory(from: BootROM.bytes)
    mprotect(mapped, count, PROT_READ)
    try virtualMachine.setMemory(
      slot: UInt32(memory.regions.count), address: BootROM.address.rawValue, count: UInt64(count), host: mapped,
      readOnly: true)
  }

  // MARK: Life

  /// Starts the vCPUs, serves the machine until it ends, and takes it apart.
  public func run() throws(MachineError) -> Ending {
    do { termination = try Termination(of: self) } catch { throw MachineError(wrapping: error) }
    let stub: DebugAttachment? =
      if let endpoint = configuration.gdb { try DebugAttachment(machine: self, endpoint: endpoint) } else { nil }
    debugger.withLock { $0 = stub?.target }
    let control = try MachineControl(of: self)
    defer { control.close() }
    try attachSerial()
    do {
      for processor in processors { try processor.start() }
    } catch { throw MachineError(wrapping: error) }
    if configuration.timing {
      let elapsed = Double(monotonicNanoseconds() - start) / 1e6
      log.notice("first instruction after \((elapsed * 100).rounded() / 100) ms")
    }
    for processor in processors { processor.release() }
    loop.run()
    stub?.finish(ending.withLock { $0 } ?? .ended(.success))
    for processor in processors { processor.stop() }
    for processor in processors { processor.join() }
    for device in virtioDevices { device.transport.shutdown() }
    serialBackend?.close()
    serialBackend = nil
    termination = nil
    return ending.withLock { $0 } ?? .ended(.success)
  }

  /// Ends the machine. The first caller's reason counts. Any thread.
  public func end(_ reason: Ending) {
    ending.withLock { if $0 == nil { $0 = reason } }
    loop.stop()
  }

  /// Asks the guest to power off, as SIGTERM does; asked twice, ends the machine. On the main thread.
  func requestStop() { termination?.stop.request() }

  /// Whether the machine is at its end.
  public var isEnding: Bool { ending.withLock { $0 != nil } }
}

/// What a debugger does with a vCPU that stopped for it. Called on the vCPU's thread.
protocol ProcessorDebugger: AnyObject, Sendable {
  /// A debug exit, an emulation failure that may be a breakpoint, or a triple fault. When the vCPU shall stay stopped, it
  /// is held on return; false when the exit is not the debugger's.
  func stopped(_ exit: Exit, on thread: ProcessorThread) -> Bool
  /// Ring 3 took #BP or #DB; `frame` is the guest-virtual address of the trap frame (docs/platform.md). Returns
  /// when the kernel shall return to the frame, which may have changed.
  func trapped(frame: UInt64, on thread: ProcessorThread)
  /// A chance to place breakpoints that wait: the vCPU is out of the guest, its page tables may be new.
  func placeBreakpoints(on thread: ProcessorThread)
}

extension Machine: ProcessorEvents {
  func port(
    _ port: UInt16, size: Int, data: UnsafeMutableRawBufferPointer, isWrite: Bool, on thread: ProcessorThread
  ) {
    if breakpointsWait.load(ordering: .relaxed) { debugger.withLock { $0 }?.placeBreakpoints(on: thread) }
    if isWrite {
      var value: UInt32 = 0
      for (index, byte) in data.enumerated() { value |= UInt32(byte) << (8 * UInt32(index)) }
      writePort(port, size: size, value: value, on: thread)
    } else {
      let value = readPort(port, size: size)
      for index in data.indices { data[index] = UInt8(truncatingIfNeeded: value >> (8 * UInt32(index))) }
    }
  }

  private func writePort(_ port: UInt16, size: Int, value: UInt32, on thread: ProcessorThread) {
    switch port {
    case 0x3f8...0x3ff: serial.write(offset: UInt8(port - 0x3f8), size: size, value: value)
    case PowerControl.port:
      switch PowerControl.event(size: size, value: value) {
      case .powerOff: end(.powerOff)
      case .reboot: end(.reboot)
      case .exit(let code): end(.exit(code))
      case nil: log.debug("power control: 0x\(String(value, radix: 16)) means nothing")
      }
      if isEnding { thread.stop() }
    case DebugPort.port where debugPort.isTrap(size: size):
      thread.completeAccess()
      debugger.withLock { $0 }?.trapped(frame: thread.processor.registers.rdi, on: thread)
    case BootMarks.port: bootMarks.write(size: size, value: value)
    case PowerButton.port: powerButton.write(value: UInt8(truncatingIfNeeded: value))
    // The keyboard controller's reset line, which is how Linux reboots a machine without ACPI.
    case 0x64 where value & 0xff == 0xfe:
      end(.reboot)
      thread.stop()
    default: break
    }
  }

  private func readPort(_ port: UInt16, size: Int) -> UInt32 {
    switch port {
    case 0x3f8...0x3ff: serial.read(offset: UInt8(port - 0x3f8), size: size)
    case DebugPort.port: debugPort.read(size: size)
    case PowerButton.port: UInt32(powerButton.read())
    // The keyboard controller's status: output and input buffers empty.
    case 0x64: 0
    default: .max
    }
  }

  func mmio(_ address: UInt64, data: UnsafeMutableRawBufferPointer, isWrite: Bool) {
    guard let (window, offset) = windows.find(address, size: data.count) else {
      // Nothing answers here: reads float high, writes are lost, as on a bus.
      if !isWrite { for index in data.indices { data[index] = 0xff } }
      return
    }
    if isWrite {
      var value: UInt64 = 0
      for (index, byte) in data.enumerated() { value |= UInt64(byte) << (8 * UInt64(index)) }
      window.transport.write(offset: offset, size: data.count, value: value)
    } else {
      let value = window.transport.read(offset: offset, size: data.count)
      for index in data.indices { data[index] = UInt8(truncatingIfNeeded: value >> (8 * UInt64(index))) }
    }
  }

  func unusual(_ exit: Exit, on thread: ProcessorThread) -> Bool {
    switch exit {
    case .debug, .internalError, .shutdown:
      if let debugger = debugger.withLock({ $0 }), debugger.stopped(exit, on: thread) { return true }
    default: break
    }
    // Linux without ACPI reboots by a triple fault (reboot=t).
    if bootPlan?.format != .castorELF, isTripleFault(exit, on: thread) {
      end(.reboot)
      return false
    }
    reportCrash(exit, on: thread)
    end(.failed(.guestFailure))
    return false
  }

  /// A triple fault, or what becomes of one where KVM emulates ring 0 and does not know `int3`: the trap instruction
  /// with an empty IDT.
  private func isTripleFault(_ exit: Exit, on thread: ProcessorThread) -> Bool {
    switch exit {
    case .shutdown: true
    case .internalError(_, _, let instruction):
      instruction.first == 0xcc && thread.processor.systemRegisters.idt.limit == 0
    default: false
    }
  }

  func failed(_ error: KVMError, on thread: ProcessorThread) {
    log.critical("vCPU \(thread.processor.index): \(error)")
    end(.failed(.operatingSystemError))
  }
}
