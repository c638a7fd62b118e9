// One vCPU: running it, what made it stop, and its registers.

import CLinux
import Glibc
import HostSystem
import SystemPackage

/// Why KVM_RUN returned (Documentation/virt/kvm/api.rst, "kvm_run").
public enum Exit {
  /// A port access of `count` items of `size` bytes; the data is in `VirtualCPU.ioData`.
  case io(port: UInt16, size: Int, count: Int, isWrite: Bool)
  /// A guest-physical access outside memory; the data is in `VirtualCPU.mmioData`.
  case mmio(address: UInt64, count: Int, isWrite: Bool)
  /// HLT without an in-kernel interrupt chip.
  case halt
  /// Triple fault.
  case shutdown
  /// A breakpoint, watchpoint or single step that guest debugging asked for.
  case debug(address: UInt64, dr6: UInt64, exception: UInt32)
  /// KVM could not go on, most often an instruction its emulator does not know; its bytes where KVM gives them.
  case internalError(suberror: UInt32, data: [UInt64], instruction: [UInt8])
  /// The hardware refused to enter the guest.
  case entryFailure(reason: UInt64)
  /// The guest asked for shutdown, reset or crash by a paravirtual interface.
  case systemEvent(type: UInt32)
  /// A signal or `requestExit` ended the run.
  case interrupted
  /// A reason this code does not know.
  case unknown(reason: UInt32)
}

/// A vCPU. `run` and the registers belong to the thread that runs it; `requestExit` may be called from any thread.
public final class VirtualCPU: @unchecked Sendable {
  // @unchecked: all but `requestExit` is used by the vCPU's own thread, or while that thread is stopped.
  /// Index and APIC ID.
  public let index: Int
  let descriptor: OwnedDescriptor
  private let page: UnsafeMutablePointer<kvm_run>
  private let pageCount: Int

  /// Creates the vCPU in reset state with the given CPUID table.
  public init(machine: VirtualMachine, index: Int, cpuid: [kvm_cpuid_entry2]) throws(KVMError) {
    self.index = index
    let file = try request(
      "KVM_CREATE_VCPU", machine.descriptor.rawValue, castor_KVM_CREATE_VCPU, value: UInt(index))
    descriptor = OwnedDescriptor(owning: file)
    pageCount = Int(
      try request(
        "KVM_GET_VCPU_MMAP_SIZE", machine.system.descriptor.rawValue, castor_KVM_GET_VCPU_MMAP_SIZE))
    let mapped = mmap(nil, pageCount, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0)
    guard let mapped, mapped != MAP_FAILED, pageCount >= MemoryLayout<kvm_run>.size else {
      throw .request("mmap of the vCPU", Errno(rawValue: errno))
    }
    // KVM maps at least one struct kvm_run here, as checked.
    page = mapped.bindMemory(to: kvm_run.self, capacity: 1)
    castor_run_set_valid(page, UInt64(KVM_SYNC_X86_REGS | KVM_SYNC_X86_SREGS))
    try setCPUID(cpuid)
  }

  deinit { munmap(page, pageCount) }

  private func setCPUID(_ entries: [kvm_cpuid_entry2]) throws(KVMError) {
    let header = MemoryLayout<kvm_cpuid2>.stride
    let bytes = header + entries.count * MemoryLayout<kvm_cpuid_entry2>.stride
    // The buffer holds the header and exactly `entries.count` entries.
    let buffer = UnsafeMutableRawPointer.allocate(byteCount: bytes, alignment: 8)
    defer { buffer.deallocate() }
    buffer.initializeMemory(as: UInt8.self, repeating: 0, count: bytes)
    let table = buffer.bindMemory(to: kvm_cpuid2.self, capacity: 1)
    table.pointee.nent = UInt32(entries.count)
    guard let target = castor_cpuid_entries(table) else { return }
    for (position, entry) in entries.enumerated() { target[position] = entry }
    try request("KVM_SET_CPUID2", descriptor.rawValue, castor_KVM_SET_CPUID2, pointer: buffer)
  }

  // MARK: Running

