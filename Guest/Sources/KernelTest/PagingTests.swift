// The kernel's part of paging (HongMeng §4.5), tested from both ends by one process that is its own memory manager: what each
// fault maps and logs, what is passed on when pool or log run dry, fork and copy on write, and the instructions of a fault.
import CPollux
import Pollux

/// A pager of this test: its shared page and its memory, both mapped here.
struct TestPager {
  static let pages: UInt64 = 512
  let handle: UInt64
  private let shared: UInt64
  private let memory: UInt64
  private let rings: UInt64
  let arena: UInt64

  init(at address: UInt64) {
    let readWrite = Protection([.read, .write]).rawValue
    rings = address
    arena = address + (1 << 30)
    shared = must(.memoryCreate, 4096)
    memory = must(.memoryCreate, Self.pages * 4096)
    _ = must(.memoryMap, 0, shared, rings, 0, 4096, readWrite)
    _ = must(.memoryMap, 0, memory, arena, 0, Self.pages * 4096, readWrite)
    handle = must(.pagerCreate, shared, memory)
  }

  func load(_ offset: UInt64) -> UInt64 { KernelTest.word(rings + offset) }
  func store(_ offset: UInt64, _ value: UInt64) {
    // The rings' page is mapped; offsets are the contract's.
    UnsafeMutablePointer<UInt64>(bitPattern: UInt(rings + offset))?.pointee = value
  }
  /// Adds a page to the pool.
  func give(_ page: UInt64) {
    let tail = load(PagerPage.poolTail)
    store(PagerPage.pool + tail % PagerPage.poolCapacity * 8, page)
    store(PagerPage.poolTail, tail + 1)
  }
  /// The next record of the log.
  func next() -> PagingRecord? {
    let head = load(PagerPage.logHead)
    guard head != load(PagerPage.logTail) else { return nil }
    let record = PagingRecord(rawValue: load(PagerPage.log + head % PagerPage.logCapacity * 8))
    store(PagerPage.logHead, head + 1)
    return record
  }
  func drain() { store(PagerPage.logHead, load(PagerPage.logTail)) }

  func close() {
    _ = must(.memoryUnmap, 0, rings, 4096)
    _ = must(.memoryUnmap, 0, arena, Self.pages * 4096)
    for object in [handle, shared, memory] { _ = must(.handleClose, object) }
  }
}

enum PagingTests {
  static let readWrite = Protection([.read, .write]).rawValue
  static let base: UInt64 = 0x60_0000_0000

  static func run(_ checks: inout Checks) {
    faults(&checks)
    fork(&checks)
    dry(&checks)
    arguments(&checks)
    costs(&checks)
  }

  private static func write(_ address: UInt64, _ value: UInt64) {
    UnsafeMutablePointer<UInt64>(bitPattern: UInt(address))?.pointee = value
  }

