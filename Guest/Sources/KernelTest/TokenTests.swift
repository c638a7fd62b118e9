// The address tokens' test (HongMeng §4.4): forged, stale, revoked, narrowed and out-of-range tokens, the verified vectored write, what
// the kernel obeys of it, revocation under running processors, and random operations of several processes against a reference.
import CKernelTest
import CPollux
import Pollux
import Synchronization

/// The memory that the children of these tests run from.
private struct TokenChildCode {
  private let memory: UInt64

  init() {
    memory = must(.memoryCreate, 4096)
    let address: UInt64 = 0x41_0000_0000
    _ = must(.memoryMap, 0, memory, address, 0, 4096, Protection([.read, .write]).rawValue)
    if let to = UnsafeMutableRawPointer(bitPattern: UInt(address)) {
      // Both are one page: the mapping just made and the assembled block.
      to.copyMemory(from: token_children_base(), byteCount: Int(token_children_size()))
    }
    _ = must(.memoryUnmap, 0, address, 4096)
  }

  /// A process with the code at 0x400000 and a page of stack, not yet running.
  func process() -> UInt64 {
    let name: StaticString = "token-child"
    let process = must(.processCreate, UInt64(UInt(bitPattern: name.utf8Start)), UInt64(name.utf8CodeUnitCount))
    _ = must(.memoryMap, process, memory, 0x40_0000, 0, 4096, Protection([.read, .execute]).rawValue)
    let stack = must(.memoryCreate, 4096)
    _ = must(.memoryMap, process, stack, 0x80_0000, 0, 4096, Protection([.read, .write]).rawValue)
    _ = must(.handleClose, stack)
    return process
  }

  func start(_ process: UInt64, _ offset: UInt64, _ argument: UInt64, priority: UInt64 = 10) {
    _ = must(.handleClose, must(.threadCreate, process, 0x40_0000 + offset, 0x80_1000 - 64, argument, 0, priority))
  }

  func close() { _ = must(.handleClose, memory) }
}

/// A process that performs system calls for the test, or the test itself.
private struct Holder {
  /// 0: the test.
  let process: UInt64
  private let page: UInt64
  private let memory: UInt64

  static let itself = Holder()
  private init() { (process, page, memory) = (0, 0, 0) }

  init(_ code: TokenChildCode, at page: UInt64) {
    self.page = page
    process = code.process()
    memory = must(.memoryCreate, 4096)
    let readWrite = Protection([.read, .write]).rawValue
    _ = must(.memoryMap, 0, memory, page, 0, 4096, readWrite)
    _ = must(.memoryMap, process, memory, 0x90_0000, 0, 4096, readWrite)
    code.start(process, token_offset_serve(), 0x90_0000, priority: 10)
  }

  func call(_ call: SystemCall, _ a: UInt64 = 0, _ b: UInt64 = 0, _ c: UInt64 = 0, _ d: UInt64 = 0) -> Int64 {
    if process == 0 { return raw(call, a, b, c, d) }
    for (index, word) in [call.rawValue, a, b, c, d, 0, 0].enumerated() {
      pollux_word_store(page + 8 + UInt64(index) * 8, word)
    }
    pollux_word_store(page, 1)
    let end = deadline(milliseconds: 5000)
    while pollux_word_load(page) != 0 {
      if pollux_time_stamp() > end { return .min }
      var tries = 0
      while tries < 1000, pollux_word_load(page) != 0 {
        pollux_pause()
        tries += 1
      }
      if tries == 1000 { _ = raw(.threadYield) }
    }
    return Int64(bitPattern: pollux_word_load(page + 64))
  }

  /// Whether the holder's page tables let it read, and write, the page at an address. Nothing is written.
  func canRead(_ address: UInt64) -> Bool { call(.logWrite, address, 1) == 1 }
  func canWrite(_ address: UInt64) -> Bool { call(.consoleRead, address, 1) >= 0 }

  func end() {
    _ = must(.processKill, process, 0)
    _ = waitForEnd(process)
    _ = must(.handleClose, process)
    _ = must(.memoryUnmap, 0, page, 4096)
    _ = must(.handleClose, memory)
  }
}

enum TokenTests {
  private static let holderPages: UInt64 = 0x42_0000_0000
  private static var free: UInt64 { must(.systemQuery, SystemQuery.memoryFree.rawValue) }
  private static let grantable = TokenRights([.read, .grant])