  /// Enters the guest until it needs the VMM.
  public func run() throws(KVMError) -> Exit {
    let result = castor_ioctl_value(descriptor.rawValue, castor_KVM_RUN, 0)
    if result < 0 {
      let code = Errno(rawValue: errno)
      if code == .interrupted || code == .resourceTemporarilyUnavailable {
        castor_run_set_immediate_exit(page, 0)
        return .interrupted
      }
      throw .request("KVM_RUN of vCPU \(index)", code)
    }
    let reason = castor_run_exit_reason(page)
    switch Int32(bitPattern: reason) {
    case KVM_EXIT_IO:
      return .io(
        port: castor_run_io_port(page), size: Int(castor_run_io_size(page)), count: Int(castor_run_io_count(page)),
        isWrite: castor_run_io_direction(page) == UInt8(KVM_EXIT_IO_OUT))
    case KVM_EXIT_MMIO:
      return .mmio(
        address: castor_run_mmio_address(page), count: Int(castor_run_mmio_count(page)),
        isWrite: castor_run_mmio_is_write(page) != 0)
    case KVM_EXIT_HLT: return .halt
    case KVM_EXIT_SHUTDOWN: return .shutdown
    case KVM_EXIT_DEBUG:
      return .debug(
        address: castor_run_debug_address(page), dr6: castor_run_debug_dr6(page),
        exception: castor_run_debug_exception(page))
    case KVM_EXIT_INTERNAL_ERROR: return internalError()
    case KVM_EXIT_FAIL_ENTRY: return .entryFailure(reason: castor_run_entry_failure(page))
    case KVM_EXIT_SYSTEM_EVENT: return .systemEvent(type: castor_run_system_event(page))
    case KVM_EXIT_INTR: return .interrupted
    default: return .unknown(reason: reason)
    }
  }

  private func internalError() -> Exit {
    let suberror = castor_run_internal_suberror(page)
    let count = min(16, castor_run_internal_count(page))
    let data = (0..<count).map { castor_run_internal_data(page, $0) }
    var bytes: [UInt8] = []
    if suberror == UInt32(KVM_INTERNAL_ERROR_EMULATION), count >= 4,
      castor_run_failure_flags(page) & UInt64(KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES) != 0
    {
      let size = min(15, Int(castor_run_instruction_count(page)))
      // The kernel wrote `size` bytes of at most 15, the array's length.
      bytes = Array(UnsafeBufferPointer(start: castor_run_instruction_bytes(page), count: size))
    }
    return .internalError(suberror: suberror, data: data, instruction: bytes)
  }

  /// Makes the current or the next `run` return `.interrupted`. Another thread follows this with a signal to the vCPU's
  /// thread; together they cannot miss.
  public func requestExit() { castor_run_set_immediate_exit(page, 1) }

  /// The bytes of a port access; valid until the next `run`.
  public func ioData(size: Int, count: Int) -> UnsafeMutableRawBufferPointer {
    // KVM guarantees size × count bytes at the offset that it gives, inside the mapping.
    UnsafeMutableRawBufferPointer(start: castor_run_io_data(page), count: size * count)
  }

  /// The bytes of an MMIO access, at most eight; valid until the next `run`.
  public func mmioData(count: Int) -> UnsafeMutableRawBufferPointer {
    UnsafeMutableRawBufferPointer(start: castor_run_mmio_data(page), count: min(8, count))
  }

  // MARK: Registers

  /// General registers as of the last exit; setting them takes effect with the next `run` (KVM_CAP_SYNC_REGS).
  public var registers: kvm_regs {
    get { castor_run_registers(page).pointee }
    set {
      castor_run_registers(page).pointee = newValue
      castor_run_add_dirty(page, UInt64(KVM_SYNC_X86_REGS))
    }
  }

  /// Segment and control registers as of the last exit; setting them takes effect with the next `run`.
  public var systemRegisters: kvm_sregs {
    get { castor_run_system_registers(page).pointee }
    set {
      castor_run_system_registers(page).pointee = newValue
      castor_run_add_dirty(page, UInt64(KVM_SYNC_X86_SREGS))
    }
  }

  /// Reads the registers from KVM where no run has filled the shared page yet.
  public func refreshRegisters() throws(KVMError) {
    try request("KVM_GET_REGS", descriptor.rawValue, castor_KVM_GET_REGS, pointer: castor_run_registers(page))
    try request("KVM_GET_SREGS", descriptor.rawValue, castor_KVM_GET_SREGS, pointer: castor_run_system_registers(page))
  }

  /// Writes both register sets at once, outside a run.
  public func setRegisters(_ general: kvm_regs, _ system: kvm_sregs) throws(KVMError) {
    var general = general
    var system = system
    try request("KVM_SET_SREGS", descriptor.rawValue, castor_KVM_SET_SREGS, pointer: &system)
    try request("KVM_SET_REGS", descriptor.rawValue, castor_KVM_SET_REGS, pointer: &general)
    try refreshRegisters()
  }

