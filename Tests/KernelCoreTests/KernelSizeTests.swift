// How large the core kernel is: everything in ring 0 outside services, in lines of code (without blank lines and comments), so that it
// stays a microkernel.

import Foundation
import Testing

struct KernelSizeTests {
  private static let guestSources = URL(fileURLWithPath: #filePath).deletingLastPathComponent()
    .deletingLastPathComponent().deletingLastPathComponent().appending(path: "Guest/Sources")

  /// Lines of code in a file.
  private static func lines(_ file: URL) throws -> Int {
    try String(contentsOf: file, encoding: .utf8).split(separator: "\n")
      .map { $0.trimmingCharacters(in: .whitespaces) }
      .count { !$0.isEmpty && !$0.hasPrefix("//") }
  }

  /// Lines of code of each file below a folder, as "folder/file" with the outermost folder alone.
  private func sizes(_ folder: String, _ extensions: Set<String>) throws -> [(path: String, lines: Int)] {
    let root = Self.guestSources.appending(path: folder)
    let files = try #require(FileManager.default.enumerator(at: root, includingPropertiesForKeys: nil))
    var sizes: [(path: String, lines: Int)] = []
    // CArch/include has layouts and single instructions for Swift, no code of its own.
    for case let file as URL in files
    where extensions.contains(file.pathExtension) && file.deletingLastPathComponent().lastPathComponent != "include" {
      let name = file.pathExtension == "swift" ? file.deletingPathExtension().lastPathComponent : file.lastPathComponent
      sizes.append(("\(folder)/\(name)", try Self.lines(file)))
    }
    return sizes
  }

  /// docs/kernel.md says of every file in ring 0 why it is there, and how long it is within a tenth or 30 lines.
  @Test func theDocumentationAccountsForEveryFile() throws {
    let files = try ["Kernel", "KernelCore", "PolluxABI", "CArch"].flatMap { try sizes($0, ["swift", "S", "h", "c"]) }
    let page = Self.guestSources.appending(path: "../../docs/kernel.md")
    let section = try #require(
      try String(contentsOf: page, encoding: .utf8).split(separator: "\n## ").first {
        $0.hasPrefix("What is in the kernel")
      })
    var accounted: [String] = []
    for row in section.split(separator: "\n") where row.hasPrefix("| ") {
      let cells = row.split(separator: "|").map { $0.trimmingCharacters(in: .whitespaces) }
      guard cells.count == 4, let claimed = Int(cells[2]) else { continue }
      #expect(cells[3].count > 10, "no reason for \(cells[0])")
      var lines = 0
      for name in cells[1].matches(of: /`([^`]+)`/).map({ String($0.1) }) {
        // A name without its folder is enough where only one file has it.
        let found = files.filter { $0.path == name || $0.path.hasSuffix("/\(name)") }
        #expect(found.count == 1, "\(name) in docs/kernel.md is \(found.count) files")
        accounted += found.map(\.path)
        lines += found.map(\.lines).reduce(0, +)
      }
      #expect(
        abs(lines - claimed) <= max(30, claimed / 10), "docs/kernel.md: \(cells[0]) has \(lines) lines, not \(claimed)")
    }
    let missing = files.map(\.path).filter { path in accounted.filter { $0 == path }.count != 1 }
    #expect(missing.isEmpty, "docs/kernel.md does not say once why these are in the kernel: \(missing)")
  }

  @Test func theCoreKernelStaysAMicrokernel() throws {
    let swift = try ["Kernel", "KernelCore", "PolluxABI"].flatMap { try sizes($0, ["swift"]) }.map(\.lines).reduce(0, +)
    // Macros are assembly, too.
    let assembly = try sizes("CArch", ["S", "h"]).map(\.lines).reduce(0, +)
    print("The core kernel: \(swift) lines of Swift, \(assembly) of assembly")
    #expect(swift > 1000 && swift <= 6000)
    #expect(assembly > 100 && assembly <= 800)
  }
}