  private static func faults(_ checks: inout Checks) {
    let pager = TestPager(at: 0x51_0000_0000)
    let size: UInt64 = 64 * 4096
    _ = must(.regionCreate, 0, pager.handle, base, size, readWrite)
    _ = must(.tablesPrepare, 0, base, size)
    checks.expect("a read fault shows zero", KernelTest.word(base + 0x2008) == 0)
    checks.expect("and is logged", pager.next() == PagingRecord(.zero, address: base + 0x2000, page: 0))
    pager.give(7)
    pager.give(9)
    write(base + 0x2010, 77)
    checks.expect("a write fault takes the pool's page", KernelTest.word(pager.arena + 7 * 4096 + 0x10) == 77)
    checks.expect("and is logged too", pager.next() == PagingRecord(.fresh, address: base + 0x2000, page: 7))
    checks.expect("what was read before is there", KernelTest.word(base + 0x2010) == 77)
    write(base + 0x5000, 78)
    checks.expect("a first write", pager.next() == PagingRecord(.fresh, address: base + 0x5000, page: 9))
    checks.expect("more is not logged", pager.next() == nil)

    // The kernel's own use of user memory faults in the same way.
    pager.give(11)
    let text: StaticString = "paged log line\n"
    let position = must(.systemQuery, SystemQuery.logEnd.rawValue)
    _ = must(.logWrite, UInt64(UInt(bitPattern: text.utf8Start)), UInt64(text.utf8CodeUnitCount))
    checks.expect(
      "a system call writes to a page that is not there yet", must(.logRead, position, base + 0x8000, 8) == 8)
    checks.expect("and finds it", KernelTest.word(base + 0x8000) == 0x6f6c_2064_6567_6170)
    checks.expect("its fault is logged", pager.next() == PagingRecord(.fresh, address: base + 0x8000, page: 11))
    checks.expect("with an empty pool it is refused", .badAddress, raw(.logRead, position, base + 0x9000, 8))
    checks.expect("which is counted", pager.load(PagerPage.poolDry) == 1)

    checks.expect("rights can be taken", raw(.regionProtect, 0, base + 0x2000, 4096, 1) == 0)
    checks.expect("reads go on", KernelTest.word(base + 0x2010) == 77)
    checks.expect("writes are refused", .badAddress, raw(.logRead, position, base + 0x2000, 8))
    checks.expect("all rights can be taken", raw(.regionProtect, 0, base + 0x2000, 4096, 0) == 0)
    checks.expect("then nothing is readable", .badAddress, raw(.logWrite, base + 0x2000, 8))
    checks.expect("and given back", raw(.regionProtect, 0, base + 0x2000, 4096, readWrite) == 0)
    write(base + 0x2018, 79)
    checks.expect("with the contents", KernelTest.word(base + 0x2010) == 77 && KernelTest.word(base + 0x2018) == 79)
    checks.expect("no page was taken for that", pager.next() == nil)

    pager.give(TestPager.pages)
    checks.expect("it is not mapped", .badAddress, raw(.logRead, position, base + 0x9000, 8))
    checks.expect("the pool can be taken back", raw(.pagerTakeBack, pager.handle) == 1)
    pager.give(12)
    write(base + 0x9000, 1)
    checks.expect("and used again", pager.next() == PagingRecord(.fresh, address: base + 0x9000, page: 12))

    checks.expect("a page can be replaced", raw(.pageMap, 0, base + 0x9000, 13, PageMode.write, 12) == 0)
    checks.expect("the new one shows", KernelTest.word(base + 0x9000) == 0)
    checks.expect("not what is not expected", .exists, raw(.pageMap, 0, base + 0x9000, 12, PageMode.write, 12))
    checks.expect(
      "a page can become the zero page", raw(.pageMap, 0, base + 0x9000, PageMode.zeroPage, 0, 13) == 0)
    pager.give(14)
    write(base + 0x9008, 5)
    checks.expect("which a write replaces", pager.next() == PagingRecord(.fresh, address: base + 0x9000, page: 14))
    checks.expect("regions can be removed", raw(.regionRemove, 0, base, size, 0) == 0)
    checks.expect("and are gone", .badAddress, raw(.logWrite, base + 0x2000, 8))
    pager.close()
  }

  private static func fork(_ checks: inout Checks) {
    let pager = TestPager(at: 0x51_0000_0000)
    let other = TestPager(at: 0x52_0000_0000)
    let code = ChildCode()
    let child = code.process()
    let size: UInt64 = 16 * 4096
    _ = must(.regionCreate, 0, pager.handle, base, size, readWrite)
    _ = must(.regionCreate, child, pager.handle, base, size, readWrite)
    _ = must(.tablesPrepare, 0, base, size)
    for page in UInt64(1)...3 { pager.give(page) }
    for page in UInt64(0)..<3 { write(base + page * 4096, 100 + page) }
    pager.drain()
    checks.expect("pages are shared", raw(.regionShare, 0, child, base, size) == Int64(base + size))
    checks.expect("which is logged", pager.next() == PagingRecord(.shared, address: base, page: 16))
    pager.give(4)
    write(base + 0x1008, 55)
    checks.expect("a write gets a copy", pager.next() == PagingRecord(.copied, address: base + 0x1000, page: 4))
    checks.expect("with the contents", KernelTest.word(base + 0x1000) == 101 && KernelTest.word(base + 0x1008) == 55)
    checks.expect("the other side keeps the page", KernelTest.word(pager.arena + 2 * 4096 + 8) == 0)
    checks.expect("shared pages are read without a fault", KernelTest.word(base) == 100 && pager.next() == nil)
    checks.expect("a range beyond the region is refused", .notFound, raw(.regionShare, 0, child, base, size + 4096))
    checks.expect("a process does not share with itself", .notFound, raw(.regionShare, 0, 0, base, size))
    _ = must(.processKill, child, 1)
    _ = must(.handleClose, child)
    code.close()
    _ = must(.regionRemove, 0, base, size, 0)
    pager.close()
    other.close()
  }

