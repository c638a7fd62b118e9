// Where a process's memory is and what keeps others out of it: a page table in user mode (IC2), or a window in kernel space
// behind protection keys or a page table of its own (IC1), or nothing but its good manners (IC0). HongMeng §4.2, Fig. 4.
import CArch
import KernelCore
import PolluxABI

/// The part of a process that its isolation class decides.
struct ProcessSpace {
  var mechanism = IsolationMechanism.userMode
  /// Its memory lies in [start, end).
  var start = AddressSpace.userStart
  var end = AddressSpace.userEnd
  /// What its leaf entries carry: the user bit, or a protection key.
  var leafBits = PageEntry.user
  /// It has had a thread: nothing more becomes executable, or an entry.
  var isSealed = false
  /// The control-flow entry table of a domain.
  private var entries = InlineArray<8, UInt64>(repeating: 0)
  private var entryCount = 0

  init() {}

  var isDomain: Bool { mechanism != .userMode }
  @inline(__always) var isTableDomain: Bool { mechanism == .pageTable }
  /// It lies in the tables that all address spaces share.
  var sharesKernel: Bool { mechanism == .protectionKeys || mechanism == .none }
  var codeSelector: UInt64 { isDomain ? UInt64(KERNEL_CS) : UInt64(USER_CS) }
  var stackSelector: UInt64 { isDomain ? UInt64(KERNEL_SS) : UInt64(USER_SS) }

  /// Whether threads and calls may begin at an address: anywhere in user mode, where it can only harm itself.
  func mayEnter(_ address: UInt64) -> Bool {
    if !isDomain { return address >= start && address < end }
    for index in 0..<entryCount where entries[index] == address { return true }
    return false
  }

  mutating func addEntry(_ address: UInt64) throws(SystemError) {
    guard isDomain, !isSealed else { throw .denied }
    guard address >= start, address < end else { throw .badAddress }
    guard entryCount < entries.count else { throw .tableFull }
    entries[entryCount] = address
    entryCount += 1
  }
}

enum Domains {
  /// Makes the new process a domain, with a window that no living domain has.
  static func place(_ process: Reference<Process>, _ wanted: IsolationMechanism) throws(SystemError) {
    let mechanism = wanted == .best ? (Walls.keysWork ? .protectionKeys : .pageTable) : wanted
    guard mechanism != .protectionKeys || Walls.keysWork else { throw .unsupported }
    // The way in and out of domains is of one kind at a time (domain.S).
    guard mechanism != .pageTable || !Walls.keysAreRaised else { throw .unsupported }
    var taken: UInt64 = 0
    for identifier in 1..<UInt32(PROCESS_LIMIT) {
      guard let other = Objects.process(identifier), other.pointee.space.isDomain, other.pointee.pageTable != 0 else {
        continue
      }
      guard mechanism != .protectionKeys || !other.pointee.space.isTableDomain else { throw .unsupported }
      taken |= 1 << ((other.pointee.space.start - AddressSpace.serviceStart) / AddressSpace.serviceWindow)
    }
    // The window says the key, so only the first few are for domains under keys.
    var window: UInt64 = 0
    while taken >> window & 1 != 0 { window += 1 }
    let limit = mechanism == .protectionKeys ? Walls.domainKeys : AddressSpace.serviceWindows
    guard window < limit else { throw .tableFull }
    var space = ProcessSpace()
    space.mechanism = mechanism
    space.start = AddressSpace.serviceStart + window * AddressSpace.serviceWindow
    space.end = space.start + AddressSpace.serviceWindow
    space.leafBits = 0
    let root = process.pointee.pageTable
    let memory = DirectMemory()
    switch mechanism {
    case .pageTable:
      let entryArea = try Walls.entryArea()
      for slot in UInt64(251)...254 { memory.store(root + slot * 8, 0) }
      memory.store(root + 255 * 8, entryArea)
      var source = SpaceSource(process: process)
      guard let table = source.allocateTable() else { throw .noMemory }
      memory.store(root + 251 * 8, table | PageEntry.table)
      memory.store(table + 511 * 8, Walls.serviceTop)
    case .protectionKeys, .none:
      if mechanism == .protectionKeys {
        try Walls.raiseKeys()
        space.leafBits = Walls.leafBits(window)
        process.pointee.keys = Walls.rights(window)
      } else if Walls.keysWork {
        space.leafBits = Walls.kernelLeafBits
      }
    case .best, .userMode:
      throw .badArgument
    }
    process.pointee.space = space
    process.pointee.waysIn =
      switch mechanism {
      case .pageTable: (address_of_user_to_table(), address_of_domain_to_table())
      case .protectionKeys: (address_of_user_to_keys(), address_of_domain_to_keys())
      default: (address_of_user_to_none(), address_of_domain_to_none())
      }
  }

  /// Takes what outlives the process out of its page tables: kernel space, and a domain's memory out of that.
  static func unmap(_ process: Reference<Process>, _ root: UInt64, _ source: inout SpaceSource) {
    let space = process.pointee.space
    let memory = DirectMemory()
    if space.isTableDomain {
      let table = memory.load(root + 251 * 8) & PageEntry.addressMask
      memory.store(table + 511 * 8, 0)
      return
    }
    if space.sharesKernel {
      _ = try? PageTable(memory: memory, root: root).unmap(
        space.start, size: space.end - space.start, source: &source)
      flush(process, root)
    }
    memory.store(root + 251 * 8, 0)
  }

  /// As `Scheduler.flush` after a change of a process's translations; those of the shared tables are in use everywhere.
  static func flush(_ process: Reference<Process>, _ root: UInt64) {
    if process.pointee.space.sharesKernel { Scheduler.flushAll() } else { Scheduler.flush(root, replacement: root) }
  }
}

extension Call {
  func domainCreate() throws(SystemError) -> Int64 {
    try requireRoot(first)
    guard let mechanism = IsolationMechanism(rawValue: fourth), mechanism != .userMode else { throw .badArgument }
    let created = try Objects.makeProcess(name: try name(second, third), parent: process.pointee.identifier)
    do throws(SystemError) {
      try Domains.place(created, mechanism)
    } catch {
      Objects.release(process: created)
      throw error
    }
    return try install(created.address, .process)
  }

  func domainEntry() throws(SystemError) -> Int64 {
    let target = try target(first)
    try target.pointee.space.addEntry(second)
    return 0
  }

  func domainQuery() throws(SystemError) -> Int64 {
    guard let query = DomainQuery(rawValue: second) else { throw .badArgument }
    let space = try target(first).pointee.space
    switch query {
    case .mechanism: return Int64(space.mechanism.rawValue)
    case .start: return Int64(space.start)
    case .size: return Int64(space.end - space.start)
    case .kernelLoop: return Int64(Walls.measureLoop())
    case .hasKeys: return Walls.keysWork ? 1 : 0
    }
  }
}
