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
  /// When it is started again: `on-failure` or `always`; empty: never.
  public var restart: Bytes

  public init(name: Bytes, program: Bytes) {
    self.name = name
    self.program = program
    isolationClass = Bytes("ic2")
    mode = Bytes("")
    arguments = Bytes("")
    device = Bytes("")
    restart = Bytes("")
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
      if let value = tree.string("restart", of: child) { entry.restart = value }
      found.append(entry)
      return true
    }
    entries = found
  }

  /// Reads the words `pollux.service=` of a command line, each `name=…,program=…,class=…,mode=…,device=…,restart=…,arguments=…`:
  /// what is empty may be left out, and `arguments` comes last, since they may hold commas. Nil where there is no such
  /// word. Entries without a name are left out; without a program, the name is the program's.
  public init?(_ commandLine: CommandLine) {
    var found: [CompositionEntry] = []
    var isListed = false
    commandLine.forEachWord { key, value in
      guard key.equals("pollux.service") else { return }
      isListed = true
      if let entry = Self.entry(value) { found.append(entry) }
    }
    guard isListed else { return nil }
    entries = found
  }

  private static func entry(_ list: Bytes) -> CompositionEntry? {
    var entry = CompositionEntry(name: Bytes(""), program: Bytes(""))
    var rest = list
    while !rest.isEmpty {
      guard let equals = rest.firstIndex(of: 0x3d), let key = rest.slice(0, equals),
        let tail = rest.suffix(from: equals + 1)
      else { break }
      let end = key.equals("arguments") ? tail.count : tail.firstIndex(of: 0x2c) ?? tail.count
      guard let value = tail.slice(0, end) else { break }
      if key.equals("name") { entry.name = value }
      if key.equals("program") { entry.program = value }
      if key.equals("class") { entry.isolationClass = value }
      if key.equals("mode") { entry.mode = value }
      if key.equals("device") { entry.device = value }
      if key.equals("restart") { entry.restart = value }
      if key.equals("arguments") { entry.arguments = value }
      rest = tail.suffix(from: end + 1) ?? Bytes("")
    }
    guard !entry.name.isEmpty else { return nil }
    if entry.program.isEmpty { entry.program = entry.name }
    return entry
  }

  /// The entry called `name`.
  public func entry(_ name: Bytes) -> CompositionEntry? {
    for entry in entries where entry.name.equals(name) { return entry }
    return nil
  }
}
