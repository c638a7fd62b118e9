// Which disks' threads poll where nobody has said.

import HostSystem
import Testing

@testable import Machine

@Suite struct PollingTests {
  @Test func disksPollOnTheProcessorsThatTheVCPUsLeave() {
    #expect((0..<3).map { Machine.pollMicroseconds(disk: $0, cpus: 2, processors: 4) } == [200, 200, 0])
    #expect(Machine.pollMicroseconds(disk: 0, cpus: 1, processors: 2) == 200)
  }

  @Test(arguments: [(1, 1), (2, 2), (4, 2)]) func withoutProcessorsToSpareNoDiskPolls(cpus: Int, processors: Int) {
    #expect(Machine.pollMicroseconds(disk: 0, cpus: cpus, processors: processors) == 0)
  }

  @Test func thereIsAProcessorToRunOn() { #expect(HostProcessors.allowed >= 1) }
}
