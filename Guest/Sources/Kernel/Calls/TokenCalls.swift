// Address tokens (HongMeng §4.4, Fig. 5): kernel objects on pages of their own, the calls that pass tokens on and take them back, the
// verified vectored write, and the two kernel objects whose parameters lie on such pages: threads and processes' accounts.
import CArch
import KernelCore
import PolluxABI

/// A kernel object that tokens name.
struct TokenObject {
  let kind: TokenKind
  /// Tokens, handles and calls in progress.
  var references: UInt32
  /// Its page, guest-physical.
  let frame: UInt64
  /// Address of the thread or process whose page it is, and which refers back to it; 0 when that has ended.
  var subject: UInt64
  let notification: Reference<Notification>?
  /// Kernel-virtual address of the page.
  @inline(__always) var page: UInt64 { DirectMemory.address(frame) }
}

enum Tokens {
  /// An object on a fresh page, with one reference for the caller. `subject` must have no page yet.
  static func make(_ kind: TokenKind, subject: UInt64 = 0) throws(SystemError) -> Reference<TokenObject> {
    let notification =
      kind == .notification
      ? try kernel.pointee.heap.make(Notification(references: 1, bits: 0, page: 0, endpoint: nil)) : nil
    guard let frame = kernel.pointee.frames.allocate(size: 4096) else {
      if let notification { Objects.release(notification: notification) }
      throw .noMemory
    }
    let object: Reference<TokenObject>
    do throws(SystemError) {
      object = try kernel.pointee.heap.make(
        TokenObject(kind: kind, references: 1, frame: frame, subject: subject, notification: notification))
    } catch {
      kernel.pointee.frames.release(frame, size: 4096)
      if let notification { Objects.release(notification: notification) }
      throw error
    }
    kernel.pointee.tableFrames += 1
    notification?.pointee.page = object.pointee.page
    return object
  }

  /// The object goes with its last token.
  static func release(_ object: Reference<TokenObject>) {
    object.pointee.references -= 1
    guard object.pointee.references == 0 else { return }
    if let notification = object.pointee.notification {
      notification.pointee.page = 0
      Objects.release(notification: notification)
    }
    if object.pointee.subject != 0 {
      if object.pointee.kind == .threadParameters {
        Reference<Thread>(trusted: object.pointee.subject).pointee.parameters = nil
      } else {
        Reference<Process>(trusted: object.pointee.subject).pointee.account = nil
      }
    }
    kernel.pointee.frames.release(object.pointee.frame, size: 4096)
    kernel.pointee.tableFrames -= 1
    kernel.pointee.heap.destroy(object)
  }

  /// The token space of a process, made with its first token.
  static func space(of process: Reference<Process>) throws(SystemError) -> Reference<TokenSpace> {
    if let space = process.pointee.tokens { return space }
    // A service in kernel space is kept apart from others by what tokens do not know of.
    guard !process.pointee.space.isDomain else { throw .unsupported }
    var source = SpaceSource(process: process)
    guard let directory = source.allocateTable() else { throw .noMemory }
    do throws(SystemError) {
      let space = try kernel.pointee.heap.make(
        TokenSpace(directory: Reference(trusted: DirectMemory.address(directory)), holder: process.address))
      process.pointee.tokens = space
      process.pointee.tokenDirectory = directory
      return space
    } catch {
      source.releaseTable(directory)
      throw error
    }
  }

  /// Whether a range lies where a process has tokens.
  static func contain(_ address: UInt64, _ count: UInt64, of process: Reference<Process>) -> Bool {
    address >= AddressSpace.tokenStart && process.pointee.tokens != nil && count <= 4096
      && address <= AddressSpace.tokenStart + AddressSpace.tokenSlots * 4096 - count
  }

  /// A process has ended and no processor has translations of it.
  static func holderEnded(_ process: Reference<Process>) {
    if let account = process.pointee.account {
      process.pointee.account = nil
      account.pointee.subject = 0
      store64(account.pointee.page + AccountPage.hasEnded, 1)
    }
    guard let space = process.pointee.tokens else { return }
    var host = KernelTokens()
    TokenTree.abandon(space, host: &host)
    process.pointee.tokens = nil
    var source = SpaceSource(process: process)
    source.releaseTable(process.pointee.tokenDirectory)
    kernel.pointee.heap.destroy(space)
  }

  static func threadEnded(_ thread: Reference<Thread>) {
    guard let parameters = thread.pointee.parameters else { return }
    thread.pointee.parameters = nil
    parameters.pointee.subject = 0
    store64(parameters.pointee.page + ThreadPage.hasEnded, 1)
  }
}

