// What a module exports to others, and the checksums of what it imports: linux/export.h, linux/module.h.

import BootFormats

/// A symbol that a module exports.
public struct ModuleExport {
  public let name: Bytes
  /// Whether only modules under the GPL may use it.
  public let isGPL: Bool
  /// The checksum of its type, or nil where the module has none.
  public let checksum: UInt32?
}

extension ModuleFile {
  /// Calls `body` with every symbol of `__ksymtab` and `__ksymtab_gpl`.
  ///
  /// An entry is three offsets of 32 bits, relative to themselves: value, name, name space. In the file they are
  /// relocations; that of the name leads to the string. The checksums are in `__kcrctab…`, in the same order.
  public func forEachExport(_ body: (ModuleExport) -> Void) throws(ModuleError) {
    for index in sections.indices {
      let target = sections[index].kind == 4 ? Int(sections[index].info) : 0
      let isGPL = sections[target].name.equals("__ksymtab_gpl")
      guard isGPL || sections[target].name.equals("__ksymtab") else { continue }
      let checksums = section(named: isGPL ? "__kcrctab_gpl" : "__kcrctab").map { sections[$0].contents }
      for entry in 0..<relocationCount(in: index) {
        let relocation = try relocation(entry, in: index)
        guard relocation.offset % 12 == 4 else { continue }
        let symbol = try symbol(relocation.symbol)
        guard relocation.offset < sections[target].size, case .section(let strings) = symbol.place,
          let name = Self.text(sections[strings].contents, symbol.value &+ UInt64(bitPattern: relocation.addend))
        else { throw ModuleError(.badExports, module: self.name, section: Name(sections[target].name)) }
        // Below the section's size, which is below the file's, or the contents answer nil.
        let checksum = relocation.offset / 12 < 1 << 32 ? Int(relocation.offset / 12) * 4 : Int.max
        body(ModuleExport(name: name, isGPL: isGPL, checksum: checksums?.little(checksum, as: UInt32.self)))
      }
    }
  }

  private static func text(_ strings: Bytes, _ offset: UInt64) -> Bytes? {
    guard offset < UInt64(strings.count) else { return nil }
    return strings.terminated(Int(offset))
  }

  /// Calls `body` with name and checksum of every imported symbol of `__versions`: entries of 64 bytes, the checksum in 8
  /// and the name in 56. Without the section, never.
  public func forEachVersion(_ body: (_ name: Bytes, _ checksum: UInt32) -> Void) throws(ModuleError) {
    guard let index = section(named: "__versions") else { return }
    let table = sections[index].contents
    guard table.count % 64 == 0 else { throw ModuleError(.badVersions, module: name, section: Name("__versions")) }
    for entry in 0..<table.count / 64 {
      guard let checksum = table.little(entry * 64, as: UInt64.self), checksum <= UInt64(UInt32.max),
        let symbol = table.slice(entry * 64 + 8, 56)?.terminated(0)
      else { throw ModuleError(.badVersions, module: name, section: Name("__versions")) }
      body(symbol, UInt32(checksum))
    }
  }
}