  private static func create(_ kind: TokenKind, _ object: UInt64 = 0) -> UInt64 {
    must(.tokenCreate, UInt64(kind.rawValue), object)
  }
  private static func grant(_ process: UInt64, _ token: UInt64, _ rights: TokenRights) -> UInt64 {
    must(.tokenGrant, process, token, UInt64(rights.rawValue))
  }
  private static func tryGrant(_ process: UInt64, _ token: UInt64, _ rights: TokenRights) -> Int64 {
    raw(.tokenGrant, process, token, UInt64(rights.rawValue))
  }
  private static func rights(_ token: UInt64) -> TokenRights? {
    let result = raw(.tokenQuery, token)
    return result < 0 ? nil : TokenInfo(rawValue: UInt64(result)).rights
  }
  private static func drop(_ token: UInt64) { _ = must(.tokenRevoke, token, 0, token) }

  private static func write(_ updates: [TokenUpdate]) -> Int64 {
    do throws(SystemError) { try Token.write(updates) } catch { return error.rawValue }
    return 0
  }
  private static func write(_ token: UInt64, _ offset: UInt64, _ value: UInt64) -> Int64 {
    write([TokenUpdate(token: token, offset: offset, value: value)])
  }

  private static func start(_ priority: UInt64, _ body: @escaping () -> Void) {
    do throws(SystemError) { try Thread.start(priority: priority, body) } catch {
      Console.write("FAILED a thread does not start: ")
      Console.write(error.name)
      Console.write("\n")
    }
  }

  /// On one processor.
  static func run(_ checks: inout Checks) {
    checks.expect("who holds no token names none", .notFound, raw(.tokenQuery, AddressSpace.tokenStart))
    let code = TokenChildCode()
    forged(&checks)
    narrowed(&checks)
    vector(&checks)
    threadPage(&checks, code)
    accountPage(&checks, code)
    notificationPage(&checks, code)
    faults(&checks, code)
    deaths(&checks, code)
    code.close()
  }

  // MARK: What is refused

  private static func forged(_ checks: inout Checks) {
    let token = create(.ring)
    checks.expect("a token is an address, and its page is zero", pollux_word_load(token) == 0)
    pollux_word_store(token + 4088, 7)
    checks.expect("a read-write page is used by plain stores", pollux_word_load(token + 4088) == 7)
    checks.expect("an unknown kind is refused", .badArgument, raw(.tokenCreate, 9))
    checks.expect("a huge kind is refused", .badArgument, raw(.tokenCreate, 0x101))
    checks.expect("a ring is of no object", .badArgument, raw(.tokenCreate, UInt64(TokenKind.ring.rawValue), 1))
    let end = AddressSpace.tokenStart + AddressSpace.tokenSlots * 4096
    var refused = true
    for address in [0, 1, token + 1, token + 8, AddressSpace.tokenStart - 4096, end, 254 << 39, 0x40_0000, .max] {
      refused =
        refused && raw(.tokenQuery, address) == SystemError.badAddress.rawValue
        && write(address, 0, 0) == SystemError.badAddress.rawValue
        && tryGrant(0, address, .read) == SystemError.badAddress.rawValue
        && raw(.tokenRevoke, address, 0, 0) == SystemError.badAddress.rawValue
        && raw(.tokenRevoke, token, 0, max(1, address)) == SystemError.badAddress.rawValue
        && raw(.tokenSignal, address, 1) == SystemError.badAddress.rawValue
    }
    checks.expect("addresses where no token can be are refused", refused)
    checks.expect("an address where none is now is refused", .notFound, raw(.tokenQuery, end - 4096))
    checks.expect("a token that is not derived is not taken", .notFound, raw(.tokenRevoke, token, 0, end - 4096))
    checks.expect("nothing is mapped there", .badAddress, raw(.memoryMap, 0, 4, end - 4096, 0, 4096, 1))
    checks.expect("nor into it from below", .badAddress, raw(.memoryMap, 0, 4, (252 << 39) - 4096, 0, 8192, 1))
    checks.expect("nor unmapped", .badAddress, raw(.memoryUnmap, 0, token, 4096))
    let readOnly = grant(0, token, .read)
    checks.expect("nor made writable", .badAddress, raw(.memoryProtect, 0, readOnly, 4096, 3))
    checks.expect("a read-only token reads", pollux_word_load(readOnly + 4088) == 7)
    checks.expect("the wrong kind is refused", .wrongKind, raw(.tokenWait, token, 0))
    let other = create(.ring)
    checks.expect("another object's token is not derived", .notFound, raw(.tokenRevoke, token, 0, other))
    drop(other)
    checks.expect("a token that was given up is stale", .notFound, raw(.tokenQuery, other))
    checks.expect("and writes nothing", .notFound, write(other, 0, 0))
    _ = must(.tokenRevoke, token, 0, 0)
    checks.expect("a revoked token is stale", .notFound, raw(.tokenQuery, readOnly))
    checks.expect("and is not readable", !Holder.itself.canRead(readOnly))
    checks.expect("the revoker's own stays", pollux_word_load(token + 4088) == 7)
    drop(token)
    checks.expect(
      "a page is zero when it is used again",
      {
        let t = create(.ring)
        defer { drop(t) }
        return pollux_word_load(t + 4088) == 0
      }())
  }

