// The kernel's own paging code (KernelCore) over simulated memory and page tables, with the books' view of it: what stands
// between the two in a machine are only the system calls.

import KernelCore
import MemoryBooks
import PolluxABI

/// Physical memory: tables and rings as words; the manager's pages behind it have one word of contents each.
final class SimulatedMachine {
  static let tables: UInt64 = 4096 * 4096
  static let base: UInt64 = 1 << 32
  var words = [UInt64](repeating: 0, count: Int(tables / 8))
  var free: [UInt64] = []
  var next: UInt64 = 4096
  var contents: [UInt64]
  init(pages: Int) { contents = [UInt64](repeating: 0, count: pages) }

  func allocate() -> UInt64 {
    if let frame = free.popLast() {
      for word in Int(frame / 8)..<Int(frame / 8) + 512 { words[word] = 0 }
      return frame
    }
    next += 4096
    precondition(next <= Self.tables)
    return next - 4096
  }
}

struct MachineMemory: PhysicalMemory {
  let machine: SimulatedMachine
  func load(_ address: UInt64) -> UInt64 { machine.words[Int(address / 8)] }
  func store(_ address: UInt64, _ value: UInt64) { machine.words[Int(address / 8)] = value }
  func clear(_ address: UInt64, size: UInt64) {
    for offset in stride(from: 0, to: size, by: 8) { store(address + offset, 0) }
  }
}

struct MachineTables: TableSource {
  let machine: SimulatedMachine
  mutating func allocateTable() -> UInt64? { machine.allocate() }
  mutating func releaseTable(_ address: UInt64) { machine.free.append(address) }
}

/// Counts regions; a pager may be gone only when none is left.
struct CountedPagers: PagerCounts {
  var count = 0
  mutating func retain(pager: UInt64) { count += 1 }
  mutating func release(pager: UInt64) { count -= 1 }
}

/// A process as the kernel knows it.
final class SimulatedProcess {
  static let regionLimit = 24
  var map: AnonymousMap
  let storage: UnsafeMutablePointer<PagedRegion>
  var counts = CountedPagers()
  let table: PageTable<MachineMemory>
  let page: UInt64
  var rings: PagerRings<MachineMemory>

  init(_ machine: SimulatedMachine) {
    storage = .allocate(capacity: Self.regionLimit)
    map = AnonymousMap(regions: Reference(storage), capacity: Self.regionLimit)
    table = PageTable(memory: MachineMemory(machine: machine), root: machine.allocate())
    page = machine.allocate()
    rings = PagerRings(
      memory: MachineMemory(machine: machine), page: page, base: SimulatedMachine.base,
      pages: UInt64(machine.contents.count))
  }
  deinit { storage.deallocate() }
}

final class SimulatedKernel: PagingKernel {
  let machine: SimulatedMachine
  var processes: [Int: SimulatedProcess] = [:]
  /// Frame of the zero page.
  let zero: UInt64
  /// Called in the middle of a share, as another processor's threads would.
  var duringShare: (() -> Void)?

  init(pages: Int) {
    machine = SimulatedMachine(pages: pages)
    zero = machine.allocate()
  }

  func process(_ client: Int) throws(SystemError) -> SimulatedProcess {
    guard let process = processes[client] else { throw .notFound }
    return process
  }

  func end(_ client: Int) {
    guard let process = processes[client] else { return }
    precondition(process.map.remove(start: 0, end: .max, counts: &process.counts))
    precondition(process.counts.count == 0)
    var source = MachineTables(machine: machine)
    process.table.destroy(slots: 253, source: &source)
  }

  /// After the books have read the rings for the last time.
  func discard(_ client: Int) {
    if let process = processes.removeValue(forKey: client) { machine.free.append(process.page) }
  }

  /// What the processor does: the page's frame if the access is allowed now.
  func translate(_ client: Int, _ address: UInt64, write: Bool) -> UInt64? {
    processes[client]?.table.translate(
      address, rights: PageEntry.present | PageEntry.user | (write ? PageEntry.write : 0))
  }

