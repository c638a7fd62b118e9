// Memory objects and their mappings; and the one checked way to bytes in user memory.
import CArch
import KernelCore
import PolluxABI

/// A range of user memory as a program alleges it: checked against the user's part of the address space when made, and page by
/// page against the page tables when used, so that using it never faults.
struct UserBytes {
  let process: Reference<Process>
  let address: UInt64
  let count: UInt64

  init(_ process: Reference<Process>, _ address: UInt64, _ count: UInt64) throws(SystemError) {
    let space = process.pointee.space
    guard
      address >= space.start && address <= space.end && count <= space.end - address
        || Tokens.contain(address, count, of: process)
    else { throw .badAddress }
    self.process = process
    self.address = address
    self.count = count
  }

  /// Kernel-virtual address of the byte at `offset` and how many bytes from there lie on the same page.
  func run(at offset: UInt64, forWriting: Bool) throws(SystemError) -> (address: UInt64, count: UInt64) {
    let at = address + offset
    let level = process.pointee.space.isDomain ? 0 : PageEntry.user
    let rights = PageEntry.present | level | (forWriting ? PageEntry.write : 0)
    let table = PageTable(memory: DirectMemory(), root: process.pointee.pageTable)
    // Device memory must not be touched by copies.
    var translated = table.translate(at, rights: rights)
    // A page that is not there yet comes as on a fault.
    if translated == nil, Paging.resolve(process, at, write: forWriting) {
      translated = table.translate(at, rights: rights)
    }
    guard let physical = translated, kernel.pointee.isMemory(physical) else { throw .badAddress }
    return (DirectMemory.address(physical), min(count - offset, 4096 - (at & 4095)))
  }

  /// Copies from kernel memory to `offset`.
  func write(_ source: UInt64, count: UInt64, at offset: UInt64) throws(SystemError) {
    var done: UInt64 = 0
    while done < count {
      let (to, room) = try run(at: offset + done, forWriting: true)
      let part = min(room, count - done)
      copy_bytes(to, source + done, part)
      done += part
    }
  }
}

extension KernelState {
  /// Whether a guest-physical address is RAM that the direct map reaches, outside the kernel's image.
  func isMemory(_ physical: UInt64) -> Bool {
    (physical < 3 << 30 && physical >= 0x80_0000) || physical < 0x20_0000 || physical >= 4 << 30
  }
}

extension Call {
  func memoryCreate() throws(SystemError) -> Int64 {
    guard first > 0, first <= 1 << 40, second == 0 else { throw .badArgument }
    let size = (first + 4095) & ~4095
    let alignment: UInt64 = size >= 1 << 21 ? 1 << 21 : 4096
    let payer = thread.pointee.home
    try payer.charge(size)
    guard let physical = kernel.pointee.frames.allocate(size: size, alignment: alignment) else {
      payer.uncharge(size)
      throw .noMemory
    }
    let memory: Reference<MemoryObject>
    do throws(SystemError) {
      memory = try kernel.pointee.heap.make(
        MemoryObject(
          references: 1, owner: thread.pointee.home.pointee.identifier, physical: physical, size: size, flags: [],
          isOwned: true))
    } catch {
      kernel.pointee.frames.release(physical, size: size)
      payer.uncharge(size)
      throw error
    }
    return try install(memory.address, .memory)
  }

  func memoryCreatePhysical() throws(SystemError) -> Int64 {
    try requireRoot(first)
    let physical = second
    let size = third
    guard physical & 4095 == 0, size > 0, size & 4095 == 0, physical < 1 << 46, size <= 1 << 40 else {
      throw .badArgument
    }
    var flags = MemoryFlags(rawValue: fourth & 3)
    if physical >= 3 << 30, physical < 4 << 30 { flags.insert(.device) }
    let memory = try kernel.pointee.heap.make(
      MemoryObject(references: 1, owner: 0, physical: physical, size: size, flags: flags, isOwned: false))
    return try install(memory.address, .memory)
  }

  func memorySlice() throws(SystemError) -> Int64 {
    let entry = try process.pointee.handles.find(first, kind: .memory, rights: [])
    let memory = Reference<MemoryObject>(trusted: entry.object)
    let (offset, size) = (second, third)
    guard offset & 4095 == 0, size & 4095 == 0, size > 0, offset <= memory.pointee.size,
      size <= memory.pointee.size - offset
    else { throw .badArgument }
    let whole = memory.pointee.whole ?? memory
    let part = try kernel.pointee.heap.make(
      MemoryObject(
        references: 1, owner: 0, physical: memory.pointee.physical + offset, size: size, flags: memory.pointee.flags,
        isOwned: false, whole: whole))
    whole.pointee.references += 1
    return try install(part.address, .memory, Rights(rawValue: UInt32(entry.rights)))
  }

