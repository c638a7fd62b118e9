// Address tokens as a program uses them (HongMeng §4.4; PolluxABI, Tokens.swift): the object's page is there at the token's address,
// so reading is a load, and writing is a store or, where the page is read-only, a verified vectored write.

import CPollux

/// A token of this process. Copies are the same token; it is valid until it is revoked or given up, and using its page after that
/// faults, as does storing to a page that is read-only here.
public struct Token: Equatable, Sendable {
  /// Guest-virtual address of the object's page.
  public let address: UInt64

  /// A token that another process granted to this one and told it of.
  public init(_ address: UInt64) { self.address = address }

  /// A new object, with all rights of its kind. `object`: the thread or process that the kinds `threadParameters` and
  /// `processAccount` are about (default: the caller's own).
  public static func create(_ kind: TokenKind, of object: Handle = Handle(0)) throws(SystemError) -> Token {
    Token(try invoke(.tokenCreate, UInt64(kind.rawValue), object.rawValue))
  }

  /// Derives a token for another process (default: another one for this process), with some of this one's rights; its address
  /// there, to be told to that process.
  public func grant(
    to process: Handle = Handle(0), _ rights: TokenRights
  ) throws(SystemError) -> UInt64 {
    try invoke(.tokenGrant, process.rawValue, address, UInt64(rights.rawValue))
  }

  /// Takes all tokens that were derived from this one. No processor can use them any more when this returns.
  public func revokeDerived() throws(SystemError) {
    _ = try invoke(.tokenRevoke, address, 0, 0)
  }

  /// Takes the token at `other` in `process`, which was derived from this one, and all derived from it.
  public func revoke(_ other: UInt64, of process: Handle) throws(SystemError) {
    _ = try invoke(.tokenRevoke, address, process.rawValue, other)
  }

  /// Gives this token up, with all derived from it.
  public func drop() { do throws(SystemError) { _ = try invoke(.tokenRevoke, address, 0, address) } catch {} }

  /// Leaves this token and all derived from it at most `rights`.
  public func narrow(to rights: TokenRights) throws(SystemError) {
    _ = try invoke(.tokenNarrow, address, 0, 0, UInt64(rights.rawValue))
  }

  /// Leaves the token at `other` in `process`, which was derived from this one, and all derived from it, at most `rights`.
  public func narrow(_ other: UInt64, of process: Handle, to rights: TokenRights) throws(SystemError) {
    _ = try invoke(.tokenNarrow, address, process.rawValue, other, UInt64(rights.rawValue))
  }

  /// Kind, rights, and how many tokens were derived from this one.
  public func info() throws(SystemError) -> TokenInfo { TokenInfo(rawValue: try invoke(.tokenQuery, address)) }

  /// A handle on the object: `tokenHandle`.
  public func handle() throws(SystemError) -> Handle { Handle(try invoke(.tokenHandle, address)) }

  /// Reads a word of the object behind a handle, or with `value` writes it and gives 0: one system call (`tokenAccess`).
  public static func access(_ handle: Handle, _ offset: UInt64, _ value: UInt64?) throws(SystemError) -> UInt64 {
    try invoke(.tokenAccess, handle.rawValue, offset, value == nil ? 0 : 1, value ?? 0)
  }

  // MARK: The page

  /// The word at a byte offset of the page (`RingPage`, `ThreadPage`, …): one load.
  @inline(__always)
  public func load(_ offset: UInt64) -> UInt64 { pollux_word_load(address + offset) }

  /// Writes a word of a page that is read-write here: one store.
  @inline(__always)
  public func store(_ value: UInt64, at offset: UInt64) { pollux_word_store(address + offset, value) }

  /// Has the kernel write a word of a page that is read-only here.
  public func update(_ offset: UInt64, to value: UInt64) throws(SystemError) {
    _ = try invoke(.tokenUpdate, address, offset, value)
  }

  /// Has the kernel write several words of objects: all of them, or none and an error.
  public static func write(_ updates: [TokenUpdate]) throws(SystemError) {
    // The kernel reads the elements during the call only.
    let result = updates.withUnsafeBufferPointer { buffer in
      pollux_system_call(
        SystemCall.tokenWrite.rawValue, UInt64(UInt(bitPattern: buffer.baseAddress)), UInt64(buffer.count), 0, 0, 0, 0)
    }
    if result < 0 { throw SystemError(rawValue: result) ?? .badCall }
  }
}

/// A notification by token: signalled and taken without the kernel, unless somebody waits.
public struct TokenNotification: Sendable {
  public let token: Token
  /// By a token of the kind `notification` with the right `write`.
  public init(_ token: Token) { self.token = token }
  public static func create() throws(SystemError) -> TokenNotification {
    TokenNotification(try Token.create(.notification))
  }

  /// Adds bits 0…62.
  @inline(__always)
  public func signal(_ bits: UInt64) {
    pollux_word_or(token.address + NotificationPage.bits, bits)
    if token.load(NotificationPage.waiters) != 0 { wake() }
  }
  private func wake() { do throws(SystemError) { _ = try invoke(.tokenSignal, token.address, 0) } catch {} }

  /// Takes the bits that are there.
  @inline(__always)
  public func poll() -> UInt64 {
    if token.load(NotificationPage.bits) == 0 { return 0 }
    return pollux_word_exchange(token.address + NotificationPage.bits, 0)
  }

  /// Waits for bits and takes them all; 0 at the deadline (a time-stamp).
  public func wait(until deadline: UInt64 = SystemCall.forever) throws(SystemError) -> UInt64 {
    let bits = poll()
    if bits != 0 { return bits }
    do throws(SystemError) { return try invoke(.tokenWait, token.address, deadline) } catch {
      if error == .timedOut { return 0 }
      throw error
    }
  }
}
