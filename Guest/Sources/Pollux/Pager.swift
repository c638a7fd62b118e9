// What a memory manager does to other processes' address spaces (HongMeng §4.5): pagers, regions, pages, and the faults passed on to it.

import CPollux

/// A pool and an OPLog, for regions whose pages lie in one memory object. Methods on a process need the right `manage` on it.
public struct Pager: Sendable {
  public let handle: Handle

  /// `shared` is one page for the rings (`PagerPage`), `memory` holds the pages that page numbers mean.
  public static func create(shared: MemoryObject, memory: MemoryObject) throws(SystemError) -> Pager {
    Pager(handle: Handle(try invoke(.pagerCreate, shared.handle.rawValue, memory.handle.rawValue)))
  }

  /// Makes a region of `size` bytes at `address`; `mode`: `Protection` and `RegionMode` bits.
  public func createRegion(
    in process: Handle, at address: UInt64, size: UInt64, mode: UInt64
  ) throws(SystemError) {
    _ = try invoke(.regionCreate, process.rawValue, handle.rawValue, address, size, mode)
  }

  /// Takes pages out of a range, and unless they are kept the regions too.
  public static func remove(
    from process: Handle, at address: UInt64, size: UInt64, keepingRegions: Bool = false
  ) throws(SystemError) {
    _ = try invoke(.regionRemove, process.rawValue, address, size, keepingRegions ? 1 : 0)
  }

  /// Maps a page of the region's memory if at `address` is what is `expected` (`PageMode`).
  public static func map(
    in process: Handle, at address: UInt64, page: UInt64, mode: UInt64, expected: UInt64 = PageMode.nothing
  ) throws(SystemError) {
    _ = try invoke(.pageMap, process.rawValue, address, page, mode, expected)
  }

  /// Changes what a range may be used for; `mode` as for `createRegion`.
  public static func protect(in process: Handle, at address: UInt64, size: UInt64, mode: UInt64) throws(SystemError) {
    _ = try invoke(.regionProtect, process.rawValue, address, size, mode)
  }

  /// Shares pages of a range with a child, to be copied when they are written; where it stopped.
  public static func share(
    _ process: Handle, with child: Handle, at address: UInt64, size: UInt64
  ) throws(SystemError) -> UInt64 {
    try invoke(.regionShare, process.rawValue, child.rawValue, address, size)
  }

  /// Makes page tables for a range, so that faults there need none.
  public static func prepareTables(of process: Handle, at address: UInt64, size: UInt64) throws(SystemError) {
    _ = try invoke(.tablesPrepare, process.rawValue, address, size)
  }

  /// Empties the pool; how many of its last pages are the manager's again.
  public func takeBack() -> UInt64 {
    do throws(SystemError) { return try invoke(.pagerTakeBack, handle.rawValue) } catch { return 0 }
  }

  /// Page faults of the process that the kernel does not serve call `connection` from now on, and if wanted other exceptions of its
  /// instructions, too.
  public static func attach(
    _ process: Handle, to connection: Connection, exceptions: Bool = false
  ) throws(SystemError) {
    _ = try invoke(.pagingAttach, process.rawValue, connection.handle.rawValue, exceptions ? 1 : 0)
  }
}
