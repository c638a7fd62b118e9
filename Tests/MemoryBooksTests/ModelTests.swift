// Random mappings, unmappings, protections, forks, touches and ends of several processes, on the kernel's paging code with the
// manager's books, against a plain reference: what each address of each process holds.

import MemoryBooks
import PolluxABI
import Testing

/// A repeatable source of randomness.
private struct Random: RandomNumberGenerator {
  var state: UInt64
  mutating func next() -> UInt64 {
    state &+= 0x9e37_79b9_7f4a_7c15
    var mixed = state
    mixed = (mixed ^ (mixed >> 30)) &* 0xbf58_476d_1ce4_e5b9
    mixed = (mixed ^ (mixed >> 27)) &* 0x94d0_49bb_1331_11eb
    return mixed ^ (mixed >> 31)
  }
  mutating func below(_ limit: UInt64) -> UInt64 { next() % limit }
}

/// What a process should see.
private struct Reference {
  /// Mode of each mapped page, and the values of those that were written.
  var modes: [UInt64: UInt64] = [:]
  var values: [UInt64: UInt64] = [:]
}

private final class Model {
  static let base: UInt64 = 0x60_0000_0000
  /// Addresses straddle two page tables, and a third is far away.
  static let span: UInt64 = 900
  let kernel: SimulatedKernel
  let books: MemoryBooks<SimulatedKernel>
  let pages: Int
  var references: [Int: Reference] = [:]
  var budgets: [Int: Budget] = [:]
  var random: Random
  var failures: [String] = []
  var overBudget = 0
  var dry = 0

  init(seed: UInt64, pages: Int, policy: PagingPolicy) {
    random = Random(state: seed)
    self.pages = pages
    kernel = SimulatedKernel(pages: pages)
    books = MemoryBooks(kernel: kernel, pages: UInt64(pages), policy: policy)
  }

  func fail(_ text: String) { failures.append(text) }
  func address(_ page: UInt64) -> UInt64 { Self.base + 0x18_0000 + (page < 800 ? page : page + 100_000) << 12 }

  func begin() -> Int {
    let number = books.nextClient
    kernel.processes[number] = SimulatedProcess(kernel.machine)
    let budget = Budget(pages: 20 + random.below(400), isStrict: random.below(4) == 0)
    if books.attach(budget) != number { fail("another number") }
    references[number] = Reference()
    budgets[number] = budget
    return number
  }

  func end(_ client: Int) {
    kernel.end(client)
    books.detach(client)
    kernel.discard(client)
    references[client] = nil
  }

  func range() -> Range<UInt64> {
    let start = random.below(Self.span)
    let limit = start < 800 ? 800 - start : Self.span - start
    let size = 1 + random.below(min(limit, random.below(8) == 0 ? 400 : 24))
    return address(start)..<address(start) + size << 12
  }

  func map(_ client: Int) {
    let range = range()
    let isFree = stride(from: range.lowerBound, to: range.upperBound, by: 4096).allSatisfy {
      references[client]?.modes[$0] == nil
    }
    let mode = [UInt64(1), 3, 3, 3, 3, 11][Int(random.below(6))]
    do throws(SystemError) {
      try books.map(client, range, mode: mode)
      if !isFree { fail("mapped over a mapping") }
      for page in stride(from: range.lowerBound, to: range.upperBound, by: 4096) {
        references[client]?.modes[page] = mode
      }
    } catch {
      let strict = budgets[client]?.isStrict == true
      if isFree, error != .tableFull, !(error == .noMemory && strict) { fail("map gave \(error)") }
    }
  }

  func unmap(_ client: Int) {
    let range = range()
    do throws(SystemError) { try books.unmap(client, range) } catch {
      if error != .tableFull { fail("unmap gave \(error)") }
      return
    }
    for page in stride(from: range.lowerBound, to: range.upperBound, by: 4096) {
      references[client]?.modes[page] = nil
      references[client]?.values[page] = nil
    }
  }

