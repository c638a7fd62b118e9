// Which page of the manager's memory lies at which address of a client: chunks of 2 MiB, made where pages are.

/// The pages of 2 MiB of addresses.
private final class Chunk {
  let base: UInt64
  /// Page number + 1; 0 for none (or the zero page).
  var pages = [UInt32](repeating: 0, count: 512)
  var used = 0
  init(base: UInt64) { self.base = base }
}

public struct PageMap {
  private var chunks: [Chunk] = []
  /// Pages in the map.
  public private(set) var count: UInt64 = 0
  public init() {}

  /// Index of the first chunk that does not lie below `base`.
  private func index(_ base: UInt64) -> Int {
    var low = 0
    var high = chunks.count
    while low < high {
      let middle = (low + high) / 2
      if chunks[middle].base < base { low = middle + 1 } else { high = middle }
    }
    return low
  }

  public subscript(_ address: UInt64) -> UInt64? {
    get {
      let base = address >> 21
      let at = index(base)
      guard at < chunks.count, chunks[at].base == base else { return nil }
      let value = chunks[at].pages[Int(address >> 12 & 511)]
      return value == 0 ? nil : UInt64(value) - 1
    }
    set {
      let base = address >> 21
      let at = index(base)
      if at == chunks.count || chunks[at].base != base {
        if newValue == nil { return }
        chunks.insert(Chunk(base: base), at: at)
      }
      let chunk = chunks[at]
      let slot = Int(address >> 12 & 511)
      let value = newValue.map { UInt32($0 + 1) } ?? 0
      if chunk.pages[slot] != 0 {
        chunk.used -= 1
        count -= 1
      }
      if value != 0 {
        chunk.used += 1
        count += 1
      }
      chunk.pages[slot] = value
      if chunk.used == 0 { chunks.remove(at: at) }
    }
  }

  /// Visits the pages of a range in order of address.
  public func forEach(in range: Range<UInt64>, _ body: (_ address: UInt64, _ page: UInt64) -> Void) {
    var at = index(range.lowerBound >> 21)
    while at < chunks.count, chunks[at].base << 21 < range.upperBound {
      let chunk = chunks[at]
      for slot in 0..<512 where chunk.pages[slot] != 0 {
        let address = chunk.base << 21 + UInt64(slot) << 12
        if range.contains(address) { body(address, UInt64(chunk.pages[slot]) - 1) }
      }
      at += 1
    }
  }
}
