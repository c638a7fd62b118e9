// How a machine gets its debug stub, when it is asked for one (`--gdb`, `--wait-gdb`).

import Configuration
import GDBRemote
import KVM
import SystemPackage

/// A machine's debug stub while the machine runs.
final class DebugAttachment {
  let target: MachineDebugTarget
  private let server: DebugServer<MachineDebugTarget>

  /// Listens, and holds the vCPUs when the machine waits for its debugger.
  init(machine: Machine, endpoint: DebuggerEndpoint) throws(MachineError) {
    let address: DebugAddress =
      switch endpoint {
      case .tcp(let host, let port): .tcp(host: host, port: port)
      case .unix(let path): .unix(path: path)
      }
    do {
      target = try MachineDebugTarget(machine: machine, waits: machine.configuration.waitForDebugger)
      server = try DebugServer(listeningOn: address, target: target, logger: machine.log)
      try target.start()
      try server.start()
    } catch let error as DebugServerError {
      if case .addressInUse = error { throw MachineError("\(error)", exitCode: .addressInUse) }
      throw MachineError("\(error)", exitCode: .cannotCreate)
    } catch { throw MachineError(wrapping: error) }
    if machine.configuration.waitForDebugger {
      machine.log.notice("waiting for gdb: target remote \(server.address)")
    }
  }

  /// Tells a debugger how the machine ended, and closes.
  func finish(_ ending: Ending) {
    let code: UInt8 =
      switch ending {
      case .powerOff, .reboot: 0
      case .exit(let code): code
      case .ended(let code), .failed(let code): UInt8(truncatingIfNeeded: code.rawValue)
      }
    target.finish(code: code)
    server.stop()
  }
}
