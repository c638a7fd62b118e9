// What a twin may touch of its device: a doorbell page for each queue and message interrupts; or, on machines without, the register page.

import DriverContract
import Pollux

/// How the twin rings the device and hears of completions.
public struct DoorbellAccess {
  private let doorbell: DeviceRegisters
  /// Register page, line and the container's notification, on machines without the split.
  private let fallback: (registers: DeviceRegisters, line: Interrupt, container: Notification)?

  /// virtio 1.2 §4.2.2: QueueNotify, InterruptStatus, InterruptACK.
  private static let queueNotify: UInt64 = 0x50
  private static let interruptStatus: UInt64 = 0x60
  private static let interruptAcknowledge: UInt64 = 0x64

  /// Bytes from one queue's doorbell page to the next one's (docs/platform.md).
  private static let doorbellStride: UInt64 = 0x1000

  /// What the parent gave: `doorbell`, or `registers`, `line` and `line-events`.
  public init(_ start: StartBlock) throws(SystemError) {
    if let page = start.handle("doorbell") {
      doorbell = DeviceRegisters(unsafeBase: try MemoryObject(Handle(page)).map([.read, .write]).address)
      fallback = nil
      return
    }
    guard let page = start.handle("registers"), let line = start.handle("line"),
      let container = start.handle("line-events")
    else { throw .notFound }
    let mapping = try MemoryObject(Handle(page)).map([.read, .write])
    doorbell = DeviceRegisters(unsafeBase: mapping.address + (start.number("registers-offset") ?? 0))
    fallback = (doorbell, Interrupt(Handle(line)), Notification(Handle(container)))
  }

  public var isSplit: Bool { fallback == nil }

  /// Tells the device to look at a queue.
  @inline(__always)
  public func ring(_ queue: Int = 0) {
    if fallback == nil {
      doorbell.store(0, at: UInt64(queue) * Self.doorbellStride)
    } else {
      doorbell.store(UInt32(queue), at: Self.queueNotify)
    }
  }

  /// On a shared line: acknowledges, and passes a configuration change on to the container.
  public func acknowledge() {
    guard let fallback else { return }
    let status = fallback.registers.load(Self.interruptStatus)
    fallback.registers.store(status, at: Self.interruptAcknowledge)
    if status & 2 != 0 { fallback.container.signal(1) }
  }

  /// Says in `services`, and on the console where there is something to say, what the twin has.
  public func report(by twin: StaticString) {
    if isSplit {
      Program.remark(Bytes("split: doorbell page and message interrupt"))
      return
    }
    Program.remark(Bytes("split not enforceable on this machine: register page"))
    var line = Text(twin)
    line.add(": no doorbell page or message interrupt on this machine: using the register page and line\n")
    line.print()
    line.log()
  }
}
