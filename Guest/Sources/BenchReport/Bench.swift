// How a benchmark program measures and reports. In short:
//   var bench = Bench("tokens"); bench.measure("read/capability") { _ = Kernel.query(…) }
//   bench.measure("read/token", baseline: "read/capability") { …one operation… }; bench.add("held", .bytes, 8192)
//   bench.finish()        // or bench.fail("what went wrong"); `castor bench tokens` reads it all

@_exported import BenchmarkCore
import Pollux

/// One run of a benchmark program: prints a record for each figure and one for the end.
public struct Bench {
  /// Words `key=value` that the program was started with.
  public let arguments: Bytes
  public let options: MeasureOptions
  private let name: StaticString
  private var figures = 0

  public init(_ name: StaticString) {
    self.name = name
    arguments = Program.start.text("arguments") ?? Bytes("")
    options = MeasureOptions(arguments)
  }

  // MARK: Measuring

  /// Measures one call of `operation`, loop included (3 instructions or so): warms up, then takes batches of as many calls as
  /// fit some milliseconds. The figure is the batches' median.
  @inline(__always)
  @discardableResult
  public mutating func measure(
    _ figure: FigureName, baseline: FigureName? = nil, remark: FigureName = "", _ operation: () -> Void
  ) -> UInt64 {
    measure(figure, baseline: baseline, remark: remark) { count in
      var done = 0
      while done < count {
        operation()
        done += 1
      }
    }
  }

  /// The same for `operations`, which performs as many of them as its argument says in a loop of its own.
  @discardableResult
  public mutating func measure(
    _ figure: FigureName, baseline: FigureName? = nil, remark: FigureName = "", operations: (Int) -> Void
  ) -> UInt64 {
    operations(4)
    let start = Clock.now
    operations(4)
    let count = options.operations(ticksForOne: (Clock.now &- start) / 4, frequency: Clock.frequency)
    operations(min(count, 64))
    var samples: [UInt64] = []
    let begin = Clock.now
    while wantsBatch(after: samples, since: begin) {
      let start = Clock.now
      operations(count)
      samples.append(thousandths(ticks: Clock.now &- start, operations: UInt64(count)))
    }
    return report(Figure(figure, .time, samples: samples, baseline: baseline), remark)
  }

  /// Measures something that needs preparing every time, such as a first touch of a page: `batch` prepares, and returns the
  /// ticks (`Clock.now`) that `operations` operations took; nil ends the figure with what there is.
  @discardableResult
  public mutating func measure(
    _ figure: FigureName, baseline: FigureName? = nil, remark: FigureName = "", operations: Int, batch: () -> UInt64?
  ) -> UInt64 {
    let begin = Clock.now
    _ = batch()
    var samples: [UInt64] = []
    while wantsBatch(after: samples, since: begin), let ticks = batch() {
      samples.append(thousandths(ticks: ticks, operations: UInt64(operations)))
    }
    return report(Figure(figure, .time, samples: samples, baseline: baseline), remark)
  }

  private func wantsBatch(after samples: [UInt64], since begin: UInt64) -> Bool {
    options.wantsBatch(after: samples.count, ticks: Clock.now &- begin, frequency: Clock.frequency)
  }

  /// Ticks of `operations` operations as thousandths of the unit of time, per operation.
  public func thousandths(ticks: UInt64, operations: UInt64) -> UInt64 {
    if options.isCounting { return ticks * 1000 / max(1, operations) }
    // Picoseconds of the whole batch fit 64 bits for hours.
    return Clock.nanoseconds(ticks &* 1000) / max(1, operations)
  }

  /// A throughput: `bytes` moved in each of the samples' ticks.
  @discardableResult
  public mutating func add(
    _ figure: FigureName, bytes: UInt64, ticks: [UInt64], baseline: FigureName? = nil, remark: FigureName = ""
  ) -> UInt64 {
    let samples = ticks.map { ticks in
      if options.isCounting { return bytes * 1_000_000 / max(1, ticks) }
      // Thousandths of bytes a second, exact to a thousand bytes a second, which keeps the product inside 64 bits.
      return bytes * 1_000_000 / max(1, Clock.nanoseconds(ticks)) * 1_000_000
    }
    return report(Figure(figure, .throughput, samples: samples, baseline: baseline), remark)
  }

  /// A figure that is known without timing, such as bytes held.
  @discardableResult
  public mutating func add(
    _ figure: FigureName, _ unit: FigureUnit, _ value: UInt64, baseline: FigureName? = nil, remark: FigureName = ""
  ) -> UInt64 {
    report(Figure(figure, unit, samples: [value * 1000], baseline: baseline), remark)
  }

  // MARK: Records

  /// Says that this machine cannot give a figure, and why.
  public func absent(_ figure: FigureName, because reason: FigureName) {
    var line = JSONLine(report: "bench-absent")
    line.member("name", figure)
    line.member("remark", reason)
    Console.write(line.closed)
  }

  private mutating func report(_ figure: Figure, _ remark: FigureName) -> UInt64 {
    var figure = figure
    figure.remark = remark
    figures += 1
    Console.write(figure.record(isCounting: options.isCounting))
    return figure.value
  }

  /// Ends the program: all figures are reported. With `exit=on` among the arguments the machine ends too.
  public func finish() -> Never {
    var line = JSONLine(report: "bench-end")
    line.member("figures", thousandths: UInt64(figures) * 1000)
    end(line, code: 0)
  }

  /// Ends the program: it cannot go on.
  public func fail(_ message: StaticString, _ error: SystemError? = nil) -> Never {
    var line = JSONLine(report: "bench-error")
    var text = FigureName(Bytes(message))
    if let error { text = text + ": " + FigureName(Bytes(error.name)) }
    line.member("message", text)
    end(line, code: 1)
  }

  private func end(_ line: JSONLine, code: UInt32) -> Never {
    Console.write(line.closed)
    if MeasureOptions.value("exit", in: arguments)?.equals("on") ?? false {
      do throws(SystemError) { try Program.control(.exit, UInt64(code)) } catch {}
    }
    Kernel.exit(code)
  }
}
