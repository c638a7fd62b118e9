// The block twin driver: the data plane of a virtio block device in a process of its own, which holds the rings, one
// doorbell page and the message interrupt, and cannot reach the device's registers.

import BlockInterface
import BlockServer
import Pollux

@main enum TwinProgram {
  static func main() {
    let start = Program.start
    guard let service = start.handle("service"), let control = start.handle("control"),
      let events = start.handle("data-events")
    else {
      Console.write("block-twin: started without its handles\n")
      return
    }
    do throws(SystemError) {
      let access = try DoorbellAccess(start)
      let polls = start.text("mode")?.equals("twin-poll") ?? false
      let plane = try TwinPlane(control: Endpoint(Handle(control)), access: access, polls: polls)
      access.report()
      try BlockServer(plane: plane, endpoint: Handle(service), events: Notification(Handle(events)), name: "vda").run()
    } catch {
      var line = Text("block-twin: ")
      line.add(error.name)
      line.add("\n")
      line.print()
      Kernel.exit(1)
    }
  }
}

/// How the twin rings the device and hears of completions.
struct DoorbellAccess {
  private let doorbell: DeviceRegisters
  /// 0 in a doorbell page, QueueNotify in a register page.
  private let offset: UInt64
  /// Register page, line and the container's notification, on machines without the split.
  private let fallback: (registers: DeviceRegisters, line: Interrupt, container: Notification)?

  /// virtio 1.2 §4.2.2: QueueNotify, InterruptStatus, InterruptACK.
  private static let queueNotify: UInt64 = 0x50
  private static let interruptStatus: UInt64 = 0x60
  private static let interruptAcknowledge: UInt64 = 0x64

  init(_ start: StartBlock) throws(SystemError) {
    if let page = start.handle("doorbell") {
      doorbell = DeviceRegisters(unsafeBase: try MemoryObject(Handle(page)).map([.read, .write]).address)
      offset = 0
      fallback = nil
      return
    }
    guard let page = start.handle("registers"), let line = start.handle("line"),
      let container = start.handle("line-events")
    else { throw .notFound }
    let mapping = try MemoryObject(Handle(page)).map([.read, .write])
    doorbell = DeviceRegisters(unsafeBase: mapping.address + (start.number("registers-offset") ?? 0))
    offset = Self.queueNotify
    fallback = (doorbell, Interrupt(Handle(line)), Notification(Handle(container)))
  }

  var isSplit: Bool { fallback == nil }

  @inline(__always)
  func ring() { doorbell.store(0, at: offset) }

  /// On a shared line: acknowledges, and passes a configuration change on to the container.
  func acknowledge() {
    guard let fallback else { return }
    let status = fallback.registers.load(Self.interruptStatus)
    fallback.registers.store(status, at: Self.interruptAcknowledge)
    if status & 2 != 0 { fallback.container.signal(1) }
  }

  func report() {
    if isSplit {
      Program.remark(Bytes("split: doorbell page and message interrupt"))
      return
    }
    Program.remark(Bytes("split not enforceable on this machine: register page"))
    let line = Text(
      "block-twin: no doorbell page or message interrupt on this machine: using the register page and line\n")
    line.print()
    line.log()
  }
}
