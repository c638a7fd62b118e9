// The container's loop beside a twin: configuration interrupts on one side, the twin's calls on the other.

import DriverContract
import Pollux

/// The control plane of a device, whoever drives it.
public protocol ControlPlane: AnyObject {
  associatedtype State: ContractState
  var state: State { get }
  /// Descriptor table and available ring (and whatever else lies behind them) of a queue.
  func queueMemory(_ queue: Int) -> MemoryObject?
  /// What the device writes for that queue: used ring, and room for status bytes.
  func completionMemory(_ queue: Int) -> MemoryObject?
  /// The queue's message interrupt, where it has one.
  func messageInterrupt(_ queue: Int) -> Handle?

  /// An interrupt that says that the configuration has changed. True: something that the data plane must know has changed.
  func takeConfigurationInterrupt() -> Bool
  /// Sets the device up again if it was reset; for the twin's calls, while the twin waits for the reply.
  func bringUpIfDown()
  /// Resets the device and sets it up anew, with empty rings. False: it does not work; the state says lost.
  func bringUp() -> Bool
  /// Resets the device because nobody drives it any more: it must not write into memory that its users give away.
  func stop()
  /// Resets the device because somebody wants it quiet; `bringUpIfDown` sets it up again.
  func suspend()
  /// What `services` shows of the container while it works.
  var remark: StaticString { get }
  /// Tells the twin to fetch the state.
  func signalTwin()
  /// Carries out a command of the device's class. False: it is unknown, or failed.
  func perform(_ command: UInt64, _ argument: UInt64) -> Bool
}

public struct ControlServer<Plane: ControlPlane> {
  private let device: Plane
  private var server: Server
  private var isSuspended = false
  /// Calls that wait for the device to come back.
  private var waiting: [(caller: ReplyToken, message: Message)] = []

  public init(device: Plane, endpoint: Handle) {
    self.device = device
    server = Server(endpoint)
  }

  public mutating func run() throws(SystemError) -> Never {
    var message = Message()
    // A twin that is there already, because this container comes after another, synchronises, and so the device is set up.
    device.signalTwin()
    while true {
      switch try server.replyReceive(&message) {
      case .notification(let bits):
        message = Message()
        if bits & ContainerEvent.twinEnded != 0, !isSuspended {
          device.stop()
          // Another twin may have come in between.
          device.signalTwin()
        }
        if bits & ContainerEvent.device != 0, !isSuspended, device.takeConfigurationInterrupt() { device.signalTwin() }
        if bits & ContainerEvent.suspend != 0 { suspend() }
        if bits & ContainerEvent.resume != 0 { resume() }
      case .call:
        if isSuspended {
          waiting.append((server.setAside(), message))
          message = Message()
        } else {
          answer(&message)
        }
      }
    }
  }

  private mutating func suspend() {
    guard !isSuspended else { return }
    isSuspended = true
    device.suspend()
    Program.remark(Bytes("suspended"))
    // Its call waits, and so does the twin, which else would wonder why the device does nothing.
    device.signalTwin()
  }

  private mutating func resume() {
    guard isSuspended else { return }
    isSuspended = false
    Program.remark(Bytes(device.remark))
    for (caller, message) in waiting {
      var message = message
      answer(&message)
      server.reply(caller, &message)
    }
    // A call that waits has set the device up; else the next does.
    if waiting.isEmpty { device.signalTwin() }
    waiting.removeAll()
  }

  private func answer(_ message: inout Message) {
    let call = ControlCall(rawValue: message[0])
    let generation = message[1]
    let argument = message[2]
    let queue = Int(min(argument, 64))
    message.received?.close()
    message = Message()
    switch call {
    case .attach:
      device.bringUpIfDown()
      if let memory = device.queueMemory(queue) { message.pass(memory.handle, [.read, .write]) }
    case .completions:
      // The twin may show it to its clients, so the right to grant goes along.
      if let memory = device.completionMemory(queue) { message.pass(memory.handle, [.read, .write, .grant]) }
    case .interrupt: if let interrupt = device.messageInterrupt(queue) { message.pass(interrupt, [.manage]) }
    case .synchronise: device.bringUpIfDown()
    case .failed:
      device.bringUpIfDown()
      // Unless the device has been set up anew since the twin saw the failure.
      if generation == device.state.generation { _ = device.bringUp() }
    case .perform:
      device.bringUpIfDown()
      let isDone = device.perform(generation, argument)
      device.state.encode(queue: 0) { message[$0] = $1 }
      if !isDone { message[0] = ControlReply.refused }
      return
    case nil:
      message[0] = ControlReply.refused
      return
    }
    device.state.encode(queue: queue) { message[$0] = $1 }
  }
}
