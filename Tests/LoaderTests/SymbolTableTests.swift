import Testing

@testable import Loader

@Suite struct SymbolTableTests {
  /// An ELF file with a symbol table and nothing else: header, three section headers, symbols, strings.
  static func file(_ symbols: [(name: String, kind: UInt8, address: UInt64, size: UInt64)]) -> [UInt8] {
    var strings: [UInt8] = [0]
    var table = [UInt8](repeating: 0, count: 24)
    for symbol in symbols {
      table += .little(UInt32(strings.count)) + [0x10 | symbol.kind, 0] + .little(UInt16(1))
      table += .little(symbol.address) + .little(symbol.size)
      strings += Array(symbol.name.utf8) + [0]
    }
    var file = Array(TestELF().bytes[..<64])
    file.put(UInt64(64), at: 40)
    file.put(UInt16(64), at: 58)
    file.put(UInt16(3), at: 60)
    let start = 64 + 3 * 64
    file += [UInt8](repeating: 0, count: 3 * 64)
    file.put(UInt32(2), at: 128 + 4)
    file.put(UInt64(start), at: 128 + 24)
    file.put(UInt64(table.count), at: 128 + 32)
    file.put(UInt32(2), at: 128 + 40)
    file.put(UInt32(3), at: 192 + 4)
    file.put(UInt64(start + table.count), at: 192 + 24)
    file.put(UInt64(strings.count), at: 192 + 32)
    return file + table + strings
  }

  static let base: UInt64 = 0xffff_ffff_8000_0000
  static let sample = file([
    ("late", 2, base + 0x300, 0x10), ("entry", 0, base, 0), ("$s4main5helloyyF", 2, base + 0x100, 0x40),
    ("alias", 0, base + 0x100, 0), ("data", 1, base + 0x110, 8),
  ])

  @Test func eachAddressGetsTheFunctionItLiesIn() throws {
    let directory = try TemporaryDirectory()
    let table = SymbolTable(path: try directory.file("kernel", Self.sample))
    let base = Self.base
    let found = table.nearest(to: [base - 1, base, base + 0xff, base + 0x120, base + 0x140, base + 0x30f, .max])
    #expect(
      found.map { $0?.name } == [nil, "entry", "entry", "$s4main5helloyyF", "$s4main5helloyyF", "late", "alias"])
    #expect(found[3]?.demangledName == "main.hello() -> ()")
    #expect(found[1]?.demangledName == "entry")
    #expect(table.address(of: "late") == base + 0x300)
    #expect(table.address(of: "data") == nil)
  }

  @Test func missingStrippedAndForeignFilesHaveNoSymbols() throws {
    let directory = try TemporaryDirectory()
    #expect(SymbolTable(path: "/nonexistent").nearest(to: 1) == nil)
    #expect(SymbolTable(path: try directory.file("a", TestELF().bytes)).nearest(to: 0x10_0000) == nil)
    #expect(SymbolTable(path: try directory.file("b", [1, 2, 3])).address(of: "x") == nil)
  }

  @Test func everyCorruptByteAndTruncationIsReadWithoutATrap() throws {
    let directory = try TemporaryDirectory()
    let table = SymbolTable(path: try directory.file("kernel", Self.sample))
    var changedAnswers = 0
    for index in Self.sample.indices {
      var changed = Self.sample
      changed[index] ^= 0xff
      _ = try directory.file("kernel", changed)
      if table.nearest(to: Self.base + 0x120)?.name != "$s4main5helloyyF" { changedAnswers += 1 }
      _ = try directory.file("kernel", Array(Self.sample[..<index]))
      _ = table.nearest(to: Self.base + 0x120)
    }
    #expect(changedAnswers > 20)
  }
}
