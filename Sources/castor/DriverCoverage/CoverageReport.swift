// The coverage report, as text and as JSON.

import Foundation

/// The report; encoded, it is the JSON form (docs/linux-driver-container.md), which changes only with `schema`.
struct CoverageReport: Codable, Equatable {
  struct Module: Codable, Equatable {
    var name: String
    var imports: Int
    /// By code of the container, and by stubs of it.
    var container: Int
    var stubs: Int
    var modules: Int
    var missing: [String]
    var resolves: Bool
    /// Resolves, and neither it nor what it needs imports a stub.
    var needsNoStub: Bool
  }
  struct Missing: Codable, Equatable {
    var symbol: String
    /// How many modules want it.
    var modules: Int
  }

  var schema = 2
  /// The kernel that the modules are built for.
  var vermagic: String
  /// How many symbols the container provides with code, and how many as stubs.
  var containerSymbols: Int
  var stubSymbols: Int
  /// How many modules resolve entirely, and how many of them without a stub.
  var resolved: Int
  var resolvedWithoutStubs: Int
  var modules: [Module]
  /// All missing symbols, most wanted first.
  var missing: [Missing]

  init(_ coverage: DriverCoverage, magic: String) {
    vermagic = magic
    containerSymbols = coverage.containerCount
    stubSymbols = coverage.stubCount
    resolved = coverage.modules.count { $0.resolves }
    resolvedWithoutStubs = coverage.modules.count { $0.needsNoStub }
    modules = coverage.modules.map {
      Module(
        name: $0.name, imports: $0.imports, container: $0.byContainer, stubs: $0.byStubs, modules: $0.byModules,
        missing: $0.missing, resolves: $0.resolves, needsNoStub: $0.needsNoStub)
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
    var lines = [row("module", ["imports", "container", "stubs", "modules", "missing"])]
    for module in listed {
      let cells = [module.imports, module.container, module.stubs, module.modules, module.missing.count]
      let verdict = module.needsNoStub ? "  resolves" : module.resolves ? "  resolves with stubs" : ""
      lines.append(row(module.name, cells.map { "\($0)" }) + verdict)
    }
    func sum(_ count: (Module) -> Int) -> Int { modules.reduce(0) { $0 + count($1) } }
    lines += [
      "",
      "built for           \(vermagic)",
      "modules             \(modules.count), of which \(resolved) resolve entirely, with all that they need; "
        + "\(resolvedWithoutStubs) without a stub",
      "imports             \(sum { $0.imports }): \(sum { $0.container }) by the container, \(sum { $0.stubs }) by its stubs, "
        + "\(sum { $0.modules }) by other modules, \(sum { $0.missing.count }) missing",
      "container provides  \(containerSymbols) symbols and \(stubSymbols) stubs",
      "missing symbols     \(missing.count)" + (missing.isEmpty || top == 0 ? "" : ", the most wanted first:"),
    ]
    for item in missing.prefix(top) {
      lines.append("  \(item.symbol)  (\(item.modules) \(item.modules == 1 ? "module" : "modules"))")
    }
    return lines.joined(separator: "\n")
  }
}
