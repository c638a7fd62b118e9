// Layout and relocation: by hand-made files for every kind and limit, and against the linker for compiled code.

import BootFormats
import Foundation
import LinuxModuleBuilder
import Testing

@testable import LinuxModules

@Suite struct PlacementTests {
  /// A module with one section of data and one relocation in it, against the import `x` or a symbol of its own.
  private func relocated(
    _ kind: UInt32, offset: UInt64 = 0, addend: Int64 = 0, to address: UInt64?, base: UInt64 = 0x4000_0000
  ) throws -> UInt64 {
    var builder = ModuleBuilder()
    let symbol = builder.symbol("x")
    builder.section(
      .init(
        ".data", flags: 3, contents: [UInt8](repeating: 0xaa, count: 16),
        relocations: [(offset, kind, symbol, addend)]))
    let memory = FileMemory(builder.build())
    let image = try loaded(try module(memory), base: base) { name in name.equals("x") ? address : nil }
    return image.withUnsafeBytes { $0.loadUnaligned(fromByteOffset: Int(offset), as: UInt64.self) }
  }

  @Test func everyKindOfRelocation() throws {
    #expect(try relocated(0, to: nil) == 0xaaaa_aaaa_aaaa_aaaa)
    #expect(try relocated(1, addend: -1, to: 0x1234_5678_9abc_def0) == 0x1234_5678_9abc_deef)
    #expect(try relocated(10, to: 0xffff_ffff) == 0xaaaa_aaaa_ffff_ffff)
    #expect(try relocated(11, addend: 4, to: 0x7fff_fffb) == 0xaaaa_aaaa_7fff_ffff)
    #expect(try relocated(11, addend: -8, to: 0) == 0xaaaa_aaaa_ffff_fff8)
    #expect(try relocated(2, offset: 4, addend: -4, to: 0x4000_0100) == 0xaaaa_aaaa_0000_00f8)
    #expect(try relocated(4, offset: 4, addend: -4, to: 0x3fff_ff00) == 0xaaaa_aaaa_ffff_fef8)
    #expect(try relocated(24, offset: 8, to: 0x10_0000_0000) == 0xf_bfff_fff8)
  }

  struct Misfit: Sendable {
    var kind: UInt32
    var address: UInt64
    var addend: Int64 = 0
  }
  static let misfits: [Misfit] = [
    Misfit(kind: 10, address: 0x1_0000_0000), Misfit(kind: 10, address: 0, addend: -1),
    Misfit(kind: 11, address: 0x8000_0000), Misfit(kind: 11, address: 0xffff_ffff),
    Misfit(kind: 11, address: 0xffff_ffff_0000_0000), Misfit(kind: 2, address: 0xc000_0000),
    Misfit(kind: 4, address: 0x8000_0000_0000_0000), Misfit(kind: 2, address: 0x4000_0000, addend: -0x8000_0001),
  ]

