// A monitor that is killed loses no block write that the guest has flushed.

import Foundation
import Testing

@Suite(.enabled(if: Host.castor.isAvailable, "needs /dev/kvm")) struct DurabilityTests {
  /// Whether 512 bytes hold what the guest's flush run writes there: the sector's number, the seed 42 and words that
  /// follow from it (Guest/Sources/BenchmarkCore/BlockPattern.swift).
  private func matches(_ data: Data, sector: UInt64) -> Bool {
    let words = data.withUnsafeBytes { Array($0.bindMemory(to: UInt64.self)) }
    guard words.count == 64, words[0] == sector, words[1] == 42 else { return false }
    return (2..<64).allSatisfy { words[$0] == (42 &+ UInt64($0)) &* 0x9e37_79b9_7f4a_7c15 }
  }

  @Test(arguments: ["solo", "twin"]) func killedMonitorLosesNoFlushedWrite(mode: String) throws {
    let folder = try ScratchFolder()
    var description = GuestDescription()
    let disk = try folder.file("disk.img", bytes: 64 << 20)
    description.disk = disk
    description.services = [
      "name=block,program=block-container,mode=\(mode),device=disk0",
      "name=bench,program=bench-block,arguments=flushrun=on exit=on",
    ]
    let guest = try description.start(on: .castor)
    #expect(guest.waitFor("\"sector\":320,"), "\(guest.console)")
    kill(guest.process.processIdentifier, SIGKILL)
    let run = guest.finish()
    #expect(run.exitCode == 128 + SIGKILL)
    let promised = run.records.filter { $0["report"] as? String == "flushed" }
    #expect(promised.count > 10)
    let file = try #require(FileHandle(forReadingAtPath: disk))
    for record in promised {
      let first = try #require(record["sector"] as? Int)
      let count = try #require(record["sectors"] as? Int)
      for sector in first..<(first + count) {
        try file.seek(toOffset: UInt64(sector * 512))
        let data = try #require(try file.read(upToCount: 512))
        #expect(matches(data, sector: UInt64(sector)), "sector \(sector)")
      }
    }
  }
}
