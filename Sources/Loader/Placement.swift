// Which parts of guest RAM the things loaded before the first instruction take: no two overlap, nothing lies outside.

import GuestMemory

/// Something placed in guest RAM before the guest starts.
public struct PlacedPart: Equatable, Sendable {
  /// "segment 1", "boot archive", …
  public let name: String
  /// Guest-physical addresses.
  public let range: Range<UInt64>
}

/// Keeps the parts placed in guest RAM apart.
struct Placement {
  private let ram: [Range<UInt64>]
  private(set) var parts: [PlacedPart] = []

  init(memory: GuestMemory) {
    ram = memory.regions.map { $0.base.rawValue..<$0.end }
  }

  /// Takes `count` bytes at a given address.
  mutating func claim(_ part: String, at address: UInt64, count: UInt64, path: String) throws(LoaderError) {
    let (end, overflow) = address.addingReportingOverflow(count)
    guard !overflow else {
      throw LoaderError(path: path, problem: .malformed("\(part) ends beyond the 64-bit address space"))
    }
    let range = address..<end
    guard !range.isEmpty else { return }
    if range.overlaps(PlatformLayout.mmioHole) {
      throw LoaderError(path: path, problem: .insideMMIOHole(part: part, range: range))
    }
    guard ram.contains(where: { $0.lowerBound <= range.lowerBound && range.upperBound <= $0.upperBound }) else {
      throw LoaderError(path: path, problem: .outsideMemory(part: part, range: range))
    }
    for (reserved, name) in [
      (PlatformLayout.bootArea, "the boot area"), (PlatformLayout.firmwareTables, "the firmware tables below 1 MiB"),
    ] where range.overlaps(reserved) {
      throw LoaderError(path: path, problem: .overlaps(part: part, range: range, other: name))
    }
    if let other = parts.first(where: { $0.range.overlaps(range) }) {
      throw LoaderError(path: path, problem: .overlaps(part: part, range: range, other: other.name))
    }
    parts.append(PlacedPart(name: part, range: range))
  }

  /// Finds the highest free, page-aligned place for `count` bytes in RAM from 1 MiB up to `limit` and takes it.
  mutating func placeHigh(_ part: String, count: UInt64, below limit: UInt64, path: String) throws(LoaderError)
    -> GuestAddress
  {
    let lowest: UInt64 = 0x10_0000
    for region in ram.reversed() where region.lowerBound < PlatformLayout.mmioHole.lowerBound {
      var end = min(region.upperBound, limit, PlatformLayout.mmioHole.lowerBound)
      while end >= count, (end - count) & ~0xfff >= max(lowest, region.lowerBound) {
        let start = (end - count) & ~0xfff
        guard let blocker = parts.first(where: { $0.range.overlaps(start..<(start + max(count, 1))) }) else {
          try claim(part, at: start, count: count, path: path)
          return GuestAddress(start)
        }
        end = blocker.range.lowerBound
      }
    }
    throw LoaderError(path: path, problem: .noRoom(part: part, bytes: count))
  }

}
