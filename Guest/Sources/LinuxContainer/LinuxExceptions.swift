// Exceptions of Linux's code: the kernel has the thread call a service of this process, and Linux's side says where the code goes on.

import CLinuxContainer
import CPollux
import Pollux

enum LinuxExceptions {
  // As for `current` in Linux.swift: set once, before the first exception that counts.
  nonisolated(unsafe) fileprivate static var entries: UnsafePointer<container_entries>?
  nonisolated(unsafe) fileprivate static var isInside = false

  /// From now on exceptions of this process ask `entries`. Without that they end the process.
  static func attach(_ entries: UnsafePointer<container_entries>) throws(SystemError) {
    self.entries = entries
    // One for an exception while another is answered, which is refused.
    let service = try RPCService.createShort(stacks: 2, stackSize: 32 << 10, function: answer)
    try Pager.attach(Handle(0), to: service.connect(badge: 0), exceptions: true)
  }
}

/// Words: address, error code, instruction, exception.
private let answer: RPCService.ShortHandler = { _, address, error, instruction, vector, _ in
  let refused = pollux_short_words(word0: 1, word1: 0)
  guard !LinuxExceptions.isInside, let entries = LinuxExceptions.entries else { return refused }
  LinuxExceptions.isInside = true
  defer { LinuxExceptions.isInside = false }
  let target = entries.pointee.exception(
    Int32(truncatingIfNeeded: vector), UInt(address), UInt(error), UInt(instruction))
  return target == 0 ? refused : pollux_short_words(word0: FaultDecision.goOnElsewhere.rawValue, word1: UInt64(target))
}