  /// The bits of a leaf entry.
  static func leafFlags(
    _ protection: Protection, _ flags: MemoryFlags, in process: Reference<Process>
  ) -> UInt64 {
    var bits = PageEntry.present | process.pointee.space.leafBits | PageEntry.accessedDirty
    if protection.contains(.write) { bits |= PageEntry.write }
    if !protection.contains(.execute) { bits |= PageEntry.noExecute }
    if flags.contains(.device) { bits |= PageEntry.cacheDisable | PageEntry.writeThrough }
    return bits
  }

  func checkedRange(
    _ address: UInt64, _ size: UInt64, in process: Reference<Process>
  ) throws(SystemError) {
    guard address & 4095 == 0, size & 4095 == 0, size > 0 else { throw .badArgument }
    // Where tokens are, nothing else is ever mapped, unmapped or protected.
    let space = process.pointee.space
    guard address >= space.start, address < space.end, size <= space.end - address else { throw .badAddress }
  }

  private func checkedProtection(_ value: UInt64, in process: Reference<Process>) throws(SystemError) -> Protection {
    let protection = Protection(rawValue: value)
    guard value <= 7, protection.contains(.read), !protection.contains([.write, .execute]) else { throw .badArgument }
    // What runs in kernel space is what its loader brought, checked when it was built.
    if protection.contains(.execute), process.pointee.space.isSealed { throw .denied }
    return protection
  }

  func memoryMap() throws(SystemError) -> Int64 {
    let target = try target(first)
    let entry = try process.pointee.handles.find(second, kind: .memory, rights: .read)
    let memory = Reference<MemoryObject>(trusted: entry.object)
    let (address, offset, size) = (third, fourth, fifth)
    try checkedRange(address, size, in: target)
    let protection = try checkedProtection(sixth, in: target)
    let maximum = UInt8(truncatingIfNeeded: entry.rights & 7)
    guard UInt8(truncatingIfNeeded: protection.rawValue) & ~maximum == 0 else { throw .denied }
    guard !memory.pointee.flags.contains(.messageTable) else { throw .denied }
    guard offset & 4095 == 0, offset <= memory.pointee.size, size <= memory.pointee.size - offset else {
      throw .badArgument
    }
    try Mappings.map(
      target, memory, at: address, physical: memory.pointee.physical + offset, size: size,
      access: (protection, maximum))
    return Int64(address)
  }

  func memoryUnmap() throws(SystemError) -> Int64 {
    let target = try target(first)
    try checkedRange(second, third, in: target)
    guard !Paging.overlaps(target, second, third) else { throw .denied }
    guard Mappings.unmap(target, second, size: third) else { throw .noMemory }
    return 0
  }

  func memoryProtect() throws(SystemError) -> Int64 {
    let target = try target(first)
    try checkedRange(second, third, in: target)
    guard !Paging.overlaps(target, second, third) else { throw .denied }
    let protection = try checkedProtection(fourth, in: target)
    guard
      target.pointee.regions.allows(UInt8(truncatingIfNeeded: protection.rawValue), start: second, end: second + third)
    else { throw .denied }
    var source = SpaceSource(process: target)
    let table = PageTable(memory: DirectMemory(), root: target.pointee.pageTable)
    do throws(PageTableError) {
      try table.protect(second, size: third, flags: Call.leafFlags(protection, [], in: target), source: &source)
    } catch {
      throw .noMemory
    }
    Domains.flush(target, table.root)
    return 0
  }
}

enum Mappings {
  /// Removes mappings, everywhere, and lets go of the memory behind them. False: no memory to cut a region or a large page.
  @discardableResult
  static func unmap(_ process: Reference<Process>, _ address: UInt64, size: UInt64) -> Bool {
    var source = SpaceSource(process: process)
    let table = PageTable(memory: DirectMemory(), root: process.pointee.pageTable)
    guard let any = try? table.unmap(address, size: size, source: &source) else { return false }
    // Translations go before the memory behind them can be given to somebody else.
    if any { Domains.flush(process, table.root) }
    return process.pointee.regions.remove(start: address, end: address + size, source: &source)
  }

  /// Maps part of a memory object; `access` is the protection now and the most it may become.
  static func map(
    _ process: Reference<Process>, _ memory: Reference<MemoryObject>, at address: UInt64, physical: UInt64,
    size: UInt64, access: (now: Protection, maximum: UInt8)
  ) throws(SystemError) {
    guard !process.pointee.regions.overlaps(start: address, end: address + size),
      !Paging.overlaps(process, address, size)
    else { throw .exists }
    var source = SpaceSource(process: process)
    let region = Region(start: address, end: address + size, object: memory.address, maximum: access.maximum)
    guard process.pointee.regions.insert(region, source: &source) else { throw .noMemory }
    do throws(PageTableError) {
      try PageTable(memory: DirectMemory(), root: process.pointee.pageTable).map(
        address, physical: physical, size: size, flags: Call.leafFlags(access.now, memory.pointee.flags, in: process),
        source: &source)
    } catch {
      _ = process.pointee.regions.remove(start: address, end: address + size, source: &source)
      throw error == .noMemory ? .noMemory : .exists
    }
  }
}
