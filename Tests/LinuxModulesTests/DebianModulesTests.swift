// The whole of Debian's package, where it was fetched.

import BootFormats
import Foundation
import Testing

@testable import LinuxModules

@Suite(.enabled(if: !RealModules.paths.isEmpty, RealModules.reason))
struct DebianModulesTests {
  /// The modules themselves say what must come out: the modules whose exports a module imports are those of its `depends`,
  /// and each import has a checksum, which is that of the export. The order of loading exists.
  @Test func importsMeetExports() throws {
    var files: [ModuleFile] = []
    for path in RealModules.paths {
      let memory = FileMemory(try RealModules.contents(path))
      files.append(try ModuleFile(memory.bytes, fileName: FileMemory(Array(path.utf8)).bytes))
    }
    var exporters: [String: (module: String, checksum: UInt32?)] = [:]
    for file in files {
      try file.forEachExport { exporters[$0.name.text] = (file.name.text, $0.checksum) }
    }
    #expect(exporters.count > 1000)
    var met = 0
    for file in files {
      var imports: [String] = []
      file.forEachImport { imports.append($0.name.text) }
      let providers = Set(imports.compactMap { exporters[$0]?.module })
      #expect(providers == Set(file.information.dependencies.map(\.text)), "\(file.name.text)")
      var checksums: [String: UInt32] = [:]
      try file.forEachVersion { checksums[$0.text] = $1 }
      let without = imports.filter { checksums[$0] == nil }
      #expect(without.isEmpty, "\(file.name.text): \(without)")
      for name in imports {
        guard let exporter = exporters[name] else { continue }
        met += 1
        #expect(exporter.checksum == checksums[name], "\(file.name.text): \(name)")
      }
      #expect(file.information.value(of: "license") != nil)
      try file.checkVersion(wanted: try #require(files.first?.information.value(of: "vermagic")))
    }
    #expect(met > 1000)
    #expect(try ModuleOrder.order(files.map { ModuleOrder.Entry($0) }).count == files.count)
  }

  /// Every twentieth module loads; an import is wherever a call from the module reaches it.
  @Test func modulesLoad() throws {
    for index in stride(from: 0, to: RealModules.paths.count, by: 20) {
      let memory = FileMemory(try RealModules.contents(RealModules.paths[index]))
      let file = try ModuleFile(memory.bytes, fileName: FileMemory(Array(RealModules.paths[index].utf8)).bytes)
      _ = try loaded(file, base: 0x4000_0000, processorBase: 0x1000) { _ in 0x5000_0000 }
    }
  }
}
