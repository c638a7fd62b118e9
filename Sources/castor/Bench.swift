// `castor bench block`: the cases, their order, and where the results go.

import ArgumentParser
import Configuration
import Foundation

struct Bench: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Measure the guest against the host, and its mechanisms against their plainest alternatives.",
    subcommands: [
      BenchBlock.self, BenchRPC.self, BenchComposition.self, BenchTokens.self, BenchPaging.self, BenchNet.self,
      BenchReport.self,
    ])
}

struct BenchBlock: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "block",
    abstract: "Measure the guest's block drivers, each against the host's own io_uring on the same file.",
    discussion: """
      Each case runs on the host and then in a machine a mode, one after the other, and so on for every repetition; \
      figures are medians. The guest verifies what it wrote. Doorbells, interrupts and exits in the table are per \
      request. docs/benchmark.md describes the method and the JSON form.
      """)

  enum Backend: String, CaseIterable, ExpressibleByArgument { case file, tmpfs, null }

  @Flag(help: "Fewer cases, shorter: 4K and 128K, random, about a minute.")
  var quick = false
  @Option(help: "Request sizes, separated by commas (default: 4K,16K,64K,128K,1M).")
  var sizes: String?
  @Option(help: "Requests in flight, separated by commas, 1 to 32 (default: 1,8,32).")
  var depths: String?
  @Option(help: "Driver modes, separated by commas: solo, twin, twin-poll (default: all).")
  var modes: String?
  @Option(help: "Operations, separated by commas: read, write (default: both).")
  var operations: String?
  @Option(help: "Patterns, separated by commas: sequential, random (default: both).")
  var patterns: String?
  @Option(help: "What holds the disk: file, tmpfs (a file in memory) or null (requests complete at once).")
  var backend = Backend.file
  @Option(
    help: "The disk file; made and removed where it does not exist (default: a new file in this folder).",
    completion: .file())
  var file: String?
  @Flag(help: "Allow writes to a --file that exists. Its contents are lost.")
  var overwrite = false
  @Option(help: "Size of the disk (default: 1G, with --quick 256M).")
  var diskSize: String?
  @Option(help: "Length of a case in milliseconds (default: 500, with --quick 300).")
  var milliseconds: Int?
  @Option(help: "Repetitions of every case (default: 3, with --quick 1).")
  var `repeat`: Int?
  @Option(help: "Virtual CPUs of the machine.")
  var cpus = 1
  @Option(
    help: "What runs the guest: kvm (castor-vmm) or qemu (microvm with TCG).", completion: .list(["kvm", "qemu"]))
  var machine = "kvm"
  @Option(help: "Whose driver: linux (Debian's virtio_blk) or pollux (default: linux, where the boot archive has it).")
  var driver: BenchmarkDriver?
  @Flag(
    help: "With --machine qemu: count instructions (-icount). Its times are then instructions too, and no throughput.")
  var instructions = false
  @Option(help: "Requests of the guest: vectored (one thread) or threads (one each).")
  var path = BenchmarkPath.vectored
  @Flag(inversion: .prefixedNo, help: "Read a sample of the written data back and compare.")
  var verify = true
  @Option(help: "Write the results as JSON.", completion: .file(extensions: ["json"]))
  var json: String?
  @Option(help: "Write the results as an HTML page with charts.", completion: .file(extensions: ["html"]))
  var html: String?
  @Option(help: "Kernel (default: Pollux, built with the package).", completion: .file())
  var kernel: String?
  @Option(help: "Boot archive of Pollux.", completion: .file(extensions: ["tar"]))
  var archive: String?

  func run() throws {
    try reportingFailures {
      let plan = try BenchmarkPlan(self)
      let machine = try BenchmarkOutput.machine(machine)
      try BenchmarkOutput.requireProcessors(cpus)
      try BenchmarkOutput.requireWritable(json: json, html: html)
      let guest = try BenchmarkOutput.guestImage(kernel: kernel, archive: archive)
      let usable = BenchmarkDriver.available(in: guest.archive)
      let driver = driver ?? usable
      if driver == .linux, usable != .linux {
        throw CommandFailure(
          message: "the boot archive has no Linux drivers: run make drivers, or use --driver pollux",
          exitCode: .missingInput
        )
      }
      guard !instructions || machine == .qemu else {
        throw ConfigurationError(
          key: "--instructions", value: self.machine, expected: "only --machine qemu counts instructions",
          exitCode: .usage)
      }
      if self.driver == nil, driver == .pollux {
        FileHandle.standardError.write(
          Data("castor: no Linux drivers in the boot archive (make drivers); measuring Pollux's own\n".utf8))
      }
      Interruption.install()
      let disk = try makeDisk(plan)
      defer { disk.remove() }
      let runner = GuestRunner(
        machine: machine, disk: disk, monitor: machine == .kvm ? try Installation.monitor() : "",
        kernel: guest.kernel, archive: guest.archive, cpus: cpus, milliseconds: plan.milliseconds, verify: verify,
        path: path, driver: driver, countsInstructions: instructions)
      let baseline =
        instructions
        ? nil
        : try disk.path.map { path in
          try HostBaseline(path: path, span: disk.size, writable: plan.writes, stamps: verify)
        }
      var results = BenchmarkResults()
      let outcome = Result { try measure(plan, runner, baseline, into: &results) }
      // What was measured before a failure or Ctrl-C is still shown.
      let shown = Result { if !results.cases.isEmpty { try BenchmarkOutput.show(BenchmarkTable.text(results)) } }
      try outcome.get()
      try shown.get()
      var context = BenchmarkContext.current(
        machine: machine.rawValue, backend: backend.rawValue, path: path.rawValue, direct: baseline?.isDirect,
        milliseconds: plan.milliseconds, repetitions: plan.repetitions, diskBytes: disk.size)
      context.driver = driver.rawValue
      if let json {
        try BenchmarkOutput.write(try BenchmarkDocument(context: context, results: results.entries).encoded(), to: json)
      }
      if let html {
        let page = PageParts.page([BenchmarkPage(results: results, context: context).section])
        try BenchmarkOutput.write(Data(page.utf8), to: html)
      }
    }
  }

  private func measure(
    _ plan: BenchmarkPlan, _ runner: GuestRunner, _ baseline: HostBaseline?, into results: inout BenchmarkResults
  ) throws {
    let steps = plan.cases.count * plan.repetitions * (plan.modes.count + (baseline == nil ? 0 : 1))
    let progress = ProgressBar(total: steps)
    defer { progress.clear() }
    var done = 0
    for benchmarkCase in plan.cases {
      for _ in 0..<plan.repetitions {
        if let baseline {
          progress.show(done, "\(benchmarkCase.title) host")
          let sample = try baseline.measure(benchmarkCase, milliseconds: plan.milliseconds)
          try Interruption.check()
          results.add(sample, to: benchmarkCase, by: .host)
          done += 1
        }
        for mode in plan.modes {
          progress.show(done, "\(benchmarkCase.title) \(mode.rawValue)")
          let sample = try runner.measure(benchmarkCase, mode)
          results.add(sample, to: benchmarkCase, by: .guest(mode))
          done += 1
        }
      }
    }
  }

  private func makeDisk(_ plan: BenchmarkPlan) throws -> ScratchDisk {
    let name = "castor-bench-\(getpid()).img"
    switch backend {
    case .null: return ScratchDisk(nullOfSize: plan.diskSize)
    case .file:
      return try ScratchDisk(
        path: file ?? name, size: plan.diskSize, writes: plan.writes, overwrite: overwrite)
    case .tmpfs:
      return try ScratchDisk(
        path: file ?? "/dev/shm/\(name)", size: plan.diskSize, writes: plan.writes, overwrite: overwrite)
    }
  }
}

