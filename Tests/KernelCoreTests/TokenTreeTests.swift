// The token tree against a plain reference model that keeps sets and dictionaries: random create, grant, narrow, revoke and death,
// with what each holder can reach compared after every step (HongMeng §4.4).

import KernelCore
import PolluxABI
import Testing

/// The tree's host as a test sees it: mappings in dictionaries, stale translations until a flush, counts of objects.
private struct CountingTokens: TokenHost {
  /// What a holder's page tables say: object and whether it is writable, by holder and address.
  var mapped: [UInt64: [UInt64: (object: UInt64, writable: Bool)]] = [:]
  /// Holders that were changed and not flushed since.
  var stale: Set<UInt64> = []
  var counts: [UInt64: Int] = [:]
  var nodes = 0
  var nodeLimit = Int.max
  var mapFails = false
  /// Objects that were freed while a processor might have used them.
  var freedTooEarly = 0

  mutating func allocateNode() -> Reference<TokenNode>? {
    guard nodes < nodeLimit else { return nil }
    nodes += 1
    return Reference(UnsafeMutablePointer<TokenNode>.allocate(capacity: 1))
  }
  mutating func releaseNode(_ node: Reference<TokenNode>) {
    nodes -= 1
    UnsafeMutablePointer<TokenNode>(bitPattern: UInt(node.address))?.deallocate()
  }
  mutating func map(_ node: Reference<TokenNode>) -> Bool {
    if mapFails { return false }
    let holder = node.pointee.space.pointee.holder
    mapped[holder, default: [:]][node.pointee.address] = (node.pointee.object, node.pointee.rights.contains(.write))
    return true
  }
  mutating func remap(_ node: Reference<TokenNode>) -> Bool {
    let holder = node.pointee.space.pointee.holder
    guard let old = mapped[holder]?[node.pointee.address] else { return false }
    let writable = node.pointee.rights.contains(.write)
    if node.pointee.rights.isEmpty {
      mapped[holder]?[node.pointee.address] = nil
    } else if old.writable != writable {
      mapped[holder]?[node.pointee.address] = (old.object, writable)
    } else {
      return false
    }
    stale.insert(holder)
    return true
  }
  mutating func flush(_ space: Reference<TokenSpace>) { stale.remove(space.pointee.holder) }
  mutating func retain(object: UInt64) { counts[object, default: 0] += 1 }
  mutating func release(object: UInt64) {
    counts[object, default: 0] -= 1
    if counts[object] == 0 {
      counts[object] = nil
      if !stale.isEmpty { freedTooEarly += 1 }
    }
  }
}

/// A holder's space with its directory.
private final class Holder {
  let directory = UnsafeMutablePointer<UInt64>.allocate(capacity: Int(AddressSpace.tokenSlots))
  let storage = UnsafeMutablePointer<TokenSpace>.allocate(capacity: 1)
  var space: Reference<TokenSpace> { Reference(storage) }
  init(_ number: UInt64) {
    directory.initialize(repeating: 0, count: Int(AddressSpace.tokenSlots))
    storage.initialize(to: TokenSpace(directory: Reference(directory), holder: number))
  }
  deinit {
    directory.deallocate()
    storage.deallocate()
  }
}

/// The reference: a token is a row; nothing is clever.
private struct Model {
  struct Row {
    var parent: Int?
    var holder: Int
    var address: UInt64
    var object: UInt64
    var rights: TokenRights
  }
  var rows: [Int: Row] = [:]
  var next = 0

  mutating func add(_ row: Row) {
    rows[next] = row
    next += 1
  }
  func find(_ holder: Int, _ address: UInt64) -> Int? {
    rows.first { $0.value.holder == holder && $0.value.address == address }?.key
  }
  func isDerived(_ row: Int, from ancestor: Int) -> Bool {
    row == ancestor || (rows[row]?.parent).map { isDerived($0, from: ancestor) } ?? false
  }
  func derived(_ row: Int) -> [Int] { rows.keys.filter { $0 != row && isDerived($0, from: row) } }
  mutating func restrict(_ row: Int, _ rights: TokenRights) {
    for key in derived(row) + [row] {
      if rights.contains(.read) { rows[key]?.rights.formIntersection(rights) } else { rows[key] = nil }
    }
  }
  mutating func end(_ holder: Int) {
    while let (key, row) = rows.first(where: { $0.value.holder == holder }) {
      for child in rows.keys where rows[child]?.parent == key { rows[child]?.parent = row.parent }
      rows[key] = nil
    }
  }
}

