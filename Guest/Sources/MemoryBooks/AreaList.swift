// What a client has mapped: areas sorted by address, cut and joined as the client unmaps and protects parts of them.
import PolluxABI

/// Pages that were mapped alike.
public struct Area: Equatable, Sendable {
  public var start: UInt64
  public var end: UInt64
  /// `Protection` and `RegionMode` bits.
  public var mode: UInt64
  public init(start: UInt64, end: UInt64, mode: UInt64) {
    self.start = start
    self.end = end
    self.mode = mode
  }
  public var pages: UInt64 { (end - start) >> 12 }
}

public struct AreaList {
  public private(set) var areas: [Area] = []
  /// Of all areas.
  public private(set) var pages: UInt64 = 0
  public init() {}

  /// Index of the first area that ends after `address`.
  private func firstEnding(after address: UInt64) -> Int {
    var low = 0
    var high = areas.count
    while low < high {
      let middle = (low + high) / 2
      if areas[middle].end <= address { low = middle + 1 } else { high = middle }
    }
    return low
  }

  public func find(_ address: UInt64) -> Area? {
    let index = firstEnding(after: address)
    return index < areas.count && areas[index].start <= address ? areas[index] : nil
  }

  public func overlaps(_ range: Range<UInt64>) -> Bool {
    let index = firstEnding(after: range.lowerBound)
    return index < areas.count && areas[index].start < range.upperBound
  }

  public func covers(_ range: Range<UInt64>) -> Bool {
    var at = range.lowerBound
    var index = firstEnding(after: at)
    while at < range.upperBound {
      guard index < areas.count, areas[index].start <= at else { return false }
      at = areas[index].end
      index += 1
    }
    return true
  }

  /// The lowest free range of `size` bytes from `address` on, with a free page on both sides.
  public func gap(_ size: UInt64, from address: UInt64) -> UInt64 {
    var at = address
    for area in areas[firstEnding(after: address)...] {
      if area.start >= at, area.start - at >= size + 4096 { break }
      at = max(at, area.end + 4096)
    }
    return at
  }

  /// The parts of areas that lie in a range.
  public func parts(_ range: Range<UInt64>) -> [Area] {
    var found: [Area] = []
    var index = firstEnding(after: range.lowerBound)
    while index < areas.count, areas[index].start < range.upperBound {
      var part = areas[index]
      part.start = max(part.start, range.lowerBound)
      part.end = min(part.end, range.upperBound)
      found.append(part)
      index += 1
    }
    return found
  }

  /// Adds an area where none is.
  public mutating func insert(_ area: Area) {
    areas.insert(area, at: firstEnding(after: area.start))
    pages += area.pages
    join()
  }

  public mutating func remove(_ range: Range<UInt64>) { replace(range, mode: nil) }
  public mutating func setMode(_ mode: UInt64, _ range: Range<UInt64>) { replace(range, mode: mode) }

  /// Rebuilds the list with the part in `range` gone or in another mode.
  private mutating func replace(_ range: Range<UInt64>, mode: UInt64?) {
    var changed: [Area] = []
    changed.reserveCapacity(areas.count + 2)
    for area in areas {
      if area.end <= range.lowerBound || area.start >= range.upperBound {
        changed.append(area)
        continue
      }
      if area.start < range.lowerBound {
        changed.append(Area(start: area.start, end: range.lowerBound, mode: area.mode))
      }
      let part = Area(
        start: max(area.start, range.lowerBound), end: min(area.end, range.upperBound), mode: mode ?? area.mode)
      if mode != nil { changed.append(part) } else { pages -= part.pages }
      if area.end > range.upperBound {
        changed.append(Area(start: range.upperBound, end: area.end, mode: area.mode))
      }
    }
    areas = changed
    join()
  }

  private mutating func join() {
    var index = areas.count - 1
    while index > 0 {
      if areas[index - 1].end == areas[index].start, areas[index - 1].mode == areas[index].mode {
        areas[index - 1].end = areas[index].end
        areas.remove(at: index)
      }
      index -= 1
    }
  }
}
