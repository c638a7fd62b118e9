// The memory manager (HongMeng §4.5): anonymous memory for the processes that ask for it. Policy is the books' (MemoryBooks); the kernel
// does what was decided in advance and passes the rest on to here.

import MemoryBooks
import MemoryClient
import Pollux

@main enum MemoryManagerProgram {
  static func main() {
    do throws(SystemError) {
      let arguments = Program.start.text("arguments") ?? Bytes("")
      let pages = MeasureWords.value("pages", in: arguments) ?? 4096
      let manager = try MemoryManager(pages: pages)
      // The books are used by one thread at a time: one stack.
      let service = try RPCService.create(stacks: 1) { badge, message in manager.serve(badge, &message) }
      manager.service = service
      try service.publish()
      let own = try service.connect(badge: MemoryManager.ownBadge)
      while true {
        // Ends of clients are heard of at once, everything else can wait a little.
        _ = manager.ends.wait(until: Clock.now &+ Clock.ticks(microseconds: 20_000))
        var message = Message(MemoryCall.settle.rawValue)
        try own.call(&message)
      }
    } catch {
      var line = Text("memory-manager: cannot go on: ")
      line.add(error.name)
      line.add("\n")
      line.print()
      Kernel.exit(1)
    }
  }
}

/// `key=number` words of a program's arguments.
enum MeasureWords {
  static func value(_ key: StaticString, in arguments: Bytes) -> UInt64? {
    CommandLine(arguments).value(key)?.number
  }
}

final class MemoryManager {
  static let ownBadge: UInt64 = 1 << 20
  /// Badges of faults: this and the client's number.
  private static let faultBadge: UInt64 = 1 << 21

  let ends: Notification
  var service: RPCService?
  private let kernel: KernelPaging
  private let books: MemoryBooks<KernelPaging>

  init(pages: UInt64) throws(SystemError) {
    ends = try Notification.create()
    kernel = try KernelPaging(pages: pages)
    var policy = PagingPolicy()
    policy.poolPages = PagerPage.poolCapacity
    books = MemoryBooks(kernel: kernel, pages: pages, policy: policy)
  }

  func serve(_ badge: UInt64, _ message: inout Message) {
    if badge & Self.faultBadge != 0 {
      let error = message[1]
      let decision = books.fault(
        Int(badge & ~Self.faultBadge), message[0], write: error & 2 != 0, fetch: error & 16 != 0)
      message[0] = decision == .retry ? 0 : 1
      return
    }
    let request = message
    message = Message()
    do throws(SystemError) {
      try perform(badge, request, &message)
    } catch { message[0] = UInt64(bitPattern: error.rawValue) }
  }

  private func perform(_ badge: UInt64, _ request: Message, _ reply: inout Message) throws(SystemError) {
    guard let call = MemoryCall(rawValue: request[0]) else { throw .badCall }
    switch call {
    case .attach: reply[1] = try attach(badge, request)
    case .map:
      let client = try client(badge)
      let size = try checked(request[2])
      guard request[3] & ~15 == 0, request[3] & 7 != 0 else { throw .badArgument }
      let address = request[1] != 0 ? request[1] : try books.place(client, size, from: 0x40_0000_0000)
      guard address & 4095 == 0, address < AddressSpace.userEnd, size <= AddressSpace.userEnd - address else {
        throw .badAddress
      }
      try books.map(client, address..<address + size, mode: request[3])
      reply[1] = address
    case .unmap: try books.unmap(try client(badge), try range(request))
    case .protect:
      guard request[3] <= 7 else { throw .badArgument }
      try books.protect(try client(badge), try range(request), Protection(rawValue: request[3]))
    case .fork:
      let parent = try client(badge)
      guard request[1] < 1 << 16, kernel.accepts(Int(request[1]), forkFrom: parent) else { throw .denied }
      try books.fork(parent, to: Int(request[1]))
    case .usage:
      let client = try client(badge)
      books.drain(client)
      reply[1] = books.residentPages(client)
      reply[2] = books.pooledPages(client)
      reply[3] = books.freePages
      reply[4] = books.counts.passedFaults
      reply[5] = books.counts.records
      reply[6] = books.counts.takenBack
      reply[7] = books.counts.merged
    case .settle: settle()
    }
  }

  private func attach(_ badge: UInt64, _ request: Message) throws(SystemError) -> UInt64 {
    guard let process = request.received, let service, request[1] > 0 else { throw .badHandle }
    // Who had this badge before may have ended just now.
    settle()
    let number = books.nextClient
    do throws(SystemError) {
      guard kernel.number(of: badge) == nil else { throw .exists }
      let faults = try service.connect(badge: Self.faultBadge | UInt64(number))
      defer { faults.handle.close() }
      try kernel.add(number, badge, process, forkFrom: request[3])
      do throws(SystemError) {
        try Pager.attach(process, to: faults)
        try Process(process).watch(ends, bits: 1)
      } catch {
        kernel.remove(number)
        throw error
      }
    } catch {
      process.close()
      throw error
    }
    return UInt64(books.attach(Budget(pages: request[1], isStrict: request[2] != 0)))
  }

  /// Clients that have ended give back what they had; the others get what lies ahead.
  private func settle() {
    for number in kernel.numbers {
      if kernel.hasEnded(number) {
        books.detach(number)
        kernel.remove(number)
      } else {
        books.refill(number)
      }
    }
    _ = books.clean(64)
  }

  private func client(_ badge: UInt64) throws(SystemError) -> Int {
    guard let number = kernel.number(of: badge) else { throw .notFound }
    return number
  }

  private func checked(_ size: UInt64) throws(SystemError) -> UInt64 {
    guard size > 0, size <= 1 << 40, size & 4095 == 0 else { throw .badArgument }
    return size
  }

  private func range(_ request: Message) throws(SystemError) -> Range<UInt64> {
    let size = try checked(request[2])
    guard request[1] & 4095 == 0, request[1] < AddressSpace.userEnd, size <= AddressSpace.userEnd - request[1] else {
      throw .badAddress
    }
    return request[1]..<request[1] + size
  }
}
