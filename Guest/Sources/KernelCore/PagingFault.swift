// What happens on a fault in anonymous memory (HongMeng §4.5, Fig. 7): the kernel takes a page that the memory manager put into
// the pool, or the zero page, maps it and writes a record into the OPLog. No policy, no message, no allocation.
import PolluxABI

/// The kernel's end of a pager's two rings. The page is shared with a process that may write anything: what the kernel reads
/// there is checked, and its own counts are kept here.
@frozen public struct PagerRings<Memory: PhysicalMemory> {
  private let memory: Memory
  /// Guest-physical address of the shared page.
  private let page: UInt64
  /// Guest-physical address and pages of the memory that page numbers count in.
  public let base: UInt64
  public let pages: UInt64
  private var poolHead: UInt64 = 0
  private var logTail: UInt64 = 0

  public init(memory: Memory, page: UInt64, base: UInt64, pages: UInt64) {
    self.memory = memory
    self.page = page
    self.base = base
    self.pages = pages
  }

  @inline(__always) public var logHasRoom: Bool {
    logTail &- memory.load(page &+ PagerPage.logHead) < PagerPage.logCapacity
  }

  /// Takes a page number from the pool; nil if it is empty, or the entry is none of the memory's.
  @inline(__always) mutating func take() -> UInt64? {
    guard poolHead != memory.load(page &+ PagerPage.poolTail) else { return nil }
    let index = memory.load(page &+ PagerPage.pool &+ poolHead % PagerPage.poolCapacity &* 8)
    guard index < pages else { return nil }
    poolHead &+= 1
    memory.store(page &+ PagerPage.poolHead, poolHead)
    return index
  }

  /// Appends a record; `logHasRoom` was asked before.
  @inline(__always) public mutating func append(_ event: PagingEvent, _ address: UInt64, _ index: UInt64) {
    let record = PagingRecord(event, address: address, page: index)
    memory.store(page &+ PagerPage.log &+ logTail % PagerPage.logCapacity &* 8, record.rawValue)
    logTail &+= 1
    memory.store(page &+ PagerPage.logTail, logTail)
  }

  /// Gives what is left in the pool back to the manager: how many entries, which end at its tail.
  public mutating func takeBack() -> UInt64 {
    let tail = memory.load(page &+ PagerPage.poolTail)
    let left = tail &- poolHead
    poolHead = tail
    memory.store(page &+ PagerPage.poolHead, poolHead)
    return left
  }

  /// Counts a fault that had to be passed on.
  public func count(_ word: UInt64) { memory.store(page &+ word, memory.load(page &+ word) &+ 1) }
}

/// How a fault ended.
public enum FaultOutcome: Equatable {
  /// A page was mapped where none was.
  case mapped
  /// A page was mapped in the place of another, whose translations are to be forgotten.
  case replaced
  /// The page tables allow the access already.
  case stale
  /// Not for the kernel to serve: no region, a managed region, an access it does not allow, a page that is not anonymous, or no
  /// page table.
  case unserved
  case poolEmpty
  case logFull
}

extension PageEntry {
  /// A software bit: this page is never writable as it is; a write gets a copy, or a fresh page in the place of the zero page.
  public static let shared: UInt64 = 0x200
}

extension PageTable {
  /// Address of the 4 KiB leaf entry for `address`; nil if a table is missing or a 2 MiB page is there.
  @inline(__always) public func smallSlot(_ address: UInt64) -> UInt64? {
    let rights = PageEntry.present | PageEntry.large
    var entry = memory.load(root &+ address >> 39 & 511 &* 8)
    guard entry & PageEntry.present != 0 else { return nil }
    entry = memory.load((entry & PageEntry.addressMask) &+ address >> 30 & 511 &* 8)
    guard entry & rights == PageEntry.present else { return nil }
    entry = memory.load((entry & PageEntry.addressMask) &+ address >> 21 & 511 &* 8)
    guard entry & rights == PageEntry.present else { return nil }
    return (entry & PageEntry.addressMask) &+ address >> 12 & 511 &* 8
  }

  /// Serves a fault at `address` in `region`. `zero` is the frame of the zero page; `copy` fills a frame from another.
  @inline(__always)
  public func serve(
    _ address: UInt64, write: Bool, fetch: Bool, region: PagedRegion, rings: inout PagerRings<Memory>, zero: UInt64,
    copy: (_ to: UInt64, _ from: UInt64) -> Void
  ) -> FaultOutcome {
    let needed = (write ? Protection.write : fetch ? .execute : .read).rawValue
    guard region.mode & (needed | RegionMode.managed) == needed else { return .unserved }
    let page = address & ~4095
    guard let slot = smallSlot(page) else { return .unserved }
    let entry = memory.load(slot)
    if !write {
      guard entry == 0 else { return entry & PageEntry.user != 0 ? .stale : .unserved }
      guard rings.logHasRoom else { return .logFull }
      let noExecute = region.mode & Protection.execute.rawValue == 0 ? PageEntry.noExecute : 0
      memory.store(slot, zero | noExecute | PageEntry.anonymous | PageEntry.shared)
      rings.append(.zero, page, 0)
      return .mapped
    }
    if entry != 0, entry & PageEntry.shared == 0 {
      return entry & (PageEntry.write | PageEntry.user) == PageEntry.write | PageEntry.user ? .stale : .unserved
    }
    guard rings.logHasRoom else { return .logFull }
    guard let index = rings.take() else { return .poolEmpty }
    let frame = rings.base &+ index &* 4096
    let old = entry & PageEntry.addressMask
    let isCopy = entry != 0 && old != zero
    if isCopy { copy(frame, old) }
    memory.store(slot, frame | PageEntry.anonymous | PageEntry.write | PageEntry.noExecute)
    rings.append(isCopy ? .copied : .fresh, page, index)
    return entry == 0 ? .mapped : .replaced
  }

