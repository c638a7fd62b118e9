// A machine whose guest reports to this process: started, followed line by line, and ended in every case.

import Configuration
import Foundation

/// The machine that runs the guest.
enum BenchmarkMachine: String, CaseIterable {
  /// castor-vmm.
  case kvm
  /// `qemu-system-x86_64 -M microvm` with TCG: the same guest under another machine, without statistics.
  case qemu
}

/// A running machine. It is gone, and its control socket with it, when this object goes away.
final class ReportingMachine {
  /// What a report line means for who follows.
  enum Step<Result> {
    /// The next line, please, within the time that is left.
    case goOn
    /// The next line may take so many seconds.
    case wait(Double)
    /// This is it.
    case done(Result)
  }

  /// Names the run in errors.
  let title: String
  /// Path of the control socket; nil where the machine has none.
  let control: String?
  private let child: ChildProcess
  private var reader = ReportReader()

  init(_ title: String, program: String, arguments: [String], control: String?) throws {
    self.title = title
    self.control = control
    child = try ChildProcess(program, arguments)
  }

  deinit {
    child.kill()
    if let control { unlink(control) }
  }

  /// Gives each report line to `take` until that is done. Throws when the machine ends, when nothing comes within
  /// `seconds`, when init says that one of `services` could not be started or has ended, and after Ctrl-C.
  func follow<Result>(
    seconds: Double, watching services: [String] = [], meanwhile: () throws -> Void = {},
    _ take: (Data) throws -> Step<Result>
  ) throws -> Result {
    var deadline = Self.now() + seconds
    while true {
      try Interruption.check()
      try meanwhile()
      guard Self.now() < deadline else { throw failure("no report came in time") }
      guard let bytes = child.read(milliseconds: 100) else {
        let code = child.wait(milliseconds: 3000)
        throw failure("the machine ended early" + (code.map { " with code \($0)" } ?? ""))
      }
      for data in reader.take(bytes) {
        switch try take(data) {
        case .goOn: break
        case .wait(let seconds): deadline = Self.now() + seconds
        case .done(let result): return result
        }
      }
      if let line = reader.lastLines.first(where: { Self.isEnd($0, of: services) }) { throw failure(line) }
    }
  }

  /// Takes what the machine has written, so that it does not wait for that; throws when it has ended.
  func drain() throws {
    guard let bytes = child.read(milliseconds: 0) else { throw failure("the machine ended early") }
    _ = reader.take(bytes)
  }

  /// Waits until `condition` holds; after `seconds` the machine is at fault, for what `problem` says.
  func wait(seconds: Double, until problem: String, _ condition: () -> Bool) throws {
    let deadline = Self.now() + seconds
    while !condition() {
      try Interruption.check()
      guard Self.now() < deadline else { throw failure(problem) }
      guard let bytes = child.read(milliseconds: 20) else { throw failure("the machine ended early") }
      _ = reader.take(bytes)
    }
  }

  /// Whether init says in this line that one of the services is not there (any more).
  static func isEnd(_ line: String, of services: [String]) -> Bool {
    let reasons = [
      " died of ", " ended with code ", ": not in the boot archive", ": cannot be loaded", ": cannot be started",
      ": not started",
    ]
    return services.contains { name in reasons.contains { line.hasPrefix("init: \(name)\($0)") } }
  }

  /// The machine's counters, where it has a control socket that answers.
  func statistics() -> MachineStatistics? {
    guard let control, let client = try? ControlClient(path: control) else { return nil }
    return try? client.statistics()
  }

  /// Ends the machine: by the control socket, else by force.
  func stop() {
    if let control, let client = try? ControlClient(path: control) {
      _ = try? client.request(["command": "stop", "force": true])
      if child.wait(milliseconds: 2000) != nil { return }
    }
    child.kill()
  }

  /// An error about this run with the last lines of the console and of standard error.
  func failure(_ reason: String, _ code: Configuration.ExitCode = .guestFailure) -> CommandFailure {
    let errors = String(decoding: child.errorText, as: UTF8.self).split(separator: "\n").suffix(5).map(String.init)
    let context = (reader.lastLines.suffix(10) + errors).map { "\n  | \($0)" }.joined()
    return CommandFailure(message: "\(title): \(reason)\(context)", exitCode: code)
  }

  private static func now() -> Double { Double(HostBaseline.now()) / 1e9 }
}

/// QEMU's microvm with TCG and the guest.
enum QEMUMachine {
  static let program = "qemu-system-x86_64"

  /// The arguments, without devices. With `countsInstructions` the time-stamp counter counts one for each instruction.
  static func arguments(
    kernel: String, archive: String?, cpus: Int, countsInstructions: Bool = false, words: [String]
  ) -> [String] {
    [
      "-M", "microvm,acpi=off,pit=on,pic=on,rtc=off", "-accel", "tcg", "-cpu", "max", "-m", "256M", "-smp", "\(cpus)",
      "-nodefaults", "-display", "none", "-serial", "stdio", "-no-reboot", "-kernel", kernel,
    ] + (archive.map { ["-initrd", $0] } ?? []) + (countsInstructions ? ["-icount", "shift=0"] : []) + [
      "-append", words.joined(separator: " "), "-global", "virtio-mmio.force-legacy=false",
      "-device", "isa-debug-exit,iobase=0xf4,iosize=4",
    ]
  }

  /// A service as the guest's command line describes it (docs/platform.md, "Command line").
  static func word(_ service: ServiceConfiguration) -> String {
    let fields = [
      ("name", service.name), ("program", service.program), ("class", service.isolationClass), ("mode", service.mode),
      ("device", service.device), ("restart", service.restart.text), ("arguments", service.arguments),
    ]
    let list = fields.filter { !$0.1.isEmpty }.map { "\($0.0)=\($0.1)" }.joined(separator: ",")
    return "pollux.service=\"\(list)\""
  }
}
