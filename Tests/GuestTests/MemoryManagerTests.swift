// The memory manager as its clients see it: budgets, fork, threads, and a neighbour that wants too much.

import Testing

@Suite(.serialized) struct MemoryManagerTests {
  @Test(arguments: Host.available, [1, 4])
  func budgetsForksAndNeighboursHold(host: Host, cpus: Int) throws {
    var description = GuestDescription(memory: "128M", cpus: cpus)
    let services = [
      "name=memory-manager,program=memory-manager,arguments=pages=864", "name=child,program=memory-test,mode=child",
      "name=hog,program=memory-test,mode=hog",
      "name=idle,program=memory-test,mode=idle", "name=test,program=memory-test",
    ]
    description.compose(services, on: host)
    let run = try description.start(on: host).finish(seconds: 60)
    #expect(run.lines.filter { $0.hasPrefix("FAILED") }.isEmpty, "\(run.console)")
    #expect(run.lines.contains("ok the test reached its end"), "\(run.console)\(run.errors)")
    #expect(run.exitCode == 0)
  }
}
