// The benchmark with real machines: results for programs and people, and nothing left behind by Ctrl-C.

import Configuration
import Foundation
import Testing

@testable import castor

@Suite(.enabled(if: CastorRun.hasKVM, "/dev/kvm is not available"), .serialized)
struct BenchmarkRunTests {
  @Test func everyModeIsMeasuredAgainstTheHost() throws {
    let folder = try TestFolder()
    let run = try CastorRun(
      [
        "bench", "block", "--quick", "--sizes", "4K", "--depths", "8", "--milliseconds", "50", "--disk-size", "4M",
        "--json", "out.json", "--html", "out.html",
      ], in: folder, seconds: 300)
    #expect(run.exitCode == 0, "\(run.errors)")
    for word in ["read random 4K ×8", "write random 4K ×8", "solo", "twin-poll"] { #expect(run.output.contains(word)) }
    let data = try Data(contentsOf: folder.url.appending(path: "out.json"))
    let document = try BenchmarkSchema.check(data, benchmark: "block", machine: "kvm")
    for mode in BenchmarkMode.allCases {
      for operation in BenchmarkOperation.allCases {
        let prefix = "\(operation.rawValue)/random/4096/8/\(mode.rawValue)/"
        let throughput = try #require(document.results.first { $0.name == prefix + "throughput" })
        #expect(throughput.value > 0 && throughput.ratio != nil && throughput.baseline != nil)
        // Ring 3 rings the doorbell without leaving the vCPU's thread, so most requests cost no exit.
        let exits = try #require(document.results.first { $0.name == prefix + "exits-per-request" })
        #expect(exits.value >= 0)
      }
    }
    #expect(FileManager.default.fileExists(atPath: folder.path("out.html")))
    #expect(try Self.leftovers(folder).isEmpty)
  }

  @Test func anInterruptEndsTheMachineAndRemovesTheDisk() throws {
    let folder = try TestFolder()
    let process = Process()
    process.executableURL = URL(filePath: "\(CastorRun.folder)/castor")
    process.arguments = ["bench", "block", "--disk-size", "4M"]
    process.currentDirectoryURL = folder.url
    process.standardInput = FileHandle.nullDevice
    process.standardOutput = FileHandle.nullDevice
    process.standardError = FileHandle.nullDevice
    let ended = DispatchSemaphore(value: 0)
    process.terminationHandler = { _ in ended.signal() }
    try process.run()
    // The disk's existence says that the handlers are installed and the work has begun.
    for _ in 0..<500 where try Self.leftovers(folder).isEmpty { usleep(20_000) }
    #expect(try !Self.leftovers(folder).isEmpty)
    kill(process.processIdentifier, SIGINT)
    if ended.wait(timeout: .now() + 60) == .timedOut {
      kill(process.processIdentifier, SIGKILL)
      ended.wait()
    }
    #expect(process.terminationStatus == Configuration.ExitCode.interrupted.rawValue)
    #expect(try Self.leftovers(folder).isEmpty)
  }

  /// Disk files of the benchmark in a folder.
  private static func leftovers(_ folder: TestFolder) throws -> [String] {
    try FileManager.default.contentsOfDirectory(atPath: folder.url.path()).filter { $0.hasSuffix(".img") }
  }
}