  private static func narrowed(_ checks: inout Checks) {
    let token = create(.ring)
    let reader = grant(0, token, grantable)
    checks.expect("a reader passes on no writing", .denied, tryGrant(0, reader, [.read, .write]))
    checks.expect("nor updating", .denied, tryGrant(0, reader, [.read, .update]))
    let last = grant(0, reader, .read)
    checks.expect("without grant nothing is passed on", .denied, tryGrant(0, last, .read))
    checks.expect("no token is without reading", .badArgument, tryGrant(0, token, .write))
    checks.expect("unknown rights are refused", .badArgument, raw(.tokenGrant, 0, token, 0x101))
    checks.expect(
      "sub-delegation is tracked", TokenInfo(rawValue: must(.tokenQuery, token)).derived == 2)
    checks.expect("who passed on cannot be taken by who received", .notFound, raw(.tokenRevoke, last, 0, reader))

    let writer = grant(0, token, .all)
    let second = grant(0, writer, [.read, .write])
    checks.expect("a writer writes", Holder.itself.canWrite(second))
    _ = must(.tokenNarrow, token, 0, writer, UInt64(grantable.rawValue))
    checks.expect("narrowing reaches all derived", !Holder.itself.canWrite(writer) && !Holder.itself.canWrite(second))
    checks.expect("which still read", Holder.itself.canRead(second))
    _ = must(.tokenNarrow, writer, 0, 0, UInt64(TokenRights.all.rawValue))
    checks.expect("a narrowed token cannot be widened", rights(writer) == grantable && rights(second) == .read)
    checks.expect("nor pass on what it had", .denied, tryGrant(0, writer, [.read, .write]))
    checks.expect("nothing is narrowed to nothing", .badArgument, raw(.tokenNarrow, token, 0, writer, 2))
    _ = must(.tokenRevoke, token, 0, reader)
    checks.expect("one branch goes", rights(reader) == nil && rights(last) == nil)
    checks.expect("the other stays", rights(writer) == grantable)
    checks.expect("a derived token makes no handle", .denied, raw(.tokenHandle, writer))
    drop(token)
    checks.expect("all goes with the first", rights(writer) == nil && rights(second) == nil)
  }

  // MARK: The vectored write

  private static func vector(_ checks: inout Checks) {
    let (a, b) = (create(.ring), create(.ring))
    pollux_word_store(a + RingPage.tail, 10)
    pollux_word_store(b + RingPage.tail, 10)
    let readA = grant(0, a, [.read, .update])
    let readB = grant(0, b, [.read, .update])
    let head = RingPage.head
    checks.expect(
      "two legal writes take effect",
      write([.init(token: readA, offset: head, value: 3), .init(token: readB, offset: head, value: 4)]) == 0
        && pollux_word_load(a) == 3 && pollux_word_load(b) == 4)
    checks.expect(
      "of a legal and an illegal one none does", .badArgument,
      write([.init(token: readA, offset: head, value: 5), .init(token: readB, offset: head, value: 11)]))
    checks.expect("nothing was written", pollux_word_load(a) == 3 && pollux_word_load(b) == 4)
    checks.expect("backwards is illegal", .badArgument, write(readA, head, 2))
    checks.expect("another field is refused", .denied, write(readA, RingPage.tail, 11))
    checks.expect("an entry is refused", .denied, write(readA, RingPage.entries, 1))
    checks.expect("an offset beyond the page is refused", .badArgument, write(readA, 4096, 1))
    checks.expect("a negative offset is refused", .badArgument, write(readA, 0 &- 8, 1))
    checks.expect(
      "a word twice is refused", .badArgument,
      write([.init(token: readA, offset: head, value: 5), .init(token: a, offset: head, value: 4)]))
    let reader = grant(0, a, .read)
    checks.expect("without update nothing is written", .denied, write(reader, head, 5))
    for (name, refusal, token, offset, value) in [
      ("one element in registers cannot go backwards", .badArgument, readA, head, 2),
      ("nor write another field", .denied, readA, RingPage.tail, 11),
      ("nor an offset beyond the page", .badArgument, readA, 4096, 1),
      ("nor an odd one", .badArgument, readA, 4, 1), ("nor without update", .denied, reader, head, 5),
      ("nor where no token can be", .badAddress, 0x7000_0000_0000, head, 5),
    ] as [(StaticString, SystemError, UInt64, UInt64, UInt64)] {
      checks.expect(name, refusal, raw(.tokenUpdate, token, offset, value))
    }
    checks.expect(
      "but it can write what it may", raw(.tokenUpdate, readA, head, 4) == 0 && pollux_word_load(a) == 4)
    let many = [TokenUpdate](repeating: .init(token: readA, offset: head, value: 5), count: 17)
    checks.expect("too long a vector is refused", .badArgument, write(many))
    checks.expect("no vector is no work", write([]) == 0)
    checks.expect("a vector that is not mapped is refused", .badAddress, raw(.tokenWrite, 0x7000_0000_0000, 1))
    checks.expect("a vector in the kernel is refused", .badAddress, raw(.tokenWrite, 0x7f80_0060_0000, 1))
    checks.expect("a vector beyond all addresses is refused", .badAddress, raw(.tokenWrite, 0 &- 8, 1))
    checks.expect("a huge count is refused", .badArgument, raw(.tokenWrite, readA, .max))
    _ = must(.tokenRevoke, a, 0, 0)
    checks.expect("a revoked token writes nothing", .notFound, write(readA, head, 5))
    checks.expect(
      "not even beside a good one", .notFound,
      write([.init(token: readB, offset: head, value: 5), .init(token: readA, offset: head, value: 5)]))
    checks.expect("and nothing was written", pollux_word_load(a) == 4 && pollux_word_load(b) == 4)
    drop(a)
    drop(b)
  }