  func protect(_ client: Int) {
    guard let area = books.areas(client).randomElement(using: &random) else { return }
    let first = random.below(area.pages)
    let start = area.start + first << 12
    let range = start..<start + (1 + random.below(area.pages - first)) << 12
    let protection = [Protection(), .read, [.read, .write]][Int(random.below(3))]
    do throws(SystemError) { try books.protect(client, range, protection) } catch {
      if error != .tableFull { fail("protect gave \(error)") }
      return
    }
    for page in stride(from: range.lowerBound, to: range.upperBound, by: 4096) {
      let managed = (references[client]?.modes[page] ?? 0) & RegionMode.managed
      references[client]?.modes[page] = managed | protection.rawValue
    }
  }

  func fork(_ client: Int) {
    guard references.count < 6 else { return }
    let child = begin()
    // The parent goes on while its pages are being shared; what the child sees then is one of the states in between.
    var before = references[client] ?? Reference()
    var meanwhile: [UInt64: [UInt64]] = [:]
    let writesMeanwhile = random.below(2) == 0
    if writesMeanwhile {
      kernel.duringShare = { [unowned self] in
        let page = self.address(self.random.below(Self.span))
        if self.kernel.translate(client, page, write: true) == nil,
          !self.kernel.fault(client, page, write: true)
        {
          return
        }
        let value = self.random.next() | 1
        self.store(client, page, value)
        meanwhile[page, default: []].append(value)
        self.references[client]?.values[page] = value
      }
    }
    defer { kernel.duringShare = nil }
    do throws(SystemError) {
      try books.fork(client, to: child)
    } catch {
      let isStrict = budgets[child]?.isStrict == true
      if !(error == .noMemory && isStrict) { fail("fork gave \(error)") }
      end(child)
      return
    }
    if writesMeanwhile {
      for (page, mode) in before.modes where mode & 1 != 0 {
        let seen = kernel.translate(child, page, write: false).map { kernel.contents($0) } ?? 0
        let old = before.values[page] ?? 0
        if seen != old, meanwhile[page]?.contains(seen) != true { fail("the child sees neither state") }
        before.values[page] = seen
      }
    }
    references[child] = before
  }

  func store(_ client: Int, _ page: UInt64, _ value: UInt64) {
    guard let frame = kernel.translate(client, page, write: true) else { return fail("not writable") }
    if frame < SimulatedMachine.base { return fail("the zero page is writable") }
    kernel.machine.contents[Int((frame - SimulatedMachine.base) / 4096)] = value
  }

  /// An access by the program. Returns false if the process ended by it.
  @discardableResult func touch(_ client: Int, _ page: UInt64, write: Bool) -> Bool {
    guard let mode = references[client]?.modes[page] ?? Optional(0) else { return false }
    let allowed = mode & (write ? 2 : 1) != 0
    for _ in 0..<4 {
      if let frame = kernel.translate(client, page, write: write) {
        if !allowed { fail("an access that is not allowed") }
        if write {
          let value = random.below(5) == 0 ? 0 : random.next()
          store(client, page, value)
          references[client]?.values[page] = value
        } else if kernel.contents(frame) != references[client]?.values[page] ?? 0 {
          fail("wrong contents at \(String(page, radix: 16)) of \(client)")
        }
        return true
      }
      if kernel.fault(client, page, write: write) { continue }
      dry += 1
      let decision = books.fault(client, page, write: write, fetch: false)
      if decision == .retry { continue }
      if decision == .badAccess {
        if allowed { fail("a good access refused") }
        return true
      }
      if decision == .overBudget, books.residentPages(client) < budgets[client]?.pages ?? 0,
        books.pooledPages(client) == 0
      {
        fail("over budget within it")
      }
      if decision == .noMemory, books.freePages > 8 { fail("no memory while there is some") }
      overBudget += 1
      end(client)
      return false
    }
    fail("a fault without progress")
    return true
  }

