// What kernel and memory manager share for policy-free paging (HongMeng §4.5, Fig. 7): the page with the pool and the OPLog of
// a pager, and the log's records.

/// The page that a pager's pool and OPLog lie in: 64-bit words by byte offset. The kernel writes the first line and the log,
/// the memory manager the second line and the pool. Heads and tails count entries since the pager was made; an entry's place
/// is its count modulo the capacity.
public enum PagerPage {
  /// Pool entries the kernel has taken.
  public static let poolHead: UInt64 = 0x00
  /// Log records the kernel has written.
  public static let logTail: UInt64 = 0x08
  /// Faults that the kernel passed on because the pool was empty, or the log full.
  public static let poolDry: UInt64 = 0x10
  public static let logFull: UInt64 = 0x18
  /// Pool entries the manager has written.
  public static let poolTail: UInt64 = 0x40
  /// Log records the manager has read.
  public static let logHead: UInt64 = 0x48
  /// The pool: page numbers in the pager's memory object, of pages that are zero.
  public static let pool: UInt64 = 0x400
  public static let poolCapacity: UInt64 = 128
  /// The log: `PagingRecord`s.
  public static let log: UInt64 = 0x800
  public static let logCapacity: UInt64 = 256
}

/// What the kernel did on a fault.
public enum PagingEvent: UInt64, Sendable {
  /// Mapped the zero page, read-only.
  case zero = 1
  /// Mapped a page of the pool, where nothing or the zero page was.
  case fresh = 2
  /// Replaced a shared page by a page of the pool with a copy.
  case copied = 3
  /// Took a page for a copy that was not needed any more; it is mapped nowhere.
  case returned = 4
  /// `regionShare` was done from the address on, for as many pages as the page number says; `page` is their number.
  case shared = 5
}

/// One record of the OPLog: a page's address shifted up by 16, its page number in the memory object from bit 4 (24 bits), a
/// `PagingEvent` in the low bits.
public struct PagingRecord: Equatable, Sendable {
  /// The greatest page number.
  public static let maximumPage: UInt64 = 0xff_ffff
  public let rawValue: UInt64
  @inlinable public init(rawValue: UInt64) { self.rawValue = rawValue }
  @inlinable public init(_ event: PagingEvent, address: UInt64, page: UInt64) {
    rawValue = address << 16 | page << 4 | event.rawValue
  }
  /// Guest-virtual, in the process the pager serves.
  @inlinable public var address: UInt64 { (rawValue >> 28) << 12 }
  @inlinable public var page: UInt64 { rawValue >> 4 & Self.maximumPage }
  @inlinable public var event: PagingEvent? { PagingEvent(rawValue: rawValue & 15) }
}

/// How a region of an address space is paged; with the bits of `Protection`, which may be none here.
public enum RegionMode {
  /// Every fault goes to the memory manager: file mappings, and the plain pager that kernel paging is measured against.
  /// What the manager mapped there leaves when its service dies.
  public static let managed: UInt64 = 8
}

/// How `pageMap` maps a page.
public enum PageMode {
  /// Shared: copied when it is written.
  public static let shared: UInt64 = 1
  /// Writable; the bit of `Protection.write`.
  public static let write: UInt64 = 2
  /// What `pageMap` expects at an address, besides a page number: nothing mapped, the zero page, or whatever is there.
  public static let nothing: UInt64 = 1 << 32
  public static let zeroPage: UInt64 = 1 << 33
  public static let anything: UInt64 = 1 << 34
}
