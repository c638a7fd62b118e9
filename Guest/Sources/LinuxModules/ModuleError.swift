// Why a module is refused, and the one line that says so.

/// Why a module file is refused; always with the module's name, and the section and symbol where there are any.
public struct ModuleError: Error, Equatable, Sendable {
  public enum Reason: Equatable, Sendable {
    /// Not an ELF file.
    case notELF
    /// Not ELF64, little endian, relocatable, x86-64.
    case wrongMachine
    /// The table of sections lies outside the file, or is of another form.
    case badSectionTable
    /// A name lies outside its table of strings.
    case badName
    /// The section's contents lie outside the file.
    case sectionOutsideFile
    /// Not a power of two, or above 2 MiB.
    case badAlignment
    /// A compressed section, or relocations without addends, where the module needs them.
    case unsupportedSection
    /// No table of symbols, more than one, or a damaged one.
    case badSymbolTable
    /// The symbol's section does not exist.
    case badSymbolSection
    /// The symbol is common: compiled without `-fno-common`.
    case commonSymbol
    /// The symbol's section is not part of the loaded module.
    case symbolNotLoaded
    /// Relocations for a section that does not exist, with another symbol table, or not a whole number of them.
    case badRelocationTable
    /// A relocation's place lies outside its section.
    case relocationOutsideSection
    /// A relocation that modules do not use; its number.
    case unsupportedRelocation(UInt32)
    /// The relocated value does not fit in its field; the relocation's number and the value.
    case relocationOutOfRange(kind: UInt32, value: UInt64)
    /// Nobody provides the symbol.
    case missingSymbol
    /// The exported symbols' table is damaged.
    case badExports
    /// The table of imported symbols' checksums is damaged.
    case badVersions
    /// The module's sections together take more than 2 GiB.
    case tooLarge
    /// The address is not aligned as the module needs, or the module would wrap round the address space.
    case badBase
    /// The memory given is smaller than the module.
    case memoryTooSmall
    /// The module has variables of its own for each processor, and no place for them was given.
    case noPlaceForProcessors
    /// Built for another kernel; what it was built for, and what was asked for.
    case otherKernel(found: Name, wanted: Name)
    /// Two modules have one name.
    case duplicateModule
    /// A module that this one depends on is not there.
    case missingDependency(Name)
    /// The module depends on itself, by way of these.
    case dependencyCycle([Name])
  }

  public var reason: Reason
  public var module: Name
  /// Empty where the error is about none.
  public var section: Name
  /// Empty where the error is about none.
  public var symbol: Name

  init(_ reason: Reason, module: Name, section: Name = .none, symbol: Name = .none) {
    self.reason = reason
    self.module = module
    self.section = section
    self.symbol = symbol
  }

  /// One line of printable ASCII that names module, section and symbol, without an end of line.
  public var line: [UInt8] {
    var line = Line()
    line.append("module ")
    line.append(module)
    if !section.isEmpty {
      line.append(", section ")
      line.append(section)
    }
    if !symbol.isEmpty {
      line.append(", symbol ")
      line.append(symbol)
    }
    line.append(": ")
    append(to: &line)
    return line.bytes
  }

  private func append(to line: inout Line) {
    switch reason {
    case .notELF: line.append("not an ELF file")
    case .wrongMachine: line.append("not a relocatable ELF64 file for x86-64")
    case .badSectionTable: line.append("the section table is damaged")
    case .badName: line.append("a name lies outside its string table")
    case .sectionOutsideFile: line.append("the contents lie outside the file")
    case .badAlignment: line.append("the alignment is not a power of two up to 2 MiB")
    case .unsupportedSection: line.append("compressed, or relocations without addends")
    case .badSymbolTable: line.append("the symbol table is missing or damaged")
    case .badSymbolSection: line.append("defined in a section that does not exist")
    case .commonSymbol: line.append("a common symbol, which a module must not have")
    case .symbolNotLoaded: line.append("defined in a section that is not loaded")
    case .badRelocationTable: line.append("the relocation table is damaged")
    case .relocationOutsideSection: line.append("a relocation lies outside the section")
    case .unsupportedRelocation(let kind):
      line.append("relocation of unknown type ")
      line.append(hexadecimal: UInt64(kind))
    case .relocationOutOfRange(let kind, let value):
      line.append("value ")
      line.append(hexadecimal: value)
      line.append(" does not fit in a relocation of type ")
      line.append(hexadecimal: UInt64(kind))
    case .missingSymbol: line.append("nobody provides it")
    case .badExports: line.append("the table of exported symbols is damaged")
    case .badVersions: line.append("the table of symbol checksums is damaged")
    case .tooLarge: line.append("takes more than 2 GiB")
    case .badBase: line.append("cannot be placed at that address")
    case .memoryTooSmall: line.append("does not fit in the memory given")
    case .noPlaceForProcessors: line.append("no place for the variables of each processor")
    case .otherKernel(let found, let wanted):
      line.append("built for \"")
      line.append(found)
      line.append("\", wanted \"")
      line.append(wanted)
      line.append("\"")
    case .duplicateModule: line.append("there are two of this name")
    case .missingDependency(let name):
      line.append("depends on ")
      line.append(name)
      line.append(", which is not there")
    case .dependencyCycle(let names):
      line.append("depends on itself:")
      for name in names {
        line.append(" ")
        line.append(name)
      }
    }
  }
}
