// The virtio entropy device (virtio 1.2 §5.4).

import CLinux
import Glibc
import HostSystem
import SystemPackage

/// Gives the guest random bytes of the host's kernel.
public final class EntropyDevice: VirtioDevice, @unchecked Sendable {
  // @unchecked: the chain belongs to the device's thread.

  public let deviceID: UInt32 = 4
  public let queueSizes: [UInt16] = [64]
  public let features: UInt64 = 0
  public let configuration = ConfigurationSpace(count: 0)
  private var chain = DescriptorChain()

  /// Most bytes that one request gets, so that a huge buffer does not hold the thread up (§5.4.6.1 allows less than
  /// was asked for).
  private static let largestAnswer = 65536

  public init() {}

  public func writeConfiguration(at offset: Int, size: Int, value: UInt64) {}
  public func attach(to context: DeviceContext) throws(Errno) {}
  public func start(features: UInt64) {}

  public func serve(_ queue: VirtioQueue) throws(QueueError) -> Bool {
    var any = false
    while try queue.pop(into: &chain) {
      any = true
      // Only device-writable buffers are allowed, and at least one (§5.4.6).
      guard chain.readableCount == 0, chain.writableCount > 0 else { throw .malformedRequest(head: chain.head) }
      let begin = monotonicNanoseconds()
      var written = 0
      for segment in chain.writable where written < Self.largestAnswer {
        let wanted = min(segment.iov_len, Self.largestAnswer - written)
        // Safe: `wanted` bytes of a segment that was checked to be guest RAM.
        guard let base = segment.iov_base else { break }
        let count = getrandom(base, wanted, 0)
        guard count > 0 else { break }
        written += count
        if count < wanted { break }
      }
      queue.statistics.bytesToGuest &+= UInt64(written)
      queue.statistics.latency.record(monotonicNanoseconds() &- begin)
      queue.push(head: chain.head, written: UInt32(written))
    }
    return any
  }

  public func poll() -> Bool { false }
  public func wantsDoorbell(_ queue: VirtioQueue) -> Bool { true }
  public func drain(_ queue: VirtioQueue?) {}
  public func stop() {}
}
