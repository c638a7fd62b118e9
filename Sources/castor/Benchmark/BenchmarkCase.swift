// What is measured: the cases, and the modes of the guest's block driver.

import ArgumentParser
import Configuration
import Foundation

/// What a case does to the disk.
enum BenchmarkOperation: String, CaseIterable, Codable, ExpressibleByArgument { case read, write }

/// In which order a case goes over the disk.
enum BenchmarkPattern: String, CaseIterable, Codable, ExpressibleByArgument { case sequential, random }

/// How the guest's program gets its requests to the driver.
enum BenchmarkPath: String, CaseIterable, Codable, ExpressibleByArgument {
  /// One thread that submits many at once.
  case vectored
  /// One thread a request in flight, each waiting for its own.
  case threads
}

/// Whose driver has the disk's control plane (docs/benchmark.md).
enum BenchmarkDriver: String, CaseIterable, Codable, ExpressibleByArgument {
  /// Debian's virtio_blk in the driver container.
  case linux
  /// Pollux's own.
  case pollux

  var container: String { self == .linux ? "linux-container" : "block-container" }

  /// Linux's, where the boot archive has it.
  static func available(in archive: String?) -> BenchmarkDriver {
    guard let archive, let bytes = FileManager.default.contents(atPath: archive),
      bytes.range(of: Data("linux/container.ko".utf8)) != nil
    else { return .pollux }
    return .linux
  }
}

/// How the guest's block driver is divided (docs/benchmark.md).
enum BenchmarkMode: String, CaseIterable, Codable, ExpressibleByArgument {
  case solo, twin
  case twinPoll = "twin-poll"

  /// The composition that runs `bench-block` with this driver.
  func services(_ driver: BenchmarkDriver, arguments: String) -> [ServiceConfiguration] {
    var container = ServiceConfiguration(name: "block", program: driver.container)
    container.mode = rawValue
    container.device = "disk0"
    var bench = ServiceConfiguration(name: "bench", program: "bench-block")
    bench.arguments = arguments
    guard self != .solo else { return [container, bench] }
    var twin = ServiceConfiguration(name: "block-twin", program: "block-twin")
    twin.mode = rawValue
    return [container, twin, bench]
  }
}

/// One case: what is done, how large, how many at once.
struct BenchmarkCase: Hashable, Codable {
  var operation: BenchmarkOperation
  var pattern: BenchmarkPattern
  /// Bytes of a request.
  var size: Int
  /// Requests in flight.
  var depth: Int

  /// "read random 4K ×32"
  var title: String { "\(operation.rawValue) \(pattern.rawValue) \(ByteSize.format(UInt64(size))) ×\(depth)" }
  /// "read/random/4096/32", the start of the names of its results.
  var name: String { "\(operation.rawValue)/\(pattern.rawValue)/\(size)/\(depth)" }

  /// The words of bench-block's argument string for this case alone.
  func arguments(milliseconds: Int, span: UInt64, verify: Bool, path: BenchmarkPath) -> String {
    "operations=\(operation.rawValue) patterns=\(pattern.rawValue) sizes=\(size) depths=\(depth) "
      + "milliseconds=\(milliseconds) span=\(span) verify=\(verify ? "on" : "off") path=\(path.rawValue)"
  }
}

/// One measurement of one case, by the host or by a guest.
struct BenchmarkSample: Codable, Equatable {
  var requests: UInt64
  var bytes: UInt64
  /// Length of the timed part.
  var nanoseconds: UInt64
  /// Latency percentiles in nanoseconds.
  var p50: UInt64
  var p99: UInt64
  /// Per request, during the timed part; nil where nobody counted.
  var doorbells: Double?
  var interrupts: Double?
  var exits: Double?
  /// Calls between the program and the driver.
  var calls: Double?
  /// Instructions of all the guest's threads, where the machine counts them, but for those of `looking`.
  var instructions: Double?
  /// Instructions with which clients passed the time until the device was done.
  var looking: Double?

  var seconds: Double { Double(max(nanoseconds, 1)) / 1e9 }
  var bytesPerSecond: Double { Double(bytes) / seconds }
  var requestsPerSecond: Double { Double(requests) / seconds }
}

/// The middle value; the mean of the two middle ones for an even count. Nil without values.
func median(_ values: [Double]) -> Double? {
  guard !values.isEmpty else { return nil }
  let sorted = values.sorted()
  let middle = sorted.count / 2
  return sorted.count % 2 == 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2
}
