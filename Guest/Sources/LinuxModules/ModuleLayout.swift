// Where each section of a module lies in memory.

import BootFormats

/// The places of a module's sections, relative to the address at which it will be loaded. Sections of one kind lie together
/// and begin on a page of their own, so that pages can be protected; what only initialisation needs is at the end and can be
/// given back after it.
public struct ModuleLayout {
  /// What the sections of a part have in common.
  public enum Kind: Int, CaseIterable, Sendable {
    case text, readOnly, readOnlyAfterInit, writable
    /// The initial contents of the variables that every processor has its own copy of.
    case processorTemplate
    case initText, initReadOnly, initWritable
  }

  /// Sections of one kind: whole pages.
  public struct Part: Equatable, Sendable {
    public let kind: Kind
    /// Offset from the module's address, and size; both in bytes, multiples of `pageSize`.
    public let offset: UInt64
    public let size: UInt64
  }

  public static let pageSize: UInt64 = 4096
  /// In the order of their offsets; none is empty.
  public let parts: [Part]
  /// For each section of the file, its offset from the module's address in bytes; nil where it is not loaded.
  public let offsets: [UInt64?]
  /// What the module takes in all, in bytes.
  public let size: UInt64
  /// What the module's address must be a multiple of.
  public let alignment: UInt64
  /// Size of each processor's variables, in bytes; 0 where the module has none.
  public let processorSize: UInt64

  /// Lays out all sections that are loaded.
  public init(_ file: ModuleFile) throws(ModuleError) {
    var parts: [Part] = []
    var offsets = [UInt64?](repeating: nil, count: file.sections.count)
    var end: UInt64 = 0
    var alignment = Self.pageSize
    var processorSize: UInt64 = 0
    for kind in Kind.allCases {
      let start = end
      for (index, section) in file.sections.enumerated() where section.isLoaded && Self.kind(of: section) == kind {
        let mask = section.alignment - 1
        // Both are at most 2 GiB here.
        end = (end + mask) & ~mask
        guard section.size <= 1 << 31, end + section.size <= 1 << 31 else {
          throw ModuleError(.tooLarge, module: file.name, section: Name(section.name))
        }
        offsets[index] = end
        end += section.size
        alignment = max(alignment, section.alignment)
        if kind == .processorTemplate { processorSize = end - start }
      }
      end = (end + Self.pageSize - 1) & ~(Self.pageSize - 1)
      if end > start { parts.append(Part(kind: kind, offset: start, size: end - start)) }
    }
    self.parts = parts
    self.offsets = offsets
    self.size = end
    self.alignment = alignment
    self.processorSize = processorSize
  }

  private static func kind(of section: ModuleFile.Section) -> Kind {
    if section.name.starts(with: ".data..percpu") { return .processorTemplate }
    if section.name.starts(with: ".init") {
      return section.isExecutable ? .initText : section.isWritable ? .initWritable : .initReadOnly
    }
    if section.isExecutable { return .text }
    guard section.isWritable else { return .readOnly }
    // kernel/module/main.c: written by initialisation only.
    let isFixed = section.name.starts(with: ".data..ro_after_init") || section.name.equals("__jump_table")
    return isFixed ? .readOnlyAfterInit : .writable
  }

  /// The offset of the first byte of the template of each processor's variables; nil where the module has none.
  public var templateOffset: UInt64? {
    for part in parts where part.kind == .processorTemplate { return part.offset }
    return nil
  }
}
