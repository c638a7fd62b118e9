// Calls by thread migration between two processes: registers only, whole messages, granted pages, chains of services.

import BenchReport
import Pollux

enum BenchArguments {
  /// A word of this program's arguments.
  static func value(_ key: StaticString) -> Bytes? {
    MeasureOptions.value(key, in: Program.start.text("arguments") ?? Bytes(""))
  }
}

enum Migration {
  static func measure(_ bench: inout Bench) throws(SystemError) {
    var failure: SystemError?
    let chain = try BenchRPC.open(Bytes("chain1"))
    for depth in 1...4 {
      guard try chain.call(UInt64(depth)).0 == UInt64(depth) else { throw .notFound }
      bench.measure(FigureName("rpc/chain-") + depth, baseline: depth == 1 ? "message-queue/0-words" : "rpc/chain-1") {
        do throws(SystemError) { _ = try chain.call(UInt64(depth)) } catch { failure = error }
      }
    }
    let full = try BenchRPC.open(Bytes("full"))
    for words in [0, 1, 8] {
      bench.measure(
        FigureName("rpc/") + words + "-words", baseline: words == 8 ? "message-queue/8-words" : "message-queue/0-words"
      ) {
        var message = Message()
        for index in 0..<words { message[index] = UInt64(index) }
        do throws(SystemError) { try full.call(&message) } catch { failure = error }
      }
    }
    let largest = 64 << 10
    let source = try MemoryObject.create(UInt64(largest)).map([.read, .write])
    for size in [4096, largest] {
      bench.measure(
        FigureName("rpc/") + size + "-bytes", baseline: FigureName("message-queue/") + size + "-bytes",
        remark: "pages granted for the call"
      ) {
        var message = Message(UInt64(size))
        message.grant(Grant(address: source.address, pages: UInt64(size / 4096), writable: false))
        do throws(SystemError) { try full.call(&message) } catch { failure = error }
      }
    }
    // The other way: copied into memory that both map, as the message queue has it.
    let memory = try MemoryObject.create(UInt64(largest))
    let shared = try memory.map([.read, .write])
    var message = Message()
    message.pass(memory.handle, [.read])
    try full.call(&message)
    for size in [4096, largest] {
      bench.measure(
        FigureName("rpc/") + size + "-bytes-shared", baseline: FigureName("message-queue/") + size + "-bytes",
        remark: "copied into shared memory"
      ) {
        // Both mappings are `largest` bytes long.
        shared.base.copyMemory(from: source.base, byteCount: size)
        var message = Message(UInt64(size))
        do throws(SystemError) { try full.call(&message) } catch { failure = error }
      }
    }
    shared.unmap()
    source.unmap()
    if let failure { throw failure }
  }
}

/// One row of Figure 4: this program's class as the client, and every class as the server.
enum Matrix {
  static func measure(_ bench: inout Bench) throws(SystemError) {
    let own = try effective(Program.start.text("name") ?? Bytes(""))
    for server in 0...2 {
      let name = FigureName("ic") + own.asked + "-ic" + server + "/null"
      let service: (asked: Int, effective: Int, remark: FigureName)
      do throws(SystemError) { service = try effective(serverName(server)) } catch {
        bench.absent(name, because: "the server is not in the composition")
        continue
      }
      guard own.effective == own.asked, service.effective == server else {
        let wrong = own.effective == own.asked ? service.effective : own.effective
        bench.absent(
          name,
          because: FigureName(own.effective == own.asked ? "the server" : "the client") + " runs as ic" + wrong
            + " here")
        continue
      }
      let connection = try BenchRPC.open(serverName(server))
      var failure: SystemError?
      bench.measure(name, baseline: own.asked == 2 ? "message-queue/0-words" : nil, remark: service.remark) {
        do throws(SystemError) { _ = try connection.call(1) } catch { failure = error }
      }
      if let failure { throw failure }
    }
  }

  private static func serverName(_ number: Int) -> Bytes {
    number == 0 ? Bytes("null-ic0") : number == 1 ? Bytes("null-ic1") : Bytes("null-ic2")
  }

  /// The class that a service was to have, the one it has, and what it says of itself.
  private static func effective(_ name: Bytes) throws(SystemError) -> (asked: Int, effective: Int, remark: FigureName) {
    var index: UInt64 = 0
    while true {
      var message = Message(RegistryCall.service.rawValue, index)
      try Program.ask(&message)
      let found = message.text(at: 1, words: 2)
      let matches = found.withUnsafeBytes { buffer in
        guard let base = buffer.baseAddress else { return false }
        // The array lives as long as this closure.
        return Bytes(unsafeBase: base, count: buffer.count).equals(name)
      }
      if matches {
        let classes = message[7]
        let mechanism = IsolationMechanism(rawValue: classes >> 24 & 0xff) ?? .userMode
        return (Int(classes >> 8 & 0xff), Int(classes >> 16 & 0xff), FigureName(mechanism.name))
      }
      index += 1
    }
  }
}
