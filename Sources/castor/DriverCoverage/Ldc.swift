// `castor ldc`: what there is about the Linux driver container; so far, how much of Debian's modules it could run.

import ArgumentParser
import Configuration
import Foundation

struct Ldc: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "The Linux driver container: how much of a kernel package's modules it could run.",
    subcommands: [Coverage.self])

  struct Coverage: ParsableCommand {
    static let configuration = CommandConfiguration(
      abstract: "Count, for every Linux module, the imports that the container and other modules provide.",
      discussion: """
        Reads every .ko and .ko.xz below a folder: one version of one kernel. Tests/linux/fetch-modules.sh fetches Debian's \
        to .build/linux-modules. A module resolves entirely when every import is provided and every module that provides \
        one resolves entirely too. docs/linux-driver-container.md describes the JSON form.
        """)

    @Argument(help: "Modules to list; all where none is named. The sums are always of all.")
    var names: [String] = []
    @Option(help: "The folder with the modules.", completion: .directory)
    var modules = ".build/linux-modules"
    @Option(help: "How many of the missing symbols to show.")
    var top: UInt = 20
    @Option(help: "Write the whole report as JSON.", completion: .file(extensions: ["json"]))
    var json: String?

    func run() throws {
      try reportingFailures {
        if let json { try BenchmarkOutput.requireWritable(json) }
        let folder = try ModuleFolder.read(modules)
        let coverage = DriverCoverage(folder.modules, container: DriverCoverage.containerSymbols)
        let report = CoverageReport(coverage, magic: folder.magic)
        let listed = names.map { $0.replacing("-", with: "_") }
        for (name, shown) in zip(names, listed) where !report.modules.contains(where: { $0.name == shown }) {
          throw ConfigurationError(
            key: "module", value: name, expected: "is not below '\(modules)'", exitCode: .missingInput)
        }
        try BenchmarkOutput.show(report.text(listing: listed, top: Int(clamping: top)))
        if let json { try BenchmarkOutput.write(try report.encoded(), to: json) }
      }
    }
  }
}
