// One queue of a device over its whole life: the live ring, when the driver has enabled one, and what was counted.

import Glibc
import HostSystem

/// What one queue has done since the VM started.
public struct QueueStatistics: Sendable {
  /// Chains taken from the available ring and served.
  public var requests: UInt64 = 0
  /// Payload bytes that the device wrote to guest memory.
  public var bytesToGuest: UInt64 = 0
  /// Payload bytes that the device read from guest memory.
  public var bytesFromGuest: UInt64 = 0
  /// Requests that ended with an error status.
  public var errors: UInt64 = 0
  /// Doorbells that the driver rang.
  public var doorbells: UInt64 = 0
  /// Used-buffer notifications sent.
  public var interrupts: UInt64 = 0
  /// Used-index updates for which the driver did not want a notification.
  public var interruptsSuppressed: UInt64 = 0
  /// Used-index updates; requests / batches is the mean batch size.
  public var batches: UInt64 = 0
  /// From taking a chain to putting it into the used ring.
  public var latency = LatencyHistogram()

  public init() {}
}

/// A device's queue. Belongs to the device's thread.
public final class VirtioQueue {
  public let index: Int
  /// The enabled ring, or nil while the driver has none.
  public internal(set) var ring: SplitQueue?
  public var statistics = QueueStatistics()

  init(index: Int) { self.index = index }

  /// Takes the next available chain; false when there is none or the queue is not enabled.
  public func pop(into chain: inout DescriptorChain) throws(QueueError) -> Bool {
    guard let ring, try ring.pop(into: &chain) else { return false }
    statistics.requests &+= 1
    return true
  }

  /// Gives the last `count` chains taken back to the ring, unserved.
  public func putBack(_ count: Int) {
    statistics.requests &-= UInt64(count)
    ring?.putBack(UInt16(clamping: count))
  }

  /// Returns a chain to the driver. It becomes visible, with all others of the batch, when the device's thread has
  /// finished its pass.
  public func push(head: UInt16, written: UInt32) { ring?.push(head: head, written: written) }
}
