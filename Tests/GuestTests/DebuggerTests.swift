// gdb itself, in batch mode, debugs Pollux through the stub: all that docs/debugging.md promises.

import Configuration
import Foundation
import Testing

private let gdbPath: String? = ["/usr/bin/gdb", "/usr/local/bin/gdb"].first { access($0, X_OK) == 0 }

@Suite(
  .serialized, .enabled(if: gdbPath != nil, "gdb is not installed"),
  .enabled(if: Host.castor.isAvailable, "/dev/kvm is not available"))
struct DebuggerTests {
  /// A guest that waits for its debugger, and gdb's answers to commands.
  private final class Session {
    let folder: ScratchFolder
    let guest: GuestMachine
    let kernel: String
    private let socket: String

    init(cpus: Int = 1, extra: [String] = []) throws {
      folder = try ScratchFolder()
      socket = "\(folder.path)/gdb"
      kernel = try HostPaths.findGuest().0
      var description = GuestDescription()
      description.cpus = cpus
      description.extra = ["gdb=unix:\(socket)", "wait-gdb=on"] + extra
      guest = try description.start(on: .castor)
      for _ in 0..<500 where access(socket, F_OK) != 0 { usleep(10_000) }
    }

    deinit {
      guest.process.terminate()
      kill(guest.process.processIdentifier, SIGKILL)
    }