  private static func dry(_ checks: inout Checks) {
    let pager = TestPager(at: 0x51_0000_0000)
    let size: UInt64 = 512 * 4096
    _ = must(.regionCreate, 0, pager.handle, base, size, readWrite)
    _ = must(.tablesPrepare, 0, base, size)
    var sum: UInt64 = 0
    for page in 0..<PagerPage.logCapacity { sum += KernelTest.word(base + page * 4096) }
    checks.expect("the log takes all it holds", sum == 0 && pager.load(PagerPage.logTail) == PagerPage.logCapacity)
    checks.expect("then faults are passed on", .badAddress, raw(.logWrite, base + (300 << 12), 8))
    checks.expect("and counted", pager.load(PagerPage.logFull) == 1)
    var inOrder = true
    for page in 0..<PagerPage.logCapacity {
      inOrder = inOrder && pager.next() == PagingRecord(.zero, address: base + page << 12, page: 0)
    }
    checks.expect("no record is lost", inOrder && pager.next() == nil)
    checks.expect("a log that was read takes more", raw(.logWrite, base + (300 << 12), 8) == 8)
    _ = must(.regionRemove, 0, base, size, 0)
    pager.close()
  }

  private static func arguments(_ checks: inout Checks) {
    let pager = TestPager(at: 0x51_0000_0000)
    let region = { (address: UInt64, size: UInt64, mode: UInt64) in
      raw(.regionCreate, 0, pager.handle, address, size, mode)
    }
    checks.expect("a region must be aligned", .badArgument, region(base + 1, 4096, 1))
    checks.expect("and of the user's part", .badAddress, region(254 << 39, 4096, 1))
    checks.expect("write and execute are refused", .badArgument, region(base, 4096, 7))
    checks.expect("a region over a mapping is refused", .exists, region(0x51_0000_0000, 4096, 1))
    checks.expect("a region", region(base, 0x3000, 1) == 0)
    checks.expect("not twice", .exists, region(base + 0x2000, 0x2000, 1))
    checks.expect("no unmapping by others", .denied, raw(.memoryUnmap, 0, base, 4096))

    checks.expect("a gap is no region", .notFound, raw(.regionProtect, 0, base, 0x5000, 1))
    checks.expect(
      "an unknown page is refused", .badArgument, raw(.pageMap, 0, base, TestPager.pages, 0, PageMode.anything))
    checks.expect("nothing outside regions", .notFound, raw(.pageMap, 0, base + 0x8000, 1, 0, PageMode.anything))
    var count: UInt64 = 0
    while region(base + 0x1_0000 + count * 0x2000, 4096, 1) == 0 { count += 1 }
    checks.expect("regions are limited", count > 100)
    checks.expect("and it says so", .tableFull, region(base + 0x1_0000 + count * 0x2000, 4096, 1))
    checks.expect("a full table can not be cut", .tableFull, raw(.regionRemove, 0, base + 0x1000, 4096, 0))
    for index in 0..<count { _ = raw(.regionRemove, 0, base + 0x1_0000 + index * 0x2000, 4096, 0) }
    _ = raw(.regionRemove, 0, base, 1 << 30, 0)
    pager.close()
  }

  /// Ticks a fault takes, under QEMU -icount instructions, with the touch itself and the loop (about 5).
  private static func costs(_ checks: inout Checks) {
    let pager = TestPager(at: 0x51_0000_0000)
    let count: UInt64 = 100
    _ = must(.regionCreate, 0, pager.handle, base, 512 * 4096, readWrite)
    _ = must(.tablesPrepare, 0, base, 512 * 4096)
    for page in 0..<count { pager.give(page) }
    var start = pollux_time_stamp()
    for page in 0..<count { write(base + page * 4096, 1) }
    checks.note("write-fault-ticks", (pollux_time_stamp() &- start) / count)
    var sum: UInt64 = 0
    start = pollux_time_stamp()
    for page in 200..<200 + count { sum &+= KernelTest.word(base + page * 4096) }
    checks.note("read-fault-ticks", (pollux_time_stamp() &- start) / count)
    pager.drain()
    for page in 0..<count { pager.give(count + page) }
    start = pollux_time_stamp()
    for page in 200..<200 + count { write(base + page * 4096, sum) }
    checks.note("write-after-read-fault-ticks", (pollux_time_stamp() &- start) / count)
    pager.drain()
    _ = must(.regionRemove, 0, base, 512 * 4096, 0)
    pager.close()
  }
}
