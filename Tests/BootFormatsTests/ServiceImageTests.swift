// Images of services for kernel space: what is read from a good one, and that each kind of damage is refused.

import BootFormats
import Testing

/// A service image: text at 0x400000, read-only data with note, dynamic section and relocations at 0x401000, data at 0x402000.
private struct ServiceFile {
  var type: UInt16 = 3
  var owner = "Pollux"
  var noteType: UInt32 = 1
  /// Offsets of the entry table, from each entry's place.
  var entries: [Int32] = [-0x1014, -0x1010]
  var relocations: [(address: UInt64, kind: UInt64, value: UInt64)] = [(0x40_2000, 8, 0x40_0010), (0x40_2ff8, 8, 7)]
  var relocationAddress: UInt64 = 0x40_1200
  var relocationSize: UInt64?

  var bytes: [UInt8] {
    func header(_ kind: UInt32, _ flags: UInt32, _ offset: UInt64, _ size: UInt64) -> [UInt8] {
      little(kind) + little(flags) + little(offset) + little(0x40_0000 + offset - 0x1000)
        + little(0x40_0000 + offset - 0x1000) + little(size) + little(size) + little(UInt64(0x1000))
    }
    var out: [UInt8] = [0x7f, 0x45, 0x4c, 0x46, 2, 1, 1] + [UInt8](repeating: 0, count: 9)
    out += little(type) + little(UInt16(62)) + little(UInt32(1)) + little(UInt64(0x40_0000)) + little(UInt64(64))
    out += little(UInt64(0)) + little(UInt32(0)) + little(UInt16(64)) + little(UInt16(56)) + little(UInt16(5))
    out += [UInt8](repeating: 0, count: 64 - out.count)
    let noteSize = UInt64(20 + 4 * entries.count)
    out += header(1, 5, 0x1000, 0x1000) + header(1, 4, 0x2000, 0x1000) + header(1, 6, 0x3000, 0x1000)
    out += header(4, 4, 0x2000, noteSize) + header(2, 4, 0x2100, 48)
    out += [UInt8](repeating: 0, count: 0x4000 - out.count)
    func put(_ part: [UInt8], at offset: Int) { out.replaceSubrange(offset..<offset + part.count, with: part) }
    put(little(UInt32(7)) + little(UInt32(4 * entries.count)) + little(noteType) + Array(owner.utf8), at: 0x2000)
    put(entries.flatMap(little), at: 0x2014)
    let size = relocationSize ?? UInt64(relocations.count * 24)
    put(little(UInt64(7)) + little(relocationAddress) + little(UInt64(8)) + little(size), at: 0x2100)
    put(relocations.flatMap { little($0.address) + little($0.kind) + little($0.value) }, at: 0x2200)
    return out
  }
}

@Suite struct ServiceImageTests {
  private let range: Range<UInt64> = 0x1000..<0x6000_0000

  @Test func readsRelocationsAndEntries() throws {
    let buffer = Buffer(ServiceFile().bytes)
    let image = try ServiceImage(buffer.bytes, within: range)
    #expect(image.program.entry == 0x40_0000)
    #expect(image.relocationCount == 2 && image.entryCount == 2)
    let first = try image.relocation(0)
    #expect(first.address == 0x40_2000 && first.value == 0x40_0010)
    let second = try image.relocation(1)
    #expect(second.address == 0x40_2ff8 && second.value == 7)
    #expect(try image.entry(0) == 0x40_0000)
    #expect(try image.entry(1) == 0x40_0008)
    #expect(throws: ExecutableError.badRelocation) { try image.relocation(2) }
    #expect(throws: ExecutableError.badEntryTable) { try image.entry(-1) }
  }

  @Test func refusesDamage() {
    func expect(_ reason: ExecutableError, _ damage: (inout ServiceFile) -> Void) {
      var file = ServiceFile()
      damage(&file)
      let buffer = Buffer(file.bytes)
      #expect(throws: reason) { try ServiceImage(buffer.bytes, within: range) }
    }
    expect(.wrongMachine) { $0.type = 2 }
    expect(.badEntryTable) { $0.owner = "Castor" }
    expect(.badEntryTable) { $0.noteType = 2 }
    expect(.badEntryTable) { $0.entries = [] }
    // Into the data, before the text, and into the note itself.
    expect(.badEntryTable) { $0.entries = [0x1000] }
    expect(.badEntryTable) { $0.entries = [-0x1015] }
    expect(.badEntryTable) { $0.entries = [0] }
    // Another kind, into the text, across the end of the data, and beyond everything.
    expect(.badRelocation) { $0.relocations[1].kind = 1 }
    expect(.badRelocation) { $0.relocations[1].address = 0x40_0000 }
    expect(.badRelocation) { $0.relocations[1].address = 0x40_2ff9 }
    expect(.badRelocation) { $0.relocations[1].address = .max }
    expect(.badRelocation) { $0.relocationAddress = 0x50_0000 }
    expect(.badRelocation) { $0.relocationSize = 25 }
    expect(.badRelocation) { $0.relocationSize = .max }
  }

  /// Whatever bytes change, the image is read or refused, and what it gives lies inside its segments.
  @Test func randomDamageIsReadOrRefused() {
    let good = ServiceFile().bytes
    var random = SystemRandomNumberGenerator()
    for _ in 0..<3000 {
      var bytes = good
      for _ in 0..<Int.random(in: 1...6, using: &random) {
        let places = [0..<0x160, 0x2000..<0x2020, 0x2100..<0x2130, 0x2200..<0x2230]
        guard let range = places.randomElement(using: &random) else { continue }
        bytes[Int.random(in: range, using: &random)] = UInt8.random(in: 0...255, using: &random)
      }
      let buffer = Buffer(bytes)
      guard let image = try? ServiceImage(buffer.bytes, within: range) else { continue }
      for index in 0..<image.entryCount {
        if let entry = try? image.entry(index) { #expect(range.contains(entry)) }
      }
      for index in 0..<image.relocationCount {
        if let relocation = try? image.relocation(index) { #expect(range.contains(relocation.address + 7)) }
      }
    }
  }
}
