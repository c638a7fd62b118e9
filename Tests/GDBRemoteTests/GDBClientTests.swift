import Foundation
import Logging
import Testing

@testable import GDBRemote

private let gdbPath = ["/usr/bin/gdb", "/usr/local/bin/gdb"].first {
  FileManager.default.isExecutableFile(atPath: $0)
}

/// Real gdb against the mock target. Skipped where gdb is not installed.
@Suite(.enabled(if: gdbPath != nil, "gdb is not installed"))
struct GDBClientTests {
  /// Runs gdb in batch mode with the commands, connected to the target, and returns all that it prints.
  private func debug(_ target: MockTarget, _ commands: [String]) throws -> String {
    let server = try DebugServer(
      listeningOn: .tcp(host: "127.0.0.1", port: 0), target: target, logger: Logger(label: "test"))
    try server.start()
    defer { server.stop() }
    let process = Process()
    process.executableURL = URL(fileURLWithPath: try #require(gdbPath))
    process.arguments =
      ["-nx", "-batch", "-ex", "set confirm off", "-ex", "target remote \(server.address)"]
      + commands.flatMap { ["-ex", $0] }
    let output = Pipe()
    process.standardOutput = output
    process.standardError = output
    process.standardInput = FileHandle.nullDevice
    try process.run()
    let watchdog = DispatchWorkItem { if process.isRunning { process.terminate() } }
    DispatchQueue.global().asyncAfter(deadline: .now() + 30, execute: watchdog)
    let text = String(decoding: output.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
    process.waitUntilExit()
    watchdog.cancel()
    return text
  }

  @Test func gdbAcceptsTheRegistersAsX8664() throws {
    let text = try debug(
      MockTarget(hasAVX: true),
      [
        "show architecture", "info registers rip cs cr0 efer fs_base k_gs_base", "info registers ymm3",
        "set $xmm1.v4_int32[1] = 0x12345678", "print/x $xmm1.uint128", "print $mxcsr", "info line",
      ])
    #expect(text.contains("i386:x86-64"))
    #expect(text.contains("rip            0x1000"))
    #expect(text.contains("[ PE ET PG ]"))
    #expect(text.contains("[ SCE LME LMA NXE ]") || text.contains("[ SCE LME LMA ]"))
    #expect(text.contains("ymm3"))
    #expect(text.contains("0x1234567800000000"))
    // The one warning left is about the missing executable, none is about the target description.
    #expect(text.split(separator: "\n").filter { $0.contains("warning: ") }.count == 1)
    #expect(text.contains("warning: No executable has been specified"))
  }

  @Test func gdbBreaksStepsAndChangesMemory() throws {
    let text = try debug(
      MockTarget(),
      [
        "break *0x1010", "continue", "print/x $rip", "stepi", "print/x $rip", "hbreak *0x1020", "continue",
        "print/x $rip", "set {int}0x1300 = 0x11223344", "x/xw 0x1300", "x/2i 0x1080",
        "x/b 0x5000",
      ])
    #expect(text.contains("Breakpoint 1, 0x0000000000001010"))
    #expect(text.contains("$1 = 0x1010"))
    #expect(text.contains("$2 = 0x1011"))
    #expect(text.contains("Breakpoint 2, 0x0000000000001020"))
    #expect(text.contains("0x11223344"))
    #expect(text.contains("hlt"))
    #expect(text.contains("Cannot access memory at address 0x5000"))
  }

  @Test func gdbSeesVCPUsAsThreadsAndStepsOneAlone() throws {
    let text = try debug(
      MockTarget(),
      [
        "info threads", "thread 2", "set scheduler-locking on", "stepi", "print/x $rip", "thread 1", "print/x $rip",
      ])
    #expect(text.contains("vCPU 0"))
    #expect(text.contains("vCPU 1"))
    #expect(text.contains("$1 = 0x1101"))
    #expect(text.contains("$2 = 0x1000"))
  }

  @Test func gdbRunsMonitorCommandsAndDetaches() throws {
    let target = MockTarget()
    let text = try debug(target, ["monitor help", "monitor nonsense", "info mem", "detach"])
    #expect(text.contains("commands: help long silent"))
    #expect(text.contains("unknown command 'nonsense'"))
    #expect(text.contains("0x0000000000000000"))
    #expect(text.contains("detached"))
    #expect(target.state.withLock { !$0.isAttached && !$0.wasKilled })
  }

  @Test func gdbKillEndsTheMachine() throws {
    let target = MockTarget()
    _ = try debug(target, ["kill"])
    #expect(target.state.withLock { $0.wasKilled })
  }

  @Test func gdbReportsTheEndOfTheMachine() throws {
    let target = MockTarget()
    target.state.withLock { $0.stopWithExitCode = 3 }
    #expect(try debug(target, ["continue"]).contains("exited with code 03"))
  }
}