private struct Fuzzer {
  var random: TestRandom
  var holders = (0..<6).map { Holder(UInt64($0)) }
  var host = CountingTokens()
  var model = Model()
  var nextObject: UInt64 = 100
  var addresses: [UInt64] = [AddressSpace.tokenStart]

  /// The error of a call, or nil; a call that must agree with what the model expects.
  private func outcome(_ body: () throws(SystemError) -> Void) -> SystemError? {
    do throws(SystemError) { try body() } catch { return error }
    return nil
  }

  /// An address: mostly one that is or was a token somewhere, sometimes nonsense.
  private mutating func address() -> UInt64 {
    switch Int.random(in: 0..<20, using: &random) {
    case 0: return random.next()
    case 1: return AddressSpace.tokenStart + AddressSpace.tokenSlots * 4096
    case 2: return (addresses.randomElement(using: &random) ?? 0) + 8
    default: return addresses.randomElement(using: &random) ?? 0
    }
  }

  private func expectedFailure(_ address: UInt64) -> SystemError {
    let end = AddressSpace.tokenStart + AddressSpace.tokenSlots * 4096
    return address < AddressSpace.tokenStart || address >= end || address & 4095 != 0 ? .badAddress : .notFound
  }

  /// A token of `holder`: mostly one that it has.
  private mutating func token(of holder: Int) -> UInt64 {
    let own = model.rows.values.filter { $0.holder == holder }.map(\.address).sorted()
    if Int.random(in: 0..<10, using: &random) > 0, let some = own.randomElement(using: &random) { return some }
    return address()
  }

  mutating func step() {
    let caller = holders.indices.randomElement(using: &random) ?? 0
    let other = holders.indices.randomElement(using: &random) ?? 0
    let rights = TokenRights(rawValue: UInt16.random(in: 0..<18, using: &random))
    switch Int.random(in: 0..<100, using: &random) {
    case 0..<12: create(caller, rights)
    case 12..<60: grant(caller, other, rights)
    case 60..<75: narrow(caller, other, rights)
    case 75..<98: revoke(caller, other)
    default:
      host.stale.remove(UInt64(caller))
      host.mapped[UInt64(caller)] = nil
      TokenTree.abandon(holders[caller].space, host: &host)
      #expect(holders[caller].space.pointee.count == 0)
      holders[caller] = Holder(UInt64(caller))
      model.end(caller)
    }
    compare()
  }

  private mutating func create(_ caller: Int, _ rights: TokenRights) {
    nextObject += 1
    let valid = rights.contains(.read) && rights.isSubset(of: .all)
    do throws(SystemError) {
      let space = holders[caller].space
      let node = try TokenTree.add(nextObject, from: nil, to: space, rights, host: &host)
      #expect(valid)
      model.add(
        .init(parent: nil, holder: caller, address: node.pointee.address, object: nextObject, rights: rights))
      addresses.append(node.pointee.address)
    } catch {
      #expect(!valid && error == .badArgument)
    }
  }

