// From arguments to exit code: what the `castor-vmm` program does.

import Configuration
import Devices
import Glibc
import HostSystem
import Logging

/// Runs the machine that `arguments` describe and returns the process's exit code. Errors are one line on standard
/// error.
public func runMachine(arguments: [String]) -> Int32 {
  let start = executionStart()
  do {
    let configuration = try MachineConfiguration(arguments: arguments)
    LoggingSystem.bootstrap { label in
      var handler = StreamLogHandler.standardError(label: label)
      handler.logLevel = Logger.Level(rawValue: configuration.logLevel.rawValue) ?? .notice
      return handler
    }
    let machine = try Machine(configuration, log: Logger(label: "castor"), start: start)
    switch try machine.run() {
    case .powerOff: return 0
    case .exit(let code): return Int32(code)
    case .reboot:
      if configuration.noReboot { return 0 }
      return restart(arguments)
    case .ended(let code), .failed(let code): return code.rawValue
    }
  } catch let error as ConfigurationError {
    return fail("\(error)", error.exitCode)
  } catch {
    let error = MachineError(wrapping: error)
    return fail(error.description, error.exitCode)
  }
}

/// When the program was executed, on the monotonic clock in nanoseconds: what the front end passed on in
/// `CASTOR_STARTED`, or now.
private func executionStart() -> UInt64 {
  guard let text = getenv("CASTOR_STARTED"), let value = UInt64(String(cString: text)) else {
    return monotonicNanoseconds()
  }
  unsetenv("CASTOR_STARTED")
  return value
}

/// A reboot is a power cycle: the program executes itself again, so that every device and all memory start afresh.
private func restart(_ arguments: [String]) -> Int32 {
  var words = (["castor-vmm"] + arguments).map { strdup($0) }
  words.append(nil)
  execv("/proc/self/exe", words)
  return fail("cannot restart for a reboot: \(String(cString: strerror(errno)))", .operatingSystemError)
}

private func fail(_ message: String, _ code: ExitCode) -> Int32 {
  _ = "castor: \(message)\n".withCString { write(2, $0, strlen($0)) }
  return code.rawValue
}
