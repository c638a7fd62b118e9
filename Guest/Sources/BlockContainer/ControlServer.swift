// The container's loop beside a twin: configuration interrupts on one side, the twin's calls on the other.

import BlockInterface
import Pollux

struct ControlServer {
  private let device: ControlledDevice
  private var server: Server
  /// init's bit of the container's notification: the twin's process has ended.
  private static let twinEnded: UInt64 = 2

  init(device: ControlledDevice, endpoint: Handle) {
    self.device = device
    server = Server(endpoint)
    Program.remark(Bytes("control plane: registers and configuration interrupt"))
  }

  mutating func run() throws(SystemError) -> Never {
    var message = Message()
    while true {
      switch try server.replyReceive(&message) {
      case .notification(let bits):
        message = Message()
        if bits & Self.twinEnded != 0 {
          device.stop()
          continue
        }
        // The reason is not asked where a twin shares the line and has acknowledged it already.
        _ = device.takeInterrupt()
        if device.configurationChanged() { device.signalTwin() }
      case .call:
        answer(&message)
      }
    }
  }

  private func answer(_ message: inout Message) {
    let call = ControlCall(rawValue: message[0])
    let generation = message[1]
    message.received?.close()
    message = Message()
    switch call {
    case .attach:
      if let memory = device.queueMemory { message.pass(memory.handle, [.read, .write]) }
    case .completions:
      // The twin may show it to its clients, so the right to grant goes along.
      if let memory = device.completionMemory { message.pass(memory.handle, [.read, .write, .grant]) }
    case .synchronise: device.bringUpIfDown()
    case .failed:
      device.bringUpIfDown()
      // Unless the device has been set up anew since the twin saw the failure.
      if generation == device.state.generation, !device.bringUp() {
        ContainerProgram.complain("the device did not come back")
      }
    case nil:
      message[0] = 2
      return
    }
    device.state.encode { message[$0] = $1 }
  }
}
