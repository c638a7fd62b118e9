// Connects the UART to the host end that the configuration names.

import Configuration
import Devices
import SystemPackage

extension Machine {
  /// Makes the console's host end on the machine's loop.
  func attachSerial() throws(MachineError) {
    let destination: SerialDestination =
      switch configuration.serial {
      case .stdio: .standardStreams
      case .none: .none
      case .pty: .pseudoTerminal
      case .file(let path): .file(path)
      case .unix(let path): .unixSocket(path)
      }
    do throws(SerialBackendError) {
      let backend = try SerialBackend(destination, serial: serial, loop: loop) { [weak self] event in
        switch event {
        case .quitRequested: self?.end(.ended(.success))
        case .outputFailed(let code): self?.log.warning("console output is lost from here on: \(code)")
        }
      }
      if let path = backend.terminalPath { log.notice("the console is at \(path)") }
      serialBackend = backend
    } catch { throw MachineError(error.description, exitCode: error.exitCode) }
  }
}

extension SerialBackendError {
  var exitCode: ExitCode {
    switch self {
    case .unknownDestination: .invalidConfiguration
    case .cannotOpen(_, .permissionDenied): .permissionDenied
    case .cannotOpen: .cannotCreate
    case .socket(.inUse): .addressInUse
    case .socket: .cannotCreate
    case .terminal, .pseudoTerminal, .resources: .operatingSystemError
    }
  }
}
