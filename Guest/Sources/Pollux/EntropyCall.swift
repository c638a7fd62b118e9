// What can be asked of the driver of an entropy device.

/// Word 0 of a call.
public enum EntropyCall: UInt64 {
  /// Bytes wanted in word 1 → `EntropyReply`, how many there are in word 1, and the bytes themselves from word 2 on; `largest` at most.
  case read = 0

  /// Bytes that one reply carries.
  public static let largest = 48
}

/// Word 0 of a reply.
public enum EntropyReply: UInt64 {
  case done = 0
  case badCall = 1
  /// The device gives nothing, even after a reset.
  case failed = 2
}
