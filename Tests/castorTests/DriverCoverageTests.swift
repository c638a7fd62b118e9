// `castor ldc coverage` on generated modules: counts, the report, and what is refused.

import Configuration
import Foundation
import LinuxModuleBuilder
import Testing

@testable import castor

@Suite struct DriverCoverageTests {
  static let magic = "6.1.0-1-test SMP mod_unload modversions "

  /// ring imports from the kernel; virtio from ring; blk from both and the kernel; old from virtio with another checksum.
  static let files: [String: [UInt8]] = [
    "ring.ko": ModuleBuilder.module(
      "ring", magic: magic, imports: [("kmalloc", 1)], exports: [("ring_add", 10), ("ring_get", 11)]),
    "virtio.ko": ModuleBuilder.module(
      "virtio", magic: magic, depends: ["ring"], imports: [("ring_add", 10)], exports: [("register_virtio", 20)]),
    "virtio-blk.ko": ModuleBuilder.module(
      "virtio_blk", magic: magic, depends: ["virtio"],
      imports: [("register_virtio", 20), ("ring_get", 11), ("kmalloc", 1), ("printk", 2)]),
    "old.ko": ModuleBuilder.module("old", magic: magic, imports: [("register_virtio", 21)]),
  ]

  static func summaries() throws -> [ModuleSummary] {
    try files.map { try ModuleFolder.summary(of: Data($0.value), fileName: $0.key) }.sorted { $0.name < $1.name }
  }

  @Test func importsAreCountedByProvider() throws {
    let coverage = DriverCoverage(try Self.summaries(), container: ["kmalloc"])
    func line(_ name: String) -> [Int]? {
      coverage.modules.first { $0.name == name }.map {
        [$0.imports, $0.byContainer, $0.byModules, $0.missing.count, $0.resolves ? 1 : 0]
      }
    }
    #expect(line("ring") == [1, 1, 0, 0, 1])
    #expect(line("virtio") == [1, 0, 1, 0, 1])
    #expect(line("virtio_blk") == [4, 1, 2, 1, 0])
    #expect(line("old") == [1, 0, 0, 1, 0])
    #expect(coverage.missing.map { "\($0.name) \($0.modules)" } == ["printk 1", "register_virtio 1"])
  }

  @Test func stubsAreCountedApart() throws {
    let coverage = DriverCoverage(try Self.summaries(), container: ["kmalloc", "printk"], stubs: ["printk", "other"])
    #expect(coverage.containerCount == 1 && coverage.stubCount == 1)
    let modules = Dictionary(uniqueKeysWithValues: coverage.modules.map { ($0.name, $0) })
    #expect(modules["virtio_blk"].map { [$0.byContainer, $0.byStubs, $0.byModules] } == [1, 1, 2])
    #expect(modules["virtio_blk"].map { [$0.resolves, $0.needsNoStub] } == [true, false])
    #expect(modules["virtio"].map { [$0.resolves, $0.needsNoStub] } == [true, true])
    // What it calls is a stub.
    let below = DriverCoverage(try Self.summaries(), container: ["kmalloc", "printk"], stubs: ["kmalloc"])
    #expect(below.modules.first { $0.name == "virtio" }.map { [$0.resolves, $0.needsNoStub] } == [true, false])
    let object = ModuleBuilder.module(
      "container", magic: Self.magic, exports: [("kmalloc", 1), ("printk", 2)], marks: ["stub.printk", "stubborn"])
    #expect(try ModuleFolder.summary(of: Data(object), fileName: "container.ko").stubs == ["printk"])
  }

  @Test func aModuleNeedsWhatItsProvidersNeed() throws {
    // Nothing of virtio itself is missing, but ring, which it calls, wants kmalloc.
    let coverage = DriverCoverage(try Self.summaries(), container: [])
    #expect(coverage.modules.filter(\.resolves).isEmpty)
    #expect(coverage.modules.first { $0.name == "virtio" }?.missing == [])
    #expect(coverage.missing.first.map { "\($0.name) \($0.modules)" } == "kmalloc 2")
    let full = DriverCoverage(try Self.summaries(), container: ["kmalloc", "printk", "register_virtio"])
    #expect(full.modules.allSatisfy { $0.resolves })
  }

  /// Runs the command on the files.
  static func run(_ files: [String: [UInt8]], _ more: [String] = [], in folder: TestFolder) throws -> CastorRun {
    let modules = folder.url.appending(path: "modules/kernel/drivers")
    try FileManager.default.createDirectory(at: modules, withIntermediateDirectories: true)
    for (name, contents) in files { try Data(contents).write(to: modules.appending(path: name)) }
    let container = ModuleBuilder.module(
      "container", magic: magic, exports: [("kmalloc", 1), ("printk", 2), ("container_entries", 3)],
      marks: ["stub.printk"])
    try Data(container).write(to: folder.url.appending(path: "container.ko"))
    return try CastorRun(
      ["ldc", "coverage", "--modules", "modules", "--container", "container.ko"] + more, in: folder)
  }

