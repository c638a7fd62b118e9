// What a run of `bench-block` measures: its arguments (docs/benchmark.md) and the cases that follow from them.

import BootFormats

/// One case.
public struct BenchmarkCase: Equatable, Sendable {
  public var isWrite: Bool
  public var isRandom: Bool
  /// Bytes of a request.
  public var size: UInt64
  /// Requests in flight.
  public var depth: Int

  public init(isWrite: Bool, isRandom: Bool, size: UInt64, depth: Int) {
    self.isWrite = isWrite
    self.isRandom = isRandom
    self.size = size
    self.depth = depth
  }
}

/// Arguments that cannot be followed.
public enum BenchmarkPlanError: Error, Equatable, Sendable {
  case unknownKey
  case badOperation
  case badPattern
  case badSize
  case badDepth
  case badNumber
  case badPath
  case badSwitch
}

/// The whole run.
public struct BenchmarkPlan {
  /// How requests get to the driver.
  public enum Path: Sendable {
    /// One thread that submits many at once.
    case vectored
    /// One thread a request, each waiting for its own.
    case threads
  }

  public private(set) var cases: [BenchmarkCase] = []
  public private(set) var milliseconds: UInt64 = 500
  /// Bytes of the disk in use, from its start; 0: all.
  public private(set) var span: UInt64 = 0
  public private(set) var verifies = true
  public private(set) var path = Path.vectored
  /// The block service to measure.
  public private(set) var target = Bytes("block")
  /// Whether people read the results rather than a program.
  public private(set) var isForPeople = false
  /// Whether to test the service's correctness instead of its speed.
  public private(set) var isSelfTest = false
  /// Whether to write and flush block after block, telling of each, until the machine ends.
  public private(set) var isFlushRun = false
  /// Whether to keep the service busy for `milliseconds` and account for every request, in place of measuring.
  public private(set) var isExercise = false
  /// Whether to end the machine afterwards, with exit code 0 or 1.
  public private(set) var endsMachine = false

  public static let largestSize: UInt64 = 16 << 20
  public static let largestDepth = 256

  public init(_ arguments: Bytes) throws(BenchmarkPlanError) {
    var writes: [Bool] = [false]
    var randoms: [Bool] = [false]
    var sizes: [UInt64] = [4096]
    var depths: [Int] = [1]
    var words = Parts(of: arguments, separator: 0x20)
    while let word = words.next() {
      guard let equals = word.firstIndex(of: 0x3d), let key = word.slice(0, equals),
        let value = word.suffix(from: equals + 1)
      else { throw .unknownKey }
      if key.equals("operations") {
        writes = try Self.choices(value, "read", "write", .badOperation)
      } else if key.equals("patterns") {
        randoms = try Self.choices(value, "sequential", "random", .badPattern)
      } else if key.equals("sizes") {
        sizes = []
        var list = Parts(of: value, separator: 0x2c)
        while let item = list.next() {
          guard let size = item.size, size > 0, size % 512 == 0, size <= Self.largestSize else { throw .badSize }
          sizes.append(size)
        }
      } else if key.equals("depths") {
        depths = []
        var list = Parts(of: value, separator: 0x2c)
        while let item = list.next() {
          guard let depth = item.number, depth > 0, depth <= UInt64(Self.largestDepth) else { throw .badDepth }
          depths.append(Int(depth))
        }
      } else if key.equals("milliseconds") {
        guard let number = value.number, number > 0, number <= 3_600_000 else { throw .badNumber }
        milliseconds = number
      } else if key.equals("span") {
        guard let number = value.size else { throw .badNumber }
        span = number
      } else if key.equals("verify") {
        verifies = try Self.isOn(value)
      } else if key.equals("path") {
        guard value.equals("vectored") || value.equals("threads") else { throw .badPath }
        path = value.equals("threads") ? .threads : .vectored
      } else if key.equals("target") {
        target = value
      } else if key.equals("table") {
        isForPeople = try Self.isOn(value)
      } else if key.equals("selftest") {
        isSelfTest = try Self.isOn(value)
      } else if key.equals("flushrun") {
        isFlushRun = try Self.isOn(value)
      } else if key.equals("exercise") {
        isExercise = try Self.isOn(value)
      } else if key.equals("exit") {
        endsMachine = try Self.isOn(value)
      } else {
        throw .unknownKey
      }
    }
    for size in sizes {
      for depth in depths {
        for isRandom in randoms {
          for isWrite in writes {
            cases.append(BenchmarkCase(isWrite: isWrite, isRandom: isRandom, size: size, depth: depth))
          }
        }
      }
    }
  }

  private static func isOn(_ value: Bytes) throws(BenchmarkPlanError) -> Bool {
    if value.equals("on") || value.equals("1") { return true }
    guard value.equals("off") || value.equals("0") else { throw .badSwitch }
    return false
  }

  private static func choices(
    _ value: Bytes, _ no: StaticString, _ yes: StaticString, _ error: BenchmarkPlanError
  ) throws(BenchmarkPlanError) -> [Bool] {
    var result: [Bool] = []
    var list = Parts(of: value, separator: 0x2c)
    while let item = list.next() {
      guard item.equals(no) || item.equals(yes) else { throw error }
      result.append(item.equals(yes))
    }
    return result
  }
}