  /// x87 and SSE state (KVM_GET_FPU). Read only: writing goes through XSAVE, see `setExtendedState`.
  public func floatingPointState() throws(KVMError) -> kvm_fpu {
    var state = kvm_fpu()
    try request("KVM_GET_FPU", descriptor.rawValue, castor_KVM_GET_FPU, pointer: &state)
    return state
  }

  /// The XSAVE area (KVM_GET_XSAVE).
  public func extendedState() throws(KVMError) -> kvm_xsave {
    var state = kvm_xsave()
    try request("KVM_GET_XSAVE", descriptor.rawValue, castor_KVM_GET_XSAVE, pointer: &state)
    return state
  }

  /// Replaces the XSAVE area (KVM_SET_XSAVE).
  public func setExtendedState(_ state: kvm_xsave) throws(KVMError) {
    var state = state
    try request("KVM_SET_XSAVE", descriptor.rawValue, castor_KVM_SET_XSAVE, pointer: &state)
  }

  /// A model-specific register, or nil where KVM does not know it.
  public func modelSpecificRegister(_ index: UInt32) -> UInt64? {
    withOneMSR(index, value: 0) { table in
      castor_ioctl_pointer(descriptor.rawValue, castor_KVM_GET_MSRS, table) == 1
    }
  }

  /// Sets a model-specific register; false where KVM refused.
  @discardableResult
  public func setModelSpecificRegister(_ index: UInt32, _ value: UInt64) -> Bool {
    withOneMSR(index, value: value) { table in
      castor_ioctl_pointer(descriptor.rawValue, castor_KVM_SET_MSRS, table) == 1
    } != nil
  }

  private func withOneMSR(_ index: UInt32, value: UInt64, _ body: (UnsafeMutableRawPointer) -> Bool) -> UInt64? {
    let bytes = MemoryLayout<kvm_msrs>.stride + MemoryLayout<kvm_msr_entry>.stride
    // Room for the header and one entry.
    let buffer = UnsafeMutableRawPointer.allocate(byteCount: bytes, alignment: 8)
    defer { buffer.deallocate() }
    buffer.initializeMemory(as: UInt8.self, repeating: 0, count: bytes)
    let table = buffer.bindMemory(to: kvm_msrs.self, capacity: 1)
    table.pointee.nmsrs = 1
    guard let entry = castor_msr_entries(table) else { return nil }
    entry.pointee.index = index
    entry.pointee.data = value
    return body(buffer) ? entry.pointee.data : nil
  }

  /// The TSC's frequency in kHz, or 0 where KVM does not say.
  public var timestampFrequency: UInt64 {
    UInt64(max(0, castor_ioctl_value(descriptor.rawValue, castor_KVM_GET_TSC_KHZ, 0)))
  }

  /// Waiting for INIT (an application processor), running, halted … (KVM_GET_MP_STATE).
  public var multiprocessingState: UInt32 {
    var state = kvm_mp_state()
    return castor_ioctl_pointer(descriptor.rawValue, castor_KVM_GET_MP_STATE, &state) < 0 ? 0 : state.mp_state
  }

  /// Sets the multiprocessing state (KVM_SET_MP_STATE).
  public func setMultiprocessingState(_ value: UInt32) throws(KVMError) {
    var state = kvm_mp_state(mp_state: value)
    try request("KVM_SET_MP_STATE", descriptor.rawValue, castor_KVM_SET_MP_STATE, pointer: &state)
  }

  // MARK: Debugging

  /// Sets guest debugging: `control` is a mask of KVM_GUESTDBG_*, `debugRegisters` DR0–DR7 for hardware breakpoints.
  public func setGuestDebug(control: UInt32, debugRegisters: [UInt64]) throws(KVMError) {
    var debug = kvm_guest_debug()
    debug.control = control
    var registers = debugRegisters
    while registers.count < 8 { registers.append(0) }
    castor_set_debug_registers(&debug, registers)
    try request("KVM_SET_GUEST_DEBUG", descriptor.rawValue, castor_KVM_SET_GUEST_DEBUG, pointer: &debug)
  }

  /// The guest-physical address of a guest-virtual one under the vCPU's page tables, or nil where nothing is mapped.
  public func translate(_ address: UInt64) -> UInt64? {
    var translation = kvm_translation()
    translation.linear_address = address
    guard castor_ioctl_pointer(descriptor.rawValue, castor_KVM_TRANSLATE, &translation) == 0, translation.valid != 0
    else { return nil }
    return translation.physical_address
  }
}
