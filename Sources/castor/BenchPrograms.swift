// `castor bench rpc` and its like: the benchmarks whose cases a guest program knows.

import ArgumentParser
import Configuration
import Foundation

/// What every one of them takes.
struct ProgramBenchOptions: ParsableArguments {
  @Flag(help: "Shorter: one machine a composition, below 30 seconds.")
  var quick = false
  @Option(help: "Machines booted for every composition (default: 3; with --quick or under QEMU 1).")
  var `repeat`: Int?
  @Option(help: "Virtual CPUs of the machine.")
  var cpus = 1
  @Option(
    help:
      "What runs the guest: kvm (castor-vmm, figures are times) or qemu (TCG with -icount, figures are instructions).",
    completion: .list(["kvm", "qemu"]))
  var machine = "kvm"
  @Option(help: "Write the results as JSON.", completion: .file(extensions: ["json"]))
  var json: String?
  @Option(help: "Write the results as an HTML page with charts.", completion: .file(extensions: ["html"]))
  var html: String?
  @Option(help: "Kernel (default: Pollux, built with the package).", completion: .file())
  var kernel: String?
  @Option(help: "Boot archive of Pollux.", completion: .file(extensions: ["tar"]))
  var archive: String?

  func run(_ benchmark: ProgramBenchmark) throws {
    try reportingFailures {
      let machine = try BenchmarkOutput.machine(machine)
      if machine == .qemu, benchmark.forms.contains(where: { $0.cable != nil }) {
        throw ConfigurationError(
          key: "--machine", value: self.machine, expected: "must be kvm: the machines are connected by Castor's cables",
          exitCode: .usage)
      }
      let repetitions = self.repeat ?? (quick || machine == .qemu ? 1 : 3)
      guard (1...100).contains(repetitions) else {
        throw ConfigurationError(key: "--repeat", value: "\(repetitions)", expected: "must be a number from 1 to 100")
      }
      try BenchmarkOutput.requireProcessors(cpus)
      try BenchmarkOutput.requireWritable(json: json, html: html)
      let guest = try BenchmarkOutput.guestImage(kernel: kernel, archive: archive)
      Interruption.install()
      let runner = ProgramRunner(
        machine: machine, monitor: machine == .kvm ? try Installation.monitor() : "", kernel: guest.kernel,
        archive: guest.archive, cpus: cpus, isQuick: quick)
      var results = FigureResults()
      let outcome = Result { try measure(benchmark, runner, repetitions, into: &results) }
      // What was measured before a failure or Ctrl-C is still shown.
      let shown = Result { if !results.names.isEmpty { try BenchmarkOutput.show(results.table) } }
      try outcome.get()
      try shown.get()
      var context = BenchmarkContext.current(machine: machine.rawValue, repetitions: repetitions)
      context.cpus = cpus
      if let json {
        let document = BenchmarkDocument(
          benchmark: benchmark.name, context: context, results: results.entries,
          absent: results.absences.isEmpty ? nil : results.absences)
        try BenchmarkOutput.write(try document.encoded(), to: json)
      }
      if let html {
        let page = FigurePage(benchmark: benchmark, results: results, context: context)
        try BenchmarkOutput.write(Data(PageParts.page([page.section]).utf8), to: html)
      }
    }
  }

  private func measure(
    _ benchmark: ProgramBenchmark, _ runner: ProgramRunner, _ repetitions: Int, into results: inout FigureResults
  ) throws {
    let progress = ProgressBar(total: repetitions * benchmark.forms.count)
    defer { progress.clear() }
    var done = 0
    for _ in 0..<repetitions {
      for form in benchmark.forms {
        progress.show(done, [benchmark.name, form.label].filter { !$0.isEmpty }.joined(separator: " "))
        let reports = try runner.run(benchmark, form)
        results.add(reports, label: form.label, first: form.baseline ?? benchmark.forms.first?.label ?? "")
        done += 1
      }
    }
  }
}

struct BenchRPC: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "rpc",
    abstract: "Measure calls between services, against a message queue with two threads (the paper's Figure 4).",
    discussion: "docs/benchmark.md says what each row means.")
  @OptionGroup var options: ProgramBenchOptions
  func run() throws { try options.run(.rpc) }
}

struct BenchComposition: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "composition",
    abstract: "Measure file system and memory manager split, in one process, and with one cache (Table 3).",
    discussion: "docs/benchmark.md says what each row means.")
  @OptionGroup var options: ProgramBenchOptions
  func run() throws { try options.run(.composition) }
}

struct BenchTokens: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "tokens",
    abstract: "Measure access by address token, against a capability table with a system call an access (Figure 6).",
    discussion: "docs/benchmark.md says what each row means.")
  @OptionGroup var options: ProgramBenchOptions
  func run() throws { try options.run(.tokens) }
}

struct BenchPaging: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "paging",
    abstract: "Measure faults of anonymous memory: kernel paging against a pager in a service (Figure 8).",
    discussion: "docs/benchmark.md says what each row means.")
  @OptionGroup var options: ProgramBenchOptions
  func run() throws { try options.run(.paging) }
}

