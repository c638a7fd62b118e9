// How devices reach the guest: IOAPIC pins and per-queue messages, both through irqfd.

import HostSystem
import KVM
import Logging
import SystemPackage
import Virtio

/// An edge on an IOAPIC pin.
struct PinInterrupt: InterruptTrigger {
  private let event: EventDescriptor

  /// Binds a new eventfd to `pin`.
  init(machine: VirtualMachine, pin: UInt32) throws(MachineError) {
    do {
      event = try EventDescriptor()
      try machine.addInterrupt(gsi: pin, event: event)
    } catch { throw MachineError(wrapping: error) }
  }

  func trigger() { event.signal() }
}

/// The message-signalled interrupts of one device's queues (docs/platform.md, "virtio device window").
struct QueueMessages: MessageRouter {
  private struct Line: Sendable {
    let gsi: UInt32
    let event: EventDescriptor
  }
  private let machine: VirtualMachine
  private let lines: [Line]
  private let log: Logger

  init(machine: VirtualMachine, queues: Int, log: Logger) throws(MachineError) {
    self.machine = machine
    self.log = log
    var lines: [Line] = []
    for _ in 0..<queues {
      do {
        let line = Line(gsi: machine.allocateMessageGSI(), event: try EventDescriptor())
        try machine.setMessage(gsi: line.gsi, message: (0xfee0_0000, 0))
        try machine.addInterrupt(gsi: line.gsi, event: line.event)
        lines.append(line)
      } catch { throw MachineError(wrapping: error) }
    }
    self.lines = lines
  }

  func setMessage(queue: Int, address: UInt64, data: UInt32, enabled: Bool) {
    guard lines.indices.contains(queue) else { return }
    do {
      try machine.setMessage(gsi: lines[queue].gsi, message: enabled ? (address, data) : nil)
    } catch { log.error("cannot route the message of queue \(queue): \(error)") }
  }

  func trigger(queue: Int) {
    guard lines.indices.contains(queue) else { return }
    lines[queue].event.signal()
  }
}
