// What the memory manager's books need from the kernel and from memory itself: a protocol, so that the books are tested on the
// host against the kernel's own paging code and a plain reference.
import PolluxABI

/// Clients are named by their number in the books; pages by their number in the manager's memory; ranges are page-aligned.
public protocol PagingKernel {
  /// The system calls 90–97 of the same names.
  func regionCreate(_ client: Int, _ range: Range<UInt64>, mode: UInt64) throws(SystemError)
  func regionRemove(_ client: Int, _ range: Range<UInt64>) throws(SystemError)
  func regionProtect(_ client: Int, _ range: Range<UInt64>, mode: UInt64) throws(SystemError)
  /// Where it stopped; nil if the log is full.
  func regionShare(_ client: Int, with child: Int, _ range: Range<UInt64>) throws(SystemError) -> UInt64?
  func pageMap(_ client: Int, _ address: UInt64, page: UInt64, mode: UInt64, expected: UInt64) throws(SystemError)
  func tablesPrepare(_ client: Int, _ range: Range<UInt64>) throws(SystemError)
  func takeBack(_ client: Int) -> UInt64
  /// Words of a client's pager page, by `PagerPage` offset.
  func load(_ client: Int, _ offset: UInt64) -> UInt64
  func store(_ client: Int, _ offset: UInt64, _ value: UInt64)
  /// The manager's own view of its pages.
  func clear(_ page: UInt64)
  func isZero(_ page: UInt64) -> Bool
  func copy(_ page: UInt64, from source: UInt64)
}
