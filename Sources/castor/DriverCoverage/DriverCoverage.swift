// Counts which imports of Linux modules the container provides, which other modules do, and which nobody.

/// The imports of every module by who provides them.
struct DriverCoverage {
  struct Module: Equatable {
    var name: String
    var imports: Int
    var byContainer: Int
    var byModules: Int
    /// Names of imports that nobody provides, or that a module exports with another checksum; in the file's order.
    var missing: [String]
    /// Whether nothing is missing, here or in the modules that provide something.
    var resolves: Bool
  }
  /// In the order of the input.
  var modules: [Module] = []
  /// How many symbols the container provides in all.
  var containerCount: Int

  /// What the container provides goes before what modules export: a module whose work the container does is not loaded.
  init(_ inputs: [ModuleSummary], container: Set<String>) {
    containerCount = container.count
    var exporters: [String: (module: Int, checksum: UInt32?)] = [:]
    for (index, input) in inputs.enumerated() {
      for symbol in input.exports where exporters[symbol.name] == nil {
        exporters[symbol.name] = (index, symbol.checksum)
      }
    }
    var providers: [Set<Int>] = []
    for input in inputs {
      var module = Module(
        name: input.name, imports: input.imports.count, byContainer: 0, byModules: 0, missing: [], resolves: false)
      var needed: Set<Int> = []
      for symbol in input.imports {
        if container.contains(symbol.name) {
          module.byContainer += 1
        } else if let exporter = exporters[symbol.name], Self.agree(exporter.checksum, symbol.checksum) {
          module.byModules += 1
          needed.insert(exporter.module)
        } else {
          module.missing.append(symbol.name)
        }
      }
      module.resolves = module.missing.isEmpty
      modules.append(module)
      providers.append(needed)
    }
    // Takes away modules that need one which does not resolve, until none does.
    var changed = true
    while changed {
      changed = false
      for index in modules.indices where modules[index].resolves {
        guard providers[index].contains(where: { !modules[$0].resolves }) else { continue }
        modules[index].resolves = false
        changed = true
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