  /// Makes the pages of a range shared between this address space and `child` (fork): read-only and marked in both. Returns
  /// where it stopped, after about `limit` pages. Large pages, which no pager maps, are left alone.
  public func share<Source: TableSource>(
    _ start: UInt64, end: UInt64, limit: Int, with child: PageTable, source: inout Source
  ) throws(PageTableError) -> UInt64 {
    var at = start
    var left = limit
    while at < end, left > 0 {
      guard let slot = smallSlot(at) else {
        at = (at & ~(Self.largeSize - 1)) + Self.largeSize
        left -= 1
        continue
      }
      // One walk in each for the run within a table; the child's is made when there is something to put into it.
      var from = slot
      var to: UInt64?
      let stop = min(end, (at & ~(Self.largeSize - 1)) + Self.largeSize)
      while at < stop, left > 0 {
        let entry = memory.load(from)
        if entry != 0 {
          let marked = entry & ~PageEntry.write | PageEntry.shared
          if marked != entry { memory.store(from, marked) }
          if to == nil { to = try child.entryMaking(at, level: 0, source: &source) }
          if let to { memory.store(to, marked) }
        }
        at += Self.pageSize
        from += 8
        to = to.map { $0 + 8 }
        left -= 1
      }
    }
    return min(at, end)
  }

  /// Gives the pages of a range the rights that a region's mode allows; what is shared stays read-only, and what may not even be
  /// read stays in place, out of the user's reach.
  public func setMode(_ mode: UInt64, start: UInt64, end: UInt64) {
    forEachLeaf(start, size: end - start) { slot, entry in
      var bits = entry & ~(PageEntry.user | PageEntry.write | PageEntry.noExecute)
      if mode & Protection.read.rawValue != 0 { bits |= PageEntry.user }
      if mode & Protection.write.rawValue != 0, entry & PageEntry.shared == 0 { bits |= PageEntry.write }
      if mode & Protection.execute.rawValue == 0 { bits |= PageEntry.noExecute }
      memory.store(slot, bits)
    }
  }

  /// Puts a page (by number from `base`, `PageMode.zeroPage` or `.nothing`) at an address whose table exists, if what is there is
  /// what is expected. The entry that was there; nil: nothing was changed.
  public func replace(
    _ address: UInt64, region: PagedRegion?, page: UInt64, mode: UInt64, expected: UInt64, base: UInt64, zero: UInt64
  ) -> UInt64? {
    guard let region, let slot = smallSlot(address) else { return nil }
    let entry = memory.load(slot)
    let frame = entry & PageEntry.addressMask
    switch expected {
    case PageMode.anything: break
    case PageMode.nothing: guard entry == 0 else { return nil }
    case PageMode.zeroPage: guard entry != 0, frame == zero else { return nil }
    default: guard entry != 0, frame == base &+ expected &* 4096 else { return nil }
    }
    if page == PageMode.nothing {
      memory.store(slot, 0)
      return entry
    }
    let isShared = page == PageMode.zeroPage || mode & PageMode.shared != 0
    var bits = PageEntry.present | PageEntry.accessedDirty | (isShared ? PageEntry.shared : 0)
    if region.mode & Protection.read.rawValue != 0 { bits |= PageEntry.user }
    if region.mode & mode & Protection.write.rawValue != 0, !isShared { bits |= PageEntry.write }
    if region.mode & Protection.execute.rawValue == 0 { bits |= PageEntry.noExecute }
    memory.store(slot, (page == PageMode.zeroPage ? zero : base + page * 4096) | bits)
    return entry
  }

  /// Makes the tables for a range, so that faults there need none.
  public func prepare<Source: TableSource>(
    _ start: UInt64, end: UInt64, source: inout Source
  ) throws(PageTableError) {
    var at = start & ~(Self.largeSize - 1)
    while at < end {
      _ = try entryMaking(at, level: 0, source: &source)
      at += Self.largeSize
    }
  }
}

extension PageEntry {
  /// What the entry of an anonymous page has beside its address and rights.
  static let anonymous: UInt64 = present | user | accessedDirty
}
