// The benchmarks of a guest program: which compositions each needs, and one machine for each.

import Configuration
import Foundation

/// A benchmark whose cases the guest's own program knows (docs/benchmark.md).
struct ProgramBenchmark {
  /// One composition in which the program runs.
  struct Form {
    /// Begins the names of its figures; empty where there is only one form.
    var label = ""
    /// What is started before the program.
    var services: [ServiceConfiguration]
    /// The class of the program itself; empty: its own choice.
    var programClass = ""
    /// Further words of the program's arguments.
    var arguments = ""
    /// What is at the other end of the machine's network cable; nil: it has none.
    var cable: NetworkCable?
    /// Label of the form whose figures are the baseline; nil: the first form's.
    var baseline: String?
  }

  /// The subcommand's name.
  var name: String
  /// The program's file in the boot archive.
  var program: String
  /// The figure or table of the paper that it reproduces.
  var subject: String
  var forms: [Form]

  /// The service name under which the program runs.
  static let serviceName = "bench"

  /// The services of a form, the benchmark's program last.
  func services(_ form: Form, arguments: String) -> [ServiceConfiguration] {
    var bench = ServiceConfiguration(name: Self.serviceName, program: program)
    bench.isolationClass = form.programClass
    bench.arguments = [arguments, form.arguments].filter { !$0.isEmpty }.joined(separator: " ")
    return form.services + [bench]
  }

  private static func service(
    _ name: String, _ program: String, mode: String = "", class isolationClass: String = "", arguments: String = ""
  ) -> ServiceConfiguration {
    var service = ServiceConfiguration(name: name, program: program)
    service.mode = mode
    service.isolationClass = isolationClass
    service.arguments = arguments
    return service
  }

  /// Calls between services (§4.1, §4.2, Fig. 4): a form for each class of the client; the first, a process, also measures the
  /// message queue, the sizes and the chain.
  static let rpc: ProgramBenchmark = {
    let classes = ["ic0", "ic1", "ic2"].map { service("null-\($0)", "bench-rpc", mode: "short", class: $0) }
    let chain = (1...4).reversed().map { number in
      service("chain\(number)", "bench-rpc", mode: "short", arguments: number == 4 ? "" : "next=chain\(number + 1)")
    }
    let others = [service("queue", "bench-rpc", mode: "queue"), service("full", "bench-rpc", mode: "full")]
    return ProgramBenchmark(
      name: "rpc", program: "bench-rpc", subject: "round trip of a call (Figure 4)",
      forms: [
        Form(services: others + chain + classes, programClass: "ic2"),
        Form(services: classes, programClass: "ic1", arguments: "matrix=only"),
        Form(services: classes, programClass: "ic0", arguments: "matrix=only"),
      ])
  }()

  /// File system and memory manager in three compositions (§4.3, Table 3); the first is the baseline.
  static let composition = ProgramBenchmark(
    name: "composition", program: "bench-composition",
    subject: "composition of file system and memory manager (Table 3)",
    forms: [
      Form(
        label: "split",
        services: [
          service("files", "file-memory", mode: "files"), service("memory", "file-memory", mode: "memory"),
        ], arguments: "files=files memory=memory"),
      Form(label: "separate", services: [service("memory", "file-memory", mode: "separate")]),
      Form(label: "shared", services: [service("memory", "file-memory", mode: "shared")]),
    ])

  /// Access to kernel objects by address token and by capability (§4.4, Fig. 6).
  static let tokens = ProgramBenchmark(
    name: "tokens", program: "bench-tokens", subject: "access to a kernel object (Figure 6)",
    forms: [Form(services: [])])

  /// Faults of anonymous memory, in the kernel and through a service (§4.5, Fig. 8).
  static let paging = ProgramBenchmark(
    name: "paging", program: "bench-paging", subject: "fault of anonymous memory (Figure 8)",
    forms: [Form(services: [service("memory-manager", "memory-manager")])])

  /// Packets by Linux's virtio_net in each mode, between two guests and between guest and host.
  static let net = ProgramBenchmark(
    name: "net", program: "bench-net", subject: "frames between two guests, and between guest and host",
    forms: NetworkCable.allCases.flatMap { cable in
      BenchmarkMode.allCases.map { mode in
        Form(
          label: "\(cable.rawValue)-\(mode.rawValue)", services: [netService(mode)], cable: cable,
          baseline: "\(cable.rawValue)-\(BenchmarkMode.solo.rawValue)")
      }
    })

  private static func netService(_ mode: BenchmarkMode) -> ServiceConfiguration {
    var service = service("net", "linux-container", mode: mode.rawValue)
    service.device = "net0"
    return service
  }

  /// Every one of them.
  static let all = [rpc, composition, tokens, paging, net]
}

/// One line of a benchmark program (docs/benchmark.md).
struct FigureReport: Decodable {
  var report: String
  var name: String?
  var unit: String?
  var value: Double?
  var samples: [Double]?
  var baseline: String?
  var remark: String?
  var message: String?
  var figures: Int?
}

