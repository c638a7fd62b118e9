// The benchmark's results: samples by case and by who ran it, medians, ratios, and the stable JSON form.

import Foundation

/// Everything that one run of the benchmark found.
struct BenchmarkResults {
  /// Who ran a case.
  enum Runner: Hashable {
    case host
    case guest(BenchmarkMode)
    var name: String {
      switch self {
      case .host: "host"
      case .guest(let mode): mode.rawValue
      }
    }
  }
  /// A figure of a sample.
  enum Metric: String, CaseIterable {
    case throughput, iops
    case p50 = "latency-p50"
    case p99 = "latency-p99"
    case doorbells = "doorbells-per-request"
    case interrupts = "interrupts-per-request"
    case exits = "exits-per-request"
    case calls = "calls-per-request"
    case instructions = "instructions-per-request"
    case looking = "looking-per-request"

    var unit: String {
      switch self {
      case .throughput: "B/s"
      case .iops: "1/s"
      case .p50, .p99: "ns"
      case .doorbells, .interrupts, .exits, .calls: "1"
      case .instructions, .looking: "instructions"
      }
    }
    /// Where the machine's clock counts instructions, times say nothing.
    private var isTime: Bool {
      switch self {
      case .throughput, .iops, .p50, .p99: true
      default: false
      }
    }
    func value(_ sample: BenchmarkSample) -> Double? {
      if isTime, sample.instructions != nil { return nil }
      return switch self {
      case .throughput: sample.bytesPerSecond
      case .iops: sample.requestsPerSecond
      case .p50: Double(sample.p50)
      case .p99: Double(sample.p99)
      case .doorbells: sample.doorbells
      case .interrupts: sample.interrupts
      case .exits: sample.exits
      case .calls: sample.calls
      case .instructions: sample.instructions
      case .looking: sample.looking
      }
    }
  }
  /// A case run by someone.
  struct Key: Hashable {
    var benchmarkCase: BenchmarkCase
    var runner: Runner
  }

  private(set) var cases: [BenchmarkCase] = []
  private(set) var runners: [Runner] = []
  private var samples: [Key: [Metric: [Double]]] = [:]

  init() {}

  /// The results of a document's entries. Throws the name of one that is not of this benchmark.
  init(_ entries: [Entry]) throws {
    for entry in entries {
      guard let (benchmarkCase, runner, figure) = Self.parts(entry.name) else { throw UnknownResult(name: entry.name) }
      // Throughput against solo's follows from both throughputs.
      guard figure != Self.throughputToSolo else { continue }
      guard let metric = Metric(rawValue: figure) else { throw UnknownResult(name: entry.name) }
      note(benchmarkCase, runner)
      samples[Key(benchmarkCase: benchmarkCase, runner: runner), default: [:]][metric] = entry.samples
    }
  }

  mutating func add(_ sample: BenchmarkSample, to benchmarkCase: BenchmarkCase, by runner: Runner) {
    note(benchmarkCase, runner)
    for metric in Metric.allCases {
      guard let value = metric.value(sample) else { continue }
      samples[Key(benchmarkCase: benchmarkCase, runner: runner), default: [:]][metric, default: []].append(value)
    }
  }

  private mutating func note(_ benchmarkCase: BenchmarkCase, _ runner: Runner) {
    if !cases.contains(benchmarkCase) { cases.append(benchmarkCase) }
    if !runners.contains(runner) { runners.append(runner) }
  }

  /// All values of a figure, one a repetition.
  func values(_ metric: Metric, _ benchmarkCase: BenchmarkCase, _ runner: Runner) -> [Double] {
    samples[Key(benchmarkCase: benchmarkCase, runner: runner)]?[metric] ?? []
  }

  /// What a name says: "read/random/4096/32/twin/throughput". Nil for a name of another form.
  private static func parts(_ name: String) -> (BenchmarkCase, Runner, String)? {
    let parts = name.split(separator: "/", omittingEmptySubsequences: false).map(String.init)
    guard parts.count == 6, let operation = BenchmarkOperation(rawValue: parts[0]),
      let pattern = BenchmarkPattern(rawValue: parts[1]), let size = Int(parts[2]), size > 0, let depth = Int(parts[3]),
      let runner = parts[4] == "host" ? Runner.host : BenchmarkMode(rawValue: parts[4]).map(Runner.guest)
    else { return nil }
    return (BenchmarkCase(operation: operation, pattern: pattern, size: size, depth: depth), runner, parts[5])
  }

  func value(_ metric: Metric, _ benchmarkCase: BenchmarkCase, _ runner: Runner) -> Double? {
    median(values(metric, benchmarkCase, runner))
  }

