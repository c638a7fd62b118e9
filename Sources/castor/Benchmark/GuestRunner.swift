// Runs one case in a machine: boots it with a mode's composition, follows its report lines, and ends it.

import Configuration
import Foundation

/// The machine that runs the guest.
enum BenchmarkMachine: String, CaseIterable {
  /// castor-vmm.
  case kvm
  /// `qemu-system-x86_64 -M microvm` with TCG: the same guest under another machine, without statistics.
  case qemu
}

/// Boots a machine a case.
struct GuestRunner {
  let machine: BenchmarkMachine
  let disk: ScratchDisk
  let monitor: String
  let kernel: String
  let archive: String?
  let cpus: Int
  let milliseconds: Int
  let verify: Bool
  let path: BenchmarkPath

  /// Longest wait for the case's start: boot of an emulated guest.
  private static let startTimeout = 60.0

  func measure(_ benchmarkCase: BenchmarkCase, _ mode: BenchmarkMode) throws -> BenchmarkSample {
    let control = "\(NSTemporaryDirectory())castor-bench-\(getpid()).sock"
    let child = try ChildProcess(program, arguments(benchmarkCase, mode, control: control))
    defer {
      child.kill()
      unlink(control)
    }
    var reader = ReportReader()
    var before: MachineStatistics?
    var deadline = Self.now() + Self.startTimeout
    while true {
      try Interruption.check()
      guard Self.now() < deadline else {
        throw failure(benchmarkCase, mode, "no report came in time", child, reader)
      }
      guard let bytes = child.read(milliseconds: 100) else {
        let code = child.wait(milliseconds: 3000)
        throw failure(
          benchmarkCase, mode, "the machine ended early" + (code.map { " with code \($0)" } ?? ""), child, reader)
      }
      for data in reader.take(bytes) {
        guard let report = try? JSONDecoder().decode(BenchmarkReport.self, from: data) else { continue }
        switch report.report {
        case "bench-start":
          before = statistics(control)
          deadline = Self.now() + Double(milliseconds) / 1000 * 4 + Self.startTimeout
        case "bench-result":
          let after = statistics(control)
          let sample = try sample(report, benchmarkCase, mode, before: before, after: after)
          stop(child, control)
          return sample
        case "bench-error":
          throw failure(benchmarkCase, mode, report.message ?? "the guest reports an error", child, reader)
        default: break
        }
      }
    }
  }

  private func sample(
    _ report: BenchmarkReport, _ benchmarkCase: BenchmarkCase, _ mode: BenchmarkMode, before: MachineStatistics?,
    after: MachineStatistics?
  ) throws -> BenchmarkSample {
    guard let requests = report.requests, requests > 0, let bytes = report.bytes,
      let nanoseconds = report.nanoseconds, nanoseconds > 0, let p50 = report.p50, let p99 = report.p99
    else {
      throw CommandFailure(
        message: "\(benchmarkCase.title) \(mode.rawValue): the guest's report is not complete", exitCode: .protocolError
      )
    }
    if let errors = report.errors, errors > 0 {
      throw CommandFailure(
        message: "\(benchmarkCase.title) \(mode.rawValue): \(errors) requests failed in the guest",
        exitCode: .inputOutputError)
    }
    if report.verified == false {
      throw CommandFailure(
        message: "\(benchmarkCase.title) \(mode.rawValue): the data read back is not the data written",
        exitCode: .checkFailed)
    }
    var sample = BenchmarkSample(requests: requests, bytes: bytes, nanoseconds: nanoseconds, p50: p50, p99: p99)
    sample.doorbells = report.doorbells.map { Double($0) / Double(requests) }
    sample.interrupts = report.interrupts.map { Double($0) / Double(requests) }
    // The machine's counters cover the verification too, so they are divided by the machine's own count of requests.
    if let before, let after, after.requests > before.requests {
      let count = Double(after.requests - before.requests)
      sample.exits = Double(after.exits &- before.exits) / count
      sample.doorbells = sample.doorbells ?? Double(after.doorbells &- before.doorbells) / count
      sample.interrupts = sample.interrupts ?? Double(after.interrupts &- before.interrupts) / count
    }
    return sample
  }