  // MARK: What the kernel obeys

  private static func threadPage(_ checks: inout Checks, _ code: TokenChildCode) {
    let done = must(.notificationCreate)
    let results = SharedCounters()
    let shared = SharedCounters()
    start(8) {
      let token = create(.threadParameters)
      shared.add(0, token)
      var good = pollux_word_load(token + ThreadPage.priority) == 8 ? 1 : 0 as UInt64
      if raw(.tokenCreate, UInt64(TokenKind.threadParameters.rawValue)) == SystemError.exists.rawValue { good |= 2 }
      if write(token, ThreadPage.priority, 9) == SystemError.denied.rawValue { good |= 4 }
      if write(token, ThreadPage.priority, 32) == SystemError.badArgument.rawValue { good |= 8 }
      if write(token, ThreadPage.thread, 1) == SystemError.denied.rawValue { good |= 16 }
      if write(token, ThreadPage.priority, 6) == 0, pollux_word_load(token) == 6 { good |= 32 }
      // The kernel's own rule for a thread of priority 6.
      if raw(.threadSetPriority, 0, 7) == SystemError.badArgument.rawValue { good |= 64 }
      if raw(.threadSetPriority, 0, 5) == 0, pollux_word_load(token) == 5 { good |= 128 }
      if !Holder.itself.canWrite(token) { good |= 256 }
      results.add(0, good)
      _ = raw(.notificationSignal, done, 1)
    }
    _ = raw(.notificationWait, done, deadline(milliseconds: 2000))
    letOthersRun(milliseconds: 5)
    let token = shared.value(0)
    checks.note("thread-page", results.value(0))
    checks.expect("a thread's priority is written by token, within its limit, and obeyed", results.value(0) == 511)
    checks.expect("the page tells that the thread ended", pollux_word_load(token + ThreadPage.hasEnded) == 1)
    checks.expect("and takes no more", .notFound, write(token, ThreadPage.priority, 1))
    drop(token)

    _ = must(.handleClose, done)

    // While a process stores all the time, one of lower priority gets nothing, until its priority is written.
    let pages = [create(.ring), create(.ring)]
    let spinner = code.process()
    let starved = code.process()
    code.start(spinner, token_offset_store(), grant(spinner, pages[0], [.read, .write]), priority: 7)
    let thread = must(
      .threadCreate, starved, 0x40_0000 + token_offset_store(), 0x80_1000 - 64,
      grant(starved, pages[1], [.read, .write]), 0, 6)
    let parameters = create(.threadParameters, thread)
    letOthersRun(milliseconds: 20)
    checks.expect(
      "a thread of lower priority waits", pollux_word_load(pages[0]) > 0 && pollux_word_load(pages[1]) == 0)
    checks.expect("its priority is raised by token", write(parameters, ThreadPage.priority, 9) == 0)
    let before = pollux_word_load(pages[0])
    letOthersRun(milliseconds: 20)
    checks.expect(
      "and it has the processor", pollux_word_load(pages[1]) > 0 && pollux_word_load(pages[0]) == before)
    for process in [spinner, starved] {
      _ = must(.processKill, process, 0)
      _ = waitForEnd(process)
      _ = must(.handleClose, process)
    }
    _ = must(.handleClose, thread)
    for token in [parameters, pages[0], pages[1]] { drop(token) }
  }

