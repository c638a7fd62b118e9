// What is read from a module file, and that damaged files are refused by name and never do harm.

import BootFormats
import LinuxModuleBuilder
import Testing

@testable import LinuxModules

@Suite struct ModuleFileTests {
  static let magic = "6.1.0-1-cloud-amd64 SMP preempt mod_unload modversions "

  static func sample() -> [UInt8] {
    ModuleBuilder.module(
      "some-driver", magic: magic, depends: ["virtio", "virtio-ring"],
      imports: [("_printk", 0x9271_4411), ("register_thing", 17)], exports: [("some_call", 5), ("other_call", 6)])
  }

  @Test func readsWhatTheModuleSaysOfItself() throws {
    let memory = FileMemory(Self.sample())
    let file = try module(memory)
    #expect(file.name.text == "some_driver")
    #expect(file.information.dependencies.map(\.text) == ["virtio", "virtio_ring"])
    #expect(file.information.value(of: "license")?.text == "GPL")
    #expect(file.information.value(of: "licens") == nil)
    var imports: [String] = []
    file.forEachImport { imports.append($0.name.text) }
    #expect(imports == ["_printk", "register_thing"])
    var versions: [String: UInt32] = [:]
    try file.forEachVersion { versions[$0.text] = $1 }
    #expect(versions == ["_printk": 0x9271_4411, "register_thing": 17])
    var exports: [String] = []
    try file.forEachExport { exports.append("\($0.name.text) \($0.isGPL) \($0.checksum ?? 0)") }
    #expect(exports == ["some_call true 5", "other_call true 6"])
    let text = file.sections[try #require(file.section(named: ".text"))]
    #expect(text.isExecutable && text.isAllocated && !text.isWritable && text.alignment == 8 && text.size == 64)
    // Read from the file only.
    #expect(try #require(file.section(named: ".modinfo")).signum() == 1)
    #expect(!file.sections[try #require(file.section(named: "__versions"))].isLoaded)
  }

  @Test func parameters() throws {
    var builder = ModuleBuilder()
    builder.information([("parm", "depth:how deep"), ("parmtype", "depth:uint"), ("parmtype", "name:charp")])
    let memory = FileMemory(builder.build())
    #expect(
      try module(memory).information.parameters.map { "\($0.name.text) \($0.type.text)" } == [
        "depth uint", "name charp",
      ])
  }

  @Test func withoutItsOwnNameTheFileNamesIt() throws {
    let memory = FileMemory(ModuleBuilder().build())
    #expect(try module(memory, "/a/b.d/virtio-rng.ko.xz").name.text == "virtio_rng")
    #expect(try module(memory, "plain").name.text == "plain")
  }

