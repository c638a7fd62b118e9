// Services as this test uses them: killed and started again, and what a writer tells by its remark.

import Files
import Pollux

extension Services {
  /// Kills the service and waits until init knows it.
  static func end(_ name: Bytes) throws(SystemError) {
    try kill(name)
    guard try becomes(.exited, name, patience: 10_000_000) else { throw .timedOut }
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

  /// What `tell` of that service said last.
  static func remark(_ name: Bytes) throws(SystemError) -> (writes: UInt64, gone: UInt64, errors: UInt64) {
    var message = Message(RegistryCall.serviceRemark.rawValue, try find(name).index)
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
