// Makes Linux modules for tests: ELF64 relocatable files, byte by byte.

/// A relocatable file that is put together section by section.
public struct ModuleBuilder {
  public struct Section {
    public var name: String
    /// sh_type: 1 is PROGBITS, 8 NOBITS.
    public var kind: UInt32 = 1
    /// sh_flags: 1 write, 2 allocate, 4 execute.
    public var flags: UInt64 = 2
    public var contents: [UInt8] = []
    /// Size where the file holds nothing.
    public var zeroSize: UInt64 = 0
    public var alignment: UInt64 = 8
    public var relocations: [(offset: UInt64, kind: UInt32, symbol: Int, addend: Int64)] = []

    public init(
      _ name: String, kind: UInt32 = 1, flags: UInt64 = 2, contents: [UInt8] = [], zeroSize: UInt64 = 0,
      alignment: UInt64 = 8, relocations: [(offset: UInt64, kind: UInt32, symbol: Int, addend: Int64)] = []
    ) {
      self.name = name
      self.kind = kind
      self.flags = flags
      self.contents = contents
      self.zeroSize = zeroSize
      self.alignment = alignment
      self.relocations = relocations
    }
  }

  /// The sections without the null section, the relocations and the tables of symbols and strings.
  public var sections: [Section] = []
  private var symbols: [UInt8] = [UInt8](repeating: 0, count: 24)
  private var strings: [UInt8] = [0]
  public private(set) var symbolCount = 1

  public init() {}

  /// Adds a symbol and returns its index. `section` is an index of the file (1 is the first section added), 0 for an import.
  @discardableResult
  public mutating func symbol(
    _ name: String, section: UInt16 = 0, value: UInt64 = 0, binding: UInt8 = 1
  ) -> Int {
    symbols += Self.bytes(UInt32(strings.count)) + [binding << 4, 0] + Self.bytes(section) + Self.bytes(value)
    symbols += Self.bytes(UInt64(0))
    strings += Array(name.utf8) + [0]
    symbolCount += 1
    return symbolCount - 1
  }

  /// Adds a section and returns its index in the file.
  @discardableResult
  public mutating func section(_ section: Section) -> UInt16 {
    sections.append(section)
    return UInt16(sections.count)
  }

  /// Adds `.modinfo`.
  public mutating func information(_ entries: [(String, String)]) {
    section(Section(".modinfo", contents: entries.flatMap { Array("\($0)=\($1)".utf8) + [0] }, alignment: 1))
  }

  /// The file.
  public func build() -> [UInt8] {
    var file = [UInt8](repeating: 0, count: 64)
    var headers = [[UInt8](repeating: 0, count: 64)]
    var names: [UInt8] = [0]
    let relocated = sections.indices.filter { !sections[$0].relocations.isEmpty }
    let symbolIndex = UInt32(1 + sections.count + relocated.count)
    func add(
      _ name: String, _ kind: UInt32, _ flags: UInt64, _ contents: [UInt8], size: UInt64? = nil, link: UInt32 = 0,
      info: UInt32 = 0, alignment: UInt64, entry: UInt64 = 0
    ) {
      while file.count % 8 != 0 { file.append(0) }
      var header = Self.bytes(UInt32(names.count)) + Self.bytes(kind) + Self.bytes(flags) + Self.bytes(UInt64(0))
      header += Self.bytes(UInt64(file.count)) + Self.bytes(size ?? UInt64(contents.count)) + Self.bytes(link)
      header += Self.bytes(info) + Self.bytes(alignment) + Self.bytes(entry)
      headers.append(header)
      names += Array(name.utf8) + [0]
      file += contents
    }
    for section in sections {
      add(
        section.name, section.kind, section.flags, section.contents,
        size: section.kind == 8 ? section.zeroSize : nil, alignment: section.alignment)
    }
    for index in relocated {
      var table: [UInt8] = []
      for entry in sections[index].relocations {
        table += Self.bytes(entry.offset) + Self.bytes(UInt64(entry.symbol) << 32 | UInt64(entry.kind))
        table += Self.bytes(entry.addend)
      }
      add(
        ".rela" + sections[index].name, 4, 0x40, table, link: symbolIndex, info: UInt32(index + 1), alignment: 8,
        entry: 24)
    }
    add(".symtab", 2, 0, symbols, link: symbolIndex + 1, info: 1, alignment: 8, entry: 24)
    add(".strtab", 3, 0, strings, alignment: 1)
    names += Array(".shstrtab".utf8) + [0]
    let nameOffset = UInt32(names.count - 10)
    while file.count % 8 != 0 { file.append(0) }
    headers.append(
      Self.bytes(nameOffset) + Self.bytes(UInt32(3)) + Self.bytes(UInt64(0)) + Self.bytes(UInt64(0))
        + Self.bytes(UInt64(file.count)) + Self.bytes(UInt64(names.count)) + Self.bytes(UInt64(0))
        + Self.bytes(UInt64(1)) + Self.bytes(UInt64(0)))
    file += names
    while file.count % 8 != 0 { file.append(0) }
    var start: [UInt8] = [0x7f, 0x45, 0x4c, 0x46, 2, 1, 1] + [UInt8](repeating: 0, count: 9)
    start += Self.bytes(UInt16(1)) + Self.bytes(UInt16(62)) + Self.bytes(UInt32(1)) + Self.bytes(UInt64(0))
    start += Self.bytes(UInt64(0)) + Self.bytes(UInt64(file.count)) + Self.bytes(UInt32(0)) + Self.bytes(UInt16(64))
    start += Self.bytes(UInt16(0)) + Self.bytes(UInt16(0)) + Self.bytes(UInt16(64))
    start += Self.bytes(UInt16(headers.count)) + Self.bytes(UInt16(headers.count - 1))
    file.replaceSubrange(0..<64, with: start)
    return file + headers.flatMap { $0 }
  }