struct BenchNet: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "net",
    abstract: "Measure frames between two guests, and between guest and host (TAP), by driver mode.",
    discussion: """
      Linux's virtio_net drives the interfaces, alone (solo) or with a twin. Between two guests both have the same mode. \
      The host's end needs CAP_NET_ADMIN and is left out without. docs/benchmark.md says what each row means.
      """)
  @OptionGroup var options: ProgramBenchOptions
  @Option(help: "Other ends of the cable, separated by commas: guests, tap (default: both).")
  var cables: String?
  @Option(help: "Driver modes, separated by commas: solo, twin, twin-poll (default: all).")
  var modes: String?

  func run() throws {
    try reportingFailures {
      var benchmark = ProgramBenchmark.net
      let cables = try Self.choice("--cables", cables, NetworkCable.allCases.map(\.rawValue))
      let modes = try Self.choice("--modes", modes, BenchmarkMode.allCases.map(\.rawValue))
      benchmark.forms.removeAll { form in
        !cables.contains(form.cable?.rawValue ?? "") || !modes.contains(form.services.first?.mode ?? "")
      }
      try options.run(benchmark)
    }
  }

  /// The words of a list, each of which must be one of `all`.
  private static func choice(_ key: String, _ text: String?, _ all: [String]) throws -> Set<String> {
    guard let text else { return Set(all) }
    let words = text.split(separator: ",").map(String.init)
    for word in words where !all.contains(word) {
      throw ConfigurationError(
        key: key, value: word, expected: "must be of \(all.joined(separator: ", "))", exitCode: .usage)
    }
    guard !words.isEmpty else {
      throw ConfigurationError(key: key, value: text, expected: "must name one at least", exitCode: .usage)
    }
    return Set(words)
  }
}

/// What the commands share before and after the work.
enum BenchmarkOutput {
  /// The machine of that name, if it can be used here.
  static func machine(_ name: String) throws -> BenchmarkMachine {
    guard let machine = BenchmarkMachine(rawValue: name) else {
      throw ConfigurationError(key: "--machine", value: name, expected: "must be kvm or qemu", exitCode: .usage)
    }
    if machine == .kvm { try HostKVM.requireUsable() }
    return machine
  }

  /// A number of virtual CPUs that Pollux uses.
  static func requireProcessors(_ count: Int) throws {
    guard (1...8).contains(count) else {
      throw ConfigurationError(key: "--cpus", value: "\(count)", expected: "must be a number from 1 to 8")
    }
  }

  /// The kernel and archive that the user names, or those built with the package.
  static func guestImage(kernel: String?, archive: String?) throws -> (kernel: String, archive: String?) {
    for (key, path) in [("--kernel", kernel), ("--archive", archive)] {
      guard let path, access(path, R_OK) != 0 else { continue }
      throw ConfigurationError(
        key: key, value: path, expected: "cannot be read: \(String(cString: strerror(errno)))",
        exitCode: access(path, F_OK) == 0 ? .permissionDenied : .missingInput)
    }
    guard let kernel else {
      let found = try HostPaths.findGuest()
      return (found.kernel, archive ?? found.archive)
    }
    return (kernel, archive)
  }

  /// Found before the work, not after: outputs that cannot be written, or that are the same file.
  static func requireWritable(json: String?, html: String?) throws {
    for path in [json, html].compactMap({ $0 }) { try requireWritable(path) }
    if let json, let html, isSame(json, html) {
      throw ConfigurationError(key: "--html", value: html, expected: "is the file of --json too", exitCode: .usage)
    }
  }

  /// Found before the work, not after: an output that cannot be written.
  static func requireWritable(_ path: String) throws {
    let existed = access(path, F_OK) == 0
    guard let stream = fopen(path, "ae") else {
      throw ConfigurationError(
        key: "output", value: path, expected: "cannot be written: \(String(cString: strerror(errno)))",
        exitCode: .cannotCreate)
    }
    fclose(stream)
    if !existed { unlink(path) }
  }

  /// Whether two paths name one regular file, or would.
  static func isSame(_ one: String, _ other: String) -> Bool {
    var first = stat()
    var second = stat()
    guard stat(one, &first) == 0, stat(other, &second) == 0 else {
      return URL(filePath: one).standardizedFileURL == URL(filePath: other).standardizedFileURL
    }
    return first.st_mode & S_IFMT == S_IFREG && first.st_dev == second.st_dev && first.st_ino == second.st_ino
  }

  /// Prints text and a line feed on standard output; throws if that does not take them.
  static func show(_ text: String) throws {
    print(text)
    // Nil: all streams, of which there is one here.
    guard fflush(nil) == 0 else { throw failure("standard output") }
  }

  /// Writes a file. One that could not be written whole is removed.
  static func write(_ data: Data, to path: String) throws {
    guard let stream = fopen(path, "we") else { throw failure("output '\(path)'") }
    let isWhole =
      data.withUnsafeBytes { fwrite($0.baseAddress, 1, $0.count, stream) } == data.count && fflush(stream) == 0
    let error = failure("output '\(path)'")
    guard fclose(stream) == 0, isWhole else {
      var status = stat()
      if stat(path, &status) == 0, status.st_mode & S_IFMT == S_IFREG { unlink(path) }
      throw error
    }
  }

  private static func failure(_ what: String) -> CommandFailure {
    CommandFailure(
      message: "\(what): cannot be written: \(String(cString: strerror(errno)))", exitCode: .inputOutputError)
  }
}
