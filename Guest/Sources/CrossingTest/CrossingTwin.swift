// The data plane, which has a doorbell and wants the registers.

import Pollux

struct CrossingTwin {
  private let control: Endpoint
  private let page: Handle
  private let doorbell: DeviceRegisters
  /// The guest-virtual address of the doorbell, at which the container has nothing.
  private static let address: UInt64 = 3 << 33

  init(_ start: StartBlock) throws(SystemError) {
    guard let control = start.handle("control"), let page = start.handle("doorbell") else { throw .notFound }
    self.control = Endpoint(Handle(control))
    self.page = Handle(page)
    try MemoryObject(self.page).map(at: Self.address, size: 0x1000, [.read, .write])
    doorbell = DeviceRegisters(unsafeBase: Self.address)
  }

  func run() throws(SystemError) {
    CrossingTest.expect("the twin is given the register page", Program.start.handle("registers") == nil)
    CrossingTest.expect("the twin is given the message table", Program.start.handle("messages") == nil)
    CrossingTest.reachBeyond(page)
    CrossingTest.expect(
      "an interrupt of the device's by the doorbell page",
      CrossingTest.isRefused { () throws(SystemError) in
        _ = try Interrupt.message(table: page, entry: 0, notification: try Notification.create(), bits: 1)
      })
    var message = Message(CrossingCall.registers)
    try control.call(&message)
    let registers = message[0]
    doorbell.store(0, at: 0)
    message = Message(CrossingCall.rung)
    try control.call(&message)
    CrossingTest.expect("the twin's doorbell has the request done", message[0] == 1)
    message = Message(CrossingCall.doorbell, Self.address)
    try control.call(&message)
    // Nothing is mapped there: it ends this process.
    let status = DeviceRegisters(unsafeBase: registers).load(0x70)
    CrossingTest.expect("the twin reads the device's status", false)
    _ = status
  }
}