  private static func accountPage(_ checks: inout Checks, _ code: TokenChildCode) {
    let holder = Holder(code, at: holderPages)
    checks.expect("the child serves", holder.call(.null) == 0)
    let token = create(.processAccount, holder.process)
    let observer = grant(holder.process, token, .read)
    checks.expect(
      "an account is made once", .exists, raw(.tokenCreate, UInt64(TokenKind.processAccount.rawValue), holder.process))
    let used = pollux_word_load(token + AccountPage.used)
    checks.expect("no budget at first", pollux_word_load(token + AccountPage.budget) == .max)
    checks.expect("a budget below a page is refused", .badArgument, write(token, AccountPage.budget, 4095))
    checks.expect("what is used is not written", .denied, write(token, AccountPage.used, 0))
    checks.expect("a budget is written", write(token, AccountPage.budget, used + 8192) == 0)
    let first = holder.call(.memoryCreate, 4096)
    let second = holder.call(.memoryCreate, 4096)
    checks.expect("memory within it is given", first > 0 && second > 0)
    checks.expect("beyond it is refused", .noMemory, holder.call(.memoryCreate, 4096))
    checks.expect(
      "the page counts",
      pollux_word_load(token + AccountPage.used) == used + 8192
        && pollux_word_load(token + AccountPage.refusals) == 1)
    checks.expect("others are not affected", raw(.handleClose, must(.memoryCreate, 4096)) == 0)
    _ = holder.call(.handleClose, UInt64(max(0, first)))
    checks.expect("what is given back counts", pollux_word_load(token + AccountPage.used) == used + 4096)
    checks.expect("and can be had again", holder.call(.memoryCreate, 4096) > 0)
    checks.expect("the peak stays", pollux_word_load(token + AccountPage.peak) == used + 8192)
    checks.expect("the observed reads its account", holder.canRead(observer) && !holder.canWrite(observer))
    // The vector lies on the page that the calls pass through, which the test can fill.
    for (index, word) in [observer, AccountPage.budget, UInt64.max].enumerated() {
      pollux_word_store(holderPages + 128 + UInt64(index) * 8, word)
    }
    checks.expect("but does not write it", .denied, holder.call(.tokenWrite, 0x90_0000 + 128, 1))
    checks.expect("the budget stands", pollux_word_load(token + AccountPage.budget) == used + 8192)
    holder.end()
    checks.expect("the account tells that the process ended", pollux_word_load(token + AccountPage.hasEnded) == 1)
    checks.expect("and takes no more", .notFound, write(token, AccountPage.budget, .max))
    drop(token)
  }

  private static func notificationPage(_ checks: inout Checks, _ code: TokenChildCode) {
    do throws(SystemError) {
      let notification = try TokenNotification.create()
      notification.signal(5)
      notification.signal(8)
      checks.expect("bits add up on the page and are taken", notification.poll() == 13 && notification.poll() == 0)
      notification.signal(2)
      checks.expect("waiting takes what is there", try notification.wait(until: 0) == 2)
      checks.expect("a wait by token times out", try notification.wait(until: deadline(milliseconds: 5)) == 0)
      pollux_word_store(notification.token.address, 1 << 63 | 4)
      checks.expect("bit 63 is ignored", raw(.tokenWait, notification.token.address, 0) == 4)
      checks.expect("and refused", .badArgument, raw(.tokenSignal, notification.token.address, 1 << 63))

      // A waiter in this process, woken by a store.
      let got = SharedCounters()
      let address = notification.token.address
      start(10) { got.add(0, UInt64(max(0, raw(.tokenWait, address, .max)))) }
      checks.expect(
        "the page says that somebody waits", soon { notification.token.load(NotificationPage.waiters) == 1 })
      notification.signal(0x40)
      checks.expect("a store and a look at the page wake a waiter", soon { got.value(0) == 0x40 })
      checks.expect("nobody waits now", notification.token.load(NotificationPage.waiters) == 0)

      // The kernel signals the page: a watched process ends.
      let handle = must(.tokenHandle, address)
      checks.expect("the handle only signals", .denied, raw(.notificationPoll, handle))
      let child = code.process()
      _ = must(.processWatch, child, handle, 0x100)
      code.start(child, token_offset_store_once(), 0)
      _ = waitForEnd(child)
      checks.expect("the kernel's own signals are polled on the page", notification.poll() == 0x100)
      _ = must(.handleClose, child)

      // A waiter whose token is taken.
      let waiter = code.process()
      let there = grant(waiter, address, [.read, .write])
      code.start(waiter, token_offset_wait(), there)
      letOthersRun(milliseconds: 5)
      checks.expect("a process waits by token", raw(.processStatus, waiter) == 0)
      _ = must(.tokenNarrow, address, waiter, there, UInt64(TokenRights.read.rawValue))
      checks.expect(
        "a waiter that loses its right learns it",
        waitForEnd(waiter) == .exited(UInt32(-SystemError.notFound.rawValue)))
      _ = must(.handleClose, waiter)
      drop(address)
      checks.expect("a handle outlives the page", raw(.notificationSignal, handle, 1) == 0)
      _ = must(.handleClose, handle)
    } catch {
      checks.expect("notifications by token work", false)
    }
  }

