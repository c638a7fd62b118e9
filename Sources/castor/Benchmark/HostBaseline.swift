// The baseline: what the host's own io_uring makes of a case, on the same file as the guest.

import CHostRing
import CLinux
import Configuration
import Foundation

import enum BenchmarkCore.SectorPattern

/// Runs cases on a file with io_uring.
final class HostBaseline {
  private let descriptor: CInt
  /// Whether the file is open with O_DIRECT.
  let isDirect: Bool
  /// Bytes of the file that cases use.
  private let span: UInt64
  /// Writes the number of each sector into it before a write, as the guest's program does, which verifies by them: without it the
  /// guest would have more to do, a store into each 512 bytes.
  private let stamps: Bool
  private var seed: UInt64 = 0x9e37_79b9_7f4a_7c15

  /// Opens the file with O_DIRECT, or without where its file system has no O_DIRECT.
  init(path: String, span: UInt64, writable: Bool, stamps: Bool = true) throws {
    let access = writable ? O_RDWR : O_RDONLY
    let direct: CInt = 0o40000  // O_DIRECT on x86-64, not visible to Swift
    var opened = castor_open(path, access | O_CLOEXEC | direct, 0)
    isDirect = opened >= 0
    if opened < 0, errno == EINVAL { opened = castor_open(path, access | O_CLOEXEC, 0) }
    guard opened >= 0 else { throw MachineConfiguration.fileError("file", path, errno) }
    descriptor = opened
    self.span = span
    self.stamps = stamps
  }

  deinit { close(descriptor) }

  /// Keeps `depth` requests in flight for `milliseconds`, then waits for the last, after a warm-up that is a fifth as
  /// long, at most 50 ms, as the guest's program has it. `Interruption` ends it early.
  func measure(_ benchmarkCase: BenchmarkCase, milliseconds: Int) throws -> BenchmarkSample {
    _ = try run(benchmarkCase, nanoseconds: min(50_000_000, UInt64(milliseconds) * 200_000))
    return try run(benchmarkCase, nanoseconds: UInt64(milliseconds) * 1_000_000)
  }

  private func run(_ benchmarkCase: BenchmarkCase, nanoseconds: UInt64) throws -> BenchmarkSample {
    let size = benchmarkCase.size
    let depth = benchmarkCase.depth
    let blocks = span / UInt64(size)
    guard blocks > 0 else {
      throw ConfigurationError(key: "sizes", value: "\(size)", expected: "larger than the disk")
    }
    var error: CInt = 0
    guard let ring = castor_host_ring_create(UInt32(depth), &error) else {
      throw CommandFailure(
        message: "io_uring is refused: \(String(cString: strerror(error))) (castor doctor shows details)",
        exitCode: .operatingSystemError)
    }
    // The ring goes first, and with it every request that might still use the buffers.
    // As guest memory is: in huge pages where the host has them, which are fewer to pin for O_DIRECT.
    let hugePage = 2 << 20
    let byteCount = (size * depth + hugePage - 1) / hugePage * hugePage
    let memory = UnsafeMutableRawPointer.allocate(byteCount: byteCount, alignment: hugePage)
    _ = madvise(memory, byteCount, MADV_HUGEPAGE)
    defer {
      castor_host_ring_destroy(ring)
      memory.deallocate()
    }
    memory.initializeMemory(as: UInt8.self, repeating: 0xa5, count: size * depth)
    var started = [UInt64](repeating: 0, count: depth)
    var latencies: [UInt64] = []
    latencies.reserveCapacity(1 << 16)
    var next: UInt64 = 0
    var inFlight = 0

    func submit(_ slot: Int, at now: UInt64) throws {
      let block = benchmarkCase.pattern == .sequential ? next % blocks : random() % blocks
      next += 1
      started[slot] = now
      if stamps, benchmarkCase.operation == .write {
        SectorPattern.stamp(memory + slot * size, count: size, firstSector: block * UInt64(size / 512))
      }
      let result = castor_host_ring_prepare(
        ring, benchmarkCase.operation == .write ? 1 : 0, descriptor, memory + slot * size, UInt32(size),
        block * UInt64(size), UInt64(slot))
      guard result == 0 else { throw failure(benchmarkCase, -result) }
      inFlight += 1
    }

    let begin = Self.now()
    let deadline = begin + nanoseconds
    var end = begin
    for slot in 0..<depth { try submit(slot, at: begin) }
    while inFlight > 0 {
      var tag: UInt64 = 0
      var result: CInt = 0
      let waited = castor_host_ring_wait(ring, &tag, &result)
      guard waited == 0 else { throw failure(benchmarkCase, -waited) }
      inFlight -= 1
      guard result >= 0 else { throw failure(benchmarkCase, -result) }
      guard Int(result) == size else { throw failure(benchmarkCase, EIO) }
      end = Self.now()
      latencies.append(end - started[Int(tag)])
      if end < deadline, !Interruption.isRequested { try submit(Int(tag), at: end) }
    }
    latencies.sort()
    return BenchmarkSample(
      requests: UInt64(latencies.count), bytes: UInt64(latencies.count) * UInt64(size), nanoseconds: end - begin,
      p50: latencies[latencies.count / 2], p99: latencies[min(latencies.count - 1, latencies.count * 99 / 100)])
  }

  private func failure(_ benchmarkCase: BenchmarkCase, _ code: CInt) -> CommandFailure {
    CommandFailure(
      message: "the host's own \(benchmarkCase.title) failed: \(String(cString: strerror(code)))",
      exitCode: .inputOutputError)
  }

  /// xorshift64* (Marsaglia 2003; Vigna 2016).
  private func random() -> UInt64 {
    seed ^= seed >> 12
    seed ^= seed << 25
    seed ^= seed >> 27
    return (seed &* 0x2545_f491_4f6c_dd1d) >> 16
  }

  /// CLOCK_MONOTONIC in nanoseconds.
  static func now() -> UInt64 {
    var time = timespec()
    clock_gettime(CLOCK_MONOTONIC, &time)
    return UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec)
  }
}
