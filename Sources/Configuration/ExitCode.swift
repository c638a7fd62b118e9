// The exit codes of `castor` and `castor-vmm`: sysexits.h where it has a fitting one, 79 and up for the rest.

/// Why a command ended. A guest that ends the VM with a code of its own (docs/platform.md, "Ports") makes that code the
/// exit code of `castor run`; Castor's own failures begin at 64, so a guest that wants to be told apart stays below.
public enum ExitCode: Int32, CaseIterable, Sendable {
  /// The guest powered off, or the command did what was asked.
  case success = 0
  /// Unknown command, unknown flag, or a flag without its value.
  case usage = 64
  /// A value that is not allowed, or a file that is not valid YAML.
  case invalidConfiguration = 65
  /// A file that was named does not exist.
  case missingInput = 66
  /// No virtual machine listens on the control socket.
  case noSuchMachine = 68
  /// `/dev/kvm` is absent or not usable.
  case noKVM = 69
  /// The guest crashed: triple fault, or an instruction that the host cannot emulate.
  case guestFailure = 70
  /// The host's kernel refused something that it should not refuse.
  case operatingSystemError = 71
  /// An output file or a socket cannot be created.
  case cannotCreate = 73
  /// Reading or writing a host file failed.
  case inputOutputError = 74
  /// The peer of a socket answered with something that is not the protocol, or refused the command.
  case protocolError = 76
  /// A file exists and may not be read, written or opened.
  case permissionDenied = 77
  /// A configuration file has a key that Castor does not know.
  case unknownKey = 78
  /// The kernel file is truncated, or is no image that Castor can boot.
  case invalidKernel = 80
  /// A segment of the kernel does not fit in RAM, or overlaps the device region below 4 GiB.
  case kernelOutsideMemory = 81
  /// A disk of zero bytes.
  case emptyDisk = 82
  /// A disk smaller than one of its sectors.
  case diskTooSmall = 83
  /// The TAP interface is in use by another process.
  case tapBusy = 84
  /// The gdb port, or a socket path, is in use.
  case addressInUse = 85
  /// More CPUs than this host's KVM gives one machine.
  case tooManyCPUs = 86
  /// More memory than the host has.
  case notEnoughMemory = 87
  /// A result check failed: `castor bench` read back other data than it wrote, or the guest reported an error.
  case checkFailed = 88
  /// A Linux module is damaged, or for another kernel than the others.
  case invalidModule = 89
  /// Ended by Ctrl-C (128 + SIGINT).
  case interrupted = 130
  /// Ended by a second SIGTERM (128 + SIGTERM).
  case terminated = 143

  /// What the code means, for `castor --help` and the README.
  public var summary: String {
    switch self {
    case .success: "the guest powered off; the command did what was asked"
    case .usage: "unknown command or flag, or a flag without its value"
    case .invalidConfiguration: "a value that is not allowed, or a file that is not valid YAML"
    case .missingInput: "a named file does not exist"
    case .noSuchMachine: "no virtual machine listens on the control socket"
    case .noKVM: "/dev/kvm is absent or not usable"
    case .guestFailure: "the guest crashed: triple fault, or an instruction not emulated"
    case .operatingSystemError: "the host's kernel refused a request"
    case .cannotCreate: "an output file or socket cannot be created"
    case .inputOutputError: "reading or writing a host file failed"
    case .protocolError: "the control socket's peer refused the command"
    case .permissionDenied: "a file may not be read, written or opened"
    case .unknownKey: "a configuration file has an unknown key"
    case .invalidKernel: "the kernel file is truncated or of an unknown format"
    case .kernelOutsideMemory: "the kernel does not fit in RAM or overlaps the device region"
    case .emptyDisk: "a disk of zero bytes"
    case .diskTooSmall: "a disk smaller than one sector"
    case .tapBusy: "the TAP interface is in use"
    case .addressInUse: "the gdb port or a socket path is in use"
    case .tooManyCPUs: "more CPUs than the host's KVM supports"
    case .notEnoughMemory: "more memory than the host has"
    case .checkFailed: "a benchmark's data verification failed"
    case .invalidModule: "a Linux module is damaged or for another kernel"
    case .interrupted: "ended by Ctrl-C (SIGINT)"
    case .terminated: "ended by a second SIGTERM"
    }
  }
}
