// How the isolation test says what it found: one line a check on the console, and the count of failures as exit code.
import CPollux
import Pollux

/// Checks so far; only the main thread touches it.
struct Checks {
  private(set) var failures: UInt64 = 0

  mutating func expect(_ name: StaticString, _ holds: Bool) {
    if !holds { failures += 1 }
    Console.write(holds ? "ok " : "FAILED ")
    Console.write(name)
    Console.write("\n")
  }

  /// A system call that must end with this error.
  mutating func expect(_ name: StaticString, _ error: SystemError, _ result: Int64) {
    if result != error.rawValue { note("result", UInt64(bitPattern: result)) }
    expect(name, result == error.rawValue)
  }

  func note(_ name: StaticString, _ value: UInt64) {
    var line = Text("note ")
    line.add(name)
    line.add(" ")
    line.add(value)
    line.add("\n")
    line.print()
  }
}

/// A system call by number, unchecked: the result register.
func raw(
  _ number: UInt64, _ a: UInt64 = 0, _ b: UInt64 = 0, _ c: UInt64 = 0, _ d: UInt64 = 0, _ e: UInt64 = 0, _ f: UInt64 = 0
) -> Int64 {
  pollux_system_call(number, a, b, c, d, e, f)
}

func raw(
  _ call: SystemCall, _ a: UInt64 = 0, _ b: UInt64 = 0, _ c: UInt64 = 0, _ d: UInt64 = 0, _ e: UInt64 = 0,
  _ f: UInt64 = 0
) -> Int64 {
  pollux_system_call(call.rawValue, a, b, c, d, e, f)
}

/// The same, for calls that must succeed: a failure ends the test with exit code 90.
func must(
  _ call: SystemCall, _ a: UInt64 = 0, _ b: UInt64 = 0, _ c: UInt64 = 0, _ d: UInt64 = 0, _ e: UInt64 = 0,
  _ f: UInt64 = 0
) -> UInt64 {
  let result = pollux_system_call(call.rawValue, a, b, c, d, e, f)
  if result < 0 {
    var line = Text("FAILED call ")
    line.add(call.rawValue)
    line.add(" gives minus ")
    line.add(UInt64(-result))
    line.add("\n")
    line.print()
    _ = raw(.systemControl, InitialHandle.root, SystemControl.exit.rawValue, 90)
  }
  return UInt64(bitPattern: result)
}
