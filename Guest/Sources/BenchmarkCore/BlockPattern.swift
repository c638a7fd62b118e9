// Where requests go, and what written blocks hold so that they can be checked.

/// The places of a case's requests, one after another.
public struct RequestPlaces {
  private let blocks: UInt64
  private let sectorsPerBlock: UInt64
  private let isRandom: Bool
  private var next: UInt64 = 0
  private var state: UInt64

  /// Places of requests of `size` bytes on the first `span` bytes of a disk; nil if not one fits.
  public init?(span: UInt64, size: UInt64, isRandom: Bool, seed: UInt64) {
    blocks = size == 0 ? 0 : span / size
    sectorsPerBlock = size / 512
    self.isRandom = isRandom
    state = seed | 1
    guard blocks > 0 else { return nil }
  }

  /// First sector of the next request.
  public mutating func nextSector() -> UInt64 {
    let block: UInt64
    if isRandom {
      // xorshift64* (Marsaglia; Vigna): the high half, scaled to the number of blocks.
      state ^= state >> 12
      state ^= state << 25
      state ^= state >> 27
      block = (state &* 0x2545_f491_4f6c_dd1d).multipliedFullWidth(by: blocks).high
    } else {
      block = next
      next = next + 1 == blocks ? 0 : next + 1
    }
    return block * sectorsPerBlock
  }
}

/// What a written sector holds: its own number, the seed, and 62 words that follow from the seed.
public enum SectorPattern {
  @inline(__always)
  private static func word(_ seed: UInt64, _ index: Int) -> UInt64 {
    (seed &+ UInt64(index)) &* 0x9e37_79b9_7f4a_7c15
  }

  /// Fills the part of `count` bytes (whole sectors) at `base` that does not depend on the place.
  public static func fill(_ base: UnsafeMutableRawPointer, count: Int, seed: UInt64) {
    var sector = 0
    while sector < count / 512 {
      let words = (base + sector * 512).assumingMemoryBound(to: UInt64.self)
      // 64 words a sector, inside the `count` bytes that the caller owns; page-aligned memory.
      words[1] = seed
      for index in 2..<64 { words[index] = word(seed, index) }
      sector += 1
    }
  }

  /// Writes the sectors' numbers into `count` bytes at `base`.
  @inline(__always)
  public static func stamp(_ base: UnsafeMutableRawPointer, count: Int, firstSector: UInt64) {
    var sector = 0
    while sector < count / 512 {
      base.storeBytes(of: firstSector + UInt64(sector), toByteOffset: sector * 512, as: UInt64.self)
      sector += 1
    }
  }

  /// Whether `count` bytes at `base` hold what was written to `firstSector`.
  public static func matches(_ base: UnsafeRawPointer, count: Int, firstSector: UInt64, seed: UInt64) -> Bool {
    var sector = 0
    while sector < count / 512 {
      let words = (base + sector * 512).assumingMemoryBound(to: UInt64.self)
      // As in `fill`.
      if words[0] != firstSector + UInt64(sector) || words[1] != seed { return false }
      for index in 2..<64 where words[index] != word(seed, index) { return false }
      sector += 1
    }
    return true
  }
}
