// Reads a Linux module: an ELF64 relocatable file. System V ABI, "Object Files" and its supplement for AMD64.

import BootFormats

/// A Linux module file (`.ko`) whose tables are all checked: sections inside the file, names inside their string tables,
/// symbols in sections that exist, relocations that belong to a section. What follows the ELF file (a signature) is ignored.
///
/// Nothing is copied: the bytes must stay mapped and unchanged as long as this value is used.
public struct ModuleFile {
  /// The name that the module gives itself, with `_` for `-`; without one, the file's.
  public let name: Name
  /// All sections; the first is empty.
  public let sections: [Section]
  /// How many symbols there are; the first is empty.
  public let symbolCount: Int
  /// What the section `.modinfo` says; empty where there is none.
  public let information: ModuleInformation

  private let symbolTable: Bytes
  private let symbolNames: Bytes
  private let symbolSection: Int

  /// One section of the file.
  public struct Section {
    public let name: Bytes
    /// sh_type.
    public let kind: UInt32
    public let flags: UInt64
    /// Size in memory, in bytes; `contents` has as many, or none where the file holds none of the section.
    public let size: UInt64
    public let contents: Bytes
    /// A power of two, at most `ModuleFile.largestAlignment`.
    public let alignment: UInt64
    /// sh_link and sh_info, whose meaning depends on the kind.
    public let link: UInt32
    public let info: UInt32

    public var isAllocated: Bool { flags & 2 != 0 }
    public var isWritable: Bool { flags & 1 != 0 }
    public var isExecutable: Bool { flags & 4 != 0 }
    /// SHT_NOBITS: all zero, and not in the file.
    public var isZero: Bool { kind == 8 }
    /// What Linux too leaves out of memory although it is marked for it: it is only read from the file.
    public var isLoaded: Bool { isAllocated && !name.equals(".modinfo") && !name.equals("__versions") }
  }

  /// One entry of the symbol table.
  public struct Symbol {
    public let name: Bytes
    /// Offset in its section, or an absolute value.
    public let value: UInt64
    /// Size in bytes; 0 where not known.
    public let size: UInt64
    /// Where the symbol is defined.
    public let place: Place
    public let isWeak: Bool
    public let isLocal: Bool
  }

  /// Where a symbol is defined.
  public enum Place: Equatable, Sendable {
    case undefined
    case absolute
    case common
    /// The index of a section that exists.
    case section(Int)
  }

  /// One relocation with addend.
  public struct Relocation {
    /// Offset of the place in its section, in bytes.
    public let offset: UInt64
    /// R_X86_64_…
    public let kind: UInt32
    /// An index below `symbolCount`.
    public let symbol: Int
    public let addend: Int64
  }

  /// The largest alignment of a section, in bytes.
  public static let largestAlignment: UInt64 = 1 << 21

  /// Checks the file. `fileName` (for instance `virtio-rng.ko`) names the module until it is known how it calls itself.
  public init(_ file: Bytes, fileName: Bytes) throws(ModuleError) {
    let provisional = Self.moduleName(fileName)
    let table = try Self.sectionTable(file, provisional)
    var sections: [Section] = []
    sections.reserveCapacity(table.count)
    for index in 0..<table.count {
      sections.append(try Self.section(file, table.offset + index * 64, table.names, provisional))
    }
    self.sections = sections
    var information = ModuleInformation(Bytes(""))
    for section in sections where section.name.equals(".modinfo") { information = ModuleInformation(section.contents) }
    self.information = information
    let name = information.value(of: "name").map { Name($0).normalised } ?? provisional
    self.name = name

    var found: Int?
    for (index, section) in sections.enumerated() where section.kind == 2 {
      guard found == nil else { throw ModuleError(.badSymbolTable, module: name, section: Name(section.name)) }
      found = index
    }
    guard let found, Int(sections[found].link) < sections.count, sections[found].contents.count % 24 == 0 else {
      throw ModuleError(.badSymbolTable, module: name)
    }
    symbolSection = found
    symbolTable = sections[found].contents
    symbolNames = sections[Int(sections[found].link)].contents
    symbolCount = symbolTable.count / 24
    for index in 0..<symbolCount { _ = try symbol(index) }
    for index in sections.indices { try checkRelocations(index) }
  }

  /// The part of a path after the last slash, without `.ko` and what follows it, as a module's name.
  public static func moduleName(_ fileName: Bytes) -> Name {
    var start = 0
    while let slash = fileName.firstIndex(of: 0x2f, from: start) { start = slash + 1 }
    var end = start
    while let rest = fileName.suffix(from: end), !rest.isEmpty, !rest.starts(with: ".ko") { end += 1 }
    return fileName.slice(start, end - start).map { Name($0).normalised } ?? .none
  }

  // MARK: Sections

  private static func sectionTable(
    _ file: Bytes, _ module: Name
  ) throws(ModuleError) -> (offset: Int, count: Int, names: Bytes) {
    guard file.little(0, as: UInt32.self) == 0x464c_457f else { throw ModuleError(.notELF, module: module) }
    guard file.byte(4) == 2, file.byte(5) == 1, file.little(16, as: UInt16.self) == 1,
      file.little(18, as: UInt16.self) == 62
    else { throw ModuleError(.wrongMachine, module: module) }
    guard let offset = file.little(40, as: UInt64.self), let size = file.little(58, as: UInt16.self), size == 64,
      let count = file.little(60, as: UInt16.self), let names = file.little(62, as: UInt16.self), names < count,
      offset <= UInt64(file.count), file.holds(Int(offset), Int(count) * 64),
      let strings = contents(file, Int(offset) + Int(names) * 64)
    else { throw ModuleError(.badSectionTable, module: module) }
    return (Int(offset), Int(count), strings)
  }

