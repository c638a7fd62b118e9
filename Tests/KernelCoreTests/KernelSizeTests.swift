// How large the core kernel is: everything in ring 0 outside services, in lines of code (without blank lines and comments), so that it
// stays a microkernel.

import Foundation
import Testing

struct KernelSizeTests {
  private static let guestSources = URL(fileURLWithPath: #filePath).deletingLastPathComponent()
    .deletingLastPathComponent().deletingLastPathComponent().appending(path: "Guest/Sources")

  /// Lines of code in the files with these extensions below a folder.
  private func lines(_ folder: String, _ extensions: Set<String>) throws -> Int {
    let root = Self.guestSources.appending(path: folder)
    let files = try #require(FileManager.default.enumerator(at: root, includingPropertiesForKeys: nil))
    var count = 0
    for case let file as URL in files where extensions.contains(file.pathExtension) {
      count += try String(contentsOf: file, encoding: .utf8).split(separator: "\n")
        .map { $0.trimmingCharacters(in: .whitespaces) }
        .count { !$0.isEmpty && !$0.hasPrefix("//") }
    }
    return count
  }

  @Test func theCoreKernelStaysAMicrokernel() throws {
    let swift = try ["Kernel", "KernelCore", "PolluxABI"].map { try lines($0, ["swift"]) }.reduce(0, +)
    let assembly = try lines("CArch", ["S"])
    print("The core kernel: \(swift) lines of Swift, \(assembly) of assembly")
    #expect(swift > 1000 && swift <= 6000)
    #expect(assembly > 100 && assembly <= 800)
  }
}
