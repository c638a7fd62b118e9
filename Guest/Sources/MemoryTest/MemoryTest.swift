// A test of the memory manager from outside (HongMeng §4.5), in processes that its mode tells apart: the test itself, a child that memory
// is forked into, a hog that touches more than its budget, and one that has much and needs little. `Tests/GuestTests` reads the lines and the exit code.

import MemoryClient
import Pollux

@main enum MemoryTest {
  static func main() {
    let mode = Program.start.text("mode") ?? Bytes("")
    do throws(SystemError) {
      let manager = AnonymousMemory(try Services.open(Bytes("memory-manager")))
      if mode.equals("hog") { try hog(manager) }
      if mode.equals("child") { try child(manager) }
      if mode.equals("idle") { try idle(manager) }
      try test(manager)
    } catch {
      var line = Text("FAILED with an error: ")
      line.add(error.name)
      line.add("\n")
      line.print()
    }
    do throws(SystemError) { try Program.control(.exit, 1) } catch {}
    Kernel.exit(1)
  }

  // MARK: The hog

  private static func hog(_ manager: AnonymousMemory) throws(SystemError) -> Never {
    _ = try manager.attach(budget: 16, isStrict: false)
    // It waits until the test has looked at what there is.
    let go = try Notification.create()
    let gate = try RPCService.create(stacks: 1) { _, _ in go.signal(1) }
    try gate.publish()
    _ = go.wait()
    let address = try manager.map(pages: 64)
    touch(address, pages: 64, seed: 3)
    Console.write("FAILED: the hog got more than its budget\n")
    Kernel.exit(3)
  }

  // MARK: The child

  private static func child(_ manager: AnonymousMemory) throws(SystemError) -> Never {
    // Call 0: parent's number → own number. Call 1: address, pages, seed → 1 if the contents are the parent's; then it writes its own.
    let service = try RPCService.create(stacks: 1) { _, message in
      if message[0] == 0 {
        do throws(SystemError) {
          message[0] = try manager.attach(budget: 256, isStrict: true, parent: message[1])
        } catch {
          message[0] = .max
        }
        return
      }
      let (address, pages, seed) = (message[1], message[2], message[3])
      message[0] = holds(address, pages: pages, seed: seed) ? 1 : 0
      touch(address, pages: pages, seed: seed + 1)
      if !holds(address, pages: pages, seed: seed + 1) { message[0] = 0 }
    }
    try service.publish()
    let forever = try Notification.create()
    while true { _ = forever.wait() }
  }

  // MARK: The idle one

  private static let idlePages: UInt64 = 640

  /// Call 0: touches pages and leaves them zero. Call 1 → 1 if they still are, and can be written.
  private static func idle(_ manager: AnonymousMemory) throws(SystemError) -> Never {
    var address: UInt64 = 0
    let service = try RPCService.create(stacks: 1) { _, message in
      let call = message[0]
      message[0] = 0
      do throws(SystemError) {
        if call == 0 {
          _ = try manager.attach(budget: idlePages, isStrict: true)
          address = try manager.map(pages: idlePages)
          for page in 0..<idlePages { word(address, page, 0).pointee = 0 }
        } else if isZero(address, pages: idlePages) {
          touch(address, pages: 8, seed: 5)
          message[0] = holds(address, pages: 8, seed: 5) && word(address, 9, 9).pointee == 0 ? 1 : 0
        }
      } catch { message[0] = 2 }
    }
    try service.publish()
    let forever = try Notification.create()
    while true { _ = forever.wait() }
  }

  // MARK: The test

