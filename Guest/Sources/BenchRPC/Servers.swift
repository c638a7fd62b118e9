// The servers that are called by thread migration: one with the short form in registers, which may call the next of a chain, and one
// with whole messages and grants.

import CPollux
import Pollux

/// The next server of the chain, set before the first call can come.
nonisolated(unsafe) private var next: Connection?

enum Servers {
  /// A server of the short form, which answers 1. With the argument `next=`, word 0 is the depth: above 1 it calls the service that
  /// the argument names with one less.
  static func serveShort() throws(SystemError) -> Never {
    guard let name = BenchArguments.value("next") else {
      let service = try RPCService.createShort(stacks: 2) { _, _, _, _, _, _ in pollux_short_words(word0: 1, word1: 0) }
      try service.publish()
      sleepForEver()
    }
    next = try BenchRPC.open(name)
    let service = try RPCService.createShort(stacks: 2) { _, depth, _, _, _, _ in
      if depth > 1, let next {
        do throws(SystemError) {
          let (word0, word1) = try next.call(depth - 1)
          return pollux_short_words(word0: word0 + 1, word1: word1)
        } catch { return pollux_short_words(word0: 0, word1: UInt64(bitPattern: error.rawValue)) }
      }
      return pollux_short_words(word0: 1, word1: 0)
    }
    try service.publish()
    sleepForEver()
  }

  /// A server of whole messages, which it sends back, after a look at each page that was granted, or else at each of the first
  /// `message[0]` bytes of the memory that came once.
  static func serveFull() throws(SystemError) -> Never {
    var shared: Mapping?
    // One stack: calls exclude each other, so nothing guards `shared`.
    let service = try RPCService.create(stacks: 1) { _, message in
      if let memory = message.received {
        do throws(SystemError) { shared = try MemoryObject(memory).map(.read) } catch {}
      } else if message.granted == nil, let shared, message[0] >= AddressSpace.pageSize,
        message[0] <= UInt64(shared.size)
      {
        message[1] = look(shared.base, Int(message[0]))
      }
      if let granted = message.granted, let base = granted.baseAddress { message[1] = look(base, granted.count) }
    }
    try service.publish()
    sleepForEver()
  }

  /// The sum of the first words of the pages of `count` bytes at `base`, which the caller has mapped.
  static func look(_ base: UnsafeRawPointer, _ count: Int) -> UInt64 {
    var sum: UInt64 = 0
    var offset = 0
    while offset < count {
      sum &+= base.load(fromByteOffset: offset, as: UInt64.self)
      offset += Int(AddressSpace.pageSize)
    }
    return sum
  }

  private static func sleepForEver() -> Never {
    while true { Clock.sleep(microseconds: 1_000_000_000) }
  }
}
