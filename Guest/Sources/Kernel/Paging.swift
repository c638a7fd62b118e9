// The kernel's part of paging (HongMeng §4.5): pagers, the paged regions of a process, and the fault path, whose logic is
// KernelCore's.
import CArch
import KernelCore
import PolluxABI

/// A pool of pages and an OPLog that the memory manager made, for one or more regions.
struct Pager {
  /// Handles and regions.
  var references: UInt32
  /// The page with the rings, and the memory that page numbers count in.
  var shared: Reference<MemoryObject>
  var memory: Reference<MemoryObject>
  var rings: PagerRings<DirectMemory>
}

/// What a process has beside its other memory when a memory manager pages it; lies in a frame of its own, regions behind it.
struct PagedSpace {
  var map: AnonymousMap
  /// Guest-physical address of this frame.
  var frame: UInt64
  /// Whom faults are passed on to that the kernel does not serve.
  var manager: Reference<Connection>?
  /// Whether other exceptions than page faults are passed on, too.
  var passesExceptions = false

  static let headSize: UInt64 = 128
  static let regionLimit = Int(4096 - headSize) / MemoryLayout<PagedRegion>.stride
}

/// Regions hold their pagers.
struct PagerHolders: PagerCounts {
  mutating func retain(pager: UInt64) { Reference<Pager>(trusted: pager).pointee.references += 1 }
  mutating func release(pager: UInt64) { Objects.release(pager: Reference(trusted: pager)) }
}

extension Objects {
  static func release(pager: Reference<Pager>) {
    pager.pointee.references -= 1
    guard pager.pointee.references == 0 else { return }
    release(memory: pager.pointee.shared)
    release(memory: pager.pointee.memory)
    kernel.pointee.heap.destroy(pager)
  }
}

enum Paging {
  /// A page fault of ring 3. False: the fault is not served, nor passed on.
  @inline(__always)
  static func fault(_ thread: Reference<Thread>, _ processor: Reference<Processor>) -> Bool {
    guard let space = thread.pointee.process.pointee.paging else { return false }
    let error = thread.pointee.frame.error
    let address = fault_address()
    if resolve(thread.pointee.process, address, write: error & 2 != 0, fetch: error & 16 != 0) { return true }
    guard let manager = space.pointee.manager else { return false }
    return PassedFault.pass(14, address, of: thread, to: manager, processor)
  }

  /// Another exception of ring 3. False: it is not passed on.
  static func exception(_ vector: UInt8, _ thread: Reference<Thread>, _ processor: Reference<Processor>) -> Bool {
    // What an instruction of the program did: division, overflow, bound, no such instruction, protection, x87, alignment, SSE.
    let ofInstructions: UInt32 = 1 << 0 | 1 << 4 | 1 << 5 | 1 << 6 | 1 << 13 | 1 << 16 | 1 << 17 | 1 << 19
    guard ofInstructions >> UInt32(vector) & 1 != 0, let space = thread.pointee.process.pointee.paging,
      space.pointee.passesExceptions, let manager = space.pointee.manager
    else { return false }
    return PassedFault.pass(vector, 0, of: thread, to: manager, processor)
  }

  /// Serves a fault of a process, or what would be one if the kernel followed user addresses.
  @inline(__always)
  static func resolve(_ process: Reference<Process>, _ address: UInt64, write: Bool, fetch: Bool = false) -> Bool {
    guard let space = process.pointee.paging, let region = space.pointee.map.find(address) else { return false }
    let pager = Reference<Pager>(trusted: region.pointee.pager)
    let table = PageTable(memory: DirectMemory(), root: process.pointee.pageTable)
    switch table.serve(
      address, write: write, fetch: fetch, region: region.pointee, rings: &pager.pointee.rings,
      zero: kernel.pointee.zeroPage, copy: copy)
    {
    case .mapped: return true
    case .replaced:
      forget(address, table.root)
      return true
    case .stale:
      page_invalidate(address)
      return true
    case .poolEmpty:
      pager.pointee.rings.count(PagerPage.poolDry)
      return false
    case .logFull:
      pager.pointee.rings.count(PagerPage.logFull)
      return false
    case .unserved: return false
    }
  }

  private static func copy(_ to: UInt64, _ from: UInt64) {
    copy_words(DirectMemory.address(to), DirectMemory.address(from), 512)
  }

  /// After a page was put in the place of another.
  @inline(__always)
  static func forget(_ address: UInt64, _ root: UInt64) {
    if kernel.pointee.processorCount == 1 { page_invalidate(address) } else { Scheduler.flush(root, replacement: root) }
  }

  /// The paged space of a process, made when it is first needed.
  static func space(_ process: Reference<Process>) throws(SystemError) -> Reference<PagedSpace> {
    if let space = process.pointee.paging { return space }
    if kernel.pointee.zeroPage == 0 {
      guard let zero = kernel.pointee.frames.allocate(size: 4096) else { throw .noMemory }
      kernel.pointee.zeroPage = zero
    }
    var source = SpaceSource(process: process)
    guard let frame = source.allocateTable() else { throw .noMemory }
    let address = DirectMemory.address(frame)
    let space = Reference<PagedSpace>(trusted: address)
    let regions = Reference<PagedRegion>(trusted: address + PagedSpace.headSize)
    space.initialize(
      to: PagedSpace(map: AnonymousMap(regions: regions, capacity: PagedSpace.regionLimit), frame: frame))
    process.pointee.paging = space
    return space
  }

  /// The end of a process: its page tables are gone already, and with them every mapping of its pages.
  static func end(_ process: Reference<Process>) {
    guard let space = process.pointee.paging else { return }
    process.pointee.paging = nil
    if let manager = space.pointee.manager { Objects.release(connection: manager) }
    var holders = PagerHolders()
    _ = space.pointee.map.remove(start: 0, end: .max, counts: &holders)
    var source = SpaceSource(process: process)
    source.releaseTable(space.pointee.frame)
  }

  /// The service that faults are passed on to has died. What it mapped in managed regions may be a copy of something that goes on
  /// changing: nobody sees it any more. All other processors are stopped.
  static func forgetManaged(by service: Reference<Service>) {
    for identifier in 0..<UInt32(PROCESS_LIMIT) {
      guard let process = Objects.process(identifier), let space = process.pointee.paging,
        space.pointee.manager?.pointee.service == service
      else { continue }
      var source = SpaceSource(process: process)
      let table = PageTable(memory: DirectMemory(), root: process.pointee.pageTable)
      for index in 0..<space.pointee.map.count where space.pointee.map[index].mode & RegionMode.managed != 0 {
        let region = space.pointee.map[index]
        if (try? table.unmap(region.start, size: region.end - region.start, source: &source)) ?? false {
          Scheduler.flush(table.root, replacement: table.root)
        }
      }
    }
  }

  /// Whether a range has paged regions; memory objects are not mapped there.
  static func overlaps(_ process: Reference<Process>, _ start: UInt64, _ size: UInt64) -> Bool {
    process.pointee.paging?.pointee.map.overlaps(start: start, end: start + size) ?? false
  }
}