  /// The contents of the section whose header is at `header`, or nil where they lie outside the file.
  private static func contents(_ file: Bytes, _ header: Int) -> Bytes? {
    guard let offset = file.little(header + 24, as: UInt64.self), let size = file.little(header + 32, as: UInt64.self),
      offset <= UInt64(file.count), size <= UInt64(file.count)
    else { return nil }
    return file.slice(Int(offset), Int(size))
  }

  private static func section(
    _ file: Bytes, _ header: Int, _ names: Bytes, _ module: Name
  ) throws(ModuleError) -> Section {
    guard let nameOffset = file.little(header, as: UInt32.self), let kind = file.little(header + 4, as: UInt32.self),
      let flags = file.little(header + 8, as: UInt64.self), let size = file.little(header + 32, as: UInt64.self),
      let link = file.little(header + 40, as: UInt32.self), let info = file.little(header + 44, as: UInt32.self),
      let alignment = file.little(header + 48, as: UInt64.self)
    else { throw ModuleError(.badSectionTable, module: module) }
    guard let name = names.terminated(Int(nameOffset)) else { throw ModuleError(.badName, module: module) }
    // SHT_NULL has no contents, SHT_NOBITS none in the file.
    let isInFile = kind != 0 && kind != 8
    guard let contents = isInFile ? contents(file, header) : Bytes("") else {
      throw ModuleError(.sectionOutsideFile, module: module, section: Name(name))
    }
    guard alignment <= largestAlignment, alignment & (alignment &- 1) == 0 else {
      throw ModuleError(.badAlignment, module: module, section: Name(name))
    }
    // SHF_COMPRESSED
    if flags & 2 != 0, flags & 0x800 != 0 {
      throw ModuleError(.unsupportedSection, module: module, section: Name(name))
    }
    return Section(
      name: name, kind: kind, flags: kind == 0 ? 0 : flags, size: kind == 0 ? 0 : size, contents: contents,
      alignment: max(1, alignment), link: link, info: info)
  }

  /// The index of the section of that name, or nil.
  public func section(named name: StaticString) -> Int? {
    for (index, section) in sections.enumerated() where section.name.equals(name) { return index }
    return nil
  }

  // MARK: Symbols

  /// The `index`-th symbol, which must be below `symbolCount`.
  public func symbol(_ index: Int) throws(ModuleError) -> Symbol {
    guard index >= 0, index < symbolCount, let nameOffset = symbolTable.little(index * 24, as: UInt32.self),
      let info = symbolTable.byte(index * 24 + 4),
      let sectionIndex = symbolTable.little(index * 24 + 6, as: UInt16.self),
      let value = symbolTable.little(index * 24 + 8, as: UInt64.self),
      let size = symbolTable.little(index * 24 + 16, as: UInt64.self)
    else { throw ModuleError(.badSymbolTable, module: name) }
    guard let symbolName = symbolNames.terminated(Int(nameOffset)) else {
      throw ModuleError(.badName, module: name, section: Name(sections[symbolSection].name))
    }
    let place: Place
    switch sectionIndex {
    case 0: place = .undefined
    case 0xfff1: place = .absolute
    case 0xfff2: place = .common
    default:
      guard Int(sectionIndex) < sections.count else {
        throw ModuleError(.badSymbolSection, module: name, symbol: Name(symbolName))
      }
      place = .section(Int(sectionIndex))
    }
    return Symbol(
      name: symbolName, value: value, size: size, place: place, isWeak: info >> 4 == 2, isLocal: info >> 4 == 0)
  }

  /// Calls `body` with every symbol that another module or the kernel must provide.
  public func forEachImport(_ body: (Symbol) -> Void) {
    for index in 1..<max(1, symbolCount) {
      // All symbols were read once when the file was checked.
      guard let symbol = try? self.symbol(index), symbol.place == .undefined, !symbol.name.isEmpty else { continue }
      body(symbol)
    }
  }

  // MARK: Relocations

  private func checkRelocations(_ index: Int) throws(ModuleError) {
    let section = sections[index]
    // SHT_REL and SHT_RELA
    guard section.kind == 9 || section.kind == 4 else { return }
    guard Int(section.info) < sections.count else {
      throw ModuleError(.badRelocationTable, module: name, section: Name(section.name))
    }
    guard sections[Int(section.info)].isLoaded else { return }
    guard section.kind == 4 else {
      throw ModuleError(.unsupportedSection, module: name, section: Name(section.name))
    }
    guard Int(section.link) == symbolSection, section.contents.count % 24 == 0 else {
      throw ModuleError(.badRelocationTable, module: name, section: Name(section.name))
    }
    for entry in 0..<section.contents.count / 24 { _ = try relocation(entry, in: index) }
  }

  /// How many relocations a section of relocations for a loaded section has; 0 for any other section.
  public func relocationCount(in section: Int) -> Int {
    let table = sections[section]
    guard table.kind == 4, sections[Int(table.info)].isLoaded else { return 0 }
    return table.contents.count / 24
  }

  /// A relocation of a section of relocations.
  public func relocation(_ index: Int, in section: Int) throws(ModuleError) -> Relocation {
    let table = sections[section]
    guard let offset = table.contents.little(index * 24, as: UInt64.self),
      let info = table.contents.little(index * 24 + 8, as: UInt64.self),
      let addend = table.contents.little(index * 24 + 16, as: Int64.self), info >> 32 < UInt64(symbolCount)
    else { throw ModuleError(.badRelocationTable, module: name, section: Name(table.name)) }
    return Relocation(
      offset: offset, kind: UInt32(truncatingIfNeeded: info), symbol: Int(info >> 32), addend: addend)
  }
}
