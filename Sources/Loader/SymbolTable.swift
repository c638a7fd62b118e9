// Which function of an ELF file an address belongs to: System V ABI, chapter 4, "Symbol Table". For reports after the
// guest died and for the debugger, so nothing is read before it is asked for and nothing is kept.

import Glibc

/// A symbol near an address.
public struct SymbolMatch: Equatable, Sendable {
  /// As the file has it, possibly mangled; see `demangledName`.
  public let name: String
  /// The symbol's own address, guest-virtual.
  public let address: UInt64
  /// Its size in bytes; zero where the file does not say.
  public let size: UInt64

  /// The name as a person reads it: Swift's mangling undone.
  public var demangledName: String {
    guard name.hasPrefix("$s") || name.hasPrefix("$e") else { return name }
    var text = name
    let result = text.withUTF8 { mangled in
      mangled.withMemoryRebound(to: CChar.self) { swiftDemangle($0.baseAddress, $0.count, nil, nil, 0) }
    }
    guard let result else { return name }
    // The runtime allocated the result with malloc and hands it over.
    defer { free(result) }
    return String(cString: result)
  }
}

// The Swift runtime's own demangler, part of every Swift program.
@_silgen_name("swift_demangle")
private func swiftDemangle(
  _ name: UnsafePointer<CChar>?, _ count: Int, _ buffer: UnsafeMutablePointer<CChar>?,
  _ bufferCount: UnsafeMutablePointer<Int>?, _ flags: UInt32
) -> UnsafeMutablePointer<CChar>?

/// The symbols of an ELF file. A file without symbols, or one that is damaged, has none.
public struct SymbolTable: Sendable {
  public let path: String

  public init(path: String) { self.path = path }

  /// For each address (guest-virtual) the function or label that it lies in, in one pass over the file.
  public func nearest(to addresses: [UInt64]) -> [SymbolMatch?] {
    (try? match(addresses)) ?? addresses.map { _ in nil }
  }

  public func nearest(to address: UInt64) -> SymbolMatch? { nearest(to: [address]).first ?? nil }

  /// The address of the symbol with this exact name, or nil.
  public func address(of name: String) -> UInt64? {
    var found: UInt64?
    try? withSymbols { file, strings, symbol throws(LoaderError) in
      guard found == nil, try symbolName(symbol, strings, file) == name else { return }
      found = symbol.address
    }
    return found
  }

  private struct Symbol {
    let nameOffset: UInt64
    let address: UInt64
    let size: UInt64
  }

  private func match(_ addresses: [UInt64]) throws(LoaderError) -> [SymbolMatch?] {
    var best = [Symbol?](repeating: nil, count: addresses.count)
    var names = [SymbolMatch?](repeating: nil, count: addresses.count)
    try withSymbols { _, _, symbol in
      for (index, address) in addresses.enumerated() where symbol.address <= address {
        // A return address may be the first one behind its function, hence "<=".
        guard symbol.size == 0 || address - symbol.address <= symbol.size else { continue }
        // Of several symbols at one address the one that says its size is the function itself.
        if let other = best[index], (other.address, other.size) >= (symbol.address, symbol.size) { continue }
        best[index] = symbol
      }
    }
    let file = try LoadableFile.open(path)
    guard let table = try Self.findTable(file) else { return names }
    for (index, symbol) in best.enumerated() {
      guard let symbol else { continue }
      names[index] = SymbolMatch(
        name: try symbolName(symbol, table.strings, file), address: symbol.address, size: symbol.size)
    }
    return names
  }

  /// Calls `body` with each defined function and untyped label.
  private func withSymbols(
    _ body: (borrowing LoadableFile, Range<UInt64>, Symbol) throws(LoaderError) -> Void
  ) throws(LoaderError) {
    let file = try LoadableFile.open(path)
    guard let table = try Self.findTable(file) else { return }
    var offset = table.symbols.lowerBound
    while offset + 24 <= table.symbols.upperBound {
      let count = min(2048, (table.symbols.upperBound - offset) / 24)
      let piece = try file.bytes(at: offset, count: Int(count) * 24, part: "the symbol table")
      for index in 0..<Int(count) {
        let base = index * 24
        let kind = piece.bytes[base + 4] & 0xf
        let section: UInt16 = piece.integer(base + 6)
        let name: UInt32 = piece.integer(base)
        guard kind == 0 || kind == 2, section != 0, section != 0xfff1, name != 0 else { continue }
        try body(
          file, table.strings,
          Symbol(nameOffset: UInt64(name), address: piece.integer(base + 8), size: piece.integer(base + 16)))
      }
      offset += count * 24
    }
  }

  /// File ranges of the symbol table and its strings, both inside the file; nil when there is none.
  private static func findTable(_ file: borrowing LoadableFile) throws(LoaderError)
    -> (symbols: Range<UInt64>, strings: Range<UInt64>)?
  {
    let header = try ELFHeader(file: file)
    guard header.sectionHeaderSize == 64, header.sectionHeaderCount > 0 else { return nil }
    let sections = try file.bytes(
      at: header.sectionHeaderOffset, count: header.sectionHeaderCount * 64, part: "the section headers")
    func range(_ index: Int) -> Range<UInt64>? {
      let offset: UInt64 = sections.integer(index * 64 + 24)
      let size: UInt64 = sections.integer(index * 64 + 32)
      guard offset <= file.count, size <= file.count - offset else { return nil }
      return offset..<(offset + size)
    }
    for index in 0..<header.sectionHeaderCount where sections.integer(index * 64 + 4, as: UInt32.self) == 2 {
      let strings = Int(sections.integer(index * 64 + 40, as: UInt32.self))
      guard strings < header.sectionHeaderCount, let symbolRange = range(index), let stringRange = range(strings) else {
        return nil
      }
      return (symbolRange, stringRange)
    }
    return nil
  }

  /// At most 1023 bytes of a symbol's name.
  private func symbolName(_ symbol: Symbol, _ strings: Range<UInt64>, _ file: borrowing LoadableFile)
    throws(LoaderError) -> String
  {
    let room = UInt64(strings.count)
    guard symbol.nameOffset < room else { return "" }
    let piece = try file.bytes(
      at: strings.lowerBound + symbol.nameOffset, count: Int(min(1023, room - symbol.nameOffset)), part: "the strings")
    return String(decoding: piece.bytes.prefix { $0 != 0 }, as: UTF8.self)
  }
}