  /// The median of the ratios of the same repetition, which ran next to each other: noise that meets both cancels.
  func ratio(_ metric: Metric, _ benchmarkCase: BenchmarkCase, _ runner: Runner, to other: Runner) -> Double? {
    guard runner != other else { return nil }
    let pairs = zip(values(metric, benchmarkCase, runner), values(metric, benchmarkCase, other))
    return median(pairs.filter { $0.1 > 0 }.map { $0.0 / $0.1 })
  }

  /// A result whose name says nothing to this benchmark.
  struct UnknownResult: Error { var name: String }

  /// The figure that compares the throughputs of two drivers.
  private static let throughputToSolo = "throughput-to-solo"

  /// One result of the JSON form; see docs/benchmark.md.
  struct Entry: Codable, Equatable {
    var name: String
    var unit: String
    var value: Double
    var baseline: Double?
    var ratio: Double?
    var samples: [Double]
    /// The result that `baseline` is the value of; nil where the figure's name tells.
    var baselineName: String?
    /// What held for this figure, such as the mechanism that it used.
    var remark: String?
  }

  /// The results by name: each figure against the host's, and throughput against solo's.
  var entries: [Entry] {
    var entries: [Entry] = []
    for benchmarkCase in cases {
      for runner in runners {
        for metric in Metric.allCases {
          guard let value = value(metric, benchmarkCase, runner) else { continue }
          let baseline = runner == .host ? nil : self.value(metric, benchmarkCase, .host)
          entries.append(
            Entry(
              name: "\(benchmarkCase.name)/\(runner.name)/\(metric.rawValue)", unit: metric.unit, value: value,
              baseline: baseline, ratio: baseline == nil ? nil : ratio(metric, benchmarkCase, runner, to: .host),
              samples: values(metric, benchmarkCase, runner)))
        }
        guard runner != .host, runner != .guest(.solo),
          let value = value(.throughput, benchmarkCase, runner),
          let baseline = self.value(.throughput, benchmarkCase, .guest(.solo))
        else { continue }
        entries.append(
          Entry(
            name: "\(benchmarkCase.name)/\(runner.name)/\(Self.throughputToSolo)", unit: Metric.throughput.unit,
            value: value,
            baseline: baseline, ratio: ratio(.throughput, benchmarkCase, runner, to: .guest(.solo)),
            samples: values(.throughput, benchmarkCase, runner)))
      }
    }
    return entries
  }
}

/// What was run, and where; part of the JSON form and the heading of the page.
struct BenchmarkContext: Codable {
  var machine: String
  /// What holds the disk; like all that is about disks nil for a benchmark without one.
  var backend: String?
  /// How the guest's requests get to the driver: vectored or threads.
  var path: String?
  /// Whose driver the block benchmark ran: linux or pollux.
  var driver: String?
  /// Whether the host's baseline used O_DIRECT; nil where there is no file.
  var direct: Bool?
  var milliseconds: Int?
  var repetitions: Int
  var diskBytes: UInt64?
  /// Virtual CPUs of the machine; nil in the block benchmark.
  var cpus: Int?
  var processor: String
  var kernel: String
  /// Seconds since 1970.
  var time: Int

  static func current(
    machine: String, backend: String? = nil, path: String? = nil, direct: Bool? = nil, milliseconds: Int? = nil,
    repetitions: Int, diskBytes: UInt64? = nil
  ) -> BenchmarkContext {
    var names = utsname()
    uname(&names)
    let release = withUnsafeBytes(of: names.release) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
    let processors = FileManager.default.contents(atPath: "/proc/cpuinfo").map { String(decoding: $0, as: UTF8.self) }
    let model = processors?.split(separator: "\n").first { $0.hasPrefix("model name") }?
      .split(separator: ":").last.map { $0.trimmingCharacters(in: .whitespaces) }
    return BenchmarkContext(
      machine: machine, backend: backend, path: path, direct: direct, milliseconds: milliseconds,
      repetitions: repetitions,
      diskBytes: diskBytes, processor: "\(model ?? "unknown") × \(sysconf(CInt(_SC_NPROCESSORS_ONLN)))",
      kernel: "Linux \(release)", time: Int(Date().timeIntervalSince1970))
  }
}

/// The JSON file; its form changes only with `schema`.
struct BenchmarkDocument: Codable {
  static let currentSchema = 1
  var schema = Self.currentSchema
  var benchmark = "block"
  var context: BenchmarkContext
  var results: [BenchmarkResults.Entry]
  /// Figures that this machine cannot give, and why; nil where there are none.
  var absent: [FigureResults.Absence]?

  func encoded() throws -> Data {
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
    return try encoder.encode(self) + Data("\n".utf8)
  }
}
