// The policy of anonymous memory (HongMeng §4.5): who has which page, how many pages lie ahead in each pool, when logs are read,
// what a process may have, and what is taken back when memory is short. The kernel's part is KernelCore's PagingFault.swift.
import PolluxABI

/// What the manager decides in advance.
public struct PagingPolicy: Sendable {
  /// Pages that a pool is filled up to, at most `PagerPage.poolCapacity`, and what it keeps when memory is short.
  public var poolPages: UInt64 = 64
  public var poolMinimum: UInt64 = 4
  /// Bytes of addresses for which page tables are made ahead, from the 2 MiB of a fault on.
  public var tablesAhead: UInt64 = 8 << 20
  public init() {}
}

/// What a client may have.
public struct Budget: Sendable {
  /// Pages mapped and in its pool.
  public var pages: UInt64
  /// Mapping more addresses than that is refused; otherwise the process ends when it touches more pages.
  public var isStrict: Bool
  public init(pages: UInt64, isStrict: Bool) {
    self.pages = pages
    self.isStrict = isStrict
  }
}

/// What becomes of a thread whose fault the kernel passed on.
public enum FaultDecision: Equatable, Sendable {
  case retry
  /// Its process ends: nothing is mapped there, or not for such an access.
  case badAccess
  case overBudget
  case noMemory
}

/// Counts of what the books did.
public struct PagingCounts: Equatable, Sendable {
  public var passedFaults: UInt64 = 0
  public var records: UInt64 = 0
  public var refills: UInt64 = 0
  public var takenBack: UInt64 = 0
  public var merged: UInt64 = 0
  public var refused: UInt64 = 0
  public init() {}
}

/// The books of one client.
final class ClientBooks {
  var areas = AreaList()
  var pages = PageMap()
  var budget: Budget
  /// Pages in its pool.
  var pooled: UInt64 = 0
  /// This end's counts of the rings.
  var logHead: UInt64 = 0
  var poolTail: UInt64 = 0
  /// Where the child of a fork in progress is.
  var forkChild: Int?
  init(budget: Budget) { self.budget = budget }
}

/// Used by one thread at a time.
public final class MemoryBooks<Kernel: PagingKernel> {
  let kernel: Kernel
  public let policy: PagingPolicy
  private var clients: [ClientBooks?] = []
  /// How often each page is mapped.
  private var shares: [UInt16]
  /// Pages that are zero, and pages that must become so.
  private var clean: [UInt32]
  private var dirty: [UInt32] = []
  public private(set) var counts = PagingCounts()

  public init(kernel: Kernel, pages: UInt64, policy: PagingPolicy) {
    self.kernel = kernel
    self.policy = policy
    shares = [UInt16](repeating: 0, count: Int(pages))
    clean = []
    clean.reserveCapacity(Int(pages))
    // The lowest pages come first.
    var page = UInt32(pages)
    while page > 0 {
      page -= 1
      clean.append(page)
    }
  }

  // MARK: What there is

  public var freePages: UInt64 { UInt64(clean.count + dirty.count) }
  public func residentPages(_ client: Int) -> UInt64 { books(client)?.pages.count ?? 0 }
  public func pooledPages(_ client: Int) -> UInt64 { books(client)?.pooled ?? 0 }
  public func page(_ client: Int, _ address: UInt64) -> UInt64? { books(client)?.pages[address] }
  public func areas(_ client: Int) -> [Area] { books(client)?.areas.areas ?? [] }
  public func shareCount(_ page: UInt64) -> UInt16 { shares[Int(page)] }
  private func books(_ client: Int) -> ClientBooks? { clients.indices.contains(client) ? clients[client] : nil }
  private func need(_ client: Int) throws(SystemError) -> ClientBooks {
    guard let books = books(client) else { throw .notFound }
    return books
  }

  // MARK: Clients

  /// The number that `attach` gives next.
  public var nextClient: Int { clients.firstIndex { $0 == nil } ?? clients.count }

  /// Begins the books of a client whose pager the kernel knows under `nextClient`.
  public func attach(_ budget: Budget) -> Int {
    let number = nextClient
    let books = ClientBooks(budget: budget)
    if number == clients.count { clients.append(books) } else { clients[number] = books }
    return number
  }

  /// A client's process has ended: nothing maps its pages any more.
  public func detach(_ client: Int) {
    guard let books = books(client) else { return }
    drain(client)
    takeBack(client, books)
    books.pages.forEach(in: 0..<UInt64.max) { _, page in self.dropShare(page) }
    clients[client] = nil
  }

  // MARK: Mapping

  /// Maps anonymous memory at an address.
  public func map(_ client: Int, _ range: Range<UInt64>, mode: UInt64) throws(SystemError) {
    let books = try need(client)
    guard !books.areas.overlaps(range) else { throw .exists }
    let area = Area(start: range.lowerBound, end: range.upperBound, mode: mode)
    if books.budget.isStrict, books.areas.pages + area.pages > books.budget.pages {
      counts.refused += 1
      throw .noMemory
    }
    try kernel.regionCreate(client, range, mode: mode)
    books.areas.insert(area)
    // The first faults find tables and pages.
    let ahead = min(range.upperBound, range.lowerBound + policy.tablesAhead)
    do throws(SystemError) { try kernel.tablesPrepare(client, range.lowerBound..<ahead) } catch {}
    refill(client, books)
  }

