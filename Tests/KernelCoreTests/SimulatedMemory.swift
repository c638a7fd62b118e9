// Physical memory for tests: 64-bit words in a dictionary, shared by all copies.

import KernelCore

final class SimulatedWords {
  var words: [UInt64: UInt64] = [:]
}

struct SimulatedMemory: PhysicalMemory {
  let storage = SimulatedWords()
  func load(_ address: UInt64) -> UInt64 { storage.words[address, default: 0] }
  func store(_ address: UInt64, _ value: UInt64) { storage.words[address] = value }
  func clear(_ address: UInt64, size: UInt64) {
    for offset in stride(from: 0, to: size, by: 8) { storage.words[address + offset] = nil }
  }
}

/// Table frames counted; `limit` makes it run out.
struct CountingTables: TableSource {
  var next: UInt64 = 0x10_0000
  var live: Set<UInt64> = []
  var limit = Int.max
  mutating func allocateTable() -> UInt64? {
    guard live.count < limit else { return nil }
    defer { next += 4096 }
    live.insert(next)
    return next
  }
  mutating func releaseTable(_ address: UInt64) { live.remove(address) }
}

/// A repeatable source of randomness.
struct TestRandom: RandomNumberGenerator {
  var state: UInt64
  mutating func next() -> UInt64 {
    state &+= 0x9e37_79b9_7f4a_7c15
    var mixed = state
    mixed = (mixed ^ (mixed >> 30)) &* 0xbf58_476d_1ce4_e5b9
    mixed = (mixed ^ (mixed >> 27)) &* 0x94d0_49bb_1331_11eb
    return mixed ^ (mixed >> 31)
  }
}
