import KernelCore
import Testing

/// Counts references to objects; nodes come from the heap.
private struct CountingRegions: RegionSource {
  var counts: [UInt64: Int] = [:]
  var live = 0
  var limit = Int.max
  mutating func allocateRegion() -> Reference<Region>? {
    guard live < limit else { return nil }
    live += 1
    return Reference(UnsafeMutablePointer<Region>.allocate(capacity: 1))
  }
  mutating func releaseRegion(_ region: Reference<Region>) {
    live -= 1
    UnsafeMutablePointer<Region>(bitPattern: UInt(region.address))?.deallocate()
  }
  mutating func retain(memory: UInt64) { counts[memory, default: 0] += 1 }
  mutating func release(memory: UInt64) { counts[memory, default: 0] -= 1 }
}

struct RegionMapTests {
  private func region(_ start: UInt64, _ end: UInt64, _ object: UInt64 = 1, maximum: UInt8 = 7) -> Region {
    Region(start: start, end: end, object: object, maximum: maximum)
  }

  @Test func neighboursDoNotOverlap() {
    var source = CountingRegions()
    var map = RegionMap()
    #expect(map.insert(region(0x2000, 0x4000), source: &source))
    #expect(!map.overlaps(start: 0x1000, end: 0x2000) && !map.overlaps(start: 0x4000, end: 0x5000))
    #expect(map.overlaps(start: 0x1000, end: 0x2001) && map.overlaps(start: 0x3fff, end: 0x5000))
    #expect(map.overlaps(start: 0x2800, end: 0x2801) && map.overlaps(start: 0, end: .max))
    #expect(map.remove(start: 0, end: .max, source: &source))
    #expect(source.live == 0 && source.counts[1] == 0)
  }

  @Test func aCutInTheMiddleKeepsBothSidesAndCountsTwice() {
    var source = CountingRegions()
    var map = RegionMap()
    _ = map.insert(region(0x1000, 0x9000), source: &source)
    #expect(map.remove(start: 0x3000, end: 0x5000, source: &source))
    #expect(source.counts[1] == 2)
    #expect(map.overlaps(start: 0x2fff, end: 0x3000) && !map.overlaps(start: 0x3000, end: 0x5000))
    #expect(map.overlaps(start: 0x5000, end: 0x5001))
    #expect(map.remove(start: 0, end: .max, source: &source))
    #expect(map.isEmpty && source.live == 0 && source.counts[1] == 0)
  }

  @Test func aCutWithoutMemoryForItsNodeChangesNothing() {
    var source = CountingRegions()
    source.limit = 1
    var map = RegionMap()
    _ = map.insert(region(0x1000, 0x9000), source: &source)
    #expect(!map.remove(start: 0x3000, end: 0x5000, source: &source))
    #expect(map.overlaps(start: 0x3000, end: 0x5000) && source.counts[1] == 1)
    #expect(map.remove(start: 0, end: .max, source: &source))
  }

  @Test func protectionIsAllowedOnlyWhereEveryRegionAllowsIt() {
    var source = CountingRegions()
    var map = RegionMap()
    _ = map.insert(region(0x5000, 0x6000, maximum: 1), source: &source)
    _ = map.insert(region(0x1000, 0x2000, maximum: 3), source: &source)
    #expect(map.allows(3, start: 0x1000, end: 0x5000))
    #expect(!map.allows(3, start: 0x1000, end: 0x5001))
    #expect(map.allows(1, start: 0, end: .max))
    #expect(map.remove(start: 0, end: .max, source: &source))
  }

  @Test(arguments: 1...20)
  func randomUseAgreesWithASetOfPages(seed: Int) {
    var random = TestRandom(state: UInt64(seed))
    var source = CountingRegions()
    var map = RegionMap()
    var pages: Set<UInt64> = []
    for _ in 0..<300 {
      let start = UInt64.random(in: 0..<60, using: &random)
      let end = start + UInt64.random(in: 1...12, using: &random)
      if Bool.random(using: &random) {
        let occupied = (start..<end).contains { pages.contains($0) }
        #expect(map.overlaps(start: start, end: end) == occupied)
        if !occupied {
          #expect(map.insert(region(start, end, start % 3), source: &source))
          pages.formUnion(start..<end)
        }
      } else {
        #expect(map.remove(start: start, end: end, source: &source))
        pages.subtract(start..<end)
      }
      for page in UInt64(0)..<72 { #expect(map.overlaps(start: page, end: page + 1) == pages.contains(page)) }
    }
    #expect(map.remove(start: 0, end: .max, source: &source))
    #expect(source.live == 0 && source.counts.values.allSatisfy { $0 == 0 })
  }
}
