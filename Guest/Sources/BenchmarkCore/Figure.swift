// What a benchmark program found, as the record that it prints (docs/benchmark.md, "Report lines of the other benchmarks").

import BootFormats

/// The name of a figure, such as `ic2-ic2/null`: parts joined by `+`.
public struct FigureName: ExpressibleByStringLiteral, Equatable, Sendable {
  public private(set) var bytes: [UInt8]

  public init(stringLiteral text: StaticString) { self.init(Bytes(text)) }
  public init(_ text: StaticString) { self.init(Bytes(text)) }
  public init(_ text: Bytes) {
    bytes = []
    var index = 0
    while let byte = text.byte(index) {
      bytes.append(byte)
      index += 1
    }
  }

  public static func + (left: FigureName, right: FigureName) -> FigureName {
    var sum = left
    sum.bytes.append(contentsOf: right.bytes)
    return sum
  }
  public static func + (left: FigureName, number: Int) -> FigureName {
    var sum = left
    JSONLine.decimal(UInt64(number.magnitude), into: &sum.bytes)
    return sum
  }
}

/// What a figure counts.
public enum FigureUnit: Sendable {
  /// Time of one operation: nanoseconds, or instructions where the processor's time-stamp counter counts those.
  case time
  /// Bytes a second; bytes per 1,000 instructions where the counter counts instructions.
  case throughput
  case bytes
  case count

  /// The unit's name in records and JSON.
  public func name(isCounting: Bool) -> StaticString {
    switch self {
    case .time: isCounting ? "instructions" : "ns"
    case .throughput: isCounting ? "B/kinstruction" : "B/s"
    case .bytes: "B"
    case .count: "1"
    }
  }
}

/// One JSON object on a line of its own behind the byte 0x1e (docs/platform.md, "Report lines").
public struct JSONLine {
  public private(set) var bytes: [UInt8] = [0x1e]

  /// Begins `{"report":"KIND"`.
  public init(report kind: StaticString) {
    append("{\"report\":")
    string(Bytes(kind))
  }

  /// Appends `,"NAME":"TEXT"`.
  public mutating func member(_ name: StaticString, _ text: Bytes) {
    key(name)
    string(text)
  }
  public mutating func member(_ name: StaticString, _ text: StaticString) { member(name, Bytes(text)) }
  public mutating func member(_ name: StaticString, _ text: FigureName) {
    key(name)
    text.bytes.withUnsafeBytes { buffer in
      // The array lives as long as this call.
      if let base = buffer.baseAddress {
        string(Bytes(unsafeBase: base, count: buffer.count))
      } else {
        string(Bytes(""))
      }
    }
  }

  /// Appends `,"NAME":THOUSANDTHS/1000`.
  public mutating func member(_ name: StaticString, thousandths: UInt64) {
    key(name)
    number(thousandths)
  }

  /// Appends `,"NAME":[…]`.
  public mutating func member(_ name: StaticString, thousandths values: [UInt64]) {
    key(name)
    append("[")
    for index in values.indices {
      if index > 0 { append(",") }
      number(values[index])
    }
    append("]")
  }

  /// The line, closed and with its line feed.
  public var closed: [UInt8] { bytes + [0x7d, 0x0a] }

  private mutating func key(_ name: StaticString) {
    append(",")
    string(Bytes(name))
    append(":")
  }

  private mutating func append(_ text: StaticString) { append(Bytes(text)) }
  private mutating func append(_ text: Bytes) {
    var index = 0
    while let byte = text.byte(index) {
      bytes.append(byte)
      index += 1
    }
  }

  /// A JSON string. What needs an escape (RFC 8259 §7) becomes a question mark: names and remarks hold none.
  private mutating func string(_ text: Bytes) {
    bytes.append(0x22)
    var index = 0
    while let byte = text.byte(index) {
      bytes.append(byte < 0x20 || byte == 0x22 || byte == 0x5c ? 0x3f : byte)
      index += 1
    }
    bytes.append(0x22)
  }

  private mutating func number(_ thousandths: UInt64) {
    Self.decimal(thousandths / 1000, into: &bytes)
    let rest = thousandths % 1000
    guard rest != 0 else { return }
    bytes.append(0x2e)
    for digit in [rest / 100, rest / 10 % 10, rest % 10] { bytes.append(0x30 + UInt8(digit)) }
  }

