// Which memory object lies where in an address space: a list of regions sorted by address. Page tables say how the processor
// sees it; regions keep the objects alive and remember what the mapping's handle allowed.

/// A run of pages mapped from one memory object.
public struct Region {
  public var link = Link<Region>()
  public var start: UInt64
  public var end: UInt64
  /// Kernel-virtual address of the memory object, which this region holds a count on.
  public var object: UInt64
  /// A `Protection` that the mapping may be changed to at most.
  public var maximum: UInt8

  public init(start: UInt64, end: UInt64, object: UInt64, maximum: UInt8) {
    self.start = start
    self.end = end
    self.object = object
    self.maximum = maximum
  }
}

public enum RegionLinks: LinkField {
  public static func link(_ node: Reference<Region>) -> Link<Region> { node.pointee.link }
  public static func setNext(_ node: Reference<Region>, _ next: Reference<Region>?) { node.pointee.link.next = next }
  public static func setPrevious(_ node: Reference<Region>, _ previous: Reference<Region>?) {
    node.pointee.link.previous = previous
  }
}

/// Where region nodes come from, and who counts references to memory objects.
public protocol RegionSource {
  mutating func allocateRegion() -> Reference<Region>?
  mutating func releaseRegion(_ region: Reference<Region>)
  mutating func retain(memory: UInt64)
  mutating func release(memory: UInt64)
}

public struct RegionMap {
  private var regions = Queue<RegionLinks>()
  public init() {}
  public var isEmpty: Bool { regions.isEmpty }

  private func firstEnding(after address: UInt64) -> Reference<Region>? {
    var region = regions.first
    while let candidate = region, candidate.pointee.end <= address { region = candidate.pointee.link.next }
    return region
  }

  /// Whether any region touches the range.
  public func overlaps(start: UInt64, end: UInt64) -> Bool {
    guard let region = firstEnding(after: start) else { return false }
    return region.pointee.start < end
  }

  /// The region that the whole range lies in.
  public func covering(start: UInt64, end: UInt64) -> Region? {
    guard let region = firstEnding(after: start)?.pointee, region.start <= start, end <= region.end else { return nil }
    return region
  }

  /// Adds a region over a range that is free, and takes a count on its object. False: no memory for the node.
  public mutating func insert<Source: RegionSource>(_ value: Region, source: inout Source) -> Bool {
    guard let region = source.allocateRegion() else { return false }
    region.initialize(to: value)
    source.retain(memory: value.object)
    regions.insert(region, before: firstEnding(after: value.start))
    return true
  }

  /// Whether every region in the range allows the protection, and how many there are.
  public func allows(_ protection: UInt8, start: UInt64, end: UInt64) -> Bool {
    var region = firstEnding(after: start)
    while let current = region, current.pointee.start < end {
      if protection & ~current.pointee.maximum != 0 { return false }
      region = current.pointee.link.next
    }
    return true
  }

  /// Takes a range out, cutting regions at its ends. False: no memory for the node that a cut in the middle needs, and nothing
  /// was changed.
  public mutating func remove<Source: RegionSource>(start: UInt64, end: UInt64, source: inout Source) -> Bool {
    var region = firstEnding(after: start)
    while let current = region, current.pointee.start < end {
      region = current.pointee.link.next
      let value = current.pointee
      if value.start < start, value.end > end {
        guard let tail = source.allocateRegion() else { return false }
        tail.initialize(to: Region(start: end, end: value.end, object: value.object, maximum: value.maximum))
        source.retain(memory: value.object)
        current.pointee.end = start
        regions.insert(tail, before: region)
        return true
      }
      if value.start < start {
        current.pointee.end = start
      } else if value.end > end {
        current.pointee.start = end
      } else {
        regions.remove(current)
        source.releaseRegion(current)
        source.release(memory: value.object)
      }
    }
    return true
  }
}