  func contents(_ frame: UInt64) -> UInt64 {
    frame == zero ? 0 : machine.contents[Int((frame - SimulatedMachine.base) / 4096)]
  }

  /// The kernel's fault handler; false: passed on.
  func fault(_ client: Int, _ address: UInt64, write: Bool) -> Bool {
    guard let process = processes[client], let region = process.map.find(address) else { return false }
    let outcome = process.table.serve(
      address, write: write, fetch: false, region: region.pointee, rings: &process.rings, zero: zero
    ) { to, from in
      machine.contents[Int((to - SimulatedMachine.base) / 4096)] =
        machine.contents[Int((from - SimulatedMachine.base) / 4096)]
    }
    return outcome == .mapped || outcome == .replaced || outcome == .stale
  }

  // MARK: The calls

  func regionCreate(_ client: Int, _ range: Range<UInt64>, mode: UInt64) throws(SystemError) {
    let process = try process(client)
    precondition(!process.map.overlaps(start: range.lowerBound, end: range.upperBound))
    let region = PagedRegion(start: range.lowerBound, end: range.upperBound, pager: 64, mode: mode)
    guard process.map.insert(region, counts: &process.counts) else { throw .tableFull }
  }
  func regionRemove(_ client: Int, _ range: Range<UInt64>) throws(SystemError) {
    let process = try process(client)
    guard process.map.remove(start: range.lowerBound, end: range.upperBound, counts: &process.counts) else {
      throw .tableFull
    }
    var source = MachineTables(machine: machine)
    _ = try? process.table.unmap(range.lowerBound, size: range.upperBound - range.lowerBound, source: &source)
  }
  func regionProtect(_ client: Int, _ range: Range<UInt64>, mode: UInt64) throws(SystemError) {
    let process = try process(client)
    guard process.map.setMode(mode, start: range.lowerBound, end: range.upperBound, counts: &process.counts) else {
      throw .tableFull
    }
    process.table.setMode(mode, start: range.lowerBound, end: range.upperBound)
  }
  func regionShare(_ client: Int, with child: Int, _ range: Range<UInt64>) throws(SystemError) -> UInt64? {
    let process = try process(client)
    guard process.rings.logHasRoom else { return nil }
    var source = MachineTables(machine: machine)
    let stopped =
      (try? process.table.share(
        range.lowerBound, end: range.upperBound, limit: 16, with: try self.process(child).table, source: &source))
      ?? range.upperBound
    process.rings.append(.shared, range.lowerBound, (stopped - range.lowerBound) >> 12)
    duringShare?()
    return stopped
  }
  func pageMap(_ client: Int, _ address: UInt64, page: UInt64, mode: UInt64, expected: UInt64) throws(SystemError) {
    let process = try process(client)
    var source = MachineTables(machine: machine)
    try? process.table.prepare(address, end: address + 4096, source: &source)
    guard
      process.table.replace(
        address, region: process.map.find(address)?.pointee, page: page, mode: mode, expected: expected,
        base: SimulatedMachine.base, zero: zero) != nil
    else { throw .exists }
  }
  func tablesPrepare(_ client: Int, _ range: Range<UInt64>) throws(SystemError) {
    var source = MachineTables(machine: machine)
    try? process(client).table.prepare(range.lowerBound, end: range.upperBound, source: &source)
  }
  func takeBack(_ client: Int) -> UInt64 { processes[client]?.rings.takeBack() ?? 0 }
  func load(_ client: Int, _ offset: UInt64) -> UInt64 {
    processes[client].map { machine.words[Int(($0.page + offset) / 8)] } ?? 0
  }
  func store(_ client: Int, _ offset: UInt64, _ value: UInt64) {
    if let process = processes[client] { machine.words[Int((process.page + offset) / 8)] = value }
  }
  func clear(_ page: UInt64) { machine.contents[Int(page)] = 0 }
  func isZero(_ page: UInt64) -> Bool { machine.contents[Int(page)] == 0 }
  func copy(_ page: UInt64, from source: UInt64) { machine.contents[Int(page)] = machine.contents[Int(source)] }
}
