// What the processor offers to hold domains in kernel space, found by trying, and how it is set up: supervisor protection keys
// (Intel SDM vol. 3, 4.6.2), or page tables that map only the entry area of the kernel (domain.S). HongMeng §4.2.
import CArch
import KernelCore
import PolluxABI

enum Walls {
  // Keys. 0: what domains may read: tables of the entry area, info pages. 1: the kernel. 2: interrupt stacks of the entry area.
  private static let kernelKey: UInt64 = 1
  private static let stackKey: UInt64 = 2
  private static let firstDomainKey: UInt64 = 3
  static let domainKeys = 16 - firstDomainKey
  private static let keysBit: UInt64 = 1 << 24
  private static let keyShift: UInt64 = 59

  static var keysWork: Bool { kernel.pointee.keysWork }
  static var keysAreRaised: Bool { load64(address_of_domain_keys()) != 0 }
  static var kernelLeafBits: UInt64 { kernelKey << keyShift }
  static func leafBits(_ window: UInt64) -> UInt64 { (firstDomainKey + window) << keyShift }

  /// PKRS of the domain in a window: access is disabled for all keys but three, and writing for key 0.
  static func rights(_ window: UInt64) -> UInt64 {
    0x5555_5555 & ~(3 | 3 << (2 * stackKey) | 3 << (2 * (firstDomainKey + window))) | 2
  }

  /// The entry that maps the gate and what else lies at the top of kernel space.
  static var serviceTop: UInt64 {
    DirectMemory.physical(image: address_of_service_pd()) | PageEntry.table & ~PageEntry.user
  }

  /// The top-level entry that all address spaces share for services in kernel space.
  static func makeServiceSlot() {
    guard let table = kernel.pointee.frames.allocate(size: 4096) else { return }
    kernel.pointee.tableFrames += 1
    DirectMemory().store(table + 511 * 8, serviceTop)
    store64(address_of_kernel_pml4() + 251 * 8, table | PageEntry.table & ~PageEntry.user)
  }

  /// On each processor: protection keys where it has them. The first finds out whether they do what they should, with the info page
  /// of services under a key that nothing else has.
  static func start(on index: Int) {
    if index != 0 {
      if keysWork { _ = control4_try(keysBit) }
      return
    }
    let features = cpu_identify(7, 0)
    let prevention: UInt32 = 1 << 7 | 1 << 20  // SMEP and SMAP keep domains off user pages
    guard features.ecx & 1 << 31 != 0, features.ebx & prevention == prevention, control4_try(keysBit) != 0 else {
      return
    }
    let slot = address_of_service_pt() + 510 * 8
    let entry = load64(slot)
    store64(slot, entry | 15 << keyShift)
    page_invalidate(AddressSpace.serviceInfo)
    // Present, supervisor, read, protection key: error code 0x21.
    let denied = keys_try(AddressSpace.serviceInfo, 1 << 30)
    let allowed = keys_try(AddressSpace.serviceInfo, 0)
    store64(slot, entry)
    page_invalidate(AddressSpace.serviceInfo)
    kernel.pointee.keysWork = denied == 0x21 && allowed == 0
  }

  /// Puts the kernel's memory under its key, when the first domain is made: until then that would only cost time.
  static func raiseKeys() throws(SystemError) {
    guard !keysAreRaised else { return }
    guard let table = kernel.pointee.frames.allocate(size: 4096) else { throw .noMemory }
    kernel.pointee.tableFrames += 1
    let memory = DirectMemory()
    let tables = DirectMemory.physical(image: address_of_kernel_gdt())
    let stacks = DirectMemory.physical(image: address_of_domain_stacks())
    let data = address_of_image_pd() + 3 * 8
    var entry = load64(data) & ~PageEntry.large
    for index in 0..<UInt64(512) {
      let physical = entry & PageEntry.addressMask
      let isStack = physical >= stacks && physical < stacks + UInt64(CPU_LIMIT) * 4096
      let key: UInt64 = physical == tables ? 0 : isStack ? stackKey : kernelKey
      memory.store(table + index * 8, entry | key << keyShift)
      entry += 4096
    }
    store64(address_of_domain_keys(), 1)
    // The addresses in the gate page's instructions (boot.S).
    store64(address_of_gate_page() + 18, address_of_call_from_keys())
    store64(address_of_gate_page() + 34, address_of_return_from_keys())
    store64(data, table | PageEntry.table)
    store64(address_of_image_pd() + 8, load64(address_of_image_pd() + 8) | kernelKey << keyShift)
    for gigabyte in 0..<UInt64(512) {
      let directory = load64(address_of_direct_pdpt() + gigabyte * 8)
      guard directory & PageEntry.present != 0 else { continue }
      for index in 0..<UInt64(512) {
        let slot = imageOrDirect(directory & PageEntry.addressMask) + index * 8
        if load64(slot) & PageEntry.present != 0 { store64(slot, load64(slot) | kernelKey << keyShift) }
      }
    }
    Scheduler.flushAll()
  }

  /// Where the kernel reaches a table of the direct map: the first four are in its image.
  private static func imageOrDirect(_ physical: UInt64) -> UInt64 {
    physical < 0x80_0000 && physical >= 0x20_0000 ? physical + UInt64(KERNEL_BASE) : DirectMemory.address(physical)
  }

  /// The top-level entry that maps the entry area for domains with page tables of their own, made for the first.
  static func entryArea() throws(SystemError) -> UInt64 {
    if kernel.pointee.entryArea != 0 { return kernel.pointee.entryArea }
    guard let root = kernel.pointee.frames.allocate(size: 4096), let owner = kernel.pointee.initThread?.pointee.process
    else { throw .noMemory }
    let present = PageEntry.present | PageEntry.accessedDirty
    let table = PageTable(memory: DirectMemory(), root: root)
    var source = SpaceSource(process: owner)
    func map(_ address: UInt64, _ pages: UInt64, _ flags: UInt64) throws(PageTableError) {
      try table.map(
        address, physical: DirectMemory.physical(image: address), size: pages * 4096, flags: present | flags,
        source: &source)
    }
    do throws(PageTableError) {
      try map(UInt64(TEXT_BASE), 2, 0)
      try map(address_of_interrupt_gates() & ~4095, 2, PageEntry.noExecute)
      try map(address_of_kernel_gdt(), 1, PageEntry.noExecute)
      try map(address_of_domain_stacks(), UInt64(CPU_LIMIT), PageEntry.write | PageEntry.noExecute)
    } catch { throw .noMemory }
    kernel.pointee.entryArea = DirectMemory().load(root + 255 * 8)
    kernel.pointee.frames.release(root, size: 4096)
    return kernel.pointee.entryArea
  }

  /// Ticks that a loop of 1,000 turns takes in ring 0, to compare with the same in ring 3: on a software KVM it is thousands of times
  /// slower, and services are better placed in ring 3. The shorter of two tries, since a host may do something else meanwhile.
  static func measureLoop() -> UInt64 {
    var shortest = UInt64.max
    for _ in 0..<2 {
      let start = time_stamp()
      loop_turns(1000)
      shortest = min(shortest, time_stamp() &- start)
    }
    return shortest
  }
}