    /// What gdb prints for these commands after it has connected.
    func debug(_ commands: [String]) throws -> String {
      let script = "\(folder.path)/script"
      try (["target remote \(socket)"] + commands).joined(separator: "\n").write(
        toFile: script, atomically: true, encoding: .utf8)
      let process = Process()
      process.executableURL = URL(fileURLWithPath: try #require(gdbPath))
      process.arguments = [
        "-nx", "-batch", "-ex", "set confirm off", "-ex", "set pagination off", "-ex", "set width 0", "-ex",
        "set debuginfod enabled off", "-ex", "file \(kernel)", "-x", script,
      ]
      let output = Pipe()
      process.standardOutput = output
      process.standardError = output
      process.standardInput = FileHandle.nullDevice
      // Test threads block signals, and a child inherits that: gdb would never see its Ctrl-C.
      var signals = sigset_t()
      sigemptyset(&signals)
      sigaddset(&signals, SIGINT)
      pthread_sigmask(SIG_UNBLOCK, &signals, nil)
      try process.run()
      let identifier = process.processIdentifier
      let watchdog = DispatchWorkItem { kill(identifier, SIGKILL) }
      DispatchQueue.global().asyncAfter(deadline: .now() + 120, execute: watchdog)
      let text = String(decoding: output.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
      process.waitUntilExit()
      watchdog.cancel()
      return text
    }
  }

  /// Ctrl-C to gdb after so many seconds, as a gdb command before the one that runs the guest.
  private func interrupt(after seconds: Int) -> String { "shell (sleep \(seconds); kill -INT $PPID) &" }

  /// The number of the first line of a kernel source file that contains a text.
  private func line(of text: String, in file: String) throws -> Int {
    let folder = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
      .deletingLastPathComponent()
    let source = try String(contentsOf: folder.appendingPathComponent("Guest/Sources/Kernel/\(file)"), encoding: .utf8)
    let lines = source.split(separator: "\n", omittingEmptySubsequences: false)
    return try #require(lines.firstIndex { $0.contains(text) }) + 1
  }

  @Test func connectsBeforeTheFirstInstructionAndBreaksByFunctionAndByLine() throws {
    let session = try Session()
    let line = try line(of: "\"no hvm_start_info\"", in: "Boot.swift")
    let text = try session.debug([
      "info symbol $rip", "x/2i $rip", "x/1i kernel_start", "break kernel_start", "continue", "backtrace",
      "tbreak Boot.swift:\(line)", "continue", "info source", "next", "step", "frame", "stepi", "kill",
    ])
    #expect(text.contains("boot_entry64 in section .boot"))
    #expect(text.contains("Breakpoint 1, kernel_start"))
    // Through Swift to the assembler that called it.
    #expect(text.contains("#0  kernel_start") && text.contains("in boot_high ()"))
    #expect(text.contains("Temporary breakpoint 2,"))
    #expect(text.contains("Boot.swift:\(line)"))
    #expect(text.contains("[Inferior 1 (Remote target) killed]"))
    #expect(session.guest.finish().exitCode == 0)
  }

  @Test func registersOfEveryKindAreReadAndWritten() throws {
    let session = try Session()
    let text = try session.debug([
      "tbreak kernel_start", "continue", "info registers cs cr0 cr3 cr4 efer fs_base k_gs_base mxcsr fctrl",
      "set $xmm3.v4_int32[1] = 0x12345678", "set $r15 = 0x1122334455667788", "stepi",
      "print/x $xmm3.v4_int32[1]", "print/x $r15", "print $cr0", "maintenance print target-stack", "kill",
    ])
    #expect(text.contains("[ PE MP ET NE WP AM PG ]"))
    #expect(text.contains("$1 = 0x12345678"))
    #expect(text.contains("$2 = 0x1122334455667788"))
    #expect(text.contains("mxcsr          0x1f80"))
    #expect(text.contains("fctrl          0x37f"))
  }

  @Test func ringThreeStopsStepsAndShowsItsMemory() throws {
    let session = try Session()
    let text = try session.debug([
      // The thread's saved registers are the first argument; RIP is the 18th word of the trap frame.
      "break *kernel_system_call", "continue", "set $user = *(unsigned long *)($rdi + 17 * 8)", "delete",
      "tbreak *$user", "continue", "print $rip == $user", "print $cs & 3", "x/4i $rip", "stepi", "stepi",
      "print $rip != $user", "print $cs & 3", "set $stack = $rsp - 64",
      "set *(unsigned long *)$stack = 0x0123456789abcdef", "print/x *(unsigned long *)$stack",
      "hbreak *$rip", "monitor translate 0x400000", "monitor regs", "kill",
    ])
    #expect(text.contains("$1 = 1\n$2 = 3"))
    #expect(text.contains("$3 = 1\n$4 = 3"))
    #expect(text.contains("$5 = 0x123456789abcdef"))
    #expect(text.contains("page, user read-only executable"))
    #expect(text.contains("ring 3"))
  }

  @Test func breakpointInAProgramWaitsForItsProcess() throws {
    let session = try Session()
    let text = try session.debug([
      // Where every program begins; before the first instruction there is no process.
      "break *0x400000", "continue", "print/x $rip", "print $cs & 3", "x/2i $rip", "stepi", "delete",
      interrupt(after: 2), "continue", "kill",
    ])
    #expect(text.contains("$1 = 0x400000"))
    #expect(text.contains("$2 = 3"))
    #expect(text.contains("received signal SIGINT"))
  }

  @Test func interruptsThreadsAndReattaches() throws {
    let session = try Session(cpus: 2)
    let text = try session.debug([
      interrupt(after: 3), "continue", "info threads", "stepi", "stepi", "stepi", "thread 2", "print $rsp != 0",
      "monitor exits", "monitor virtq",
      "monitor help", "monitor nonsense", "detach",
    ])
    #expect(text.contains("received signal SIGINT"))
    #expect(text.contains("\"vCPU 0\"") && text.contains("\"vCPU 1\""))
    #expect(text.contains("$1 = 1"))
    #expect(text.contains("vCPU 1: port-read"))
    #expect(text.contains("unknown command 'nonsense'"))
    #expect(text.contains("[Inferior 1 (Remote target) detached]"))
    // The guest runs on, and obeys its console while nobody is attached.
    #expect(session.guest.waitFor("pollux> "))
    session.guest.type("help\r")
    #expect(session.guest.waitFor("services"))
    let again = try session.debug(["print $rip != 0", "monitor exits"])
    #expect(again.contains("$1 = 1"))
    // gdb let go at its end, so that the guest obeys again.
    session.guest.type("halt\r")
    let run = session.guest.finish()
    #expect(run.exitCode == 0, "\(run.errors)")
  }

  @Test func reportsHowTheMachineEnded() throws {
    let session = try Session()
    // The input waits in the console until the shell reads it.
    session.guest.type("halt\r")
    let text = try session.debug(["continue"])
    #expect(text.contains("[Inferior 1 (Remote target) exited normally]"))
    #expect(session.guest.finish().exitCode == 0)
  }

  @Test func bootROMIsDebuggedFromTheResetVector() throws {
    let session = try Session(extra: ["firmware=on"])
    let text = try session.debug([
      "print/x $rip", "print/x $cs", "print/x $cr0 & 0x80000001", "x/1i kernel_start", "stepi", "hbreak kernel_start",
      "break Boot.finish", "continue", "print/x $cr0 & 0x80000001", "kill",
    ])
    #expect(text.contains("$1 = 0xfff0"))
    #expect(text.contains("$3 = 0x0"))
    #expect(text.contains("hit Breakpoint 1, kernel_start") || text.contains("Breakpoint 1, kernel_start"))
    #expect(text.contains("$4 = 0x80000001"))
  }

  @Test func secondMachineOnOnePortIsToldWhichPort() throws {
    let session = try Session()
    let socket = try #require(session.guest.process.arguments?.first { $0.hasPrefix("gdb=") })
    var description = GuestDescription()
    description.extra = [socket]
    let run = try description.start(on: .castor).finish(seconds: 20)
    #expect(run.exitCode == 85)
    #expect(run.errors.contains("is in use"))
  }
}
