// A bounded first-in first-out queue of bytes that takes memory only while it holds something.

/// A ring of bytes that grows on demand up to `limit` and gives its memory back when it runs empty.
struct ByteQueue: Sendable {
  /// The largest number of bytes that the queue will hold.
  let limit: Int
  private var storage: [UInt8] = []
  private var head = 0
  private(set) var count = 0

  init(limit: Int) { self.limit = limit }

  var isEmpty: Bool { count == 0 }
  /// How many bytes can be added.
  var room: Int { limit - count }

  /// Adds one byte at the end; false, and nothing changes, when the queue is full.
  mutating func append(_ byte: UInt8) -> Bool {
    guard count < limit else { return false }
    if count == storage.count { grow(to: count + 1) }
    var tail = head + count
    if tail >= storage.count { tail -= storage.count }
    storage[tail] = byte
    count += 1
    return true
  }

  /// Adds as many of `bytes` as fit, in order, and returns how many that were.
  mutating func append(_ bytes: UnsafeRawBufferPointer) -> Int {
    let accepted = min(bytes.count, room)
    if count + accepted > storage.count { grow(to: count + accepted) }
    for index in 0..<accepted { _ = append(bytes[index]) }
    return accepted
  }

  /// Takes the oldest byte.
  mutating func popFirst() -> UInt8? {
    guard count > 0 else { return nil }
    let byte = storage[head]
    advance(by: 1)
    return byte
  }

  /// Moves the oldest bytes, at most `buffer.count` of them, into `buffer` and returns how many.
  mutating func take(into buffer: UnsafeMutableRawBufferPointer) -> Int {
    let total = min(count, buffer.count)
    var done = 0
    while done < total {
      let run = min(total - done, storage.count - head)
      storage.withUnsafeBytes { source in
        // Both ranges are in bounds: `run` is cut to what is left of the destination and of the ring before it wraps.
        let part = UnsafeRawBufferPointer(rebasing: source[head..<head + run])
        UnsafeMutableRawBufferPointer(rebasing: buffer[done..<done + run]).copyMemory(from: part)
      }
      done += run
      advance(by: run)
    }
    return total
  }

  /// Shows the oldest bytes, as many as lie in one piece, without taking them.
  func withFirstRun<Result, Failure: Error>(_ body: (UnsafeRawBufferPointer) throws(Failure) -> Result)
    throws(Failure) -> Result
  {
    var result: Swift.Result<Result, Failure>?
    storage.withUnsafeBytes { bytes in
      // In bounds: the run ends where the content or the ring ends.
      let run = UnsafeRawBufferPointer(rebasing: bytes[head..<head + min(count, storage.count - head)])
      result = Swift.Result { () throws(Failure) in try body(run) }
    }
    // The closure above ran exactly once.
    return try result.unsafelyUnwrapped.get()
  }

  /// Drops the oldest bytes, at most `amount` of them.
  mutating func dropFirst(_ amount: Int) { advance(by: max(0, min(amount, count))) }

  mutating func removeAll() {
    head = 0
    count = 0
    if storage.count > 4096 { storage = [] }
  }

  private mutating func advance(by amount: Int) {
    count -= amount
    if count == 0 { return removeAll() }
    head += amount
    if head >= storage.count { head -= storage.count }
  }

  private mutating func grow(to needed: Int) {
    var size = max(64, storage.count * 2)
    while size < needed { size *= 2 }
    var larger = [UInt8](repeating: 0, count: min(size, max(limit, needed)))
    let held = count
    larger.withUnsafeMutableBytes { destination in
      let first = min(held, storage.count - head)
      storage.withUnsafeBytes { source in
        // `first` bytes up to the end of the old ring, then the wrapped rest from its beginning; `larger` holds both.
        destination.copyBytes(from: source[head..<head + first])
        UnsafeMutableRawBufferPointer(rebasing: destination[first...]).copyBytes(from: source[0..<held - first])
      }
    }
    storage = larger
    head = 0
  }
}
