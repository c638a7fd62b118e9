// Runs the built guest under Castor (KVM) or QEMU (TCG) and gives tests what it printed.

import Configuration
import Foundation
import Testing

/// On which machine a guest test runs.
enum Host: String, CaseIterable, CustomTestStringConvertible, Sendable {
  /// `castor-vmm` on /dev/kvm.
  case castor
  /// `qemu-system-x86_64 -M microvm -accel tcg`.
  case qemu

  var testDescription: String { rawValue }

  /// Whether this host can run guests here.
  var isAvailable: Bool {
    switch self {
    case .castor: access("/dev/kvm", R_OK | W_OK) == 0
    case .qemu: Host.qemuPath != nil
    }
  }

  static let qemuPath: String? = (ProcessInfo.processInfo.environment["PATH"] ?? "").split(separator: ":")
    .map { "\($0)/qemu-system-x86_64" }.first { access($0, X_OK) == 0 }

  /// The hosts on which tests run on this machine.
  static var available: [Host] { allCases.filter(\.isAvailable) }
}

/// What a guest left behind.
struct GuestRun {
  /// Everything on the serial console.
  let console: String
  /// Everything on standard error.
  let errors: String
  /// The process's exit code; 128 + signal when it was killed.
  let exitCode: Int32

  /// The console's lines without the report lines.
  var lines: [String] {
    console.split(whereSeparator: \.isNewline).map(String.init).filter { !$0.hasPrefix("\u{1e}") }
  }

  /// The JSON records of the console (docs/platform.md, "Report lines").
  var records: [[String: Any]] {
    console.split(whereSeparator: \.isNewline).compactMap { line in
      guard let start = line.firstIndex(of: "\u{1e}") else { return nil }
      let text = line[line.index(after: start)...]
      return (try? JSONSerialization.jsonObject(with: Data(text.utf8))) as? [String: Any]
    }
  }
}

/// A guest process: started, fed with input, waited for.
final class GuestMachine {
  let process = Process()
  private let input = Pipe()
  private let output = Pipe()
  private let errors = Pipe()
  private let collected = Collected()
  private let finished = DispatchSemaphore(value: 0)

  /// Bytes from both pipes, gathered on background threads.
  private final class Collected: @unchecked Sendable {
    private let lock = NSLock()
    private var console = Data()
    private var errors = Data()
    func add(_ data: Data, isError: Bool) {
      lock.withLock { if isError { errors.append(data) } else { console.append(data) } }
    }
    var texts: (console: String, errors: String) {
      lock.withLock { (String(decoding: console, as: UTF8.self), String(decoding: errors, as: UTF8.self)) }
    }
  }

  private let host: Host

  /// Starts an executable that is, or stands for, `host`.
  init(_ host: Host, executable: String, arguments: [String]) throws {
    self.host = host
    process.executableURL = URL(fileURLWithPath: executable)
    process.arguments = arguments
    process.standardInput = input
    process.standardOutput = output
    process.standardError = errors
    for (pipe, isError) in [(output, false), (errors, true)] {
      pipe.fileHandleForReading.readabilityHandler = { [collected] handle in
        let data = handle.availableData
        if data.isEmpty { handle.readabilityHandler = nil } else { collected.add(data, isError: isError) }
      }
    }
    process.terminationHandler = { [finished] _ in finished.signal() }
    try process.run()
  }

  /// Types text at the guest's console.
  func type(_ text: String) { try? input.fileHandleForWriting.write(contentsOf: Data(text.utf8)) }

  /// What the console has shown so far.
  var console: String { collected.texts.console }

  /// Waits until the console shows `text`.
  func waitFor(_ text: String, seconds: Double = 30) -> Bool {
    let deadline = Date().addingTimeInterval(seconds)
    while Date() < deadline {
      if console.contains(text) { return true }
      if !process.isRunning { return console.contains(text) }
      usleep(20_000)
    }
    return false
  }

