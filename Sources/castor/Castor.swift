// The front end's commands, and how errors become exit codes.

import ArgumentParser
import Configuration
import Foundation

@main
struct Castor: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "castor",
    abstract: "Runs, debugs and measures the Pollux microkernel, or Linux, in a virtual machine on KVM.",
    discussion: """
      castor run                        boot the demo; the terminal is its console
      castor run --gdb 1234 --wait-gdb  the same, stopped before the first instruction
      castor bench block --quick        measure the guest's block drivers

      Exit codes:
      \(exitCodeTable)
      """,
    version: "castor 0.1.0",
    subcommands: [Run.self, Fdt.self, Doctor.self, Control.self, Bench.self, Ldc.self])

  /// Begins with the time, so that what the front end takes counts in the machine's boot time (`--timing`).
  static func main() {
    Startup.note()
    do {
      var command = try parseAsRoot()
      try command.run()
    } catch {
      let message = message(for: error)
      guard exitCode(for: error) == .validationFailure, !message.isEmpty else { exit(withError: error) }
      printError(usageLine(message, full: fullMessage(for: error)))
      Foundation.exit(Configuration.ExitCode.usage.rawValue)
    }
  }

  /// The one line for arguments that are not understood: what is wrong, and where to read on.
  private static func usageLine(_ message: String, full: String) -> String {
    let advice = full.matches(of: /See '(castor[^']*)'/).last.map { "; see '\($0.1)'" } ?? ""
    return message.split(separator: "\n").joined(separator: " ") + advice
  }

  /// The exit codes, one a line.
  static var exitCodeTable: String {
    Configuration.ExitCode.allCases.map { code in
      let number = String(code.rawValue)
      return String(repeating: " ", count: 4 - number.count) + "\(number)  \(code.summary)"
    }.joined(separator: "\n")
  }
}

/// An error that ends a command with one line and its own exit code.
struct CommandFailure: Error, CustomStringConvertible {
  var message: String
  var exitCode: Configuration.ExitCode
  var description: String { message }
}

/// Runs a command's body; a known error prints one line on standard error and ends the process with its exit code.
func reportingFailures(_ body: () throws -> Void) throws {
  do {
    try body()
  } catch let error as ConfigurationError {
    printError(error.description)
    throw ArgumentParser.ExitCode(error.exitCode.rawValue)
  } catch let error as CommandFailure {
    printError(error.message)
    throw ArgumentParser.ExitCode(error.exitCode.rawValue)
  }
}

/// Prints one line on standard error, named as the program's.
func printError(_ message: String) { FileHandle.standardError.write(Data("castor: \(message)\n".utf8)) }

/// When this program was executed, for castor-vmm, which takes it from the environment.
enum Startup {
  /// Notes the time on the monotonic clock, in nanoseconds, less what loading the program took of the processor.
  static func note() {
    var used = timespec()
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used)
    let loading = UInt64(used.tv_sec) * 1_000_000_000 + UInt64(used.tv_nsec)
    setenv("CASTOR_STARTED", "\(HostBaseline.now() - loading)", 1)
  }
}