  func burst(_ client: Int) {
    let write = random.below(2) == 0
    let start = random.below(500)
    for page in start..<start + random.below(380) {
      let page = address(page)
      guard references[client]?.modes[page] ?? 0 & (write ? 2 : 1) != 0 else { continue }
      if !touch(client, page, write: write) { return }
    }
  }

  func step() {
    guard let client = references.keys.sorted().randomElement(using: &random) else {
      _ = begin()
      return
    }
    switch random.below(100) {
    case 0..<10: map(client)
    case 10..<15: unmap(client)
    case 15..<20: protect(client)
    case 20..<23: fork(client)
    case 23..<24: end(client)
    case 24..<27: if references.count < 6 { _ = begin() }
    case 27..<35: burst(client)
    case 35..<37: books.mergeZeroPages(client)
    case 37..<38: books.reclaim(Int(random.below(64)), for: client)
    case 38..<40: books.refill(client)
    default: touch(client, address(random.below(Self.span)), write: random.below(2) == 0)
    }
  }

  /// Everything is where it should be, and every page is accounted for once.
  func check() {
    var shares = [UInt16](repeating: 0, count: pages)
    var pooled: UInt64 = 0
    for (client, reference) in references {
      books.drain(client)
      pooled += books.pooledPages(client)
      if books.pooledPages(client) + books.residentPages(client) > max(budgets[client]?.pages ?? 0, 0),
        books.pooledPages(client) > 0
      {
        fail("more than the budget lies ahead")
      }
      for number in 0..<Self.span {
        let page = address(number)
        let leaf = kernel.processes[client]?.table.leaf(page)
        let frame = leaf.map { $0.entry & 0x000f_ffff_ffff_f000 }
        let known = books.page(client, page)
        if let frame, frame != kernel.zero {
          let index = (frame - SimulatedMachine.base) / 4096
          shares[Int(index)] += 1
          if known != index { fail("the books have another page") }
        } else if known != nil {
          fail("the books have a page that is not mapped")
        }
        if frame != nil, reference.modes[page] == nil { fail("mapped outside of areas") }
        if let frame, kernel.contents(frame) != reference.values[page] ?? 0 { fail("wrong contents") }
      }
    }
    var used: UInt64 = 0
    for page in 0..<pages {
      if books.shareCount(UInt64(page)) != shares[page] { fail("shares of page \(page)") }
      if shares[page] != 0 { used += 1 }
    }
    if books.freePages + used + pooled != UInt64(pages) {
      fail("\(books.freePages) free, \(used) used, \(pooled) pooled of \(pages)")
    }
  }
}

struct ModelTests {
  @Test(arguments: 0..<8)
  func randomSequencesAgreeWithAPlainReference(group: UInt64) {
    var passedOn = 0
    var ended = 0
    var records: UInt64 = 0
    for seed in group * 125..<(group + 1) * 125 {
      var policy = PagingPolicy()
      policy.poolPages = [1, 8, 64, 128][Int(seed % 4)]
      policy.tablesAhead = seed % 3 == 0 ? 4096 : 8 << 20
      let model = Model(seed: seed, pages: [64, 400, 2000][Int(seed % 3)], policy: policy)
      for step in 0..<120 where model.failures.isEmpty {
        model.step()
        if step % 40 == 39 { model.check() }
      }
      if let failure = model.failures.first { Issue.record("seed \(seed): \(failure)") }
      for client in model.references.keys { model.end(client) }
      _ = model.books.clean(.max)
      if model.failures.isEmpty, model.books.freePages != UInt64(model.pages) {
        Issue.record("seed \(seed): \(model.books.freePages) of \(model.pages) pages are free at the end")
      }
      passedOn += model.dry
      ended += model.overBudget
      records += model.books.counts.records
    }
    // The sequences come to where it is interesting.
    #expect(passedOn > 100 && ended > 3 && records > 3_000)
  }
}
