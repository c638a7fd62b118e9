// Which addresses of a process the memory manager has made pageable, and how (HongMeng §4.5): a sorted array of regions that the
// fault path searches. The manager knows why they are there; the kernel only looks addresses up.

/// Pages from `start` to `end` that are served by one pager.
@frozen public struct PagedRegion: Equatable {
  public var start: UInt64
  public var end: UInt64
  /// Kernel-virtual address of the pager, which each region holds a count on.
  public var pager: UInt64
  /// `Protection` and `RegionMode` bits.
  public var mode: UInt64

  public init(start: UInt64, end: UInt64, pager: UInt64, mode: UInt64) {
    self.start = start
    self.end = end
    self.pager = pager
    self.mode = mode
  }
}

/// Who counts the regions of a pager.
public protocol PagerCounts {
  mutating func retain(pager: UInt64)
  mutating func release(pager: UInt64)
}

@frozen public struct AnonymousMap {
  private let regions: Reference<PagedRegion>
  private let capacity: Int
  public private(set) var count = 0
  /// Where the last search ended.
  private var recent = 0

  /// A map without regions, for at most `capacity` of them in the memory at `regions`.
  public init(regions: Reference<PagedRegion>, capacity: Int) {
    self.regions = regions
    self.capacity = capacity
  }

  public subscript(_ index: Int) -> PagedRegion { regions.element(index).pointee }

  /// The region that an address lies in.
  @inline(__always)
  public mutating func find(_ address: UInt64) -> Reference<PagedRegion>? {
    let last = regions.element(recent)
    if recent < count, last.pointee.start <= address, address < last.pointee.end { return last }
    let index = firstEnding(after: address)
    guard index < count, self[index].start <= address else { return nil }
    recent = index
    return regions.element(index)
  }

  /// Index of the first region that ends after `address`, by bisection.
  public func firstEnding(after address: UInt64) -> Int {
    var low = 0
    var high = count
    while low < high {
      let middle = (low + high) / 2
      if regions.element(middle).pointee.end <= address { low = middle + 1 } else { high = middle }
    }
    return low
  }

  public func overlaps(start: UInt64, end: UInt64) -> Bool {
    let index = firstEnding(after: start)
    return index < count && self[index].start < end
  }

  /// Whether regions cover a range without a gap.
  public func covers(start: UInt64, end: UInt64) -> Bool {
    var index = firstEnding(after: start)
    var at = start
    while at < end {
      guard index < count, self[index].start <= at else { return false }
      at = self[index].end
      index += 1
    }
    return true
  }

  /// Whether there is room for the regions that a cut at both ends of a range makes.
  public func canCut(start: UInt64, end: UInt64) -> Bool {
    count + (isInside(start) ? 1 : 0) + (isInside(end) ? 1 : 0) <= capacity
  }

  /// Whether an address lies in a region behind its start.
  private func isInside(_ address: UInt64) -> Bool {
    let index = firstEnding(after: address)
    return index < count && self[index].start < address
  }

  /// Adds a region where none is. False: the array is full.
  public mutating func insert<Counts: PagerCounts>(_ region: PagedRegion, counts: inout Counts) -> Bool {
    guard count < capacity else { return false }
    let index = firstEnding(after: region.start)
    open(index, region, &counts)
    merge(around: index, index, &counts)
    return true
  }

  /// Takes a range out. False: a cut needs more room than there is, and nothing was changed.
  public mutating func remove<Counts: PagerCounts>(start: UInt64, end: UInt64, counts: inout Counts) -> Bool {
    guard let range = cut(start, end, &counts) else { return false }
    for _ in range { close(range.lowerBound, &counts) }
    return true
  }

  /// Changes the mode of what lies in a range. False as for `remove`.
  public mutating func setMode<Counts: PagerCounts>(
    _ mode: UInt64, start: UInt64, end: UInt64, counts: inout Counts
  ) -> Bool {
    guard let range = cut(start, end, &counts) else { return false }
    for index in range { regions.element(index).pointee.mode = mode }
    merge(around: range.lowerBound, range.upperBound, &counts)
    return true
  }

  /// Makes region borders at both ends of a range; the indices of what lies between.
  private mutating func cut<Counts: PagerCounts>(
    _ start: UInt64, _ end: UInt64, _ counts: inout Counts
  ) -> Range<Int>? {
    guard canCut(start: start, end: end) else { return nil }
    if isInside(end) { split(firstEnding(after: end), at: end, &counts) }
    if isInside(start) { split(firstEnding(after: start), at: start, &counts) }
    return firstEnding(after: start)..<(firstEnding(after: end &- 1) + (overlaps(start: end &- 1, end: end) ? 1 : 0))
  }

  private mutating func split<Counts: PagerCounts>(_ index: Int, at address: UInt64, _ counts: inout Counts) {
    var tail = self[index]
    tail.start = address
    regions.element(index).pointee.end = address
    open(index + 1, tail, &counts)
  }

  /// Joins equal neighbours from the one before `first` to the one behind `last`.
  private mutating func merge<Counts: PagerCounts>(around first: Int, _ last: Int, _ counts: inout Counts) {
    var index = min(last + 1, count - 1)
    while index >= max(first, 1) {
      let (a, b) = (self[index - 1], self[index])
      if a.end == b.start, a.mode == b.mode, a.pager == b.pager {
        regions.element(index - 1).pointee.end = b.end
        close(index, &counts)
      }
      index -= 1
    }
  }

  private mutating func open<Counts: PagerCounts>(_ index: Int, _ region: PagedRegion, _ counts: inout Counts) {
    var at = count
    while at > index {
      regions.element(at).initialize(to: self[at - 1])
      at -= 1
    }
    regions.element(index).initialize(to: region)
    count += 1
    counts.retain(pager: region.pager)
  }

  private mutating func close<Counts: PagerCounts>(_ index: Int, _ counts: inout Counts) {
    counts.release(pager: self[index].pager)
    count -= 1
    for at in index..<max(index, count) { regions.element(at).pointee = self[at + 1] }
  }
}
