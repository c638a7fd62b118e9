// The attributes of Linux's devices, for whoever calls the container. The call comes on its caller's thread; what it asks is done by the
// program's, for Linux's code is one thread's.

import CLinuxContainer
import Pollux
import Synchronization

final class LinuxAttributes {
  private let entries: UnsafePointer<container_entries>
  private let events: Notification
  private let done: Notification
  private let stage = Atomic<UInt8>(Stage.idle)

  /// Who has the request below: nobody, a caller who fills it, the program's thread, or the caller again.
  private enum Stage {
    static let idle: UInt8 = 0
    static let filling: UInt8 = 1
    static let waiting: UInt8 = 2
    static let working: UInt8 = 3
    static let answered: UInt8 = 4
    /// The caller has gone while the driver is about it.
    static let abandoned: UInt8 = 5
  }
  private var call = CONTAINER_ATTRIBUTE_NAME
  private var number: UInt = 0
  private let path: UnsafeMutablePointer<CChar>
  private let value: UnsafeMutablePointer<CChar>
  private var result = 0

  private static var pageSize: Int { Int(AddressSpace.pageSize) }
  /// How long the program's thread may take, which waits for its device at times.
  private static let patience: UInt64 = 2_000_000

  /// Publishes the attributes under the program's name. Lives as long as the process. `events` is what the program's loop waits for.
  init(_ entries: UnsafePointer<container_entries>, events: Notification) throws(SystemError) {
    self.entries = entries
    self.events = events
    done = try Notification.create()
    path = UnsafeMutablePointer<CChar>.allocate(capacity: AttributeCall.longestPath)
    value = UnsafeMutablePointer<CChar>.allocate(capacity: Self.pageSize)
    // Callers exclude each other.
    let made = try RPCService.create(stacks: 1) { _, message in self.answer(&message) }
    try made.publish()
  }

  /// On a caller's thread.
  private func answer(_ message: inout Message) {
    let number = message[1]
    guard let call = AttributeCall(rawValue: message[0]), let pages = message.granted, message.grantIsWritable,
      pages.count >= Int(AttributeCall.pages) * Self.pageSize, let base = pages.baseAddress
    else {
      message = Message(UInt64(bitPattern: AttributeCall.malformed))
      return
    }
    guard
      // One that gave up may have left a request that the program's thread is about.
      stage.compareExchange(expected: Stage.idle, desired: Stage.filling, ordering: .acquiringAndReleasing).exchanged
    else {
      message = Message(UInt64(bitPattern: AttributeCall.timedOut))
      return
    }
    message = Message()
    self.call =
      call == .name
      ? CONTAINER_ATTRIBUTE_NAME : call == .read ? CONTAINER_ATTRIBUTE_READ : CONTAINER_ATTRIBUTE_WRITE
    self.number = UInt(number)
    // Both sides' pages are granted whole; the path is ended here, whatever the caller wrote.
    UnsafeMutableRawPointer(path).copyMemory(from: base, byteCount: AttributeCall.longestPath)
    path[AttributeCall.longestPath - 1] = 0
    if call == .write {
      self.number = min(self.number, UInt(Self.pageSize))
      UnsafeMutableRawPointer(value).copyMemory(from: base + Self.pageSize, byteCount: Int(self.number))
    }
    stage.store(Stage.waiting, ordering: .releasing)
    // As an interrupt would: the drivers' handlers find no reason for it, and what is due is done.
    events.signal(1)
    let deadline = Clock.now + Clock.ticks(microseconds: Self.patience)
    while stage.load(ordering: .acquiring) != Stage.answered {
      if Clock.now >= deadline,
        stage.compareExchange(expected: Stage.waiting, desired: Stage.idle, ordering: .acquiringAndReleasing)
          .exchanged
          || stage.compareExchange(
            expected: Stage.working, desired: Stage.abandoned, ordering: .acquiringAndReleasing
          ).exchanged
      {
        message[0] = UInt64(bitPattern: AttributeCall.timedOut)
        return
      }
      _ = done.wait(until: max(deadline, Clock.now + Clock.ticks(microseconds: 10_000)))
    }
    if call != .write, result > 0 {
      (base + Self.pageSize).copyMemory(from: value, byteCount: min(result, Self.pageSize))
    }
    message[0] = UInt64(bitPattern: Int64(result))
    stage.store(Stage.idle, ordering: .releasing)
  }

  /// On the program's thread, whenever it has attended to its devices.
  func work() {
    guard
      stage.compareExchange(expected: Stage.waiting, desired: Stage.working, ordering: .acquiringAndReleasing)
        .exchanged
    else { return }
    let size = call == CONTAINER_ATTRIBUTE_WRITE ? number : UInt(Self.pageSize)
    result = entries.pointee.attribute(call, number, path, value, size)
    if stage.compareExchange(expected: Stage.working, desired: Stage.answered, ordering: .acquiringAndReleasing)
      .exchanged
    {
      done.signal(1)
    } else {
      stage.store(Stage.idle, ordering: .releasing)
    }
  }
}
