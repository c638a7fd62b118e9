// The test of isolation class IC1 (Guest/Sources/IsolationTest; docs/isolation-classes.md) on each host and with each mechanism:
// every way out of a domain in kernel space is a fault that names the domain and ends only it.

import Configuration
import Loader
import Testing

@Suite(.serialized) struct IsolationTests {
  private func run(_ host: Host, extra: [String] = []) throws -> GuestRun {
    let (kernel, _) = try HostPaths.findGuest()
    let address = try #require(SymbolTable(path: kernel).address(of: "domain_keys_write"))
    var description = GuestDescription(memory: "128M", archive: "isolation-test.tar")
    description.commandLine = "isolation.keys=0x\(String(address, radix: 16))"
    description.extra = extra
    return try description.start(on: host).finish(seconds: 240)
  }

  private func expectAllHolds(_ run: GuestRun) {
    let failures = run.lines.filter { $0.hasPrefix("FAILED") || $0.contains("panic") }
    #expect(failures.isEmpty, "\(failures)")
    #expect(run.lines.contains("ok the test reached its end"), "\(run.console)\(run.errors)")
    #expect(run.lines.contains("ok mechanism: page table"))
    #expect(run.exitCode == 0)
  }

  @Test(.enabled(if: Host.qemu.isAvailable))
  func protectionKeysAndPageTablesHoldEveryIntruder() throws {
    let run = try run(.qemu)
    expectAllHolds(run)
    #expect(run.lines.contains("ok mechanism: protection keys"))
    #expect(run.lines.contains("ok forged rights are found out"))
  }

  /// Echo services of all three classes, called from IC2 and from each other, then killed (Guest/Sources/ClassTest).
  @Test(arguments: Host.available, ["keys", "page-table", "best"])
  func servicesOfEveryClassCallEachOther(on host: Host, mechanism: String) throws {
    if host == .castor, mechanism == "keys" { return }
    let classes = ["echo0": "ic0", "echo1": "ic1", "echo2": "ic2", "auto": "auto"].sorted { $0.key < $1.key }
    let services = classes.map { "pollux.service=name=\($0.key),program=echo,class=\($0.value)" }
    var description = GuestDescription(memory: "128M")
    description.commandLine =
      (services + [
        "pollux.service=name=class-test,program=class-test", "pollux.isolation=\(mechanism)",
      ]).joined(separator: " ")
    let run = try description.start(on: host).finish(seconds: 120)
    #expect(!run.lines.contains { $0.hasPrefix("FAILED") || $0.contains("panic") }, "\(run.console)")
    #expect(run.lines.filter { $0.hasPrefix("pair ") }.count == 9)
    #expect(run.lines.filter { $0.hasPrefix("ok its death") }.count == 3)
    #expect(run.lines.contains("ok the test ends"), "\(run.console)\(run.errors)")
    // Class auto is IC1 where ring 0 runs at the speed of ring 3.
    let isFast = run.console.contains("init: auto: isolation class auto, so ic1")
    let isSlow = run.console.contains("init: auto: isolation class auto, so ic2 by page tables in user mode")
    #expect(isFast != isSlow)
    if host == .qemu { #expect(isFast) }
    #expect(run.exitCode == 0)
  }

  @Test(.enabled(if: Host.castor.isAvailable))
  func pageTablesHoldEveryIntruderUnderCastor() throws {
    expectAllHolds(try run(.castor))
  }
}
