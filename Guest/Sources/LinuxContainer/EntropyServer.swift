// An entropy device driven by Linux's virtio_rng: random bytes for whoever calls, one client at a time.

import CLinuxContainer
import Pollux

struct EntropyServer {
  private let linux: Linux
  private let registers: VirtioRegisters
  private var server: Server
  /// It did not come back from a reset.
  private var isLost = false

  init(
    _ linux: Linux, _ registers: VirtioRegisters, endpoint: Handle, events: Notification
  ) throws(SystemError) {
    self.linux = linux
    self.registers = registers
    server = Server(endpoint)
    try Endpoint(endpoint).bind(events)
  }

  mutating func run() throws(SystemError) -> Never {
    Program.announce(Bytes("hwrng"), .entropy)
    var message = Message()
    while true {
      switch try server.replyReceive(&message) {
      case .notification:
        message = Message()
        linux.handleInterrupt()
        if registers.needsReset { _ = restart() }
      case .call: answer(&message)
      }
    }
  }

  private mutating func answer(_ message: inout Message) {
    message.received?.close()
    let wanted = Int(min(message[1], UInt64(EntropyCall.largest)))
    guard message[0] == EntropyCall.read.rawValue else {
      message = Message(EntropyReply.badCall.rawValue)
      return
    }
    message = Message()
    var bytes: InlineArray<6, UInt64> = [0, 0, 0, 0, 0, 0]
    let count = read(&bytes, wanted)
    guard count >= 0 else {
      message[0] = EntropyReply.failed.rawValue
      return
    }
    message[1] = UInt64(count)
    for index in bytes.indices { message[2 + index] = bytes[index] }
  }

  /// Reads `wanted` bytes; their number, negative where the device gives none. A device that is stuck is reset once.
  private mutating func read(_ bytes: inout InlineArray<6, UInt64>, _ wanted: Int) -> Int {
    guard !isLost else { return -1 }
    let linux = linux
    func attempt(_ bytes: inout InlineArray<6, UInt64>) -> Int {
      var span = bytes.mutableSpan
      return span.withUnsafeMutableBytes { buffer in
        linux.readRandom(into: UnsafeMutableRawBufferPointer(rebasing: buffer[..<min(wanted, buffer.count)]))
      }
    }
    let count = attempt(&bytes)
    guard count < 0 || (count == 0 && wanted > 0), restart() else { return count }
    let second = attempt(&bytes)
    return second == 0 && wanted > 0 ? -1 : second
  }

  /// Linux's driver does not look at what the device asks for; suspending and resuming it is what resets the device.
  private mutating func restart() -> Bool {
    guard !isLost else { return false }
    LinuxContainerProgram.complain(
      registers.needsReset ? "the device asks for a reset" : "the device gives no random bytes; it is reset")
    if linux.suspend(), linux.resume() { return true }
    isLost = true
    LinuxContainerProgram.complain("the device did not come back")
    return false
  }
}
