// Writes and flushes block after block and tells of each once it is safe, so that a test can end the machine at any moment and
// then look for what was promised.

import BenchmarkCore
import BlockClient
import Pollux

struct FlushRun {
  /// Bytes of a block, and the seed of its pattern (`SectorPattern`).
  static let size = 16384
  static let seed: UInt64 = 42

  private let endpoint: Endpoint
  private let report: Report

  init(_ plan: BenchmarkPlan, _ report: Report) throws(BlockClientError) {
    do throws(SystemError) { endpoint = try Program.connect(plan.target) } catch { throw .kernel(error) }
    self.report = report
  }

  /// Goes through the whole disk once; false at the first error.
  func run() throws(BlockClientError) -> Bool {
    let device = try BlockDevice(endpoint, entries: 4, regionSize: UInt64(Self.size))
    defer { device.close() }
    let sectors = UInt64(Self.size / 512)
    SectorPattern.fill(device.region, count: Self.size, seed: Self.seed)
    var sector: UInt64 = 0
    while sector + sectors <= device.geometry.sectors {
      SectorPattern.stamp(device.region, count: Self.size, firstSector: sector)
      guard try device.perform(.write, sector: sector, length: UInt32(Self.size)) == .success,
        try device.perform(.flush, sector: 0, length: 0) == .success
      else { return false }
      report.flushed(sector, sectors)
      sector += sectors
    }
    return true
  }
}