  static func decimal(_ value: UInt64, into bytes: inout [UInt8]) {
    if value >= 10 { decimal(value / 10, into: &bytes) }
    bytes.append(0x30 + UInt8(value % 10))
  }
}

/// A figure with its samples, in thousandths of its unit.
public struct Figure {
  public var name: FigureName
  public var unit: FigureUnit
  /// The median of the samples, in thousandths.
  public var value: UInt64
  public var samples: [UInt64]
  /// The figure that this one is compared with; nil for none.
  public var baseline: FigureName?
  /// What holds for this figure on this machine, such as the mechanism that it used; empty for nothing.
  public var remark: FigureName = ""

  /// A figure from samples in thousandths of the unit; there must be one at least, else its value is 0.
  public init(_ name: FigureName, _ unit: FigureUnit, samples: [UInt64], baseline: FigureName? = nil) {
    self.name = name
    self.unit = unit
    self.samples = samples
    self.baseline = baseline
    value = Self.median(samples)
  }

  /// The record: `bench-figure` with `name`, `unit`, `value`, `samples`, and `baseline` and `remark` where there are any.
  public func record(isCounting: Bool) -> [UInt8] {
    var line = JSONLine(report: "bench-figure")
    line.member("name", name)
    line.member("unit", unit.name(isCounting: isCounting))
    line.member("value", thousandths: value)
    line.member("samples", thousandths: samples)
    if let baseline { line.member("baseline", baseline) }
    if remark != "" { line.member("remark", remark) }
    return line.closed
  }

  /// The middle value, the mean of the two middle ones for an even count; 0 without values.
  public static func median(_ values: [UInt64]) -> UInt64 {
    guard !values.isEmpty else { return 0 }
    var sorted = values
    // Insertion sort: there are a few dozen, and the standard library's sort is large.
    for index in 1..<max(1, sorted.count) {
      var place = index
      while place > 0, sorted[place - 1] > sorted[place] {
        sorted.swapAt(place - 1, place)
        place -= 1
      }
    }
    let middle = sorted.count / 2
    if sorted.count % 2 == 1 { return sorted[middle] }
    return sorted[middle - 1] / 2 + sorted[middle] / 2 + (sorted[middle - 1] & sorted[middle] & 1)
  }
}

/// How a benchmark program is to measure: words `key=value` of its argument string. Other keys are the program's own.
public struct MeasureOptions: Equatable, Sendable {
  /// `unit=instructions`: the time-stamp counter counts instructions (QEMU `-icount shift=0`).
  public private(set) var isCounting = false
  /// `quick=on`: fewer and shorter batches.
  public private(set) var isQuick = false

  public init(_ arguments: Bytes) {
    isCounting = Self.value("unit", in: arguments)?.equals("instructions") ?? false
    isQuick = Self.value("quick", in: arguments)?.equals("on") ?? false
  }

  /// Batches whose median is the figure. Instructions are counted exactly, so a few show that they are.
  public var batches: Int { isCounting ? 3 : isQuick ? 9 : 21 }
  /// Length that a batch should have.
  public var batchMicroseconds: UInt64 { isQuick ? 3000 : 8000 }
  /// Time after which a figure takes no further batch, if it has three: a machine or host slower than usual gives fewer samples, not
  /// a run without end.
  public var limitMicroseconds: UInt64 { isQuick ? 600_000 : 4_000_000 }
  /// Whether a figure that has `samples` batches and has taken `ticks` of a counter with `frequency` Hz so far takes another.
  public func wantsBatch(after samples: Int, ticks: UInt64, frequency: UInt64) -> Bool {
    guard samples < batches else { return false }
    return samples < 3 || isCounting || ticks / max(1, frequency / 1_000_000) < limitMicroseconds
  }
  /// Operations of a batch: as many as fit its length by the duration of one, in ticks of a counter with `frequency` Hz.
  public func operations(ticksForOne: UInt64, frequency: UInt64) -> Int {
    if isCounting { return 32 }
    let ticks = frequency / 1_000_000 * batchMicroseconds
    return Int(max(4, min(1 << 20, ticks / max(1, ticksForOne))))
  }

  /// The value of the word `key=…`; nil where there is none.
  public static func value(_ key: StaticString, in arguments: Bytes) -> Bytes? {
    var words = Parts(of: arguments, separator: 0x20)
    while let word = words.next() {
      guard let equals = word.firstIndex(of: 0x3d), let name = word.slice(0, equals), name.equals(key) else { continue }
      return word.suffix(from: equals + 1)
    }
    return nil
  }
}
