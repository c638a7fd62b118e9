// The registry as this test uses it: kills and restarts of services, and what a writer tells by its remark.

import Files
import Pollux

enum Services {
  static func index(of name: Bytes) throws(SystemError) -> UInt64 {
    var index: UInt64 = 0
    while true {
      var message = Message(RegistryCall.service.rawValue, index)
      try Program.ask(&message)
      if message.text(at: 1, words: 2) == name.array { return index }
      index += 1
    }
  }

  static func state(_ index: UInt64) throws(SystemError) -> ServiceState {
    var message = Message(RegistryCall.service.rawValue, index)
    try Program.ask(&message)
    return ServiceState(rawValue: message[7] & 0xff) ?? .notStarted
  }

  /// Kills the service and waits until init knows it.
  static func kill(_ index: UInt64) throws(SystemError) {
    var message = Message(RegistryCall.kill.rawValue, index)
    try Program.ask(&message)
    let deadline = Clock.now + Clock.frequency * 10
    while try state(index) == .running {
      guard Clock.now < deadline else { throw .timedOut }
      Clock.sleep(microseconds: 1000)
    }
  }

  static func restart(_ index: UInt64) throws(SystemError) {
    var message = Message(RegistryCall.restart.rawValue, index)
    try Program.ask(&message)
  }

  /// Has the three numbers shown as this program's remark.
  static func tell(_ writes: UInt64, _ gone: UInt64, _ errors: UInt64) {
    var text = Text()
    for value in [writes, gone, errors] {
      text.add(value)
      text.add(" ")
    }
    text.bytes.withUnsafeBytes { buffer in
      guard let base = buffer.baseAddress else { return }
      Program.remark(Bytes(unsafeBase: base, count: buffer.count))
    }
  }

  /// What `tell` said last.
  static func remark(_ index: UInt64) throws(SystemError) -> (writes: UInt64, gone: UInt64, errors: UInt64) {
    var message = Message(RegistryCall.serviceRemark.rawValue, index)
    try Program.ask(&message)
    var values: InlineArray<3, UInt64> = [0, 0, 0]
    var position = 0
    for byte in message.text(at: 1, words: 7) {
      if byte == 0x20 {
        position += 1
      } else if position < 3, byte >= 0x30, byte <= 0x39 {
        values[position] = values[position] * 10 + UInt64(byte - 0x30)
      }
    }
    return (values[0], values[1], values[2])
  }
}