  @Test(arguments: misfits)
  func whatDoesNotFitIsRefused(_ misfit: Misfit) throws {
    let error = try #require(throws: ModuleError.self) {
      try relocated(misfit.kind, addend: misfit.addend, to: misfit.address)
    }
    guard case .relocationOutOfRange(misfit.kind, _) = error.reason else { throw error }
    #expect(error.text.hasPrefix("module test, section .data, symbol x: value 0x"), "\(error.text)")
  }

  @Test func theLastValueThatFits() throws {
    #expect(try relocated(2, to: 0x4000_0000 + 0x7fff_ffff) == 0xaaaa_aaaa_7fff_ffff)
    #expect(try relocated(2, addend: -1 << 31, to: 0x4000_0000) == 0xaaaa_aaaa_8000_0000)
  }

  @Test func errorsNameModuleSectionAndSymbol() throws {
    var error = try #require(throws: ModuleError.self) { try relocated(1, to: nil) }
    #expect(error.text == "module test, symbol x: nobody provides it")
    error = try #require(throws: ModuleError.self) { try relocated(9, to: 0) }
    #expect(error.text == "module test, section .data, symbol x: relocation of unknown type 0x9")
    for offset: UInt64 in [9, 16, .max, .max - 7] {
      error = try #require(throws: ModuleError.self) { try relocated(1, offset: offset, to: 0) }
      #expect(error.text == "module test, section .data, symbol x: a relocation lies outside the section")
    }
  }

  @Test func weakImportsMayBeMissingAndOthersAreListed() throws {
    var builder = ModuleBuilder()
    builder.section(.init(".data", flags: 3, contents: [UInt8](repeating: 1, count: 8)))
    builder.symbol("must")
    let weak = builder.symbol("may", binding: 2)
    builder.symbol("too")
    builder.sections[0].relocations = [(0, 1, weak, 5)]
    let memory = FileMemory(builder.build())
    let file = try module(memory)
    let placement = try ModulePlacement(file, layout: try ModuleLayout(file), base: 0)
    #expect(placement.missingImports { $0.equals("too") ? 1 : nil }.map(\.text) == ["must"])
    #expect(try loaded(file, base: 0).first == 5)
  }

  @Test func partsAreWholePagesByProtection() throws {
    var builder = ModuleBuilder()
    builder.section(.init(".init.text", flags: 6, contents: [1]))
    builder.section(.init(".data", flags: 3, contents: [2], alignment: 1 << 13))
    builder.section(.init(".text", flags: 6, contents: [3]))
    builder.section(.init(".bss", kind: 8, flags: 3, zeroSize: 5000, alignment: 32))
    builder.section(.init(".rodata", contents: [4]))
    builder.section(.init(".data..ro_after_init", flags: 3, contents: [5]))
    builder.section(.init(".comment", flags: 0, contents: [6]))
    builder.section(.init(".text.unlikely", flags: 6, contents: [7], alignment: 1))
    let memory = FileMemory(builder.build())
    let file = try module(memory)
    let layout = try ModuleLayout(file)
    #expect(layout.parts.map(\.kind) == [.text, .readOnly, .readOnlyAfterInit, .writable, .initText])
    // The writable part begins at 0x3000; its first section at the next multiple of 8 KiB.
    #expect(layout.parts.map(\.offset) == [0, 0x1000, 0x2000, 0x3000, 0x6000])
    #expect(layout.alignment == 1 << 13 && layout.size == 0x7000)
    #expect(layout.offsets[3] == 0 && layout.offsets[8] == 1 && layout.offsets[2] == 0x4000 && layout.offsets[7] == nil)
    #expect(layout.offsets[4] == 0x4020)
    let image = try loaded(file, base: 0x10_0000)
    #expect(image[0] == 3 && image[1] == 7 && image[0x1000] == 4 && image[0x2000] == 5 && image[0x4000] == 2)
    #expect(image[0x6000] == 1 && image[0x4020..<0x6000].allSatisfy { $0 == 0 })
    for base: UInt64 in [0x1000, 1, 0 &- 0x2000] {
      let error = #expect(throws: ModuleError.self) { try loaded(file, base: base) }
      #expect(error?.reason == .badBase)
    }
  }

  @Test func smallMemoryAndHugeModulesAreRefused() throws {
    var builder = ModuleBuilder()
    builder.section(.init(".bss", kind: 8, flags: 3, zeroSize: 8192))
    var memory = FileMemory(builder.build())
    let file = try module(memory)
    let placement = try ModulePlacement(file, layout: try ModuleLayout(file), base: 0)
    var small = [UInt8](repeating: 0, count: 8191)
    var error = small.withUnsafeMutableBytes { buffer in
      #expect(throws: ModuleError.self) { try placement.load(into: buffer) { _ in nil } }
    }
    #expect(error?.reason == .memoryTooSmall)
    for size: UInt64 in [1 << 31, .max] {
      builder.sections = [.init(".data", flags: 3, contents: [1]), .init(".bss", kind: 8, flags: 3, zeroSize: size)]
      memory = FileMemory(builder.build())
      error = #expect(throws: ModuleError.self) { try ModuleLayout(try module(memory)) }
      #expect(error?.reason == .tooLarge && error?.section.text == ".bss")
    }
  }

  @Test func variablesOfEachProcessorHaveTheirOwnAddress() throws {
    var builder = ModuleBuilder()
    let section = builder.section(.init(".data..percpu", flags: 3, contents: [UInt8](repeating: 9, count: 24)))
    let symbol = builder.symbol("counter", section: section, value: 16)
    builder.section(
      .init(".data", flags: 3, contents: [UInt8](repeating: 0, count: 8), relocations: [(0, 1, symbol, 0)]))
    let memory = FileMemory(builder.build())
    let file = try module(memory)
    let layout = try ModuleLayout(file)
    #expect(layout.processorSize == 24)
    let error = #expect(throws: ModuleError.self) { try loaded(file, base: 0x4000) }
    #expect(error?.reason == .noPlaceForProcessors)
    let image = try loaded(file, base: 0x4000, processorBase: 0x7_0000)
    let data = Int(try #require(layout.offsets[2]))
    #expect(image.withUnsafeBytes { $0.load(fromByteOffset: data, as: UInt64.self) } == 0x7_0010)
    #expect(image[Int(try #require(layout.offsets[1]))] == 9)
  }

  @Test func symbolsThatHaveNoAddress() throws {
    for (place, reason): (UInt16, ModuleError.Reason) in [(0xfff2, .commonSymbol), (2, .symbolNotLoaded)] {
      var builder = ModuleBuilder()
      let symbol = builder.symbol("s", section: place)
      builder.section(
        .init(".data", flags: 3, contents: [UInt8](repeating: 0, count: 8), relocations: [(0, 1, symbol, 0)]))
      builder.section(.init(".comment", flags: 0, contents: [1]))
      let memory = FileMemory(builder.build())
      let error = #expect(throws: ModuleError.self) { try loaded(try module(memory), base: 0) }
      #expect(error?.reason == reason && error?.symbol.text == "s")
    }
  }

  static let source = """
    extern int imported(const char *, int);
    extern unsigned long shared[16];
    static int counter = 3;
    int table[8] = {1, 2, 3};
    int zero[100];
    static int local(int i) { return table[i & 7] + zero[i & 63]; }
    static int (*const calls[])(int) = {local};
    int (*entry)(int) = local;
    const char *text = "hello";
    int init_module(void) {
      counter += imported("first", counter) + (int)shared[counter & 15];
      return calls[counter & 0](counter) + entry(1);
    }
    asm(".section .discover,\\"a\\"\\n .quad init_module - .\\n .long table\\n .long imported - .\\n .previous");
    """

  /// Above 1 GiB and below 2, where both signed and unsigned addresses of 32 bits do.
  static let base: UInt64 = 0x4100_0000

  @Test(.enabled(if: Tool.has("clang") && Tool.has("ld.lld"), "needs clang and ld.lld of the Swift toolchain"))
  func compiledCodeIsRelocatedAsTheLinkerDoes() throws {
    let scratch = try Scratch()
    try Data(Self.source.utf8).write(to: scratch.url.appending(path: "m.c"))
    try Tool.run([
      "clang", "--target=x86_64-unknown-linux-gnu", "-c", "-O1", "-mcmodel=kernel", "-fno-pic", "-ffreestanding",
      "-fno-asynchronous-unwind-tables", scratch.path("m.c"), "-o", scratch.path("m.ko"),
    ])
    try compare(scratch.path("m.ko"), ["imported": 0x4200_0000, "shared": 0x4300_0040], scratch)
  }

  /// Loads the file and compares every section with the linker's; all kinds of relocation in it are counted.
  @discardableResult
  private func compare(_ path: String, _ imports: [String: UInt64], _ scratch: Scratch) throws -> Set<UInt32> {
    let memory = FileMemory(Array(try Data(contentsOf: URL(filePath: path))))
    let file = try module(memory)
    let layout = try ModuleLayout(file)
    let placement = try ModulePlacement(file, layout: layout, base: Self.base, processorBase: Self.base + (1 << 24))
    let image = try loaded(file, base: Self.base, processorBase: Self.base + (1 << 24)) { imports[$0.text] }
    let sections = try linked(path, placement, imports: imports, in: scratch)
    #expect(sections.count >= 3)
    for section in sections {
      #expect(Array(image[section.offset..<section.offset + section.bytes.count]) == section.bytes, "\(section.name)")
    }
    // A module that only exports functions has nothing to initialise.
    let start = try placement.address(named: "init_module")
    #expect((start == nil) == (file.name.text == "virtio_ring"))
    if let start {
      let part = layout.parts.last { $0.offset <= start - Self.base }
      #expect(part?.kind == .text || part?.kind == .initText)
    }
    var kinds: Set<UInt32> = []
    for table in file.sections.indices {
      for entry in 0..<file.relocationCount(in: table) { kinds.insert(try file.relocation(entry, in: table).kind) }
    }
    return kinds
  }

  @Test(.enabled(if: !RealModules.paths.isEmpty, RealModules.reason))
  func debiansDriversAreRelocatedAsTheLinkerDoes() throws {
    var kinds: Set<UInt32> = []
    // These two are built into some kernels.
    let core = ["virtio", "virtio_ring"].filter { name in RealModules.paths.contains { $0.contains("/\(name).ko") } }
    for name in core + ["virtio_mmio", "virtio_blk", "virtio_net", "failover", "net_failover", "virtio-rng"] {
      let scratch = try Scratch()
      let path = scratch.path("\(name).ko")
      try Data(try RealModules.contents(try RealModules.path(name))).write(to: URL(filePath: path))
      let memory = FileMemory(Array(try Data(contentsOf: URL(filePath: path))))
      var imports: [String: UInt64] = [:]
      try module(memory).forEachImport { imports[$0.name.text] = 0x4200_0000 + UInt64(imports.count) * 64 }
      kinds.formUnion(try compare(path, imports, scratch))
    }
    #expect(kinds.isSuperset(of: [1, 2, 4, 11]))
  }
}
