// An owned io_uring, as the file back end needs it.
//
// swift-system's IORing was looked at first: it has no vectored reads and writes, no fdatasync and no fallocate, which
// are most of what a block device does. So this is liburing, behind the C functions of CRing.

import CRing
import Glibc
import SystemPackage

/// A submission and a completion queue shared with the host kernel (io_uring(7)). The thread that submits first must be
/// the only one from then on.
struct SubmissionRing: ~Copyable {
  /// One request to the host kernel. Memory that it names stays valid until its completion.
  enum Operation {
    case read(UnsafeMutableRawPointer?, count: Int, offset: UInt64)
    case write(UnsafeMutableRawPointer?, count: Int, offset: UInt64, durable: Bool)
    case readSegments(UnsafeMutableBufferPointer<iovec>, offset: UInt64)
    case writeSegments(UnsafeMutableBufferPointer<iovec>, offset: UInt64, durable: Bool)
    case synchronizeData
    case punchHole(offset: UInt64, count: UInt64)
    case zeroRange(offset: UInt64, count: UInt64)
  }

  // Safe: made in `init`, destroyed in `deinit`, and this value cannot be copied.
  private let ring: OpaquePointer

  /// Makes a ring with room for `entries` requests (a power of two) and registers `files`, which requests name by their
  /// position. `event`, an eventfd that outlives the ring, is signalled when there may be completions. (The ring's own
  /// descriptor would not do: a poll of it misses completion work that waits for the submitting thread.)
  init(entries: Int, files: [CInt], event: CInt) throws(Errno) {
    guard let ring = castor_ring_create(UInt32(entries), files, UInt32(files.count), event) else {
      throw Errno(rawValue: errno)
    }
    self.ring = ring
  }

  deinit { castor_ring_destroy(ring) }

  /// Prepares a request; false when all entries are taken.
  func prepare(_ operation: Operation, file: CInt, data: UInt64) -> Bool {
    switch operation {
    case .read(let base, let count, let offset): castor_ring_read(ring, file, base, UInt32(count), offset, data) == 0
    case .write(let base, let count, let offset, let durable):
      castor_ring_write(ring, file, base, UInt32(count), offset, durable ? 1 : 0, data) == 0
    case .readSegments(let segments, let offset):
      castor_ring_readv(ring, file, segments.baseAddress, UInt32(segments.count), offset, data) == 0
    case .writeSegments(let segments, let offset, let durable):
      castor_ring_writev(
        ring, file, segments.baseAddress, UInt32(segments.count), offset, durable ? 1 : 0, data) == 0
    case .synchronizeData: castor_ring_fdatasync(ring, file, data) == 0
    case .punchHole(let offset, let count): castor_ring_punch_hole(ring, file, offset, count, data) == 0
    case .zeroRange(let offset, let count): castor_ring_zero_range(ring, file, offset, count, data) == 0
    }
  }

  /// Hands everything prepared to the kernel. What it cannot take now stays prepared and goes with the next call.
  func submit() { _ = castor_ring_submit(ring) }

  /// The same, and waits until there is a completion.
  func submitAndWait() { _ = castor_ring_submit_and_wait(ring) }

  /// Takes the completions that are there, at most 64, and returns how many.
  func reap(_ body: (_ data: UInt64, _ result: Int32) -> Void) -> Int {
    withUnsafeTemporaryAllocation(of: castor_ring_completion.self, capacity: 64) { completions in
      let count = Int(castor_ring_reap(ring, completions.baseAddress, 64))
      for completion in completions.prefix(count) { body(completion.data, completion.result) }
      return count
    }
  }
}