  private mutating func grant(_ caller: Int, _ other: Int, _ rights: TokenRights) {
    let at = token(of: caller)
    let row = model.find(caller, at)
    var expected: SystemError?
    if let row, let held = model.rows[row]?.rights {
      if !rights.contains(.read) || !rights.isSubset(of: .all) {
        expected = .badArgument
      } else if !held.contains(.grant) || !rights.isSubset(of: held) {
        expected = .denied
      }
    } else {
      expected = expectedFailure(at)
    }
    do throws(SystemError) {
      let parent = try holders[caller].space.pointee.find(at)
      let space = holders[other].space
      let node = try TokenTree.add(parent.pointee.object, from: parent, to: space, rights, host: &host)
      #expect(expected == nil)
      guard let row, let object = model.rows[row]?.object else { return }
      model.add(.init(parent: row, holder: other, address: node.pointee.address, object: object, rights: rights))
      if !addresses.contains(node.pointee.address) { addresses.append(node.pointee.address) }
    } catch { #expect(error == expected) }
  }

  /// The two ways to name what is taken: a token derived from one's own, or all of them.
  private mutating func subject(
    _ caller: Int, _ other: Int
  ) -> (nodes: (own: Reference<TokenNode>, other: Reference<TokenNode>)?, own: Int?, other: Int?) {
    let at = token(of: caller)
    let target = token(of: other)
    let (row, targetRow) = (model.find(caller, at), model.find(other, target))
    let own = try? holders[caller].space.pointee.find(at)
    let node = try? holders[other].space.pointee.find(target)
    #expect((own != nil) == (row != nil) && (node != nil) == (targetRow != nil))
    guard let own, let node, let row, let targetRow else { return (nil, nil, nil) }
    let derived = TokenTree.isDerived(node, from: own)
    #expect(derived == model.isDerived(targetRow, from: row))
    return derived ? ((own, node), row, targetRow) : (nil, nil, nil)
  }

  private mutating func narrow(_ caller: Int, _ other: Int, _ rights: TokenRights) {
    let (nodes, _, row) = subject(caller, other)
    guard let nodes, let row, rights.contains(.read) else { return }
    TokenTree.restrict(nodes.other, to: rights, host: &host)
    model.restrict(row, rights)
  }

  private mutating func revoke(_ caller: Int, _ other: Int) {
    let (nodes, own, row) = subject(caller, other)
    guard let nodes, let own, let row else { return }
    #expect(TokenTree.derivedCount(nodes.own) == UInt64(model.derived(own).count))
    if Bool.random(using: &random) {
      TokenTree.revokeDerived(nodes.own, host: &host)
      for key in model.derived(own) { model.rows[key] = nil }
    } else {
      TokenTree.restrict(nodes.other, to: [], host: &host)
      model.restrict(row, [])
    }
  }

  /// Every holder can reach exactly what the model says, and no processor anything else.
  private func compare() {
    #expect(host.stale.isEmpty && host.freedTooEarly == 0)
    #expect(host.nodes == model.rows.count)
    var counts: [UInt64: Int] = [:]
    var seen = 0
    for row in model.rows.values {
      counts[row.object, default: 0] += 1
      let mapping = host.mapped[UInt64(row.holder)]?[row.address]
      let node = try? holders[row.holder].space.pointee.find(row.address)
      let agrees =
        mapping?.object == row.object && mapping?.writable == row.rights.contains(.write)
        && node?.pointee.rights == row.rights && node?.pointee.object == row.object
      #expect(agrees, "holder \(row.holder) address \(row.address)")
      seen += 1
    }
    #expect(host.mapped.values.reduce(0) { $0 + $1.count } == seen)
    #expect(counts == host.counts)
  }

  mutating func finish() {
    for (index, holder) in holders.enumerated() {
      host.mapped[UInt64(index)] = nil
      TokenTree.abandon(holder.space, host: &host)
    }
    #expect(host.nodes == 0 && host.counts.isEmpty)
  }
}

struct TokenTreeTests {
  @Test(arguments: 1...4 as ClosedRange<UInt64>) func randomOperationsAgreeWithTheReferenceModel(seed: UInt64) {
    var fuzzer = Fuzzer(random: TestRandom(state: seed))
    for _ in 0..<10_000 { fuzzer.step() }
    fuzzer.finish()
  }

  @Test func aFullSpaceSaysSoAndRestsEveryAddress() throws {
    var host = CountingTokens()
    let holder = Holder(0)
    let first = try TokenTree.add(1, from: nil, to: holder.space, .all, host: &host)
    let firstAddress = first.pointee.address
    for _ in 1..<AddressSpace.tokenSlots {
      _ = try TokenTree.add(1, from: first, to: holder.space, .read, host: &host)
    }
    #expect(throws: SystemError.tableFull) {
      _ = try TokenTree.add(1, from: first, to: holder.space, .read, host: &host)
    }
    #expect(host.nodes == Int(AddressSpace.tokenSlots))
    TokenTree.revokeDerived(first, host: &host)
    #expect(holder.space.pointee.count == 1 && host.stale.isEmpty)
    // The one that is given up last comes last again.
    var given: Set<UInt64> = []
    for _ in 1..<AddressSpace.tokenSlots {
      let token = try TokenTree.add(1, from: first, to: holder.space, .read, host: &host)
      #expect(given.insert(token.pointee.address).inserted && token.pointee.address != firstAddress)
      TokenTree.restrict(token, to: [], host: &host)
    }
    TokenTree.abandon(holder.space, host: &host)
    #expect(host.nodes == 0 && host.counts.isEmpty)
  }

