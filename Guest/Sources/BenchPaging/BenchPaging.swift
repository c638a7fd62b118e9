// What a fault of private anonymous memory costs (HongMeng §4.5, Fig. 8): served by the kernel from what the memory manager decided in
// advance, against the plain pager, where every fault is a call of the manager; and what is held ahead for it.

import BenchReport
import Pollux

@main enum BenchPaging {
  /// Pages touched in a batch: fewer than a pool holds.
  private static let pages: UInt64 = 96

  static func main() {
    var bench = Bench("paging")
    do throws(SystemError) {
      let manager = try open()
      guard let own = Program.start.handle("process") else { bench.fail("no handle on the own process") }
      var message = Message(0, 4096)
      message.pass(Handle(own), [.manage, .observe, .grant])
      try call(manager, &message)
      // The baseline first: a managed region.
      let modes: [(FigureName, FigureName?, UInt64)] = [("pager", nil, RegionMode.managed), ("kernel", "pager", 0)]
      for (name, baseline, mode) in modes {
        for (kind, isWrite) in [("read", false), ("write", true)] as [(FigureName, Bool)] {
          try measure(&bench, manager, kind + "-fault/" + name, baseline.map { kind + "-fault/" + $0 }, mode, isWrite)
        }
        try measure(
          &bench, manager, "write-after-read-fault/" + name, baseline.map { "write-after-read-fault/" + $0 }, mode, nil)
      }
      message = Message(5)
      try call(manager, &message)
      bench.add("held-ahead", .bytes, message[2] * 4096, remark: "pages in the pool of one process")
      bench.add("passed-on", .count, message[4], remark: "faults that came to the manager")
    } catch { bench.fail("the memory manager or the kernel refuses", error) }
    bench.finish()
  }

  private static func open() throws(SystemError) -> Connection {
    var tries = 0
    while true {
      do throws(SystemError) { return try Connection.open(Bytes("memory-manager")) } catch {
        tries += 1
        if error != .notFound || tries > 2000 { throw error }
        Clock.sleep(microseconds: 1000)
      }
    }
  }

  private static func call(_ manager: Connection, _ message: inout Message) throws(SystemError) {
    try manager.call(&message)
    if message[0] != 0 { throw SystemError(rawValue: Int64(bitPattern: message[0])) ?? .badCall }
  }

  /// Touches every page of a new area once a batch: reads, writes, or (nil) writes what has been read before.
  private static func measure(
    _ bench: inout Bench, _ manager: Connection, _ figure: FigureName, _ baseline: FigureName?, _ mode: UInt64,
    _ isWrite: Bool?
  ) throws(SystemError) {
    var failure: SystemError?
    var isWrong = false
    bench.measure(figure, baseline: baseline, operations: Int(pages)) {
      do throws(SystemError) {
        // Logs are read and pools are full.
        var message = Message(6)
        try call(manager, &message)
        message = Message(1, 0, pages * 4096, Protection([.read, .write]).rawValue | mode)
        try call(manager, &message)
        let address = message[1]
        guard let words = UnsafeMutablePointer<UInt64>(bitPattern: UInt(address)) else { throw .badAddress }
        // The area is `pages` pages that the manager has just given this process.
        var sum: UInt64 = 0
        if isWrite == nil { for page in 0..<Int(pages) { sum |= words[page * 512] } }
        let start = Clock.now
        if isWrite == false {
          for page in 0..<Int(pages) { sum |= words[page * 512] }
        } else {
          for page in 0..<Int(pages) { words[page * 512] = UInt64(page) + 1 }
        }
        let ticks = Clock.now &- start
        if sum != 0 { isWrong = true }
        if isWrite != false {
          for page in 0..<Int(pages) where words[page * 512] != UInt64(page) + 1 { isWrong = true }
        }
        message = Message(2, address, pages * 4096)
        try call(manager, &message)
        return ticks
      } catch {
        failure = error
        return nil
      }
    }
    if let failure { throw failure }
    if isWrong { bench.fail("memory did not hold what it should") }
  }
}