  private static func test(_ manager: AnonymousMemory) throws(SystemError) {
    var failures: UInt64 = 0
    func expect(_ name: StaticString, _ holds: Bool) {
      if !holds { failures += 1 }
      Console.write(holds ? "ok " : "FAILED ")
      Console.write(name)
      Console.write("\n")
    }
    expect(
      "who is not attached has no memory",
      error { () throws(SystemError) in _ = try manager.map(pages: 1) } == .notFound)
    let number = try manager.attach(budget: 256, isStrict: true)
    expect(
      "a process attaches once",
      error { () throws(SystemError) in _ = try manager.attach(budget: 1, isStrict: true) } == .exists)
    expect(
      "a mapping beyond the budget is refused",
      error { () throws(SystemError) in _ = try manager.map(pages: 257) } == .noMemory)
    let address = try manager.map(pages: 200)
    expect("new memory is zero", isZero(address, pages: 200))
    touch(address, pages: 200, seed: 7)
    expect("it holds what was written, in kernel paging's hands", holds(address, pages: 200, seed: 7))
    expect(
      "more than the budget is still refused",
      error { () throws(SystemError) in _ = try manager.map(pages: 57) } == .noMemory)
    expect(
      "the same address twice is refused",
      error { () throws(SystemError) in _ = try manager.map(pages: 1, at: address) } == .exists)

    // Threads touch the same new pages at once.
    let shared = try manager.map(pages: 40)
    let done = try Notification.create()
    for thread in 0..<4 as Range<UInt64> {
      try Thread.start(priority: 6) {
        for page in 0..<40 as Range<UInt64> { word(shared, page, thread + 1).pointee = page << 8 | thread }
        done.signal(1 << thread)
      }
    }
    var bits: UInt64 = 0
    while bits != 15 { bits |= done.wait() }
    var sound = true
    for thread in 0..<4 as Range<UInt64> {
      for page in 0..<40 as Range<UInt64> where word(shared, page, thread + 1).pointee != page << 8 | thread {
        sound = false
      }
    }
    expect("four threads lose nothing in each other's faults", sound)
    try manager.unmap(shared, pages: 40)

    // Fork.
    let child = try Services.open(Bytes("child"))
    var message = Message(0, number)
    try child.call(&message)
    let childNumber = message[0]
    expect(
      "nobody is forked into who does not agree", error { () throws(SystemError) in try manager.fork(to: 9) } == .denied
    )
    try manager.fork(to: childNumber)
    touch(address, pages: 50, seed: 70)
    message = Message(1, address, 50, 7)
    try child.call(&message)
    expect("a forked child sees what was there at the fork", message[0] == 1)
    expect("and writes to pages of its own", holds(address, pages: 50, seed: 70))

    // The hog.
    // With all pools full, so that what lies ahead for others makes no difference.
    let before = try manager.settledUsage()
    let gate = try Services.open(Bytes("hog"))
    message = Message(0)
    // It may end before the call returns.
    do throws(SystemError) { try gate.call(&message) } catch { if error != .peerClosed { throw error } }
    var tries = 0
    while try Services.state(Bytes("hog")) == .running, tries < 3000 {
      Clock.sleep(microseconds: 1000)
      tries += 1
    }
    expect("who touches more than its budget ends", try Services.state(Bytes("hog")) == .faulted)
    expect("its neighbour does not notice", holds(address, pages: 50, seed: 70))
    tries = 0
    while try manager.settledUsage().free < before.free, tries < 3000 {
      Clock.sleep(microseconds: 1000)
      tries += 1
    }
    expect("and all its pages come back", try manager.settledUsage().free >= before.free)

    // Memory is short: what the idle one has, mostly zeros, comes back for who needs it.
    let idle = try Services.open(Bytes("idle"))
    message = Message(0)
    try idle.call(&message)
    expect("an idle process has most of the memory", message[0] == 0)
    let short = try manager.settledUsage()
    let more = try manager.map(pages: 56)
    touch(address, pages: 200, seed: 9)
    touch(more, pages: 56, seed: 10)
    expect("who needs memory gets it", holds(address, pages: 200, seed: 9) && holds(more, pages: 56, seed: 10))
    let tight = try manager.usage()
    expect("from pools and from pages of zeros", tight.takenBack + tight.merged > short.takenBack + short.merged)
    message = Message(1)
    try idle.call(&message)
    expect("whose owner sees zeros as before, and can write", message[0] == 1)
    try manager.unmap(more, pages: 56)
    try manager.unmap(address, pages: 200)
    expect("unmapped pages are free again", try manager.usage().resident == 0)
    if failures == 0 { Console.write("ok the test reached its end\n") }
    try Program.control(.exit, failures == 0 ? 0 : 1)
  }

  private static func error(_ body: () throws(SystemError) -> Void) -> SystemError? {
    do throws(SystemError) {
      try body()
      return nil
    } catch { return error }
  }

  // MARK: Memory

  /// Word `index` of a page that the manager gave this process.
  private static func word(_ address: UInt64, _ page: UInt64, _ index: UInt64) -> UnsafeMutablePointer<UInt64> {
    // The address is a mapping's, never 0.
    UnsafeMutablePointer(bitPattern: UInt(address + page * 4096 + index * 8)).unsafelyUnwrapped
  }
  private static func touch(_ address: UInt64, pages: UInt64, seed: UInt64) {
    for page in 0..<pages { word(address, page, page & 511).pointee = (page << 16 | seed) &* 0x9e37_79b9_7f4a_7c15 }
  }
  private static func holds(_ address: UInt64, pages: UInt64, seed: UInt64) -> Bool {
    for page in 0..<pages
    where word(address, page, page & 511).pointee != (page << 16 | seed) &* 0x9e37_79b9_7f4a_7c15 { return false }
    return true
  }
  private static func isZero(_ address: UInt64, pages: UInt64) -> Bool {
    for page in 0..<pages where word(address, page, page & 511).pointee != 0 { return false }
    return true
  }
}
