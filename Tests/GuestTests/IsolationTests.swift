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

  @Test(.enabled(if: Host.castor.isAvailable))
  func pageTablesHoldEveryIntruderUnderCastor() throws {
    expectAllHolds(try run(.castor))
  }
}