  /// A free address for `size` bytes.
  public func place(_ client: Int, _ size: UInt64, from address: UInt64) throws(SystemError) -> UInt64 {
    try need(client).areas.gap(size, from: address)
  }

  public func unmap(_ client: Int, _ range: Range<UInt64>) throws(SystemError) {
    let books = try need(client)
    guard books.areas.overlaps(range) else { return }
    try kernel.regionRemove(client, range)
    // Whatever the kernel did in the range is in the log by now.
    drain(client)
    var gone: [UInt64] = []
    books.pages.forEach(in: range) { address, _ in gone.append(address) }
    for address in gone { forget(books, address) }
    books.areas.remove(range)
  }

  public func protect(_ client: Int, _ range: Range<UInt64>, _ protection: Protection) throws(SystemError) {
    let books = try need(client)
    guard books.areas.covers(range) else { throw .notFound }
    for part in books.areas.parts(range) {
      let mode = part.mode & RegionMode.managed | protection.rawValue
      try kernel.regionProtect(client, part.start..<part.end, mode: mode)
      books.areas.setMode(mode, part.start..<part.end)
    }
  }

  /// Gives `child`, which has nothing mapped, all areas of a client, with shared pages (copy on write).
  public func fork(_ client: Int, to child: Int) throws(SystemError) {
    let parent = try need(client)
    let childBooks = try need(child)
    guard client != child, childBooks.areas.areas.isEmpty else { throw .badArgument }
    if childBooks.budget.isStrict, parent.areas.pages > childBooks.budget.pages {
      counts.refused += 1
      throw .noMemory
    }
    parent.forkChild = child
    defer { parent.forkChild = nil }
    for area in parent.areas.areas {
      let range = area.start..<area.end
      try kernel.regionCreate(child, range, mode: area.mode)
      childBooks.areas.insert(area)
      var at = area.start
      while at < area.end {
        if let stopped = try kernel.regionShare(client, with: child, at..<area.end) { at = stopped }
        drain(client)
      }
    }
    refill(child, childBooks)
  }

  // MARK: Faults that the kernel passed on

  public func fault(_ client: Int, _ address: UInt64, write: Bool, fetch: Bool) -> FaultDecision {
    guard let books = books(client) else { return .badAccess }
    counts.passedFaults += 1
    drain(client)
    let needed = (write ? Protection.write : fetch ? .execute : .read).rawValue
    guard let area = books.areas.find(address), area.mode & needed != 0 else { return .badAccess }
    let page = address & ~4095
    if area.mode & RegionMode.managed != 0 { return serve(client, books, page, write: write) }
    let ahead = page & ~0x1f_ffff
    do throws(SystemError) {
      // At least the table of the page itself.
      let end = min(area.end, max(page + 4096, ahead + policy.tablesAhead))
      try kernel.tablesPrepare(client, max(area.start, ahead)..<end)
    } catch { return .noMemory }
    refill(client, books)
    guard write, books.pooled == 0 else { return .retry }
    return books.pages.count >= books.budget.pages ? .overBudget : .noMemory
  }

  /// The plain pager: every fault of a managed region comes here.
  private func serve(_ client: Int, _ books: ClientBooks, _ page: UInt64, write: Bool) -> FaultDecision {
    let old = books.pages[page]
    do throws(SystemError) {
      if !write {
        // Another thread may have come before.
        if old == nil { try mapUnlessThere(client, page, PageMode.zeroPage, 0, PageMode.nothing) }
        return .retry
      }
      if let old, shares[Int(old)] == 1 {
        try mapUnlessThere(client, page, old, PageMode.write, old)
        return .retry
      }
      guard old != nil || books.pages.count + books.pooled < books.budget.pages else { return .overBudget }
      guard let fresh = takeClean(for: client) else { return .noMemory }
      if let old { kernel.copy(fresh, from: old) }
      try kernel.pageMap(client, page, page: fresh, mode: PageMode.write, expected: old ?? PageMode.anything)
      forget(books, page)
      books.pages[page] = fresh
      shares[Int(fresh)] = 1
      return .retry
    } catch { return .noMemory }
  }

  private func mapUnlessThere(
    _ client: Int, _ address: UInt64, _ page: UInt64, _ mode: UInt64, _ expected: UInt64
  ) throws(SystemError) {
    do throws(SystemError) {
      try kernel.pageMap(client, address, page: page, mode: mode, expected: expected)
    } catch { if error != .exists { throw error } }
  }

  // MARK: Log and pool

  /// Reads a client's log to its end.
  public func drain(_ client: Int) {
    guard let books = books(client) else { return }
    let tail = kernel.load(client, PagerPage.logTail)
    guard books.logHead != tail else { return }
    while books.logHead != tail {
      let offset = PagerPage.log + books.logHead % PagerPage.logCapacity * 8
      note(books, PagingRecord(rawValue: kernel.load(client, offset)))
      books.logHead += 1
      counts.records += 1
    }
    kernel.store(client, PagerPage.logHead, tail)
  }