  private var program: String {
    switch machine {
    case .kvm: monitor
    case .qemu: "qemu-system-x86_64"
    }
  }

  private func arguments(_ benchmarkCase: BenchmarkCase, _ mode: BenchmarkMode, control: String) throws -> [String] {
    let words = benchmarkCase.arguments(milliseconds: milliseconds, span: disk.size, verify: verify, path: path)
    switch machine {
    case .kvm:
      var machine = MachineConfiguration()
      machine.name = "bench"
      machine.memory = 256 << 20
      machine.cpus = cpus
      machine.kernel = kernel
      machine.archive = archive
      machine.control = control
      machine.noReboot = true
      machine.logLevel = .warning
      machine.disks = [
        DiskConfiguration(backend: disk.path.map { .file(path: $0) } ?? .null(size: disk.size))
      ]
      machine.services = mode.services(arguments: words)
      try machine.validate()
      machine.resolveReferences()
      return machine.arguments
    case .qemu:
      guard let path = disk.path else {
        throw ConfigurationError(
          key: "--backend", value: "null", expected: "qemu has no such back end; use file or tmpfs", exitCode: .usage)
      }
      return QEMUCommand.arguments(
        kernel: kernel, archive: archive, disk: path, cpus: cpus, mode: mode, arguments: words)
    }
  }

  private func statistics(_ control: String) -> MachineStatistics? {
    guard machine == .kvm, let client = try? ControlClient(path: control) else { return nil }
    return try? client.statistics()
  }

  /// Ends the machine: by the control socket, else by force.
  private func stop(_ child: ChildProcess, _ control: String) {
    if machine == .kvm, let client = try? ControlClient(path: control) {
      _ = try? client.request(["command": "stop", "force": true])
      if child.wait(milliseconds: 2000) != nil { return }
    }
    child.kill()
  }

  private func failure(
    _ benchmarkCase: BenchmarkCase, _ mode: BenchmarkMode, _ reason: String, _ child: ChildProcess,
    _ reader: ReportReader
  ) -> CommandFailure {
    let errors = String(decoding: child.errorText, as: UTF8.self).split(separator: "\n").suffix(5).map(String.init)
    let context = (reader.lastLines.suffix(10) + errors).map { "\n  | \($0)" }.joined()
    return CommandFailure(
      message: "\(benchmarkCase.title) \(mode.rawValue): \(reason)\(context)", exitCode: .guestFailure)
  }

  private static func now() -> Double { Double(HostBaseline.now()) / 1e9 }
}

/// QEMU's microvm with the guest and one virtio block device.
enum QEMUCommand {
  static func arguments(
    kernel: String, archive: String?, disk: String, cpus: Int, mode: BenchmarkMode, arguments: String
  ) -> [String] {
    // Without a device tree init makes a composition of its own: a console, the block driver, and this program.
    let words = ["pollux.mode=\(mode.rawValue)", "pollux.run=bench-block", "pollux.arguments=\"\(arguments)\""]
    return [
      "-M", "microvm,acpi=off,pit=on,pic=on,rtc=off", "-accel", "tcg", "-cpu", "max", "-m", "256M", "-smp", "\(cpus)",
      "-nodefaults", "-display", "none", "-serial", "stdio", "-no-reboot", "-kernel", kernel,
    ] + (archive.map { ["-initrd", $0] } ?? []) + [
      "-append", words.joined(separator: " "), "-global", "virtio-mmio.force-legacy=false",
      "-drive", "id=disk0,file=\(disk),format=raw,if=none,cache=none,aio=io_uring",
      "-device", "virtio-blk-device,drive=disk0", "-device", "isa-debug-exit,iobase=0xf4,iosize=4",
    ]
  }
}
