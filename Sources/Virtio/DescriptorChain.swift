// One request's buffers, after every descriptor of its chain was checked: host addresses, readable part first.

import Glibc

/// The buffers of one descriptor chain as host memory. Storage is reused: a chain that was filled once is filled again
/// without allocation. The bytes belong to guest RAM; the guest can change them at any time.
public struct DescriptorChain: ~Copyable {
  /// Index of the chain's first descriptor, which identifies it in the used ring.
  public internal(set) var head: UInt16 = 0
  /// Bytes left in the readable (driver to device) part.
  public private(set) var readableCount = 0
  /// Bytes left in the writable (device to driver) part.
  public private(set) var writableCount = 0

  private var segments: UnsafeMutablePointer<iovec>
  private var capacity: Int
  private var firstReadable = 0
  private var endReadable = 0
  private var firstWritable = 0
  private var end = 0

  /// Room for `capacity` segments at first; grows when a chain needs more.
  public init(capacity: Int = 4) {
    self.capacity = max(1, capacity)
    segments = .allocate(capacity: self.capacity)
  }

  // Safe: `segments` is allocated in `init` and `grow`, owned by this non-copyable value alone, and trivial.
  deinit { segments.deallocate() }

  /// The readable segments not yet consumed. Valid until the chain is changed or filled again.
  public var readable: UnsafeMutableBufferPointer<iovec> {
    UnsafeMutableBufferPointer(start: segments + firstReadable, count: endReadable - firstReadable)
  }

  /// The writable segments not yet consumed. Valid until the chain is changed or filled again.
  public var writable: UnsafeMutableBufferPointer<iovec> {
    UnsafeMutableBufferPointer(start: segments + firstWritable, count: end - firstWritable)
  }

  mutating func removeAll(head: UInt16) {
    self.head = head
    (readableCount, writableCount) = (0, 0)
    (firstReadable, endReadable, firstWritable, end) = (0, 0, 0, 0)
  }

  /// Adds a segment. Readable segments come before all writable ones; the caller checked that.
  mutating func append(_ base: UnsafeMutableRawPointer?, count: Int, writable: Bool) {
    if end == capacity { grow() }
    // Safe: end < capacity after growing.
    segments[end] = iovec(iov_base: base, iov_len: count)
    end += 1
    if writable {
      writableCount += count
    } else {
      readableCount += count
      endReadable = end
      firstWritable = end
    }
  }

  private mutating func grow() {
    let larger = UnsafeMutablePointer<iovec>.allocate(capacity: capacity * 4)
    larger.update(from: segments, count: end)
    segments.deallocate()
    segments = larger
    capacity *= 4
  }

  /// Copies the first bytes of the readable part to `target` and removes them from the chain.
  /// - Returns: false, and leaves the chain alone, when the readable part is shorter than `target`.
  public mutating func takeReadable(into target: UnsafeMutableRawBufferPointer) -> Bool {
    guard readableCount >= target.count else { return false }
    var done = 0
    while done < target.count {
      let segment = segments[firstReadable]
      let step = min(segment.iov_len, target.count - done)
      // Safe: the segment was checked to be guest RAM when it was appended, and `step` is at most its length.
      if let from = segment.iov_base, let into = target.baseAddress { memcpy(into + done, from, step) }
      firstReadable = consume(firstReadable, step)
      done += step
    }
    readableCount -= done
    return true
  }

  /// Copies a plain value from the start of the readable part and removes it from the chain; nil when there are too few
  /// bytes.
  public mutating func takeReadable<T: BitwiseCopyable>(_ type: T.Type) -> T? {
    withUnsafeTemporaryAllocation(byteCount: MemoryLayout<T>.size, alignment: MemoryLayout<T>.alignment) { bytes in
      takeReadable(into: bytes) ? bytes.loadUnaligned(as: T.self) : nil
    }
  }

  /// Copies `source` to the start of the writable part and removes those bytes from the chain.
  /// - Returns: how many bytes there was room for.
  @discardableResult
  public mutating func putWritable(_ source: UnsafeRawBufferPointer) -> Int {
    let count = min(source.count, writableCount)
    var done = 0
    while done < count {
      let segment = segments[firstWritable]
      let step = min(segment.iov_len, count - done)
      // Safe: as in `takeReadable`.
      if let into = segment.iov_base, let from = source.baseAddress { memcpy(into, from + done, step) }
      firstWritable = consume(firstWritable, step)
      done += step
    }
    writableCount -= done
    return done
  }

  /// Takes the last writable byte out of the chain, where block devices put a request's status.
  public mutating func takeLastWritableByte() -> UnsafeMutablePointer<UInt8>? {
    guard end > firstWritable, let base = segments[end - 1].iov_base else { return nil }
    let last = segments[end - 1].iov_len - 1
    segments[end - 1].iov_len = last
    if last == 0 { end -= 1 }
    writableCount -= 1
    return base.assumingMemoryBound(to: UInt8.self) + last
  }

  /// Shortens a segment from its front; the index of the first segment that has bytes left.
  private mutating func consume(_ index: Int, _ count: Int) -> Int {
    let segment = segments[index]
    if count == segment.iov_len { return index + 1 }
    segments[index] = iovec(iov_base: segment.iov_base.map { $0 + count }, iov_len: segment.iov_len - count)
    return index
  }
}
