// Loads a module at its address: copies the sections and applies the relocations of the AMD64 ABI, §4.4.

import BootFormats

/// A module at an address.
public struct ModulePlacement {
  public let file: ModuleFile
  public let layout: ModuleLayout
  /// Virtual address of the module's first byte, where it will run.
  public let base: UInt64
  /// What stands for the address of the processors' variables (Linux: an offset that GS is added to), or nil.
  public let processorBase: UInt64?

  /// Refuses an address that is not aligned or where the module would wrap.
  public init(
    _ file: ModuleFile, layout: ModuleLayout, base: UInt64, processorBase: UInt64? = nil
  ) throws(ModuleError) {
    guard base % layout.alignment == 0, !base.addingReportingOverflow(layout.size).overflow else {
      throw ModuleError(.badBase, module: file.name)
    }
    guard layout.processorSize == 0 || processorBase != nil else {
      throw ModuleError(.noPlaceForProcessors, module: file.name)
    }
    self.file = file
    self.layout = layout
    self.base = base
    self.processorBase = processorBase
  }

  /// The names of all imports that `resolve` does not know and that are not weak.
  public func missingImports(_ resolve: (Bytes) -> UInt64?) -> [Name] {
    var missing: [Name] = []
    file.forEachImport { if !$0.isWeak, resolve($0.name) == nil { missing.append(Name($0.name)) } }
    return missing
  }

  /// The address of a symbol. `resolve` gives the addresses of imports; an unknown weak one is 0.
  public func address(
    of symbol: ModuleFile.Symbol, _ resolve: (Bytes) -> UInt64?
  ) throws(ModuleError) -> UInt64 {
    switch symbol.place {
    case .absolute: return symbol.value
    case .common: throw ModuleError(.commonSymbol, module: file.name, symbol: Name(symbol.name))
    case .undefined:
      // The first symbol has no name and is 0: relocations that need no symbol use it.
      if symbol.name.isEmpty { return 0 }
      if let address = resolve(symbol.name) { return address }
      guard symbol.isWeak else { throw ModuleError(.missingSymbol, module: file.name, symbol: Name(symbol.name)) }
      return 0
    case .section(let index):
      guard let offset = layout.offsets[index] else {
        throw ModuleError(
          .symbolNotLoaded, module: file.name, section: Name(file.sections[index].name), symbol: Name(symbol.name))
      }
      if let template = layout.templateOffset, let processorBase,
        file.sections[index].name.starts(with: ".data..percpu")
      {
        return processorBase &+ (offset - template) &+ symbol.value
      }
      return base &+ offset &+ symbol.value
    }
  }

  /// Where a section lies in the module, in bytes from `base`; nil where there is none, or it is not loaded.
  public func range(ofSection name: StaticString) -> (offset: UInt64, size: UInt64)? {
    for (index, section) in file.sections.enumerated() where section.name.equals(name) {
      if let offset = layout.offsets[index] { return (offset, section.size) }
    }
    return nil
  }

  /// The address of a global symbol that the module defines, for instance `init_module`; nil where there is none.
  public func address(named name: StaticString) throws(ModuleError) -> UInt64? {
    for index in 0..<file.symbolCount {
      let symbol = try file.symbol(index)
      guard !symbol.isLocal, symbol.place != .undefined, symbol.name.equals(name) else { continue }
      return try address(of: symbol) { _ in nil }
    }
    return nil
  }

  /// Writes the module into `memory`, which will be at `base` when the module runs and is here at least `layout.size` bytes.
  /// What is between sections becomes zero. After an error the memory's contents are of no use.
  public func load(
    into memory: UnsafeMutableRawBufferPointer, _ resolve: (Bytes) -> UInt64?
  ) throws(ModuleError) {
    guard let start = memory.baseAddress, UInt64(memory.count) >= layout.size else {
      // A module without any loaded section takes nothing.
      if layout.size == 0 { return }
      throw ModuleError(.memoryTooSmall, module: file.name)
    }
    // `layout.size` bytes are inside by the check above, and so is every section, by the layout.
    start.initializeMemory(as: UInt8.self, repeating: 0, count: Int(layout.size))
    for (index, section) in file.sections.enumerated() {
      guard let offset = layout.offsets[index], !section.isZero, section.contents.count > 0 else { continue }
      (start + Int(offset)).copyMemory(from: section.contents.unsafeBase, byteCount: section.contents.count)
    }
    for index in file.sections.indices { try relocate(index, start, resolve) }
  }

  /// Applies all relocations of one table.
  private func relocate(
    _ table: Int, _ start: UnsafeMutableRawPointer, _ resolve: (Bytes) -> UInt64?
  ) throws(ModuleError) {
    let count = file.relocationCount(in: table)
    guard count > 0 else { return }
    let target = Int(file.sections[table].info)
    guard let offset = layout.offsets[target] else { return }
    for entry in 0..<count {
      let relocation = try file.relocation(entry, in: table)
      let symbol = try file.symbol(relocation.symbol)
      guard relocation.kind != Kind.none else { continue }
      func failure(_ reason: ModuleError.Reason) -> ModuleError {
        var name = Name(symbol.name)
        if name.isEmpty, case .section(let index) = symbol.place { name = Name(file.sections[index].name) }
        return ModuleError(reason, module: file.name, section: Name(file.sections[target].name), symbol: name)
      }
      guard let width = Kind.width(relocation.kind) else {
        throw failure(.unsupportedRelocation(relocation.kind))
      }
      let size = file.sections[target].size
      guard relocation.offset <= size, size - relocation.offset >= UInt64(width) else {
        throw failure(.relocationOutsideSection)
      }
      var value = try address(of: symbol, resolve) &+ UInt64(bitPattern: relocation.addend)
      if Kind.isRelative(relocation.kind) { value &-= base &+ offset &+ relocation.offset }
      guard Kind.holds(value, relocation.kind) else {
        throw failure(.relocationOutOfRange(kind: relocation.kind, value: value))
      }
      // Inside the section by the check above; unaligned stores are allowed by this call.
      let place = start + Int(offset + relocation.offset)
      if width == 8 {
        place.storeBytes(of: value.littleEndian, as: UInt64.self)
      } else {
        place.storeBytes(of: UInt32(truncatingIfNeeded: value).littleEndian, as: UInt32.self)
      }
    }
  }

  /// The relocations that modules use: numbers of the ABI.
  enum Kind {
    static let none: UInt32 = 0
    static let absolute64: UInt32 = 1
    static let relative32: UInt32 = 2
    static let procedure32: UInt32 = 4
    static let unsigned32: UInt32 = 10
    static let signed32: UInt32 = 11
    static let relative64: UInt32 = 24

    /// Bytes of the field, or nil for a kind that is not known.
    static func width(_ kind: UInt32) -> Int? {
      switch kind {
      case absolute64, relative64: 8
      case relative32, procedure32, unsigned32, signed32: 4
      default: nil
      }
    }

    /// Whether the place's own address is subtracted. Calls by way of a procedure table go straight to the procedure.
    static func isRelative(_ kind: UInt32) -> Bool {
      kind == relative32 || kind == procedure32 || kind == relative64
    }

    /// Whether the field gives the value back when it is extended as the processor extends it.
    static func holds(_ value: UInt64, _ kind: UInt32) -> Bool {
      switch kind {
      case unsigned32: value <= UInt64(UInt32.max)
      case relative32, procedure32, signed32: Int64(bitPattern: value) == Int64(Int32(truncatingIfNeeded: value))
      default: true
      }
    }
  }
}
