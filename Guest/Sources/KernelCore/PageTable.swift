// How an address space is described to the processor: 4-level page tables (Intel SDM vol. 3, 4.5), built through abstract
// physical memory. Pages of 2 MiB are used where both addresses and the size allow.

/// Bits of a page-table entry.
public enum PageEntry {
  public static let present: UInt64 = 1
  public static let write: UInt64 = 2
  public static let user: UInt64 = 4
  public static let writeThrough: UInt64 = 8
  public static let cacheDisable: UInt64 = 0x10
  public static let accessedDirty: UInt64 = 0x60
  public static let large: UInt64 = 0x80
  public static let noExecute: UInt64 = 1 << 63
  public static let addressMask: UInt64 = 0x000f_ffff_ffff_f000
  /// What every entry that points to a table carries: rights are decided at the leaf.
  public static let table: UInt64 = present | write | user | accessedDirty
}

/// Where tables come from and go to: zero frames.
public protocol TableSource {
  mutating func allocateTable() -> UInt64?
  mutating func releaseTable(_ address: UInt64)
}

public enum PageTableError: Error, Equatable {
  case noMemory
  case alreadyMapped
}

/// Operations on the tables under one root. Only the lower slots that belong to the program are ever passed in.
public struct PageTable<Memory: PhysicalMemory> {
  public static var pageSize: UInt64 { 4096 }
  public static var largeSize: UInt64 { 1 << 21 }
  let memory: Memory
  /// Guest-physical address of the top table.
  public let root: UInt64

  public init(memory: Memory, root: UInt64) {
    self.memory = memory
    self.root = root
  }

  private static func index(_ address: UInt64, level: Int) -> UInt64 {
    (address >> UInt64(12 + 9 * level)) & 511
  }

  /// Address of the entry for `address` at `level` (0: 4 KiB, 1: 2 MiB), making tables on the way.
  func entryMaking<Source: TableSource>(
    _ address: UInt64, level: Int, source: inout Source
  ) throws(PageTableError) -> UInt64 {
    var table = root
    var current = 3
    while current > level {
      let slot = table + Self.index(address, level: current) * 8
      var entry = memory.load(slot)
      if entry & PageEntry.present == 0 {
        guard let fresh = source.allocateTable() else { throw .noMemory }
        entry = fresh | PageEntry.table
        memory.store(slot, entry)
      } else if entry & PageEntry.large != 0 {
        throw .alreadyMapped
      }
      table = entry & PageEntry.addressMask
      current -= 1
    }
    return table + Self.index(address, level: level) * 8
  }

  /// The leaf entry that translates `address`: its own address, its value, and the bytes it maps; nil if a table or the leaf is
  /// missing. `missing` then says how far the gap reaches at least.
  public func leaf(_ address: UInt64) -> (slot: UInt64, entry: UInt64, size: UInt64)? {
    var table = root
    var level = 3
    while true {
      let slot = table + Self.index(address, level: level) * 8
      let entry = memory.load(slot)
      guard entry & PageEntry.present != 0 else { return nil }
      if level == 0 { return (slot, entry, Self.pageSize) }
      if level == 1, entry & PageEntry.large != 0 { return (slot, entry, Self.largeSize) }
      table = entry & PageEntry.addressMask
      level -= 1
    }
  }

  /// Guest-physical address behind a user address if it is mapped with at least `rights` (write, user).
  public func translate(_ address: UInt64, rights: UInt64) -> UInt64? {
    guard let (_, entry, size) = leaf(address), entry & rights == rights else { return nil }
    return (entry & PageEntry.addressMask & ~(size - 1)) | (address & (size - 1))
  }

