// What can be asked of an echo service (Guest/Sources/Echo).

/// Word 0 of a call to an echo service.
public enum EchoRequest: UInt64 {
  /// → words 0 and 1 as they came.
  case echo = 0
  /// The name of another echo service in words 1–2, a count in word 3 → word 0: 0 or a `SystemError`, word 1: ticks that so many calls of
  /// it took.
  case measure = 1
}
