// Warnings in modules are passed over; bugs stay what they are.

import LinuxModuleBuilder
import Testing

@testable import LinuxModules

@Suite struct BugTableTests {
  /// Code with `ud2` at 4 and 12, and `nop` elsewhere; the table's entries point to the given places of the code with the given flags.
  private func patched(_ entries: [(code: Int64, flags: UInt16)]) throws -> (count: Int, code: [UInt8]) {
    var builder = ModuleBuilder()
    builder.information([("license", "GPL"), ("name", "warns"), ("vermagic", "6.1")])
    var code = [UInt8](repeating: 0x90, count: 32)
    code.replaceSubrange(4..<6, with: [0x0f, 0x0b])
    code.replaceSubrange(12..<14, with: [0x0f, 0x0b])
    let text = builder.section(.init(".text", flags: 6, contents: code, alignment: 16))
    let label = builder.symbol("code", section: text, value: 0)
    var table: [UInt8] = []
    for entry in entries {
      table += [UInt8](repeating: 0, count: 8) + ModuleBuilder.bytes(UInt16(7)) + ModuleBuilder.bytes(entry.flags)
    }
    builder.section(
      .init(
        "__bug_table", flags: 3, contents: table, alignment: 4,
        relocations: entries.enumerated().map { (UInt64($0.offset * 12), 2, label, $0.element.code) }))
    let file = try module(FileMemory(builder.build()))
    let layout = try ModuleLayout(file)
    let placement = try ModulePlacement(file, layout: layout, base: 0x2000_0000)
    let memory = UnsafeMutableRawBufferPointer.allocate(byteCount: Int(layout.size), alignment: 4096)
    defer { memory.deallocate() }
    try placement.load(into: memory) { _ in nil }
    let count = BugTable.passOverWarnings(of: placement, in: memory)
    let start = Int(try #require(placement.range(ofSection: ".text")).offset)
    return (count, Array(memory[start..<start + 32]))
  }

  @Test func aWarningDoesNothingAndABugStays() throws {
    let (count, code) = try patched([(4, 1 | 2), (12, 0)])
    #expect(count == 1)
    #expect(Array(code[4..<6]) == [0x66, 0x90])
    #expect(Array(code[12..<14]) == [0x0f, 0x0b])
    #expect(code[0..<4].allSatisfy { $0 == 0x90 } && code[6..<12].allSatisfy { $0 == 0x90 })
  }

  /// Places that hold another instruction, or lie outside the module.
  @Test(arguments: [0, 5, -70_000, 70_000, 1 << 30] as [Int64]) func otherPlacesStay(place: Int64) throws {
    let (count, code) = try patched([(place, 1)])
    #expect(count == 0)
    #expect(Array(code[4..<6]) == [0x0f, 0x0b] && Array(code[12..<14]) == [0x0f, 0x0b])
  }
}
