// What runs in this machine: the services and programs that the device tree's composition node lists, in start order.

/// One entry of the composition (docs/platform.md, "Device tree"). The texts lie in the device tree or are literals.
public struct CompositionEntry {
  /// The name under which clients find the service.
  public var name: Bytes
  /// The program's file in the boot archive.
  public var program: Bytes
  /// The isolation class that was asked for: `ic0`, `ic1` or `ic2`; empty means `ic2`.
  public var isolationClass: Bytes
  /// The program's own mode, for instance `solo`, `twin` or `twin-poll`.
  public var mode: Bytes
  /// Free text for the program.
  public var arguments: Bytes
  /// Path of the device node that the service drives; empty where none.
  public var device: Bytes

  public init(name: Bytes, program: Bytes) {
    self.name = name
    self.program = program
    isolationClass = Bytes("ic2")
    mode = Bytes("")
    arguments = Bytes("")
    device = Bytes("")
  }
}

/// The services and programs of the machine.
public struct Composition {
  public private(set) var entries: [CompositionEntry] = []

  public init() {}

  public mutating func append(_ entry: CompositionEntry) { entries.append(entry) }

  /// Reads `/chosen/pollux,composition`; nil where the tree has none. Entries without a program are left out.
  public init?(_ tree: DeviceTreeReader) {
    guard let node = tree.node(at: Bytes("/chosen/pollux,composition")) else { return nil }
    var found: [CompositionEntry] = []
    tree.forEachChild(of: node) { child in
      guard let program = tree.string("program", of: child), !program.isEmpty else { return true }
      var entry = CompositionEntry(name: tree.string("label", of: child) ?? program, program: program)
      if let value = tree.string("class", of: child) { entry.isolationClass = value }
      if let value = tree.string("mode", of: child) { entry.mode = value }
      if let value = tree.string("arguments", of: child) { entry.arguments = value }
      if let value = tree.string("device", of: child) { entry.device = value }
      found.append(entry)
      return true
    }
    entries = found
  }

  /// The entry called `name`.
  public func entry(_ name: Bytes) -> CompositionEntry? {
    for entry in entries where entry.name.equals(name) { return entry }
    return nil
  }
}
