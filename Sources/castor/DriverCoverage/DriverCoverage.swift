// Counts which imports of Linux modules the container provides, with code or a stub, which other modules do, and which nobody.

/// The imports of every module by who provides them.
struct DriverCoverage {
  struct Module: Equatable {
    var name: String
    var imports: Int
    /// With code of its own.
    var byContainer: Int
    /// Functions of the container that say their name and do nothing.
    var byStubs: Int
    var byModules: Int
    /// Names of imports that nobody provides, or that a module exports with another checksum; in the file's order.
    var missing: [String]
    /// Whether nothing is missing, here or in the modules that provide something.
    var resolves: Bool
    /// Whether it resolves, and no stub is needed for that, here or there.
    var needsNoStub: Bool
  }
  /// In the order of the input.
  var modules: [Module] = []
  /// How many symbols the container provides with code, and how many as stubs.
  var containerCount: Int
  var stubCount: Int

  /// What the container provides goes before what modules export: a module whose work the container does is not loaded.
  /// `stubs` are those of its symbols that do nothing.
  init(_ inputs: [ModuleSummary], container: Set<String>, stubs: Set<String> = []) {
    stubCount = container.intersection(stubs).count
    containerCount = container.count - stubCount
    var exporters: [String: (module: Int, checksum: UInt32?)] = [:]
    for (index, input) in inputs.enumerated() {
      for symbol in input.exports where exporters[symbol.name] == nil {
        exporters[symbol.name] = (index, symbol.checksum)
      }
    }
    var providers: [Set<Int>] = []
    for input in inputs {
      var module = Module(
        name: input.name, imports: input.imports.count, byContainer: 0, byStubs: 0, byModules: 0, missing: [],
        resolves: false, needsNoStub: false)
      var needed: Set<Int> = []
      for symbol in input.imports {
        if container.contains(symbol.name) {
          if stubs.contains(symbol.name) { module.byStubs += 1 } else { module.byContainer += 1 }
        } else if let exporter = exporters[symbol.name], Self.agree(exporter.checksum, symbol.checksum) {
          module.byModules += 1
          needed.insert(exporter.module)
        } else {
          module.missing.append(symbol.name)
        }
      }
      module.resolves = module.missing.isEmpty
      module.needsNoStub = module.resolves && module.byStubs == 0
      modules.append(module)
      providers.append(needed)
    }
    // Takes away modules that need one which does not resolve, until none does.
    var changed = true
    while changed {
      changed = false
      for index in modules.indices {
        if modules[index].resolves, providers[index].contains(where: { !modules[$0].resolves }) {
          modules[index].resolves = false
          changed = true
        }
        if modules[index].needsNoStub, providers[index].contains(where: { !modules[$0].needsNoStub }) {
          modules[index].needsNoStub = false
          changed = true
        }
      }
    }
  }

  /// An unknown checksum agrees with any.
  private static func agree(_ one: UInt32?, _ other: UInt32?) -> Bool {
    guard let one, let other else { return true }
    return one == other
  }

  /// The symbols that nobody provides and how many modules want each: most wanted first, then by name.
  var missing: [(name: String, modules: Int)] {
    var counts: [String: Int] = [:]
    for module in modules { for name in Set(module.missing) { counts[name, default: 0] += 1 } }
    return counts.map { (name: $0.key, modules: $0.value) }
      .sorted { $0.modules == $1.modules ? $0.name < $1.name : $0.modules > $1.modules }
  }
}
