// The coverage report, as text and as JSON.

import Foundation

/// The report; encoded, it is the JSON form (docs/linux-driver-container.md), which changes only with `schema`.
struct CoverageReport: Codable, Equatable {
  struct Module: Codable, Equatable {
    var name: String
    var imports: Int
    var container: Int
    var modules: Int
    var missing: [String]
    var resolves: Bool
  }
  struct Missing: Codable, Equatable {
    var symbol: String
    /// How many modules want it.
    var modules: Int
  }

  var schema = 1
  /// The kernel that the modules are built for.
  var vermagic: String
  /// How many symbols the container provides.
  var containerSymbols: Int
  /// How many modules resolve entirely.
  var resolved: Int
  var modules: [Module]
  /// All missing symbols, most wanted first.
  var missing: [Missing]

  init(_ coverage: DriverCoverage, magic: String) {
    vermagic = magic
    containerSymbols = coverage.containerCount
    resolved = coverage.modules.count { $0.resolves }
    modules = coverage.modules.map {
      Module(
        name: $0.name, imports: $0.imports, container: $0.byContainer, modules: $0.byModules, missing: $0.missing,
        resolves: $0.resolves)
    }
    missing = coverage.missing.map { Missing(symbol: $0.name, modules: $0.modules) }
  }

  func encoded() throws -> Data {
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
    return try encoder.encode(self) + Data("\n".utf8)
  }

  /// The report for people.
  /// - Parameters:
  ///   - names: The modules to list; none means all.
  ///   - top: How many missing symbols to show.
  func text(listing names: [String], top: Int) -> String {
    let listed = names.isEmpty ? modules : names.compactMap { name in modules.first { $0.name == name } }
    let width = max(6, listed.map(\.name.count).max() ?? 0)
    func row(_ name: String, _ cells: [String]) -> String {
      name + String(repeating: " ", count: max(0, width - name.count))
        + cells.map { String(repeating: " ", count: max(2, 11 - $0.count)) + $0 }.joined()
    }
    var lines = [row("module", ["imports", "container", "modules", "missing"])]
    for module in listed {
      let cells = [module.imports, module.container, module.modules, module.missing.count].map { "\($0)" }
      lines.append(row(module.name, cells) + (module.resolves ? "  resolves" : ""))
    }
    func sum(_ count: (Module) -> Int) -> Int { modules.reduce(0) { $0 + count($1) } }
    lines += [
      "",
      "built for           \(vermagic)",
      "modules             \(modules.count), of which \(resolved) resolve entirely, with all that they need",
      "imports             \(sum { $0.imports }): \(sum { $0.container }) by the container, \(sum { $0.modules }) by other modules, "
        + "\(sum { $0.missing.count }) missing",
      "container provides  \(containerSymbols) symbols",
      "missing symbols     \(missing.count)" + (missing.isEmpty || top == 0 ? "" : ", the most wanted first:"),
    ]
    for item in missing.prefix(top) {
      lines.append("  \(item.symbol)  (\(item.modules) \(item.modules == 1 ? "module" : "modules"))")
    }
    return lines.joined(separator: "\n")
  }
}