  @Test func theReport() throws {
    let folder = try TestFolder()
    let run = try Self.run(Self.files, ["--json", "report.json", "--top", "1", "virtio-blk", "ring"], in: folder)
    #expect(run.exitCode == 0, "\(run.errors)")
    let expected = CoverageReport(
      DriverCoverage(try Self.summaries(), container: ["kmalloc", "printk"], stubs: ["printk"]),
      magic: Self.magic.trimmingCharacters(in: .whitespaces))
    #expect(run.output == expected.text(listing: ["virtio_blk", "ring"], top: 1) + "\n")
    #expect(run.output.contains("container provides  1 symbols and 1 stubs"))
    #expect(run.output.contains("  resolves with stubs\n"))
    #expect(run.output.contains("built for           6.1.0-1-test SMP mod_unload modversions\n"))
    #expect(run.output.contains("modules             4, of which "))
    let json = try Data(contentsOf: folder.url.appending(path: "report.json"))
    let report = try JSONDecoder().decode(CoverageReport.self, from: json)
    #expect(report == expected)
    #expect(report.modules.map(\.name) == ["old", "ring", "virtio", "virtio_blk"])
    #expect(report.modules.reduce(0) { $0 + $1.imports } == 7)
  }

  static let hasXZ = (ProcessInfo.processInfo.environment["PATH"] ?? "").split(separator: ":")
    .contains { access("\($0)/xz", X_OK) == 0 }

  @Test(.enabled(if: hasXZ, "needs xz")) func compressedModulesAreTheSame() throws {
    let folder = try TestFolder()
    let plain = try Self.run(Self.files, in: folder)
    let xz = Process()
    xz.executableURL = URL(filePath: "/usr/bin/env")
    xz.arguments = ["xz"] + Self.files.keys.map { folder.path("modules/kernel/drivers/\($0)") }
    try xz.run()
    xz.waitUntilExit()
    #expect(!FileManager.default.fileExists(atPath: folder.path("modules/kernel/drivers/ring.ko")))
    let packed = try Self.run([:], in: folder)
    #expect(
      packed.exitCode == 0 && packed.output == plain.output && plain.output.contains("virtio_blk"), "\(packed.errors)")
    let broken = try Self.run(["broken.ko.xz": [1, 2, 3]], in: folder)
    #expect(broken.exitCode == Configuration.ExitCode.invalidModule.rawValue)
    #expect(broken.errors.contains("broken.ko.xz") && broken.errors.split(separator: "\n").count == 1)
  }

  /// One line that names the culprit, and the code.
  private func check(
    _ files: [String: [UInt8]], _ code: Configuration.ExitCode, names culprit: String, _ more: [String] = []
  ) throws {
    let run = try Self.run(files, more, in: try TestFolder())
    #expect(run.exitCode == code.rawValue, "\(run.errors)")
    #expect(run.errors.contains(culprit) && run.errors.hasPrefix("castor: "), "\(run.errors)")
    #expect(run.errors.split(separator: "\n").count == 1 && run.output.isEmpty, "\(run.errors)")
  }

  @Test func badInputIsNamed() throws {
    try check([:], .missingInput, names: "'modules': has no .ko")
    try check([:], .missingInput, names: "fetch-modules.sh", ["--modules", "nowhere"])
    try check(["bad.ko": [0x7f, 0x45]], .invalidModule, names: "bad.ko': module bad: not an ELF file")
    try check(
      ["cut.ko": Array(Self.files["ring.ko"]!.dropLast(40))], .invalidModule, names: "module cut: the section table")
    try check(
      ["a.ko": ModuleBuilder.module("a", magic: "6.1"), "b.ko": ModuleBuilder.module("b", magic: "6.2")],
      .invalidModule, names: "more than one kernel: a is for \"6.1\", b for \"6.2\"")
    try check(
      ["a.ko": ModuleBuilder.module("a", magic: "6.1"), "b.ko": ModuleBuilder.module("a", magic: "6.1")],
      .invalidModule, names: "two modules a")
    try check(Self.files, .missingInput, names: "'nothing'", ["nothing"])
    try check(Self.files, .cannotCreate, names: "no/such/folder", ["--json", "no/such/folder"])
    try check(Self.files, .usage, names: "--top", ["--top", "-1"])
  }
}
