// Where the pages of files in memory come from: one run of memory, cut into pages that are known by number, so that whoever holds the
// same memory object can map a page without copying it (HongMeng §4.3, the shared page cache).

/// Pages of 4 KiB by number. Used by one thread at a time.
public final class PageStore {
  public static let pageSize = 4096
  private let memory: ByteArea
  private var free: [UInt32] = []
  /// Pages that were never used lie from here on; they are zero.
  private var fresh: UInt32 = 0
  public let capacity: Int
  public private(set) var used = 0
  /// The most that were in use at once.
  public private(set) var peak = 0

  /// Cuts `memory`, which is zero, into pages; a part of a page at its end is not used.
  public init(_ memory: ByteArea) {
    self.memory = memory
    capacity = memory.count / Self.pageSize
  }

  /// A page of zeros.
  public func allocate() throws(FileError) -> UInt32 {
    let page: UInt32
    if let reused = free.popLast() {
      page = reused
      area(page).fill()
    } else {
      guard Int(fresh) < capacity else { throw .noSpace }
      page = fresh
      fresh += 1
    }
    used += 1
    peak = max(peak, used)
    return page
  }

  public func release(_ page: UInt32) {
    used -= 1
    free.append(page)
  }

  /// The memory of a page that `allocate` gave.
  public func area(_ page: UInt32) -> ByteArea { memory.slice(Int(page) * Self.pageSize, Self.pageSize) }
}