  // MARK: Faults and deaths

  private static func faults(_ checks: inout Checks, _ code: TokenChildCode) {
    let token = create(.ring)
    let writer = code.process()
    code.start(writer, token_offset_store_once(), grant(writer, token, [.read, .write]))
    checks.expect("a writer stores", waitForEnd(writer) == .exited(7) && pollux_word_load(token) == 1)
    let reader = code.process()
    code.start(reader, token_offset_store_once(), grant(reader, token, .read))
    checks.expect("a reader that stores faults", waitForEnd(reader) == .faulted(vector: 14))
    let stranger = code.process()
    code.start(stranger, token_offset_store_once(), token)
    checks.expect("who stores to another's token faults", waitForEnd(stranger) == .faulted(vector: 14))
    let revoked = code.process()
    let there = grant(revoked, token, .read)
    code.start(revoked, token_offset_load(), there)
    letOthersRun(milliseconds: 3)
    checks.expect("a reader loads", raw(.processStatus, revoked) == 0)
    _ = must(.tokenRevoke, token, revoked, there)
    checks.expect("until it is revoked", waitForEnd(revoked) == .faulted(vector: 14))
    for child in [writer, reader, stranger, revoked] { _ = must(.handleClose, child) }
    drop(token)
  }

  private static func deaths(_ checks: inout Checks, _ code: TokenChildCode) {
    func round() {
      // The middle of a chain dies, then its end, then the first token goes; and a process that never started.
      let (middle, last) = (Holder(code, at: holderPages), Holder(code, at: holderPages + (1 << 21)))
      let token = create(.ring)
      let account = create(.processAccount, middle.process)
      _ = grant(middle.process, account, .read)
      let between = grant(middle.process, token, .all)
      let handle = must(.handleGrant, middle.process, last.process, UInt64(Rights.all.rawValue), 0)
      let there = UInt64(bitPattern: middle.call(.tokenGrant, handle, between, UInt64(TokenRights.read.rawValue)))
      let own = UInt64(bitPattern: middle.call(.tokenCreate, UInt64(TokenKind.notification.rawValue)))
      _ = middle.call(.tokenGrant, handle, own, 1)
      let idle = code.process()
      _ = grant(idle, token, .read)
      _ = grant(idle, create(.processAccount, idle), .read)
      if TokenInfo(rawValue: must(.tokenQuery, token)).derived != 3 { failed = true }
      middle.end()
      if TokenInfo(rawValue: must(.tokenQuery, token)).derived != 2 || !last.canRead(there) { failed = true }
      _ = must(.tokenRevoke, token, 0, 0)
      if last.canRead(there) { failed = true }
      last.end()
      _ = must(.handleClose, idle)
      for slot in 0..<AddressSpace.tokenSlots {
        _ = raw(.tokenRevoke, AddressSpace.tokenStart + slot * 4096, 0, AddressSpace.tokenStart + slot * 4096)
      }
    }
    var failed = false
    for _ in 0..<3 { round() }
    let before = free
    for _ in 0..<8 { round() }
    checks.expect("what a dead holder passed on belongs to who it had it from", !failed)
    checks.expect("dead holders leave no frame behind", free == before)
  }

  // MARK: Several processors

