// Which words of a kernel object a verified write may change, and to what (HongMeng §4.4, Fig. 5b).
import PolluxABI

public enum TokenFields {
  /// Throws unless `value` may be written at `offset` of an object of this kind: `denied` where no field can be written or the
  /// caller's limit is below the value, `badArgument` for values that are never legal. `word` reads the object now;
  /// `priorityLimit` is the caller's own priority.
  @inline(__always)
  public static func check(
    _ kind: TokenKind, offset: UInt64, value: UInt64, priorityLimit: UInt8, word: (UInt64) -> UInt64
  ) throws(SystemError) {
    switch (kind, offset) {
    case (.ring, RingPage.head):
      let head = word(RingPage.head)
      guard value &- head <= word(RingPage.tail) &- head else { throw .badArgument }
    case (.threadParameters, ThreadPage.priority):
      guard value < 32 else { throw .badArgument }
      guard value <= UInt64(priorityLimit) else { throw .denied }
      guard word(ThreadPage.hasEnded) == 0 else { throw .notFound }
    case (.processAccount, AccountPage.budget):
      guard value >= AddressSpace.pageSize else { throw .badArgument }
      guard word(AccountPage.hasEnded) == 0 else { throw .notFound }
    default:
      guard offset & 7 == 0, offset < AddressSpace.pageSize else { throw .badArgument }
      throw .denied
    }
  }
}