  /// A module with a name, dependencies, imports and exports, as Debian's look.
  public static func module(
    _ name: String, magic: String, depends: [String] = [], imports: [(name: String, checksum: UInt32)] = [],
    exports: [(name: String, checksum: UInt32)] = [], marks: [String] = []
  ) -> [UInt8] {
    var builder = ModuleBuilder()
    builder.information(
      [("license", "GPL"), ("depends", depends.joined(separator: ",")), ("name", name), ("vermagic", magic)])
    let text = builder.section(Section(".text", flags: 6, contents: [UInt8](repeating: 0x90, count: 64)))
    // Other global names for the first byte of its code.
    for mark in marks { _ = builder.symbol(mark, section: text, value: 0) }
    var calls: [(offset: UInt64, kind: UInt32, symbol: Int, addend: Int64)] = []
    for item in imports { calls.append((UInt64(calls.count % 8 * 4), 4, builder.symbol(item.name), -4)) }
    builder.sections[Int(text) - 1].relocations = calls
    builder.section(
      Section(
        "__versions",
        contents: imports.flatMap { item in
          bytes(UInt64(item.checksum)) + Array(item.name.utf8)
            + [UInt8](repeating: 0, count: 56 - item.name.utf8.count)
        }))
    guard !exports.isEmpty else { return builder.build() }
    var strings: [UInt8] = []
    let stringSection = UInt16(builder.sections.count + 2)
    var table: [(offset: UInt64, kind: UInt32, symbol: Int, addend: Int64)] = []
    for (index, item) in exports.enumerated() {
      table.append((UInt64(index * 12), 2, builder.symbol(item.name, section: text, value: UInt64(index)), 0))
      let label = builder.symbol(
        "__kstrtab_\(item.name)", section: stringSection, value: UInt64(strings.count), binding: 0)
      table.append((UInt64(index * 12 + 4), 2, label, 0))
      strings += Array(item.name.utf8) + [0]
    }
    builder.section(
      Section("__ksymtab_gpl", contents: [UInt8](repeating: 0, count: exports.count * 12), relocations: table))
    builder.section(Section("__ksymtab_strings", contents: strings, alignment: 1))
    builder.section(Section("__kcrctab_gpl", contents: exports.flatMap { bytes($0.checksum) }, alignment: 4))
    return builder.build()
  }

  /// Little-endian bytes of an integer.
  public static func bytes<T: FixedWidthInteger>(_ value: T) -> [UInt8] {
    withUnsafeBytes(of: value.littleEndian) { Array($0) }
  }
}
