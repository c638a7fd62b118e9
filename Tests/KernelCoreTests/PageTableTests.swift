import KernelCore
import Testing

struct PageTableTests {
  private let flags = PageEntry.present | PageEntry.user | PageEntry.write | PageEntry.noExecute
  private let large: UInt64 = 1 << 21

  @Test func aMappedPageTranslatesAndItsNeighboursDoNot() throws {
    var tables = CountingTables()
    let table = PageTable(memory: SimulatedMemory(), root: 0x1000)
    try table.map(0x40_0000, physical: 0x12_3000, size: 4096, flags: flags, source: &tables)
    #expect(table.translate(0x40_0abc, rights: PageEntry.user | PageEntry.write) == 0x12_3abc)
    #expect(table.translate(0x40_1000, rights: PageEntry.present) == nil)
    #expect(table.translate(0x3f_ffff, rights: PageEntry.present) == nil)
    #expect(tables.live.count == 3)
  }

  @Test func missingRightsDoNotTranslate() throws {
    var tables = CountingTables()
    let table = PageTable(memory: SimulatedMemory(), root: 0x1000)
    try table.map(
      0x40_0000, physical: 0, size: 4096, flags: PageEntry.present | PageEntry.user, source: &tables)
    #expect(table.translate(0x40_0000, rights: PageEntry.user) == 0)
    #expect(table.translate(0x40_0000, rights: PageEntry.user | PageEntry.write) == nil)
  }

  @Test func alignedRangesUseLargePagesAndTheirEndsSmallOnes() throws {
    var tables = CountingTables()
    let table = PageTable(memory: SimulatedMemory(), root: 0x1000)
    let start = large - 4096
    try table.map(start, physical: 5 * large - 4096, size: 2 * large + 8192 - large, flags: flags, source: &tables)
    #expect(table.leaf(start)?.size == 4096)
    #expect(table.leaf(large)?.size == large)
    #expect(table.leaf(2 * large)?.size == 4096)
    #expect(table.leaf(2 * large + 4096) == nil)
    for offset in [0, 4096, large, large + 4096 - 8] as [UInt64] {
      #expect(table.translate(start + offset, rights: PageEntry.user) == 5 * large - 4096 + offset)
    }
  }

  @Test func anOverlapIsRefusedAndLeavesNothingBehind() throws {
    var tables = CountingTables()
    let table = PageTable(memory: SimulatedMemory(), root: 0x1000)
    try table.map(0x40_3000, physical: 0x9000, size: 4096, flags: flags, source: &tables)
    #expect(throws: PageTableError.alreadyMapped) {
      try table.map(0x40_0000, physical: 0, size: 0x5000, flags: flags, source: &tables)
    }
    #expect(table.leaf(0x40_0000) == nil && table.leaf(0x40_2000) == nil)
    #expect(table.translate(0x40_3000, rights: PageEntry.user) == 0x9000)
  }

  @Test func runningOutOfTablesLeavesNothingBehind() {
    var tables = CountingTables()
    tables.limit = 3
    let table = PageTable(memory: SimulatedMemory(), root: 0x1000)
    #expect(throws: PageTableError.noMemory) {
      try table.map(large - 4096, physical: 0, size: 8192, flags: flags, source: &tables)
    }
    #expect(table.leaf(large - 4096) == nil)
  }

  @Test func aHoleInALargePageSplitsIt() throws {
    var tables = CountingTables()
    let table = PageTable(memory: SimulatedMemory(), root: 0x1000)
    try table.map(large, physical: 4 * large, size: large, flags: flags, source: &tables)
    #expect(try table.unmap(large + 0x5000, size: 0x2000, source: &tables))
    #expect(table.translate(large + 0x4fff, rights: PageEntry.user) == 4 * large + 0x4fff)
    #expect(table.leaf(large + 0x5000) == nil && table.leaf(large + 0x6000) == nil)
    #expect(table.translate(large + 0x7000, rights: PageEntry.user) == 4 * large + 0x7000)
    // The table that the split left serves a later mapping of the whole.
    #expect(try table.unmap(large, size: large, source: &tables))
    try table.map(large, physical: 8 * large, size: large, flags: flags, source: &tables)
    #expect(table.translate(2 * large - 1, rights: PageEntry.user) == 9 * large - 1)
  }

  @Test func protectionChangesKeepAddresses() throws {
    var tables = CountingTables()
    let table = PageTable(memory: SimulatedMemory(), root: 0x1000)
    try table.map(0, physical: 4 * large, size: 2 * large, flags: flags, source: &tables)
    let readOnly = PageEntry.present | PageEntry.user | PageEntry.noExecute
    try table.protect(large - 4096, size: 8192, flags: readOnly, source: &tables)
    #expect(table.translate(large - 1, rights: PageEntry.write) == nil)
    #expect(table.translate(large - 1, rights: PageEntry.user) == 5 * large - 1)
    #expect(table.translate(large + 4095, rights: PageEntry.write) == nil)
    #expect(table.translate(large + 4096, rights: PageEntry.write) == 5 * large + 4096)
    #expect(table.translate(large - 4097, rights: PageEntry.write) == 5 * large - 4097)
  }

  @Test func destroyingReleasesEveryTable() throws {
    var tables = CountingTables()
    let memory = SimulatedMemory()
    guard let root = tables.allocateTable() else { return #expect(Bool(false)) }
    let table = PageTable(memory: memory, root: root)
    for slot in [0, 1, 100, 252] as [UInt64] {
      try table.map(slot << 39 | 0x40_0000, physical: 0, size: 4 * large, flags: flags, source: &tables)
      try table.map(slot << 39 | 0x23_4567_8000, physical: 0, size: 0x3000, flags: flags, source: &tables)
    }
    table.destroy(slots: 253, source: &tables)
    #expect(tables.live.isEmpty)
  }
}
