// Whether a driver is as fast after a fault as it was before.

import Testing

enum Recovery {
  /// In how many runs it may show it. The host is shared, and one slow run says nothing of the driver; a driver that a fault leaves slow is
  /// slow in each.
  private static let runs = 6

  /// Within 5 % of the speed before. Under QEMU it is enough that requests are done at all: its interpreter and its devices are threads of the
  /// host that get in each other's way, and a program that polls does a sixth of the work in one second and all of it in the next.
  static func isComplete(_ after: Int, of before: Int, on host: Host = .castor) -> Bool {
    host == .castor ? after * 20 >= before * 19 : after > 0
  }

  /// Runs `exercise` with all `faults`, and then again with those after which the driver was slow, and expects none in the end.
  static func expect<Fault>(after faults: [Fault], _ exercise: ([Fault]) throws -> [Fault]) throws {
    var slow = try exercise(faults)
    for _ in 1..<runs where !slow.isEmpty { slow = try exercise(slow) }
    #expect(slow.isEmpty, "slower after these faults, in every run")
  }

  /// The same for one event: `exercise` tells whether the driver was as fast afterwards.
  static func expect(_ exercise: () throws -> Bool) throws {
    for _ in 1..<runs { if try exercise() { return } }
    #expect(try exercise(), "slower afterwards, in every run")
  }
}
