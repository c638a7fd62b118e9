// Everything at once (Guest/Sources/Stress): services that call each other, clients that die in the middle of calls, restarts; then
// memory, processes, threads and stacks are all where they were. CASTOR_STRESS_SECONDS sets how long (60 for a full run).

import Foundation
import Testing

@Suite(.serialized) struct StressTests {
  private static let seconds = Int(ProcessInfo.processInfo.environment["CASTOR_STRESS_SECONDS"] ?? "") ?? 4

  /// The composition: three servers in a ring, one of which takes one caller at a time; clients; a memory disk; the conductor.
  private static let services = [
    "memdisk", "name=server3,program=stress,mode=server,arguments=next=server1 stacks=1",
    "name=server2,program=stress,mode=server,arguments=next=server3",
    "name=server1,program=stress,mode=server,arguments=next=server2 stacks=3",
    "name=client1,program=stress,mode=client", "name=client2,program=stress,mode=client",
    "name=client3,program=stress,mode=client", "name=stress,program=stress,arguments=seconds=\(seconds)",
  ]

  @Test(arguments: Host.available, [1, 2, 4])
  func randomKillsLeaveNothingBehind(on host: Host, cpus: Int) throws {
    var description = GuestDescription(memory: "128M", cpus: cpus)
    description.compose(Self.services, on: host)
    let run = try description.start(on: host).finish(seconds: Double(Self.seconds) * 2 + 120)
    let failures = run.lines.filter { $0.contains("FAILED") || $0.contains("panic") || $0.contains("died of") }
    #expect(failures.isEmpty, "\(failures)")
    #expect(run.lines.contains("stress: done"), "\(run.console.suffix(4000))\(run.errors)")
    for check in ["no memory is lost", "the processes are those of before", "the threads are those of before"] {
      #expect(run.lines.contains("stress: ok \(check)"))
    }
    #expect(run.exitCode == 0)
  }
}
