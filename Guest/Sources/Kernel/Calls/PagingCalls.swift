// The memory manager's system calls (HongMeng §4.5): pagers, regions, and pages of other processes' address spaces. Each needs
// the right `manage` on the process.
import CArch
import KernelCore
import PolluxABI

extension Call {
  /// `(shared page, memory)`.
  func pagerCreate() throws(SystemError) -> Int64 {
    let shared: Reference<MemoryObject> = try object(first, .memory, [.read, .write])
    let memory: Reference<MemoryObject> = try object(second, .memory, [.read, .write])
    guard shared.pointee.isOwned, memory.pointee.isOwned, memory.pointee.size >> 12 <= 1 << 24 else {
      throw .badArgument
    }
    let rings = PagerRings(
      memory: DirectMemory(), page: shared.pointee.physical, base: memory.pointee.physical,
      pages: memory.pointee.size >> 12)
    let pager = try kernel.pointee.heap.make(Pager(references: 1, shared: shared, memory: memory, rings: rings))
    shared.pointee.references += 1
    memory.pointee.references += 1
    return try install(pager.address, .pager)
  }

  func pagerTakeBack() throws(SystemError) -> Int64 {
    let pager: Reference<Pager> = try object(first, .pager, .manage)
    return Int64(truncatingIfNeeded: pager.pointee.rings.takeBack() & UInt64(Int64.max))
  }

  /// Address and size in registers 2 and 3, or 3 and 4: page-aligned, inside the user's part.
  private func range(
    in process: Reference<Process>, _ address: UInt64, _ size: UInt64
  ) throws(SystemError) -> Range<UInt64> {
    try checkedRange(address, size, in: process)
    return address..<(address + size)
  }

  /// `Protection` and `RegionMode` bits, also none.
  private func checkedMode(_ mode: UInt64) throws(SystemError) -> UInt64 {
    guard mode < 16, mode & 6 != 6, mode & 7 == 0 || mode & 1 != 0 else { throw .badArgument }
    return mode
  }

  func regionCreate() throws(SystemError) -> Int64 {
    let target = try target(first)
    let pager: Reference<Pager> = try object(second, .pager, .manage)
    let range = try range(in: target, third, fourth)
    let mode = try checkedMode(fifth)
    let space = try Paging.space(target)
    guard !space.pointee.map.overlaps(start: range.lowerBound, end: range.upperBound),
      !target.pointee.regions.overlaps(start: range.lowerBound, end: range.upperBound)
    else { throw .exists }
    var holders = PagerHolders()
    let region = PagedRegion(start: range.lowerBound, end: range.upperBound, pager: pager.address, mode: mode)
    guard space.pointee.map.insert(region, counts: &holders) else { throw .tableFull }
    return 0
  }

  /// `(process, address, size, keep)`: `keep` = 1 leaves the regions and takes their pages out only.
  func regionRemove() throws(SystemError) -> Int64 {
    let target = try target(first)
    let range = try range(in: target, second, third)
    let space = try Paging.space(target)
    // Memory objects that lie between regions are not the manager's.
    guard fourth <= 1, !target.pointee.regions.overlaps(start: range.lowerBound, end: range.upperBound) else {
      throw .badArgument
    }
    var holders = PagerHolders()
    // The region goes last: it keeps the memory until no processor has a translation.
    guard fourth == 1 || space.pointee.map.canCut(start: range.lowerBound, end: range.upperBound) else {
      throw .tableFull
    }
    var source = SpaceSource(process: target)
    let table = PageTable(memory: DirectMemory(), root: target.pointee.pageTable)
    let any = (try? table.unmap(range.lowerBound, size: third, source: &source)) ?? false
    if any { Scheduler.flush(table.root, replacement: table.root) }
    if fourth == 0 {
      _ = space.pointee.map.remove(start: range.lowerBound, end: range.upperBound, counts: &holders)
    }
    return 0
  }

  func regionProtect() throws(SystemError) -> Int64 {
    let target = try target(first)
    let range = try range(in: target, second, third)
    let mode = try checkedMode(fourth)
    let space = try Paging.space(target)
    guard space.pointee.map.covers(start: range.lowerBound, end: range.upperBound) else { throw .notFound }
    var holders = PagerHolders()
    guard space.pointee.map.setMode(mode, start: range.lowerBound, end: range.upperBound, counts: &holders) else {
      throw .tableFull
    }
    let table = PageTable(memory: DirectMemory(), root: target.pointee.pageTable)
    table.setMode(mode, start: range.lowerBound, end: range.upperBound)
    Scheduler.flush(table.root, replacement: table.root)
    return 0
  }

  /// `(process, child, address, size)` → where it stopped: the pages of a part of the range become shared. The child's regions
  /// are made by `regionCreate`.
  func regionShare() throws(SystemError) -> Int64 {
    let target = try target(first)
    let child = try self.target(second)
    let range = try range(in: target, third, fourth)
    guard target != child, let region = try Paging.space(target).pointee.map.find(range.lowerBound),
      range.upperBound <= region.pointee.end, fourth <= PagingRecord.maximumPage << 12,
      try Paging.space(child).pointee.map.covers(start: range.lowerBound, end: range.upperBound)
    else { throw .notFound }
    let pager = Reference<Pager>(trusted: region.pointee.pager)
    guard pager.pointee.rings.logHasRoom else { throw .tableFull }
    let table = PageTable(memory: DirectMemory(), root: target.pointee.pageTable)
    var source = SpaceSource(process: child)
    let stopped: UInt64
    do throws(PageTableError) {
      stopped = try table.share(
        range.lowerBound, end: range.upperBound, limit: 128,
        with: PageTable(memory: DirectMemory(), root: child.pointee.pageTable), source: &source)
    } catch { throw .noMemory }
    pager.pointee.rings.append(.shared, range.lowerBound, (stopped - range.lowerBound) >> 12)
    Scheduler.flush(table.root, replacement: table.root)
    return Int64(stopped)
  }

  /// `(process, address, page, PageMode, expected)`.
  func pageMap() throws(SystemError) -> Int64 {
    let target = try target(first)
    let address = try range(in: target, second, 4096).lowerBound
    guard let region = try Paging.space(target).pointee.map.find(address) else { throw .notFound }
    let rings = Reference<Pager>(trusted: region.pointee.pager).pointee.rings
    let table = PageTable(memory: DirectMemory(), root: target.pointee.pageTable)
    guard third < rings.pages || third == PageMode.zeroPage || third == PageMode.nothing, fourth <= 3 else {
      throw .badArgument
    }
    var source = SpaceSource(process: target)
    do throws(PageTableError) { try table.prepare(address, end: address + 4096, source: &source) } catch {
      throw .noMemory
    }
    guard
      let entry = table.replace(
        address, region: region.pointee, page: third, mode: fourth, expected: fifth, base: rings.base,
        zero: kernel.pointee.zeroPage)
    else { throw .exists }
    if entry != 0 { Paging.forget(address, table.root) }
    return 0
  }

  /// `(process, address, size)`.
  func tablesPrepare() throws(SystemError) -> Int64 {
    let target = try target(first)
    let range = try range(in: target, second, third)
    guard third <= 1 << 27 else { throw .badArgument }
    var source = SpaceSource(process: target)
    let table = PageTable(memory: DirectMemory(), root: target.pointee.pageTable)
    do throws(PageTableError) {
      try table.prepare(range.lowerBound, end: range.upperBound, source: &source)
    } catch { throw .noMemory }
    return 0
  }
}
