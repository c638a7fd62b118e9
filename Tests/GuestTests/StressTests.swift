// Everything at once (Guest/Sources/Stress): services that call each other, clients that die in the middle of calls, restarts; then
// memory, processes, threads and stacks are all where they were. CASTOR_STRESS_SECONDS sets how long (60 for a full run).

import Foundation
import Testing

@Suite(.serialized) struct StressTests {
  private static let seconds = Int(ProcessInfo.processInfo.environment["CASTOR_STRESS_SECONDS"] ?? "") ?? 4

  /// The composition: three servers in a ring, one of which takes one caller at a time, and clients of them; all services of the package
  /// that need no device, with clients at work; the conductor, who kills all of these and starts them again.
  private static func services(_ form: Composed) -> [String] {
    [
      "memdisk", "name=echo,program=echo,class=ic1", "name=vfs,program=vfs,arguments=memory=1M",
      "name=memory-manager,program=memory-manager,arguments=pages=512",
      "name=server3,program=stress,mode=server,arguments=next=server1 stacks=1",
      "name=server2,program=stress,mode=server,arguments=next=server3",
      "name=server1,program=stress,mode=server,arguments=next=server2 stacks=3",
    ]
      + form.services.map { $0.replacing(",restart=on-failure", with: "") }
      + (1...3).map { "name=client\($0),program=stress,mode=client" }
      + ["anonymous", "filer", "tokens"].map { "name=\($0),program=stress,mode=\($0)" }
      + [
        "name=mapper,program=stress,mode=mapper,arguments=\(form.arguments)",
        "name=stress,program=stress,arguments=seconds=\(seconds)",
      ]
  }

  /// Every number of processors and every composition; all pairs of them where there is time.
  private static let runs: [(cpus: Int, form: Composed)] =
    seconds < 60
    ? [(1, .split), (2, .separate), (3, .shared), (4, .split)]
    : (1...4).flatMap { cpus in Composed.allCases.map { (cpus, $0) } }

  @Test(arguments: Host.available, runs)
  func randomKillsLeaveNothingBehind(on host: Host, run: (cpus: Int, form: Composed)) throws {
    let (cpus, form) = run
    var description = GuestDescription(memory: "128M", cpus: cpus)
    description.compose(Self.services(form), on: host)
    let run = try description.start(on: host).finish(seconds: Double(Self.seconds) * 3 + 180)
    // Who has memory of a memory manager may die with it.
    let mayFault = ["init: anonymous died of", "init: mapper died of"]
    let failures = run.lines.filter { line in
      line.contains("FAILED") || line.contains("panic") || line.contains("with code 99")
        || (line.contains("died of") && !mayFault.contains { line.contains($0) })
    }
    #expect(failures.isEmpty, "\(failures)")
    #expect(run.lines.contains("stress: done"), "\(run.console.suffix(4000))\(run.errors)")
    for check in [
      "no memory is lost", "the processes are those of before", "the threads are those of before",
      "no token of the ring is left",
      "no stack is bound to a call",
    ] {
      #expect(run.lines.contains("stress: ok \(check)"))
    }
    #expect(run.exitCode == 0)
  }
}
