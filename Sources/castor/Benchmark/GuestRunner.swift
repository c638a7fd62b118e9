// Runs one case in a machine: boots it with a mode's composition, follows its report lines, and ends it.

import Configuration
import Foundation

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
  let driver: BenchmarkDriver
  /// The machine's clock counts instructions (QEMU only).
  let countsInstructions: Bool

  /// Longest wait for the case's start: boot of an emulated guest.
  private static let startTimeout = 60.0

  func measure(_ benchmarkCase: BenchmarkCase, _ mode: BenchmarkMode) throws -> BenchmarkSample {
    let control = machine == .kvm ? "\(NSTemporaryDirectory())castor-bench-\(getpid()).sock" : nil
    let guest = try ReportingMachine(
      "\(benchmarkCase.title) \(mode.rawValue)", program: machine == .kvm ? monitor : QEMUMachine.program,
      arguments: arguments(benchmarkCase, mode, control: control), control: control)
    var before: MachineStatistics?
    return try guest.follow(seconds: Self.startTimeout) { data in
      guard let report = try? JSONDecoder().decode(BenchmarkReport.self, from: data) else { return .goOn }
      switch report.report {
      case "bench-start":
        before = guest.statistics()
        return .wait(Double(milliseconds) / 1000 * 4 + Self.startTimeout)
      case "bench-result":
        let after = guest.statistics()
        let sample = try sample(report, benchmarkCase, mode, before: before, after: after)
        guest.stop()
        return .done(sample)
      case "bench-error":
        throw guest.failure(report.message ?? "the guest reports an error")
      default: return .goOn
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
    sample.calls = report.calls.map { Double($0) / Double(requests) }
    if countsInstructions, let busy = report.busy {
      let looking = min(report.looking ?? 0, busy)
      sample.instructions = Double(busy - looking) / Double(requests)
      sample.looking = Double(looking) / Double(requests)
    }
    // The machine's counters cover the verification too, so they are divided by the machine's own count of requests.
    if let before, let after, after.requests > before.requests {
      let count = Double(after.requests - before.requests)
      sample.exits = Double(after.exits &- before.exits) / count
      sample.doorbells = sample.doorbells ?? Double(after.doorbells &- before.doorbells) / count
      sample.interrupts = sample.interrupts ?? Double(after.interrupts &- before.interrupts) / count
    }
    return sample
  }

  private func arguments(_ benchmarkCase: BenchmarkCase, _ mode: BenchmarkMode, control: String?) throws -> [String] {
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
      machine.services = mode.services(driver, arguments: words)
      try machine.validate()
      machine.resolveReferences()
      return machine.arguments
    case .qemu:
      guard let path = disk.path else {
        throw ConfigurationError(
          key: "--backend", value: "null", expected: "qemu has no such back end; use file or tmpfs", exitCode: .usage)
      }
      // Without a device tree init makes a composition of its own: a console, the block driver, and this program.
      return QEMUMachine.arguments(
        kernel: kernel, archive: archive, cpus: cpus, countsInstructions: countsInstructions,
        words: [
          "pollux.block=\(driver.container)", "pollux.mode=\(mode.rawValue)", "pollux.run=bench-block",
          "pollux.arguments=\"\(words)\"",
        ])
        + [
          "-drive", "id=disk0,file=\(path),format=raw,if=none,cache=none,aio=io_uring",
          "-device", "virtio-blk-device,drive=disk0",
        ]
    }
  }
}