  /// Waits for the process's end; kills it after `seconds`.
  func finish(seconds: Double = 60) -> GuestRun {
    if finished.wait(timeout: .now() + seconds) == .timedOut {
      kill(process.processIdentifier, SIGKILL)
      finished.wait()
    }
    // The pipes' last bytes arrive on another thread.
    usleep(50_000)
    let texts = collected.texts
    var code = process.terminationStatus
    if process.terminationReason == .uncaughtSignal {
      code += 128
    } else if host == .qemu, code % 2 == 1 {
      // QEMU's isa-debug-exit device makes 2n + 1 of the guest's exit code n.
      code /= 2
    }
    return GuestRun(console: texts.console, errors: texts.errors, exitCode: code)
  }
}

/// What a guest test asks for, the same on both hosts.
struct GuestDescription {
  var memory = "256M"
  var cpus = 1
  var disk: String?
  var diskQueues = 1
  var services: [String] = []
  var commandLine = ""
  /// Another archive: beside the built one, such as `kernel-test.tar`, or by its whole path.
  var archive: String?
  /// Arguments that only one host understands.
  var extra: [String] = []

  /// Has the guest start these services, in the form of castor's `service` argument: by the device tree, or under QEMU, which has
  /// none, by the command line.
  mutating func compose(_ services: [String], on host: Host) {
    switch host {
    case .castor: self.services = services
    case .qemu:
      commandLine =
        "pollux.processors=\(cpus) "
        + services.map { service in
          let full = service.hasPrefix("name=") ? service : "name=\(service)"
          return "pollux.service=\"\(full)\""
        }.joined(separator: " ")
    }
  }

  /// Starts the guest that the package built.
  func start(on host: Host) throws -> GuestMachine {
    let (kernel, archive) = try HostPaths.findGuest()
    var archivePath = try #require(archive, "the guest's boot archive was not built")
    if let name = self.archive {
      archivePath = name.hasPrefix("/") ? name : "\(HostPaths.folder(of: archivePath))/\(name)"
    }
    switch host {
    case .castor:
      let folder = HostPaths.folder(of: try #require(HostPaths.executable))
      var arguments = ["kernel=\(kernel)", "archive=\(archivePath)", "memory=\(memory)", "cpus=\(cpus)"]
      if !commandLine.isEmpty { arguments.append("command-line=\(commandLine)") }
      if let disk { arguments.append("disk=path=\(disk),queues=\(diskQueues)") }
      arguments += services.map { "service=\($0)" } + extra
      return try GuestMachine(
        host, executable: "\(folder)/castor-vmm", arguments: arguments)
    case .qemu:
      var arguments = [
        "-M", "microvm,acpi=off,pit=on,pic=on,rtc=off", "-accel", "tcg", "-cpu", "max", "-m", memory, "-smp", "\(cpus)",
        "-kernel", kernel, "-initrd", archivePath, "-nodefaults", "-display", "none", "-serial", "stdio", "-no-reboot",
        "-device", "isa-debug-exit,iobase=0xf4,iosize=4", "-global", "virtio-mmio.force-legacy=false",
      ]
      if let disk {
        arguments += [
          "-drive", "file=\(disk),if=none,format=raw,id=disk0", "-device",
          "virtio-blk-device,drive=disk0,num-queues=\(diskQueues)",
        ]
      }
      if !commandLine.isEmpty { arguments += ["-append", commandLine] }
      return try GuestMachine(
        host, executable: try #require(Host.qemuPath), arguments: arguments + extra)
    }
  }
}

/// A scratch folder that goes away with the test.
final class ScratchFolder {
  let path: String
  init() throws {
    var template = Array("/tmp/castor-test-XXXXXX".utf8CString)
    guard let made = mkdtemp(&template) else { throw POSIXError(.EIO) }
    path = String(cString: made)
  }
  deinit { try? FileManager.default.removeItem(atPath: path) }

  /// A sparse file of so many bytes.
  func file(_ name: String, bytes: Int) throws -> String {
    let file = "\(path)/\(name)"
    guard FileManager.default.createFile(atPath: file, contents: nil), truncate(file, bytes) == 0 else {
      throw POSIXError(.EIO)
    }
    return file
  }
}
