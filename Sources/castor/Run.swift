// `castor run`: resolves a description and becomes castor-vmm.

import ArgumentParser
import CLinux
import Configuration
import Foundation

struct Run: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Boot a virtual machine.",
    discussion: """
      Every key of a configuration file is also a flag; flags win over the file, and the flags of a list (--disk, --net, \
      --service) replace the file's list. Relative paths in a file are relative to that file. On a terminal Ctrl-A x \
      ends the machine and Ctrl-A h shows what else there is. SIGTERM asks the guest to power off; a second one ends it.

      The command ends with the guest's own exit code, or one of these:
      \(Castor.exitCodeTable)
      """)

  @OptionGroup var machine: MachineOptions

  @Flag(help: "Print the arguments of castor-vmm, one a line, and do not run it.")
  var dryRun = false

  func run() throws {
    try reportingFailures {
      let machine = try machine.resolve()
      try machine.validateOnHost()
      if dryRun {
        for argument in machine.arguments { print(argument) }
        return
      }
      try HostKVM.requireUsable()
      let monitor = try Installation.monitor()
      for (index, disk) in machine.disks.enumerated() { try disk.createIfMissing(key: "disk\(index)") }
      if let control = machine.control { try ControlSocket.prepareFolder(of: control) }
      try becomeMonitor(monitor, machine.arguments)
    }
  }

  /// Replaces this process, so that the monitor keeps its terminal, its parent and its process ID.
  private func becomeMonitor(_ path: String, _ arguments: [String]) throws {
    var pointers = ([path] + arguments).map { strdup($0) }
    defer { for pointer in pointers { free(pointer) } }
    pointers.append(nil)
    execv(path, pointers)
    throw CommandFailure(
      message: "castor-vmm '\(path)' cannot be started: \(String(cString: strerror(errno)))",
      exitCode: .operatingSystemError)
  }
}

/// Whether this process may use KVM at all; `castor doctor` says more.
enum HostKVM {
  static func requireUsable(path: String = "/dev/kvm") throws {
    let descriptor = open(path, O_RDWR | O_CLOEXEC)
    guard descriptor >= 0 else {
      throw CommandFailure(message: message(path: path, code: errno), exitCode: .noKVM)
    }
    defer { close(descriptor) }
    // KVM_GET_API_VERSION, _IO(0xae, 0), which every KVM answers and no other device.
    guard castor_ioctl_value(descriptor, 0xae00, 0) >= 0 else {
      throw CommandFailure(
        message: "\(path) is not KVM's device. castor doctor shows details.", exitCode: .noKVM)
    }
  }

  /// One message that says what to do.
  static func message(path: String, code: Int32) -> String {
    switch code {
    case ENOENT:
      "\(path) does not exist: this machine offers no KVM. Load the module (sudo modprobe kvm_intel or kvm_amd); "
        + "if that fails, enable virtualisation in the firmware, or nested virtualisation where this is itself a "
        + "virtual machine. castor doctor shows details."
    case EACCES, EPERM:
      "\(path) may not be opened by this user: add it to the group of the device (sudo usermod -aG kvm $USER) and log "
        + "in again. castor doctor shows details."
    default:
      "\(path) cannot be opened: \(String(cString: strerror(code))). castor doctor shows details."
    }
  }
}
