// Finds a guest program's report lines in the bytes of its console (docs/platform.md, "Report lines"; RFC 7464).

import Foundation

/// Splits console output into report lines and text.
struct ReportReader {
  private var line: [UInt8] = []
  private var inReport = false
  /// The last lines of ordinary console text, for messages about a guest that fails.
  private(set) var lastLines: [String] = []

  /// Takes bytes as they come and returns the JSON texts that became complete.
  mutating func take(_ bytes: some Sequence<UInt8>) -> [Data] {
    var reports: [Data] = []
    for byte in bytes {
      switch byte {
      case 0x1e:
        // Begins a report wherever it stands; a report that was cut off is dropped, as RFC 7464 §2.3 asks.
        if !inReport { endText() }
        line = []
        inReport = true
      case 0x0a:
        if inReport { reports.append(Data(line)) } else { endText() }
        line = []
        inReport = false
      case 0x0d: break
      default: if line.count < 1 << 16 { line.append(byte) }
      }
    }
    return reports
  }

  private mutating func endText() {
    guard !line.isEmpty else { return }
    lastLines.append(String(decoding: line, as: UTF8.self))
    if lastLines.count > 20 { lastLines.removeFirst() }
    line = []
  }
}

/// One report line of `bench-block` (docs/benchmark.md).
struct BenchmarkReport: Decodable {
  var report: String
  var operation: BenchmarkOperation?
  var pattern: BenchmarkPattern?
  var size: Int?
  var depth: Int?
  var requests: UInt64?
  var bytes: UInt64?
  var nanoseconds: UInt64?
  var p50: UInt64?
  var p99: UInt64?
  var doorbells: UInt64?
  var interrupts: UInt64?
  /// Calls of the block service by the program.
  var calls: UInt64?
  /// Ticks that the guest's processors ran threads.
  var busy: UInt64?
  /// Of these, in which clients looked for results that the device had not got yet.
  var looking: UInt64?
  var errors: UInt64?
  var verified: Bool?
  var message: String?
}
