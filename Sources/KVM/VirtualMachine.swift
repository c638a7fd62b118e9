// One virtual machine: memory slots, interrupt chip and routing, doorbells.

import CLinux
import Glibc
import HostSystem
import Synchronization
import SystemPackage

/// A KVM virtual machine. Safe to share between threads: every method is one ioctl or guarded by a lock.
public final class VirtualMachine: Sendable {
  /// GSIs below this one are IOAPIC pins; messages get numbers from here up.
  public static let firstMessageGSI = 24

  let descriptor: OwnedDescriptor
  let system: KVMSystem
  private let routing = Mutex(Routing())

  private struct Routing {
    var messages: [UInt32: (address: UInt64, data: UInt32)] = [:]
    var nextGSI = UInt32(VirtualMachine.firstMessageGSI)
  }

  /// Creates the machine with KVM's private pages placed below the boot ROM (docs/platform.md), an in-kernel interrupt
  /// chip whose PIC is masked, and IOAPIC routes.
  public init(system: KVMSystem) throws(KVMError) {
    self.system = system
    let file = try request("KVM_CREATE_VM", system.descriptor.rawValue, castor_KVM_CREATE_VM)
    descriptor = OwnedDescriptor(owning: file)
    var identityMap: UInt64 = 0xfffb_c000
    try request(
      "KVM_SET_IDENTITY_MAP_ADDR", file, castor_KVM_SET_IDENTITY_MAP_ADDR, pointer: &identityMap)
    try request("KVM_SET_TSS_ADDR", file, castor_KVM_SET_TSS_ADDR, value: 0xfffb_d000)
    try request("KVM_CREATE_IRQCHIP", file, castor_KVM_CREATE_IRQCHIP)
    for chip in [KVM_IRQCHIP_PIC_MASTER, KVM_IRQCHIP_PIC_SLAVE] {
      var state = kvm_irqchip()
      state.chip_id = UInt32(chip)
      try request("KVM_GET_IRQCHIP", file, castor_KVM_GET_IRQCHIP, pointer: &state)
      castor_mask_pic(&state)
      try request("KVM_SET_IRQCHIP", file, castor_KVM_SET_IRQCHIP, pointer: &state)
    }
    try applyRouting(Routing())
    if system.value(of: .emulationFailure) != 0 {
      var capability = kvm_enable_cap()
      capability.cap = UInt32(KVM_CAP_EXIT_ON_EMULATION_FAILURE)
      capability.args.0 = 1
      try request("KVM_ENABLE_CAP", file, castor_KVM_ENABLE_CAP, pointer: &capability)
    }
  }

  /// Adds the in-kernel PIT, for guests that calibrate or tick by it.
  public func createPIT() throws(KVMError) {
    var configuration = kvm_pit_config()
    configuration.flags = UInt32(KVM_PIT_SPEAKER_DUMMY)
    try request("KVM_CREATE_PIT2", descriptor.rawValue, castor_KVM_CREATE_PIT2, pointer: &configuration)
  }

  /// Backs guest-physical `address ..< address + count` with host memory, which must stay mapped as long as the
  /// machine lives. A count of zero removes the slot.
  public func setMemory(slot: UInt32, address: UInt64, count: UInt64, host: UnsafeMutableRawPointer, readOnly: Bool)
    throws(KVMError)
  {
    var region = kvm_userspace_memory_region()
    region.slot = slot
    region.flags = readOnly ? UInt32(KVM_MEM_READONLY) : 0
    region.guest_phys_addr = address
    region.memory_size = count
    region.userspace_addr = UInt64(UInt(bitPattern: host))
    try request(
      "KVM_SET_USER_MEMORY_REGION", descriptor.rawValue, castor_KVM_SET_USER_MEMORY_REGION, pointer: &region)
  }

  /// Signals `event` (without an exit) when the guest writes to guest-physical `address`; with `match`, only for that
  /// 32-bit value.
  public func addDoorbell(at address: UInt64, match: UInt32?, event: EventDescriptor) throws(KVMError) {
    var doorbell = kvm_ioeventfd()
    doorbell.addr = address
    doorbell.len = 4
    doorbell.fd = event.fileDescriptor
    if let match {
      doorbell.datamatch = UInt64(match)
      doorbell.flags = 1 << UInt32(kvm_ioeventfd_flag_nr_datamatch)
    }
    try request("KVM_IOEVENTFD", descriptor.rawValue, castor_KVM_IOEVENTFD, pointer: &doorbell)
  }

  /// Raises `gsi` as an edge each time `event` is signalled.
  public func addInterrupt(gsi: UInt32, event: EventDescriptor) throws(KVMError) {
    var interrupt = kvm_irqfd()
    interrupt.fd = UInt32(event.fileDescriptor)
    interrupt.gsi = gsi
    try request("KVM_IRQFD", descriptor.rawValue, castor_KVM_IRQFD, pointer: &interrupt)
  }

  /// Reserves a GSI that `setMessage` can route.
  public func allocateMessageGSI() -> UInt32 {
    routing.withLock { state in
      defer { state.nextGSI += 1 }
      return state.nextGSI
    }
  }

  /// Routes a message GSI to an MSI address and data (Intel SDM vol. 3, §11.11), or to nothing.
  public func setMessage(gsi: UInt32, message: (address: UInt64, data: UInt32)?) throws(KVMError) {
    let failure = routing.withLock { state -> KVMError? in
      state.messages[gsi] = message
      do throws(KVMError) { try applyRouting(state) } catch { return error }
      return nil
    }
    if let failure { throw failure }
  }

  /// Delivers one MSI now.
  public func signal(message address: UInt64, data: UInt32) throws(KVMError) {
    var message = kvm_msi()
    message.address_lo = UInt32(truncatingIfNeeded: address)
    message.address_hi = UInt32(truncatingIfNeeded: address >> 32)
    message.data = data
    try request("KVM_SIGNAL_MSI", descriptor.rawValue, castor_KVM_SIGNAL_MSI, pointer: &message)
  }

  private func applyRouting(_ state: Routing) throws(KVMError) {
    var entries = (0..<UInt32(Self.firstMessageGSI)).map { castor_ioapic_route($0, $0) }
    for (gsi, message) in state.messages { entries.append(castor_message_route(gsi, message.address, message.data)) }
    let header = MemoryLayout<kvm_irq_routing>.stride
    let bytes = header + entries.count * MemoryLayout<kvm_irq_routing_entry>.stride
    // The buffer holds the header and exactly `entries.count` entries.
    let buffer = UnsafeMutableRawPointer.allocate(byteCount: bytes, alignment: 8)
    defer { buffer.deallocate() }
    buffer.initializeMemory(as: UInt8.self, repeating: 0, count: bytes)
    let table = buffer.bindMemory(to: kvm_irq_routing.self, capacity: 1)
    table.pointee.nr = UInt32(entries.count)
    let target = castor_routing_entries(table)
    for (index, entry) in entries.enumerated() { target?[index] = entry }
    try request("KVM_SET_GSI_ROUTING", descriptor.rawValue, castor_KVM_SET_GSI_ROUTING, pointer: buffer)
  }
}