  /// Maps `size` bytes at `address` to `physical`; all page-aligned; `flags` are the leaf's bits. On an error nothing that was
  /// not mapped before stays mapped.
  public func map<Source: TableSource>(
    _ address: UInt64, physical: UInt64, size: UInt64, flags: UInt64, source: inout Source
  ) throws(PageTableError) {
    var done: UInt64 = 0
    do throws(PageTableError) {
      while done < size {
        let at = address + done
        let to = physical + done
        let rest = size - done
        if (at | to) & (Self.largeSize - 1) == 0, rest >= Self.largeSize,
          case let slot = try entryMaking(at, level: 1, source: &source),
          // A table that an earlier mapping left is used rather than replaced.
          memory.load(slot) & (PageEntry.present | PageEntry.large) != PageEntry.present
        {
          guard memory.load(slot) == 0 else { throw .alreadyMapped }
          memory.store(slot, to | flags | PageEntry.large)
          done += Self.largeSize
        } else {
          // One walk for the whole run within a table.
          var slot = try entryMaking(at, level: 0, source: &source)
          let run = min(rest, Self.largeSize - at & (Self.largeSize - 1))
          var entry = to | flags
          let end = slot + run / Self.pageSize * 8
          while slot != end {
            guard memory.load(slot) == 0 else { throw .alreadyMapped }
            memory.store(slot, entry)
            slot += 8
            entry += Self.pageSize
            done += Self.pageSize
          }
        }
      }
    } catch {
      _ = unmapRange(address, size: done, source: &source)
      throw error
    }
  }

  /// Removes mappings from `size` bytes at `address`. A 2 MiB page that is cut is split first. Empty tables stay until the address
  /// space ends. Returns whether anything was mapped.
  public func unmap<Source: TableSource>(
    _ address: UInt64, size: UInt64, source: inout Source
  ) throws(PageTableError) -> Bool {
    try splitEdges(address, size: size, source: &source)
    return unmapRange(address, size: size, source: &source)
  }

  private func splitEdges<Source: TableSource>(
    _ address: UInt64, size: UInt64, source: inout Source
  ) throws(PageTableError) {
    try split(at: address, source: &source)
    try split(at: address + size, source: &source)
  }

  private func unmapRange<Source: TableSource>(_ address: UInt64, size: UInt64, source: inout Source) -> Bool {
    var any = false
    forEachLeaf(address, size: size) { slot, _ in
      memory.store(slot, 0)
      any = true
    }
    return any
  }

  /// Gives the mappings of a range new leaf bits.
  public func protect<Source: TableSource>(
    _ address: UInt64, size: UInt64, flags: UInt64, source: inout Source
  ) throws(PageTableError) {
    try splitEdges(address, size: size, source: &source)
    forEachLeaf(address, size: size) { slot, entry in
      memory.store(slot, (entry & (PageEntry.addressMask | PageEntry.large)) | flags)
    }
  }

  func forEachLeaf(_ address: UInt64, size: UInt64, _ body: (UInt64, UInt64) -> Void) {
    var at = address
    let end = address + size
    while at < end {
      var table = root
      var level = 3
      while true {
        let slot = table + Self.index(at, level: level) * 8
        let entry = memory.load(slot)
        let span = UInt64(1) << UInt64(12 + 9 * level)
        if entry & PageEntry.present == 0 {
          at = (at & ~(span - 1)) + span
          break
        }
        if level == 0 || (level == 1 && entry & PageEntry.large != 0) {
          body(slot, entry)
          at = (at & ~(span - 1)) + span
          break
        }
        table = entry & PageEntry.addressMask
        level -= 1
      }
    }
  }

  /// Where `address` lies inside a 2 MiB page, replaces that by 512 small ones.
  private func split<Source: TableSource>(at address: UInt64, source: inout Source) throws(PageTableError) {
    guard address & (Self.largeSize - 1) != 0, let (slot, entry, size) = leaf(address), size == Self.largeSize else {
      return
    }
    guard let table = source.allocateTable() else { throw .noMemory }
    var small = entry & ~PageEntry.large
    for index in 0..<UInt64(512) {
      memory.store(table + index * 8, small)
      small += Self.pageSize
    }
    memory.store(slot, table | PageEntry.table)
  }

  /// Releases all tables below the root's first `slots` entries, and the root. The memory behind leaves is not touched.
  public func destroy<Source: TableSource>(slots: UInt64, source: inout Source) {
    for top in 0..<slots {
      let entry = memory.load(root + top * 8)
      if entry & PageEntry.present != 0 {
        releaseTables(entry & PageEntry.addressMask, level: 2, source: &source)
      }
    }
    source.releaseTable(root)
  }

  private func releaseTables<Source: TableSource>(_ table: UInt64, level: Int, source: inout Source) {
    if level > 0 {
      for index in 0..<UInt64(512) {
        let entry = memory.load(table + index * 8)
        guard entry & PageEntry.present != 0, entry & PageEntry.large == 0 else { continue }
        releaseTables(entry & PageEntry.addressMask, level: level - 1, source: &source)
      }
    }
    source.releaseTable(table)
  }
}