/// The cases of a run and how long they take.
struct BenchmarkPlan {
  var cases: [BenchmarkCase] = []
  var modes: [BenchmarkMode]
  var milliseconds: Int
  var repetitions: Int
  /// Bytes.
  var diskSize: UInt64
  var writes: Bool { cases.contains { $0.operation == .write } }

  init(_ options: BenchBlock) throws {
    let quick = options.quick
    modes = try Self.choices("modes", options.modes, default: BenchmarkMode.allCases)
    milliseconds = options.milliseconds ?? (quick ? 300 : 500)
    repetitions = options.repeat ?? (quick ? 1 : 3)
    let operations = try Self.choices("operations", options.operations, default: BenchmarkOperation.allCases)
    let patterns = try Self.choices(
      "patterns", options.patterns, default: quick ? [BenchmarkPattern.random] : BenchmarkPattern.allCases)
    let sizes = try Self.list("sizes", options.sizes ?? (quick ? "4K,128K" : "4K,16K,64K,128K,1M")) { text -> Int? in
      guard let size = ByteSize.parse(text), size > 0, size <= 16 << 20, size % 512 == 0 else { return nil }
      return Int(size)
    }
    let depths = try Self.list("depths", options.depths ?? "1,8,32") { text -> Int? in
      Int(text).flatMap { (1...32).contains($0) ? $0 : nil }
    }
    let size = options.diskSize ?? (quick ? "256M" : "1G")
    guard let bytes = ByteSize.parse(size), bytes >= 1 << 20 else {
      throw ConfigurationError(key: "--disk-size", value: size, expected: "must be a size of at least 1M")
    }
    diskSize = bytes / 4096 * 4096
    guard (10...600_000).contains(milliseconds) else {
      throw ConfigurationError(
        key: "--milliseconds", value: "\(milliseconds)", expected: "must be a number from 10 to 600000")
    }
    guard (1...100).contains(repetitions) else {
      throw ConfigurationError(key: "--repeat", value: "\(repetitions)", expected: "must be a number from 1 to 100")
    }
    guard let largest = sizes.max(), UInt64(largest) <= diskSize else {
      throw ConfigurationError(key: "--sizes", value: options.sizes ?? "", expected: "larger than the disk")
    }
    for operation in operations {
      for pattern in patterns {
        for size in sizes {
          for depth in depths {
            cases.append(BenchmarkCase(operation: operation, pattern: pattern, size: size, depth: depth))
          }
        }
      }
    }
  }

  private static func list<Item: Hashable>(_ key: String, _ text: String, _ read: (String) -> Item?) throws -> [Item] {
    var items: [Item] = []
    for part in text.split(separator: ",", omittingEmptySubsequences: false) {
      guard let item = read(String(part)) else {
        throw ConfigurationError(key: "--\(key)", value: text, expected: "'\(part)' is not allowed here")
      }
      if !items.contains(item) { items.append(item) }
    }
    return items
  }

  private static func choices<Choice: RawRepresentable<String> & CaseIterable & Hashable>(
    _ key: String, _ text: String?, default all: [Choice]
  ) throws -> [Choice] {
    guard let text else { return all }
    let known = Choice.allCases.map(\.rawValue).joined(separator: ", ")
    do { return try list(key, text) { Choice(rawValue: $0) } } catch {
      throw ConfigurationError(key: "--\(key)", value: text, expected: "must be a list of \(known)")
    }
  }
}