/// Boots a machine for a form and collects what the program reports.
struct ProgramRunner {
  let machine: BenchmarkMachine
  let monitor: String
  let kernel: String
  let archive: String?
  let cpus: Int
  let isQuick: Bool

  /// Longest wait for one figure: boot of an emulated guest, and the slowest case.
  private static let timeout = 90.0

  /// Runs the form once: figures and absences in the order of their reports.
  func run(_ benchmark: ProgramBenchmark, _ form: ProgramBenchmark.Form) throws -> [FigureReport] {
    guard let cable = form.cable else { return try run(benchmark, form, net: nil) {} }
    if let reason = cable.reasonForAbsence {
      var report = FigureReport(report: "bench-absent")
      report.name = "all"
      report.remark = reason
      return [report]
    }
    switch cable {
    case .guests:
      let socket = "\(NSTemporaryDirectory())castor-bench-\(getpid())-cable.sock"
      defer { unlink(socket) }
      var peer = form
      peer.arguments = "role=peer"
      let other = try start(benchmark, peer, net: .listen(path: socket), name: "peer")
      defer { other.stop() }
      try other.wait(seconds: 10, until: "its cable has no socket") { access(socket, F_OK) == 0 }
      return try run(benchmark, form, net: .connect(path: socket)) { try other.drain() }
    case .tap:
      let interface = "castor\(getpid() % 1_000_000)"
      var host: HostPeer?
      defer { host?.stop() }
      return try run(benchmark, form, net: .tap(name: interface)) {
        // The interface comes with the machine.
        if host == nil { host = try HostPeer(interface: interface) }
      }
    }
  }

  private func start(
    _ benchmark: ProgramBenchmark, _ form: ProgramBenchmark.Form, net: NetworkConfiguration.Backend?, name: String
  ) throws -> ReportingMachine {
    let control = machine == .kvm ? "\(NSTemporaryDirectory())castor-\(name)-\(getpid()).sock" : nil
    return try ReportingMachine(
      [benchmark.name, form.label, form.arguments].filter { !$0.isEmpty }.joined(separator: " "),
      program: machine == .kvm ? monitor : QEMUMachine.program,
      arguments: try machineArguments(
        benchmark.services(form, arguments: arguments), control: control, net: net, name: name), control: control)
  }

  /// Runs a machine with an interface, if there is one; `meanwhile` is called all the time.
  private func run(
    _ benchmark: ProgramBenchmark, _ form: ProgramBenchmark.Form, net: NetworkConfiguration.Backend?,
    _ meanwhile: () throws -> Void
  ) throws -> [FigureReport] {
    let services = benchmark.services(form, arguments: arguments)
    let guest = try start(benchmark, form, net: net, name: "bench")
    var reports: [FigureReport] = []
    return try guest.follow(seconds: Self.timeout, watching: services.map(\.name), meanwhile: meanwhile) { data in
      guard let report = try? JSONDecoder().decode(FigureReport.self, from: data) else {
        throw guest.failure("a report is not understood: \(String(decoding: data, as: UTF8.self))", .protocolError)
      }
      switch report.report {
      case "bench-figure":
        guard report.name != nil, report.unit != nil, let value = report.value, value.isFinite else {
          throw guest.failure("the guest's report is not complete", .protocolError)
        }
        reports.append(report)
        return .wait(Self.timeout)
      case "bench-absent":
        reports.append(report)
        return .wait(Self.timeout)
      case "bench-end":
        let count = reports.filter { $0.report == "bench-figure" }.count
        guard report.figures == count else {
          throw guest.failure("\(count) of \(report.figures ?? 0) figures arrived", .protocolError)
        }
        guest.stop()
        return .done(reports)
      case "bench-error": throw guest.failure(report.message ?? "the guest reports an error")
      default: return .goOn
      }
    }
  }

  private var arguments: String {
    var words: [String] = []
    if machine == .qemu { words.append("unit=instructions") }
    if isQuick { words.append("quick=on") }
    return words.joined(separator: " ")
  }

  private func machineArguments(
    _ services: [ServiceConfiguration], control: String?, net: NetworkConfiguration.Backend?, name: String
  ) throws -> [String] {
    switch machine {
    case .kvm:
      var machine = MachineConfiguration()
      machine.name = name
      machine.nets = net.map { [NetworkConfiguration(backend: $0)] } ?? []
      machine.memory = 256 << 20
      machine.cpus = cpus
      machine.kernel = kernel
      machine.archive = archive
      machine.control = control
      machine.noReboot = true
      machine.logLevel = .warning
      machine.services = services
      try machine.validate()
      machine.resolveReferences()
      return machine.arguments
    case .qemu:
      return QEMUMachine.arguments(
        kernel: kernel, archive: archive, cpus: cpus, countsInstructions: true,
        words: services.map(QEMUMachine.word) + ["pollux.processors=\(cpus)"])
    }
  }
}
