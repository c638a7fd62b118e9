// Why a machine cannot be built or cannot go on: one line for a person, and the process's exit code.

import BlockStorage
import Configuration
import GuestMemory
import KVM
import Loader
import NetworkLink
import SystemPackage

/// A failure of the machine as a whole.
public struct MachineError: Error, CustomStringConvertible, Sendable {
  /// One line that names the culprit and, where there is one, the remedy.
  public let description: String
  /// What the process exits with.
  public let exitCode: ExitCode

  public init(_ description: String, exitCode: ExitCode) {
    self.description = description
    self.exitCode = exitCode
  }

  /// Translates the errors of the layers below.
  init(wrapping error: any Error) {
    switch error {
    case let error as MachineError: self = error
    case let error as KVMError:
      switch error {
      case .absent, .notPermitted, .notKVM, .version, .missingCapability:
        self.init("\(error)", exitCode: .noKVM)
      case .request: self.init("\(error)", exitCode: .operatingSystemError)
      }
    case let error as GuestMemoryError: self.init("memory: \(error)", exitCode: .notEnoughMemory)
    case let error as LoaderError: self.init("\(error)", exitCode: error.exitCode)
    case let error as BlockStorageError: self.init("\(error)", exitCode: error.exitCode)
    case let error as NetworkLinkError: self.init("\(error)", exitCode: error.exitCode)
    case let error as Errno: self.init("the host's kernel refused a request: \(error)", exitCode: .operatingSystemError)
    default: self.init("\(error)", exitCode: .operatingSystemError)
    }
  }
}

extension LoaderError {
  var exitCode: ExitCode {
    switch problem {
    case .cannotRead(let code):
      switch Errno(rawValue: code) {
      case .noSuchFileOrDirectory: .missingInput
      case .permissionDenied, .notPermitted: .permissionDenied
      default: .inputOutputError
      }
    case .outsideMemory, .insideMMIOHole, .overlaps, .noRoom: .kernelOutsideMemory
    case .commandLineTooLong: .invalidConfiguration
    default: .invalidKernel
    }
  }
}

extension NetworkLinkError {
  var exitCode: ExitCode {
    switch self {
    case .invalidName, .notATap: .invalidConfiguration
    case .noDriver, .interface, .noSocket: .operatingSystemError
    case .busy: .tapBusy
    case .notPermitted: .permissionDenied
    case .cannotListen(_, .addressInUse): .addressInUse
    case .cannotListen: .cannotCreate
    case .cannotConnect(_, .noSuchFileOrDirectory), .cannotConnect(_, .connectionRefused): .missingInput
    case .cannotConnect: .inputOutputError
    }
  }
}

extension BlockStorageError {
  var exitCode: ExitCode {
    switch self {
    case .cannotOpen(_, .noSuchFileOrDirectory): .missingInput
    case .cannotOpen(_, .permissionDenied), .cannotOpen(_, .notPermitted): .permissionDenied
    case .cannotOpen: .inputOutputError
    case .notAFile: .invalidConfiguration
    case .inUse: .addressInUse
    case .tooSmall(_, let count): count == 0 ? .emptyDisk : .diskTooSmall
    case .cannotResize: .inputOutputError
    case .noRing: .operatingSystemError
    case .noMemory: .notEnoughMemory
    }
  }
}