  static func onProcessors(_ checks: inout Checks) {
    let code = TokenChildCode()
    let count = must(.systemQuery, SystemQuery.processorCount.rawValue)
    var (faulted, quiet, stored) = (true, true, true)
    for round in 0..<6 {
      let token = create(.ring)
      var children: [UInt64] = []
      for index in 0..<max(2, count) {
        let child = code.process()
        let isWriter = (UInt64(round) + index) % 2 == 0
        let there = grant(child, token, isWriter ? [.read, .write] : .read)
        code.start(child, isWriter ? token_offset_store() : token_offset_load(), there, priority: 5)
        children.append(child)
      }
      _ = must(.threadSleep, deadline(milliseconds: 20))
      stored = soon { pollux_word_load(token) > 0 } && stored
      for child in children { faulted = faulted && raw(.processStatus, child) == 0 }
      if round % 3 == 2 {
        // Writers lose writing only; then readers lose reading.
        for child in children {
          for slot in 0..<2 {
            _ = raw(.tokenNarrow, token, child, AddressSpace.tokenStart + UInt64(slot) * 4096, 1)
          }
        }
      } else {
        _ = must(.tokenRevoke, token, 0, 0)
      }
      let value = pollux_word_load(token)
      let end = deadline(milliseconds: 3)
      while pollux_time_stamp() < end { quiet = quiet && pollux_word_load(token) == value }
      _ = must(.tokenRevoke, token, 0, 0)
      for child in children {
        faulted = faulted && waitForEnd(child) == .faulted(vector: 14)
        _ = must(.handleClose, child)
      }
      drop(token)
    }
    checks.expect("before a revocation its holders store", stored)
    checks.expect("after a revocation no processor stores", quiet)
    checks.expect("and every one that touches the page faults", faulted)

    var fuzzer = TokenFuzzer(code: code)
    // The same calls twice: the first time the heaps grow to their size.
    let steps = fuzzer.round(milliseconds: 3000, limit: 800)
    let before = free
    _ = fuzzer.round(milliseconds: 30_000, limit: steps)
    checks.note("token-fuzz-steps", steps)
    checks.expect("random token calls of several processes agree with the model", !fuzzer.hasDiverged && steps > 20)
    checks.expect("and leave no frame behind", free == before)

    func wild() {
      for seed in 1...UInt64(4) {
        var children: [UInt64] = []
        let token = create(.ring)
        for index in 0..<UInt64(3) {
          let child = code.process()
          let all = UInt64(Rights.all.rawValue)
          _ = must(.handleGrant, child, child, all, 0)
          for other in children { _ = must(.handleGrant, child, other, all, 0) }
          _ = grant(child, token, .all)
          code.start(child, token_offset_random(), (seed &* 7 &+ index) &* 0x9e37_79b9_7f4a_7c15, priority: 5)
          children.append(child)
        }
        _ = must(.threadSleep, deadline(milliseconds: 20))
        _ = must(.tokenRevoke, token, 0, 0)
        _ = must(.threadSleep, deadline(milliseconds: 5))
        for child in children {
          _ = raw(.processKill, child, 1)
          _ = waitForEnd(child)
          _ = must(.handleClose, child)
        }
        drop(token)
      }
    }
    for _ in 0..<2 { wild() }
    // The tables of the kernel's heap have their size now.
    let start = free
    wild()
    let lost = start &- free
    checks.note("token-wild-frames", lost / 4096)
    checks.expect("random token calls do no harm and leave no frame behind", lost == 0)
    code.close()
  }
}

/// Random calls of four processes, one of them the test, against a list of what every token should be.
private struct TokenFuzzer {
  private struct Row {
    var parent: Int
    var holder: Int
    var address: UInt64
    var rights: TokenRights
    var isThere = true
  }
  let code: TokenChildCode
  private var rows: [Row] = []
  private var state: UInt64 = 0x2545_f491_4f6c_dd1d
  private(set) var hasDiverged = false

  init(code: TokenChildCode) { self.code = code }

  private mutating func random(_ bound: UInt64) -> UInt64 {
    state ^= state << 13
    state ^= state >> 7
    state ^= state << 17
    return (state >> 16) % bound
  }

  private func isDerived(_ row: Int, from ancestor: Int) -> Bool {
    var current = row
    while current >= 0 {
      if current == ancestor { return true }
      current = rows[current].parent
    }
    return false
  }

  private mutating func expect(_ holds: Bool) { if !holds { hasDiverged = true } }

  /// Any row of a holder, a taken one too; -1: none.
  private mutating func some(of holder: Int) -> Int {
    var found = -1
    var seen: UInt64 = 0
    for index in rows.indices where rows[index].holder == holder {
      // A row of an address that has been given to another since is not asked for.
      guard rows[index].isThere || !isReused(index) else { continue }
      seen += 1
      if random(seen) == 0 { found = index }
    }
    return found
  }
  private func isReused(_ row: Int) -> Bool {
    for index in rows.indices
    where rows[index].isThere && rows[index].holder == rows[row].holder && rows[index].address == rows[row].address {
      return true
    }
    return false
  }