  @Test func aGrantWithoutMemoryChangesNothing() throws {
    var host = CountingTokens()
    let holder = Holder(0)
    let first = try TokenTree.add(1, from: nil, to: holder.space, .all, host: &host)
    host.mapFails = true
    #expect(throws: SystemError.noMemory) {
      _ = try TokenTree.add(1, from: first, to: holder.space, .read, host: &host)
    }
    host.mapFails = false
    host.nodeLimit = 1
    #expect(throws: SystemError.noMemory) {
      _ = try TokenTree.add(1, from: first, to: holder.space, .read, host: &host)
    }
    #expect(holder.space.pointee.count == 1 && host.nodes == 1 && host.counts == [1: 1])
    TokenTree.restrict(first, to: [], host: &host)
    #expect(host.nodes == 0 && host.counts.isEmpty)
  }

  @Test func whatAnEndedHolderPassedOnCanStillBeRevokedByItsOrigin() throws {
    var host = CountingTokens()
    let (a, b, c) = (Holder(0), Holder(1), Holder(2))
    let root = try TokenTree.add(1, from: nil, to: a.space, .all, host: &host)
    let middle = try TokenTree.add(1, from: root, to: b.space, [.read, .grant], host: &host)
    let last = try TokenTree.add(1, from: middle, to: c.space, .read, host: &host)
    TokenTree.abandon(b.space, host: &host)
    #expect(TokenTree.isDerived(last, from: root) && last.pointee.parent == root)
    TokenTree.revokeDerived(root, host: &host)
    #expect(c.space.pointee.count == 0 && host.counts == [1: 1])
  }
}

struct TokenFieldsTests {
  private func check(
    _ kind: TokenKind, _ offset: UInt64, _ value: UInt64, limit: UInt8 = 31, _ words: [UInt64: UInt64] = [:]
  ) -> SystemError? {
    do throws(SystemError) {
      try TokenFields.check(kind, offset: offset, value: value, priorityLimit: limit) { words[$0] ?? 0 }
    } catch { return error }
    return nil
  }

  @Test func onlyDeclaredFieldsCanBeWritten() {
    for kind in [TokenKind.notification, .ring, .threadParameters, .processAccount] {
      for offset in stride(from: 0 as UInt64, to: 4096, by: 8) {
        let mayWrite = kind != .notification && offset == 0
        if !mayWrite { #expect(check(kind, offset, 4096) == .denied) }
      }
      for offset in [4096, 4100, 1, 4095, UInt64.max, UInt64.max - 7] {
        #expect(check(kind, offset, 0) == .badArgument)
      }
    }
  }

  @Test func aPriorityIsBoundedByTheCallersAndByTheLevels() {
    #expect(check(.threadParameters, ThreadPage.priority, 10, limit: 10) == nil)
    #expect(check(.threadParameters, ThreadPage.priority, 11, limit: 10) == .denied)
    #expect(check(.threadParameters, ThreadPage.priority, 32) == .badArgument)
    #expect(check(.threadParameters, ThreadPage.priority, .max) == .badArgument)
    #expect(check(.threadParameters, ThreadPage.priority, 1, [ThreadPage.hasEnded: 1]) == .notFound)
  }

  @Test func aConsumerMovesForwardToTheProducerAtMost() {
    let ring: [UInt64: UInt64] = [RingPage.head: 5, RingPage.tail: 9]
    for value in 5...9 as ClosedRange<UInt64> { #expect(check(.ring, RingPage.head, value, ring) == nil) }
    for value in [4, 10, 0, UInt64.max] { #expect(check(.ring, RingPage.head, value, ring) == .badArgument) }
    let wrapped: [UInt64: UInt64] = [RingPage.head: .max - 1, RingPage.tail: 2]
    for value in [UInt64.max - 1, .max, 0, 1, 2] { #expect(check(.ring, RingPage.head, value, wrapped) == nil) }
    for value in [3, UInt64.max - 2] { #expect(check(.ring, RingPage.head, value, wrapped) == .badArgument) }
  }

  @Test func aBudgetIsAtLeastAPage() {
    #expect(check(.processAccount, AccountPage.budget, 4096) == nil)
    #expect(check(.processAccount, AccountPage.budget, .max) == nil)
    #expect(check(.processAccount, AccountPage.budget, 4095) == .badArgument)
    #expect(check(.processAccount, AccountPage.budget, 4096, [AccountPage.hasEnded: 1]) == .notFound)
  }
}