/// What the token tree asks of the kernel.
struct KernelTokens: TokenHost {
  func allocateNode() -> Reference<TokenNode>? {
    guard let address = kernel.pointee.heap.allocate(MemoryLayout<TokenNode>.size) else { return nil }
    return Reference(trusted: address)
  }
  func releaseNode(_ node: Reference<TokenNode>) { kernel.pointee.heap.destroy(node) }

  private func holder(_ node: Reference<TokenNode>) -> Reference<Process> {
    Reference(trusted: node.pointee.space.pointee.holder)
  }

  private func leafFlags(_ rights: TokenRights, _ node: Reference<TokenNode>) -> UInt64 {
    Call.leafFlags(rights.contains(.write) ? [.read, .write] : .read, [], in: holder(node))
  }

  func map(_ node: Reference<TokenNode>) -> Bool {
    // A domain that shares the kernel's address space has no slot of its own for tokens.
    guard !holder(node).pointee.space.sharesKernel else { return false }
    var source = SpaceSource(process: holder(node))
    do throws(PageTableError) {
      try PageTable(memory: DirectMemory(), root: holder(node).pointee.pageTable).map(
        node.pointee.address, physical: Reference<TokenObject>(trusted: node.pointee.object).pointee.frame, size: 4096,
        flags: leafFlags(node.pointee.rights, node), source: &source)
      return true
    } catch { return false }
  }

  func remap(_ node: Reference<TokenNode>) -> Bool {
    let memory = DirectMemory()
    let table = PageTable(memory: memory, root: holder(node).pointee.pageTable)
    let rights = node.pointee.rights
    if !rights.contains(.write) { failWaiters(node) }
    guard let (slot, entry, _) = table.leaf(node.pointee.address) else { return false }
    let changed = rights.isEmpty ? 0 : entry & PageEntry.addressMask | leafFlags(rights, node)
    if entry == changed { return false }
    memory.store(slot, changed)
    return true
  }

  /// Threads that wait by a token that no longer allows it.
  private func failWaiters(_ node: Reference<TokenNode>) {
    guard let notification = Reference<TokenObject>(trusted: node.pointee.object).pointee.notification else { return }
    var next = notification.pointee.waiting.first
    while let waiter = next {
      next = waiter.pointee.queueLink.next
      guard waiter.pointee.process == holder(node) else { continue }
      notification.pointee.waiting.remove(waiter)
      waiter.pointee.frame.rax = UInt64(bitPattern: SystemError.notFound.rawValue)
      Scheduler.ready(waiter)
    }
  }

  func flush(_ space: Reference<TokenSpace>) {
    let root = Reference<Process>(trusted: space.pointee.holder).pointee.pageTable
    Scheduler.flush(root, replacement: root)
  }
  func retain(object: UInt64) { Reference<TokenObject>(trusted: object).pointee.references += 1 }
  func release(object: UInt64) { Tokens.release(Reference(trusted: object)) }
}

// MARK: What lies on the pages of threads and processes

extension Reference<Process> {
  /// Counts memory that the process is to have, within its budget.
  func charge(_ size: UInt64) throws(SystemError) {
    let used = pointee.memoryBytes &+ size
    guard used <= pointee.memoryBudget else {
      if let page = pointee.account?.pointee.page {
        store64(page + AccountPage.refusals, load64(page + AccountPage.refusals) &+ 1)
      }
      throw .noMemory
    }
    pointee.memoryBytes = used
    publishAccount()
  }

  func uncharge(_ size: UInt64) {
    pointee.memoryBytes &-= size
    publishAccount()
  }

  private func publishAccount() {
    guard let page = pointee.account?.pointee.page else { return }
    store64(page + AccountPage.used, pointee.memoryBytes)
    store64(page + AccountPage.peak, max(load64(page + AccountPage.peak), pointee.memoryBytes))
  }
}

extension Reference<Thread> {
  /// Gives a thread that has not ended another priority of its own, at once.
  func setOwnPriority(_ priority: UInt8) {
    pointee.ownPriority = priority
    if let parameters = pointee.parameters { store64(parameters.pointee.page + ThreadPage.priority, UInt64(priority)) }
    StackWaits.settle(self)
  }
}

// MARK: Calls

extension Call {
  /// The caller's token at an address that it alleges.
  private func token(_ address: UInt64) throws(SystemError) -> Reference<TokenNode> {
    guard let space = process.pointee.tokens else { throw .notFound }
    return try space.pointee.find(address)
  }