  mutating func round(milliseconds: UInt64, limit: UInt64) -> UInt64 {
    state = 0x2545_f491_4f6c_dd1d
    rows.reserveCapacity(1024)
    var holders = [Holder.itself]
    for index in 0..<UInt64(3) { holders.append(Holder(code, at: 0x42_0000_0000 + index << 21)) }
    // Handles that every child has of the others, by number of the holder.
    var handles: [[UInt64]] = []
    for from in holders {
      var row: [UInt64] = []
      for to in holders {
        if from.process == 0 || to.process == 0 || from.process == to.process {
          row.append(from.process == to.process ? 0 : to.process)
        } else {
          row.append(must(.handleGrant, from.process, to.process, UInt64(Rights.all.rawValue), 0))
        }
      }
      handles.append(row)
    }
    rows.removeAll(keepingCapacity: true)
    let end = deadline(milliseconds: milliseconds)
    var steps: UInt64 = 0
    while pollux_time_stamp() < end, steps < limit, !hasDiverged {
      step(holders, handles)
      check(holders)
      steps += 1
    }
    for holder in holders where holder.process != 0 { holder.end() }
    for row in rows where row.holder == 0 && row.isThere { _ = raw(.tokenRevoke, row.address, 0, row.address) }
    return steps
  }

  private mutating func step(_ holders: [Holder], _ handles: [[UInt64]]) {
    let (caller, other) = (Int(random(4)), Int(random(4)))
    // The children have no handle of the test's process.
    let target = caller != 0 && other == 0 ? caller : other
    let handle = handles[caller][target]
    let (own, subject) = (some(of: caller), some(of: target))
    let rights = TokenRights(rawValue: UInt16(random(16)))
    let choice = random(10)
    if choice == 0 || own < 0 {
      let result = holders[caller].call(.tokenCreate, UInt64(TokenKind.ring.rawValue))
      expect(result > 0)
      rows.append(Row(parent: -1, holder: caller, address: UInt64(max(0, result)), rights: TokenKind.ring.rights))
    } else if choice < 6 {
      let row = rows[own]
      let result = holders[caller].call(.tokenGrant, handle, row.address, UInt64(rights.rawValue))
      if !row.isThere {
        expect(result == SystemError.notFound.rawValue)
      } else if !rights.contains(.read) {
        expect(result == SystemError.badArgument.rawValue)
      } else if !row.rights.contains(.grant) || !rights.isSubset(of: row.rights) {
        expect(result == SystemError.denied.rawValue)
      } else {
        expect(result > 0)
        rows.append(Row(parent: own, holder: target, address: UInt64(max(0, result)), rights: rights))
      }
    } else if subject >= 0 {
      let isAll = choice == 6
      let narrows = choice == 7 && rights.contains(.read)
      let (from, to) = (rows[own], rows[subject])
      let result =
        narrows
        ? holders[caller].call(.tokenNarrow, from.address, handle, to.address, UInt64(rights.rawValue))
        : holders[caller].call(.tokenRevoke, from.address, handle, isAll ? 0 : to.address)
      let isAllowed = from.isThere && (isAll || to.isThere && isDerived(subject, from: own))
      expect(result == (isAllowed ? 0 : SystemError.notFound.rawValue))
      guard isAllowed else { return }
      for index in rows.indices where isDerived(index, from: isAll ? own : subject) {
        if narrows {
          rows[index].rights.formIntersection(rights)
        } else if !isAll || index != own {
          rows[index].isThere = false
        }
      }
    }
  }

  /// One row, the call's and the page table's view of it.
  private mutating func check(_ holders: [Holder]) {
    let row = some(of: Int(random(4)))
    guard row >= 0 else { return }
    let (address, rights, isThere) = (rows[row].address, rows[row].rights, rows[row].isThere)
    let holder = holders[rows[row].holder]
    let result = holder.call(.tokenQuery, address)
    expect(holder.canRead(address) == isThere)
    expect(holder.canWrite(address) == (isThere && rights.contains(.write)))
    guard isThere else { return expect(result == SystemError.notFound.rawValue) }
    var derived: UInt64 = 0
    for index in rows.indices where index != row && rows[index].isThere && isDerived(index, from: row) { derived += 1 }
    expect(result == Int64(TokenInfo(kind: .ring, rights: rights, derived: derived).rawValue))
  }
}