  private func note(_ books: ClientBooks, _ record: PagingRecord) {
    switch record.event {
    case .fresh, .copied:
      forget(books, record.address)
      books.pages[record.address] = record.page
      shares[Int(record.page)] = 1
      books.pooled -= 1
    case .returned:
      books.pooled -= 1
      dirty.append(UInt32(record.page))
    case .shared:
      guard let number = books.forkChild, let child = self.books(number) else { return }
      books.pages.forEach(in: record.address..<record.address + record.page << 12) { address, page in
        child.pages[address] = page
        self.shares[Int(page)] += 1
      }
    case .zero, nil: break
    }
  }

  /// Fills a client's pool as policy and budget allow.
  public func refill(_ client: Int) {
    guard let books = books(client) else { return }
    drain(client)
    refill(client, books)
  }

  private func refill(_ client: Int, _ books: ClientBooks) {
    let used = books.pages.count
    let allowed = books.budget.pages > used ? books.budget.pages - used : 0
    let wanted = min(policy.poolPages, allowed, PagerPage.poolCapacity)
    guard books.pooled < wanted else { return }
    counts.refills += 1
    while books.pooled < wanted {
      // What lies ahead never makes others give up what they have; the first page does.
      guard let page = takeClean(for: books.pooled == 0 ? client : nil) else { break }
      kernel.store(client, PagerPage.pool + books.poolTail % PagerPage.poolCapacity * 8, page)
      books.poolTail += 1
      books.pooled += 1
      kernel.store(client, PagerPage.poolTail, books.poolTail)
    }
  }

  /// Empties a client's pool.
  private func takeBack(_ client: Int, _ books: ClientBooks) {
    var left = kernel.takeBack(client)
    drain(client)
    counts.takenBack += left
    while left > 0 {
      let at = books.poolTail - left
      clean.append(UInt32(kernel.load(client, PagerPage.pool + at % PagerPage.poolCapacity * 8)))
      books.pooled -= 1
      left -= 1
    }
  }

  // MARK: Pages

  /// A page is not at an address any more.
  private func forget(_ books: ClientBooks, _ address: UInt64) {
    guard let page = books.pages[address] else { return }
    books.pages[address] = nil
    dropShare(page)
  }

  private func dropShare(_ page: UInt64) {
    shares[Int(page)] -= 1
    if shares[Int(page)] == 0 { dirty.append(UInt32(page)) }
  }

  /// Makes up to `limit` pages zero; how many there were. Done when nothing else is to do.
  public func clean(_ limit: Int) -> Int {
    var done = 0
    while done < limit, let page = dirty.popLast() {
      kernel.clear(UInt64(page))
      clean.append(page)
      done += 1
    }
    return done
  }

  /// A zero page; with `client` memory is reclaimed for it.
  private func takeClean(for client: Int?) -> UInt64? {
    if clean.isEmpty, clean(32) == 0 {
      guard let client else { return nil }
      reclaim(1, for: client)
    }
    return clean.popLast().map { UInt64($0) }
  }

  // MARK: Reclaim

  /// Gets pages back until `wanted` are free: first what lies unused in pools, then pages that hold only zeros.
  public func reclaim(_ wanted: Int, for client: Int) {
    for number in clients.indices where clean.count < wanted && number != client {
      guard let books = clients[number], books.pooled > 0 else { continue }
      takeBack(number, books)
      _ = clean(32)
      let keep = min(policy.poolMinimum, UInt64(max(0, clean.count - wanted)))
      while books.pooled < keep, let page = clean.popLast() {
        kernel.store(number, PagerPage.pool + books.poolTail % PagerPage.poolCapacity * 8, UInt64(page))
        books.poolTail += 1
        books.pooled += 1
        kernel.store(number, PagerPage.poolTail, books.poolTail)
      }
    }
    for number in clients.indices where clean.count < wanted {
      mergeZeroPages(number, until: wanted)
      _ = clean(32)
    }
  }

  /// Replaces pages that hold only zeros by the zero page.
  public func mergeZeroPages(_ client: Int, until wanted: Int = .max) {
    guard let books = books(client) else { return }
    drain(client)
    var candidates: [(UInt64, UInt64)] = []
    books.pages.forEach(in: 0..<UInt64.max) { address, page in
      if self.shares[Int(page)] == 1 { candidates.append((address, page)) }
    }
    for (address, page) in candidates where clean.count + dirty.count < wanted && kernel.isZero(page) {
      do throws(SystemError) {
        // From now on a write gets a copy, so what is seen next holds.
        try kernel.pageMap(client, address, page: page, mode: PageMode.shared, expected: page)
        if kernel.isZero(page) {
          try kernel.pageMap(client, address, page: PageMode.zeroPage, mode: 0, expected: page)
          forget(books, address)
          counts.merged += 1
        } else {
          try kernel.pageMap(client, address, page: page, mode: PageMode.write, expected: page)
        }
      } catch { drain(client) }
    }
  }
}