  @Test func anotherKernelIsOneClearLine() throws {
    let memory = FileMemory(Self.sample())
    let file = try module(memory)
    try file.checkVersion(wanted: FileMemory(Array(Self.magic.utf8)).bytes)
    let wanted = FileMemory(Array("6.1.0-2-cloud-amd64 SMP".utf8))
    let error = try #require(throws: ModuleError.self) { try file.checkVersion(wanted: wanted.bytes) }
    #expect(
      error.text
        == "module some_driver: built for \"6.1.0-1-cloud-amd64 SMP preempt mod_unload modversions \", "
        + "wanted \"6.1.0-2-cloud-amd64 SMP\"")
  }

  /// Overwrites bytes of the sample and expects the error.
  private func expect(_ reason: ModuleError.Reason, _ change: (inout [UInt8]) -> Void) {
    var contents = Self.sample()
    change(&contents)
    let memory = FileMemory(contents)
    let error = #expect(throws: ModuleError.self) { try module(memory) }
    #expect(error?.reason == reason)
  }

  /// Overwrites a field of the header of the sample's `index`-th section.
  private func set<T: FixedWidthInteger>(_ contents: inout [UInt8], section index: Int, _ field: Int, _ value: T) {
    let table = contents.withUnsafeBytes { Int($0.loadUnaligned(fromByteOffset: 40, as: UInt64.self)) }
    let start = table + index * 64 + field
    contents.replaceSubrange(start..<start + T.bitWidth / 8, with: ModuleBuilder.bytes(value))
  }

  @Test func damageIsNamed() throws {
    expect(.notELF) { $0[0] = 0 }
    expect(.notELF) { $0 = [] }
    expect(.wrongMachine) { $0[4] = 1 }
    expect(.wrongMachine) { $0[16] = 2 }
    expect(.wrongMachine) { $0[18] = 3 }
    expect(.badSectionTable) { $0.removeLast() }
    expect(.badSectionTable) { $0.replaceSubrange(40..<48, with: ModuleBuilder.bytes(UInt64.max)) }
    expect(.badSectionTable) { $0.replaceSubrange(62..<64, with: ModuleBuilder.bytes(UInt16.max)) }
    // Section 2 is .text, 1 .modinfo.
    expect(.badName) { set(&$0, section: 2, 0, UInt32.max) }
    expect(.sectionOutsideFile) { set(&$0, section: 2, 24, UInt64.max) }
    expect(.sectionOutsideFile) { set(&$0, section: 2, 32, UInt64.max) }
    expect(.badAlignment) { set(&$0, section: 2, 48, UInt64(3)) }
    expect(.badAlignment) { set(&$0, section: 2, 48, UInt64(1) << 63) }
    expect(.unsupportedSection) { set(&$0, section: 2, 8, UInt64(0x806)) }
    // 7 is .rela.text, 9 .symtab.
    expect(.badRelocationTable) { set(&$0, section: 7, 44, UInt32(99)) }
    expect(.badRelocationTable) { set(&$0, section: 7, 40, UInt32(1)) }
    expect(.badRelocationTable) { set(&$0, section: 7, 32, UInt64(25)) }
    expect(.unsupportedSection) { set(&$0, section: 7, 4, UInt32(9)) }
    expect(.badSymbolTable) { set(&$0, section: 9, 4, UInt32(1)) }
    expect(.badSymbolTable) { set(&$0, section: 9, 40, UInt32(99)) }
    expect(.badSymbolTable) { set(&$0, section: 1, 4, UInt32(2)) }
  }

  @Test func badSymbolsAreNamed() throws {
    var builder = ModuleBuilder()
    builder.symbol("lost", section: 77)
    let memory = FileMemory(builder.build())
    let error = try #require(throws: ModuleError.self) { try module(memory) }
    #expect(error.text == "module test, symbol lost: defined in a section that does not exist")
  }

  /// Asks a file everything and loads it, so that a mutated one meets all of the code. Whether it could be loaded.
  static func exercise(_ contents: [UInt8]) -> Bool {
    let memory = FileMemory(contents)
    do {
      let file = try module(memory)
      _ = file.information.dependencies
      _ = file.information.parameters
      file.forEachImport { _ = $0.name.count }
      // What these refuse does not keep the module from being loaded.
      try? file.forEachExport { _ = $0.name.count }
      try? file.forEachVersion { name, _ in _ = name.count }
      // Memory for what a mutated size asks is not this test's subject.
      guard try ModuleLayout(file).size < 1 << 20 else { return false }
      _ = try loaded(file, base: 0x4000_0000, processorBase: 0) { _ in 0x5000_0000 }
      return true
    } catch {
      #expect(error.line.allSatisfy { $0 >= 0x20 && $0 < 0x7f })
      return false
    }
  }

  /// A fixed seed, so that a failure comes back.
  @Test func mutatedFilesNeverTrap() throws {
    var random = SplitMix(state: 0x1dc0_0001)
    let sound = Self.sample()
    let table = sound.withUnsafeBytes { Int($0.loadUnaligned(fromByteOffset: 40, as: UInt64.self)) }
    #expect(Self.exercise(sound))
    var accepted = 0
    let interesting: [UInt64] = [
      0, 1, 7, 0x7f, 0xff, 0xffff, 0x7fff_ffff, 0xffff_ffff, 1 << 31, 1 << 63, .max, .max - 7,
    ]
    for round in 0..<4000 {
      var contents = sound
      for _ in 0...Int.random(in: 0..<4, using: &random) {
        // Half of the changes meet the headers, which are the smaller part.
        let area = round % 2 == 0 ? table..<contents.count : 0..<contents.count
        let place = Int.random(in: area, using: &random)
        if Bool.random(using: &random) {
          contents[place] = UInt8.random(in: .min ... .max, using: &random)
        } else {
          let value = ModuleBuilder.bytes(interesting.randomElement(using: &random)!)
          for (index, byte) in value.enumerated() where place & ~7 + index < contents.count {
            contents[place & ~7 + index] = byte
          }
        }
      }
      if round % 8 == 0 { contents.removeLast(Int.random(in: 0..<contents.count, using: &random)) }
      if Self.exercise(contents) { accepted += 1 }
    }
    // Both outcomes are met often, or the test would show nothing.
    #expect(accepted > 400 && accepted < 3600, "\(accepted)")
  }

  @Test func everyTruncationIsRefused() throws {
    let sound = Self.sample()
    // The section table is at the end, so nothing shorter is whole.
    for length in 0..<sound.count { #expect(!Self.exercise(Array(sound.prefix(length)))) }
  }
}
