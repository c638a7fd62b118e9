// `castor ldc`: what there is about the Linux driver container; how much of Debian's modules it could run.

import ArgumentParser
import Configuration
import Foundation
import LinuxModules

struct Ldc: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "The Linux driver container: how much of a kernel package's modules it could run.",
    subcommands: [Coverage.self])

  struct Coverage: ParsableCommand {
    static let configuration = CommandConfiguration(
      abstract: "Count, for every Linux module, the imports that the container and other modules provide.",
      discussion: """
        Reads every .ko and .ko.xz below a folder: one version of one kernel. Tests/linux/fetch-modules.sh fetches Debian's \
        to .build/linux-modules. What the container provides is what its kernel interface exports, container.ko of the built \
        guest (`make drivers`); a stub is a function of it that says its name and does nothing, for what the drivers that run \
        never get to. A module resolves entirely when every import is provided and every module that provides one \
        resolves entirely too. docs/linux-driver-container.md describes the JSON form.
        """)

    @Argument(help: "Modules to list; all where none is named. The sums are always of all.")
    var names: [String] = []
    @Option(help: "The folder with the modules.", completion: .directory)
    var modules = ".build/linux-modules"
    @Option(
      help: "The container's kernel interface (default: linux/container.ko beside the built guest), or none.",
      completion: .file(extensions: ["ko"]))
    var container: String?
    @Option(help: "How many of the missing symbols to show.")
    var top: UInt = 20
    @Option(help: "Write the whole report as JSON.", completion: .file(extensions: ["json"]))
    var json: String?

    /// What the container's own object exports.
    private func containerSymbols() throws -> (all: Set<String>, stubs: Set<String>) {
      if container == "none" { return ([], []) }
      let built = (try? HostPaths.findGuest()).map { "\(HostPaths.folder(of: $0.kernel))/linux/container.ko" }
      guard let path = container ?? built, let contents = FileManager.default.contents(atPath: path) else {
        throw ConfigurationError(
          key: "container", value: container ?? built ?? "",
          expected: "cannot be read; `make drivers` builds it, and --container none counts without it",
          exitCode: .missingInput)
      }
      do throws(ModuleError) {
        let summary = try ModuleFolder.summary(of: contents, fileName: path)
        return (Set(summary.exports.map(\.name).filter { !$0.hasPrefix("container_") }), summary.stubs)
      } catch {
        throw ConfigurationError(
          key: "container", value: path, expected: String(decoding: error.line, as: UTF8.self), exitCode: .invalidModule
        )
      }
    }

    func run() throws {
      try reportingFailures {
        if let json { try BenchmarkOutput.requireWritable(json) }
        let folder = try ModuleFolder.read(modules)
        let provided = try containerSymbols()
        let coverage = DriverCoverage(folder.modules, container: provided.all, stubs: provided.stubs)
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