  private func tokenObject(
    _ address: UInt64, _ right: TokenRights
  ) throws(SystemError) -> Reference<TokenObject> {
    let node = try token(address)
    guard node.pointee.rights.contains(right) else { throw .denied }
    return Reference(trusted: node.pointee.object)
  }

  /// What `tokenRevoke` and its like are about: the caller's token, and the token of `second` at `third` that was derived from it,
  /// or nil for address 0.
  private func derivedToken() throws(SystemError) -> (own: Reference<TokenNode>, other: Reference<TokenNode>?) {
    let own = try token(first)
    if third == 0 { return (own, nil) }
    let holder: Reference<Process> = second == 0 ? process : try object(second, .process, [])
    guard let space = holder.pointee.tokens else { throw .notFound }
    let other = try space.pointee.find(third)
    guard TokenTree.isDerived(other, from: own) else { throw .notFound }
    return (own, other)
  }

  func tokenCreate() throws(SystemError) -> Int64 {
    guard let kind = UInt8(exactly: first).flatMap({ TokenKind(rawValue: $0) }) else { throw .badArgument }
    let space = try Tokens.space(of: process)
    let object: Reference<TokenObject>
    switch kind {
    case .notification, .ring:
      guard second == 0 else { throw .badArgument }
      object = try Tokens.make(kind)
    case .threadParameters:
      let subject: Reference<Thread> = second == 0 ? thread : try self.object(second, .thread, .manage)
      guard subject.pointee.state != .ended else { throw .notFound }
      guard subject.pointee.parameters == nil else { throw .exists }
      object = try Tokens.make(kind, subject: subject.address)
      subject.pointee.parameters = object
      let page = object.pointee.page
      store64(page + ThreadPage.priority, UInt64(subject.pointee.ownPriority))
      store64(page + ThreadPage.thread, UInt64(subject.pointee.identifier))
      store64(page + ThreadPage.process, UInt64(subject.pointee.process.pointee.identifier))
    case .processAccount:
      let subject = try target(second)
      guard subject.pointee.account == nil else { throw .exists }
      object = try Tokens.make(kind, subject: subject.address)
      subject.pointee.account = object
      let page = object.pointee.page
      store64(page + AccountPage.budget, subject.pointee.memoryBudget)
      store64(page + AccountPage.used, subject.pointee.memoryBytes)
      store64(page + AccountPage.peak, subject.pointee.memoryBytes)
      store64(page + AccountPage.process, UInt64(subject.pointee.identifier))
    }
    // The token counts on the object itself.
    defer { Tokens.release(object) }
    var host = KernelTokens()
    return Int64(try TokenTree.add(object.address, from: nil, to: space, kind.rights, host: &host).pointee.address)
  }

  func tokenGrant() throws(SystemError) -> Int64 {
    let target = try target(first)
    let parent = try token(second)
    guard third <= UInt64(TokenRights.all.rawValue) else { throw .badArgument }
    let rights = TokenRights(rawValue: UInt16(third))
    let space = try Tokens.space(of: target)
    var host = KernelTokens()
    let node = try TokenTree.add(parent.pointee.object, from: parent, to: space, rights, host: &host)
    return Int64(node.pointee.address)
  }

  func tokenRevoke() throws(SystemError) -> Int64 {
    let (own, other) = try derivedToken()
    var host = KernelTokens()
    if let other { TokenTree.restrict(other, to: [], host: &host) } else { TokenTree.revokeDerived(own, host: &host) }
    return 0
  }

  func tokenNarrow() throws(SystemError) -> Int64 {
    let (own, other) = try derivedToken()
    let rights = TokenRights(rawValue: UInt16(truncatingIfNeeded: fourth))
    guard fourth <= UInt64(TokenRights.all.rawValue), rights.contains(.read) else { throw .badArgument }
    var host = KernelTokens()
    TokenTree.restrict(other ?? own, to: rights, host: &host)
    return 0
  }

  func tokenQuery() throws(SystemError) -> Int64 {
    let (own, other) = try derivedToken()
    let node = other ?? own
    let object = Reference<TokenObject>(trusted: node.pointee.object)
    let info = TokenInfo(
      kind: object.pointee.kind, rights: node.pointee.rights, derived: TokenTree.derivedCount(node))
    return Int64(info.rawValue)
  }

  // MARK: The verified vectored write

