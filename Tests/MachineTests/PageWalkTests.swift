import GuestMemory
import Testing

@testable import Machine

@Suite struct PageWalkTests {
  let memory: GuestMemory

  /// Tables at 0x1000: PML4 slot 0 → 1 GiB table at 0x2000 → directory at 0x3000 → table at 0x4000.
  init() throws {
    memory = try GuestMemory(ranges: [0..<0x10_0000], hugePages: false)
    try memory.write(UInt64(0x2007), at: GuestAddress(0x1000))
    try memory.write(UInt64(0x2007), at: GuestAddress(0x1000 + 511 * 8))
    try memory.write(UInt64(0x3007), at: GuestAddress(0x2000))
    try memory.write(UInt64(0x4000_0083), at: GuestAddress(0x2008))
    try memory.write(UInt64(0x4007), at: GuestAddress(0x3000))
    try memory.write(UInt64(1) << 63 | 0x20_00e7, at: GuestAddress(0x3008))
    try memory.write(UInt64(0x5005), at: GuestAddress(0x4000 + 3 * 8))
    // A directory outside RAM.
    try memory.write(UInt64(0x7fff_f007), at: GuestAddress(0x3010))
  }

  private func walk(cr4: UInt64 = 0x20, efer: UInt64 = 0xd00) -> PageWalk {
    PageWalk(memory: memory, cr0: 0x8000_0001, cr3: 0x1000, cr4: cr4, efer: efer)
  }

  @Test func pagesOfAllSizesAreFoundWithTheirRights() {
    #expect(
      walk().translate(0x3abc)
        == PageTranslation(
          physical: GuestAddress(0x5abc), pageSize: 4096, isWritable: false, isUser: true, isExecutable: true))
    #expect(
      walk().translate(0x20_1234)
        == PageTranslation(
          physical: GuestAddress(0x20_1234), pageSize: 2 << 20, isWritable: true, isUser: true, isExecutable: false))
    #expect(
      walk().translate(0x4000_0001)
        == PageTranslation(
          physical: GuestAddress(0x4000_0001), pageSize: 1 << 30, isWritable: true, isUser: false, isExecutable: true))
  }

  @Test func upperHalfNeedsTheSignBitsOfTheAddress() {
    #expect(walk().translate(0xffff_ff80_0000_3000)?.physical == GuestAddress(0x5000))
    #expect(walk().translate(0x0000_ff80_0000_3000) == nil)
    #expect(walk().translate(0x0001_0000_0000_3000) == nil)
  }

  @Test func noExecuteCountsOnlyWhereItIsEnabled() {
    #expect(walk(efer: 0x500).translate(0x20_0000)?.isExecutable == true)
  }

  @Test(arguments: [0x2000, 0x40_0000, 0x8000_0000, 0x80_0000_0000] as [UInt64])
  func addressesWithoutAMappingOrWithTablesOutsideMemoryAreNil(address: UInt64) {
    #expect(walk().translate(address) == nil)
  }

  @Test func withPagingOffAddressesArePhysicalUpTo4GiB() {
    let walk = PageWalk(memory: memory, cr0: 1, cr3: 0xffff_ffff_ffff_ffff, cr4: 0, efer: 0)
    #expect(walk.translate(0x1234)?.physical == GuestAddress(0x1234))
    #expect(walk.translate(1 << 32) == nil)
  }

  @Test func legacyPagingHasTwoLevelsAndLargePages() throws {
    try memory.write(UInt32(0x9007), at: GuestAddress(0x8000))
    try memory.write(UInt32(0x40_0083), at: GuestAddress(0x8004))
    try memory.write(UInt32(0xa005), at: GuestAddress(0x9004))
    let walk = PageWalk(memory: memory, cr0: 0x8000_0001, cr3: 0x8000, cr4: 0x10, efer: 0)
    #expect(walk.translate(0x1010)?.physical == GuestAddress(0xa010))
    #expect(walk.translate(0x1010)?.isWritable == false)
    #expect(walk.translate(0x40_0001)?.physical == GuestAddress(0x40_0001))
    #expect(walk.translate(0x80_0000) == nil)
  }

  @Test func everyWalkOfRandomTablesEnds() throws {
    var random = SystemRandomNumberGenerator()
    for _ in 0..<20 {
      for place in stride(from: 0, to: 0x4000, by: 8) where Bool.random() {
        // Entries that mostly point into the tables themselves.
        let entry = UInt64.random(in: 0...0x3fff) | (Bool.random() ? 1 : 0) | UInt64.random(in: 0...1) << 63
        try memory.write(entry, at: GuestAddress(UInt64(place)))
      }
      for _ in 0..<50 {
        let walk = PageWalk(
          memory: memory, cr0: .random(in: 0 ... .max, using: &random), cr3: .random(in: 0...0x4fff, using: &random),
          cr4: .random(in: 0 ... .max, using: &random), efer: .random(in: 0 ... .max, using: &random))
        _ = walk.translate(.random(in: 0 ... .max, using: &random))
        _ = walk.translate(.random(in: 0...0xffff_ffff, using: &random))
      }
    }
  }
}
