// Address tokens (HongMeng §4.4, Fig. 5): which kernel objects live on pages of their own, where these pages appear in their
// holders, and what lies on them.
//
// A token is the guest-virtual address at which its holder sees the object's page, so holding the mapping is the right. The
// kernel chooses the address, in a part of the address space where nothing else can be mapped (`AddressSpace.tokenStart`).

extension AddressSpace {
  /// First address of the part of every address space that only tokens are mapped in: PML4 slot 252.
  public static let tokenStart: UInt64 = 252 << 39
  /// Tokens that one process can hold. An address that was given up is not used again before all others have been.
  public static let tokenSlots: UInt64 = 512
}

/// Kinds of object that tokens name.
public enum TokenKind: UInt8, Sendable {
  /// A set of 63 bits (`NotificationPage`), signalled and taken by atomic instructions; waiting is a system call. Read-write.
  case notification = 1
  /// A page that its holders manage together (`RingPage`). Read-write; a holder of a read-only token with `update` may only
  /// move the consumer's index forward.
  case ring = 2
  /// How a thread is scheduled (`ThreadPage`). Read-only.
  case threadParameters = 3
  /// What memory a process has and may have (`AccountPage`). Read-only.
  case processAccount = 4

  /// What the creator of such an object gets.
  @inlinable public var rights: TokenRights {
    switch self {
    case .notification: [.read, .write, .grant]
    case .ring: [.read, .write, .update, .grant]
    case .threadParameters, .processAccount: [.read, .update, .grant]
    }
  }
}

/// What the holder of a token may do. A token that is passed on has some of these rights, never others.
public struct TokenRights: OptionSet, Sendable {
  public let rawValue: UInt16
  @inlinable public init(rawValue: UInt16) { self.rawValue = rawValue }
  /// The page is mapped. No token is without it.
  public static let read = TokenRights(rawValue: 1)
  /// The page is mapped writable.
  public static let write = TokenRights(rawValue: 2)
  /// `tokenWrite` is allowed on the fields that the object's kind declares.
  public static let update = TokenRights(rawValue: 4)
  /// Others may be given tokens derived from this one.
  public static let grant = TokenRights(rawValue: 8)
  public static let all = TokenRights(rawValue: 15)
}

/// Byte offsets on the page of a notification.
public enum NotificationPage {
  /// The bits that are set and not yet taken. Bit 63 is ignored.
  public static let bits: UInt64 = 0
  /// Not 0: a thread may be waiting, so who sets a bit calls `tokenSignal` with 0 afterwards.
  public static let waiters: UInt64 = 8
}

/// Byte offsets on a ring page. Both indices count entries since the beginning and wrap at 2^64.
public enum RingPage {
  /// The consumer's index; `tokenWrite` may raise it up to the producer's.
  public static let head: UInt64 = 0
  /// The producer's index.
  public static let tail: UInt64 = 8
  /// The entries, to the end of the page; their layout is their users' affair.
  public static let entries: UInt64 = 64
}

/// Byte offsets on the page of a thread.
public enum ThreadPage {
  /// Its priority; `tokenWrite` may set it, to the caller's own at most.
  public static let priority: UInt64 = 0
  /// Identifiers as in `ThreadInfo`.
  public static let thread: UInt64 = 8
  public static let process: UInt64 = 16
  /// 1 when the thread has ended; writes are refused from then on.
  public static let hasEnded: UInt64 = 24
}

/// Byte offsets on the page of a process's account.
public enum AccountPage {
  /// Bytes that its memory objects may take together; `tokenWrite` may set it (at least a page). More is refused by
  /// `memoryCreate` with `noMemory`. A budget below `used` takes nothing away.
  public static let budget: UInt64 = 0
  /// Bytes that they take now, and took at most since the page was made.
  public static let used: UInt64 = 8
  public static let peak: UInt64 = 16
  /// How often memory was refused because of the budget.
  public static let refusals: UInt64 = 24
  /// Identifier as in `ProcessInfo`.
  public static let process: UInt64 = 32
  /// 1 when the process has ended; writes are refused from then on.
  public static let hasEnded: UInt64 = 40
}

/// One element of the vector that `tokenWrite` takes: 24 bytes.
public struct TokenUpdate: Sendable, BitwiseCopyable {
  public var token: UInt64
  /// Of a 64-bit word on the page.
  public var offset: UInt64
  public var value: UInt64
  @inlinable public init(token: UInt64, offset: UInt64, value: UInt64) {
    self.token = token
    self.offset = offset
    self.value = value
  }
  /// Elements that one call takes at most.
  public static let limit: UInt64 = 16
}

/// Result of `tokenQuery`.
public struct TokenInfo: RawRepresentable, Equatable, Sendable {
  public let rawValue: UInt64
  public init(rawValue: UInt64) { self.rawValue = rawValue }
  public init(kind: TokenKind, rights: TokenRights, derived: UInt64) {
    rawValue = UInt64(kind.rawValue) | UInt64(rights.rawValue) << 8 | derived << 16
  }
  public var kind: TokenKind? { TokenKind(rawValue: UInt8(truncatingIfNeeded: rawValue)) }
  public var rights: TokenRights { TokenRights(rawValue: UInt16(rawValue >> 8 & 0xff)) }
  /// Tokens derived from this one, in any process, directly or not.
  public var derived: UInt64 { rawValue >> 16 }
}