  func tokenWrite() throws(SystemError) -> Int64 {
    let count = second
    guard count <= TokenUpdate.limit else { throw .badArgument }
    var vector = UserWords(try UserBytes(process, first, count * UInt64(MemoryLayout<TokenUpdate>.stride)))
    // The vector is read once; what other threads do to it meanwhile has no effect.
    var updates = InlineArray<16, (object: Reference<TokenObject>?, offset: UInt64, value: UInt64)>(
      repeating: (nil, 0, 0))
    for index in 0..<Int(count) {
      let object = try tokenObject(try vector.next(), .update)
      let (offset, value) = (try vector.next(), try vector.next())
      try check(object, offset, value)
      for earlier in 0..<index where updates[earlier].object == object && updates[earlier].offset == offset {
        throw .badArgument
      }
      updates[index] = (object, offset, value)
    }
    for index in 0..<Int(count) {
      if let object = updates[index].object { apply(object, updates[index].offset, updates[index].value) }
    }
    return 0
  }

  func tokenUpdate() throws(SystemError) -> Int64 {
    let object = try tokenObject(first, .update)
    try check(object, second, third)
    apply(object, second, third)
    return 0
  }

  @inline(__always)
  private func check(_ object: Reference<TokenObject>, _ offset: UInt64, _ value: UInt64) throws(SystemError) {
    let page = object.pointee.page
    try TokenFields.check(
      object.pointee.kind, offset: offset, value: value, priorityLimit: thread.pointee.ownPriority,
      word: { load64(page + $0) })
  }

  /// Writes a word that was checked, and has the kernel obey it.
  @inline(__always)
  private func apply(_ object: Reference<TokenObject>, _ offset: UInt64, _ value: UInt64) {
    store64(object.pointee.page + offset, value)
    switch object.pointee.kind {
    case .threadParameters:
      Reference<Thread>(trusted: object.pointee.subject).setOwnPriority(UInt8(truncatingIfNeeded: value))
    case .processAccount: Reference<Process>(trusted: object.pointee.subject).pointee.memoryBudget = value
    case .notification, .ring: break
    }
  }

  // MARK: Notifications whose bits lie on a page

  private func tokenNotification() throws(SystemError) -> Reference<Notification> {
    guard let notification = try tokenObject(first, .write).pointee.notification else { throw .wrongKind }
    return notification
  }

  func tokenWait() throws(SystemError) -> Int64? {
    let notification = try tokenNotification()
    // First the mark, then a look at the bits: who sets a bit does it the other way round.
    store64(notification.pointee.page + NotificationPage.waiters, 1)
    let bits = wait(on: notification, deadline: second)
    // It was not needed: the bits were there.
    if bits != nil, notification.pointee.waiting.isEmpty {
      store64(notification.pointee.page + NotificationPage.waiters, 0)
    }
    return bits
  }

  func tokenSignal() throws(SystemError) -> Int64 {
    let notification = try tokenNotification()
    guard second <= .max >> 1 else { throw .badArgument }
    notification.signal(second)
    if notification.pointee.waiting.isEmpty { store64(notification.pointee.page + NotificationPage.waiters, 0) }
    return 0
  }

  // MARK: The capability table that tokens are measured against (Fig. 6)

  func tokenHandle() throws(SystemError) -> Int64 {
    let node = try token(first)
    guard node.pointee.parent == nil else { throw .denied }
    let object = Reference<TokenObject>(trusted: node.pointee.object)
    if let notification = object.pointee.notification {
      notification.pointee.references += 1
      return try install(notification.address, .notification, [.signal, .grant])
    }
    object.pointee.references += 1
    return try install(object.address, .token)
  }

  func tokenAccess() throws(SystemError) -> Int64 {
    let object: Reference<TokenObject> = try object(first, .token, third == 0 ? .read : .write)
    let offset = second
    guard offset & 7 == 0, offset < 4096 else { throw .badArgument }
    guard third != 0 else { return Int64(load64(object.pointee.page + offset) & .max >> 1) }
    if object.pointee.kind != .ring { try check(object, offset, fourth) }
    apply(object, offset, fourth)
    return 0
  }
}

/// The words of a vector in user memory, one after the other: each page is looked up once.
private struct UserWords {
  let bytes: UserBytes
  private var offset: UInt64 = 0
  /// Kernel-virtual address of the next word, and bytes from there to the page's or the vector's end.
  private var run: (address: UInt64, count: UInt64) = (0, 0)

  init(_ bytes: UserBytes) { self.bytes = bytes }

  mutating func next() throws(SystemError) -> UInt64 {
    if run.count == 0 {
      guard bytes.address & 7 == 0 else { throw .badArgument }
      run = try bytes.run(at: offset, forWriting: false)
    }
    let word = load64(run.address)
    run = (run.address + 8, run.count - 8)
    offset += 8
    return word
  }
}
