// What the kernel has to say: a ring of text, read by `logRead`; on a panic also straight to the serial port.
import CArch
import KernelCore
import PolluxABI

/// A ring of the last 64 KiB of text; positions count from boot.
struct Log {
  private(set) var end: UInt64
  /// Panic: print at once.
  var isUrgent: Bool
  static let size = UInt64(LOG_SIZE)
  var start: UInt64 { end > Log.size ? end - Log.size : 0 }

  mutating func put(_ byte: UInt8) {
    store8(address_of_kernel_log() + end % Log.size, byte)
    end += 1
    if isUrgent {
      if byte == 0x0a { SerialPort.sendWaiting(0x0d) }
      SerialPort.sendWaiting(byte)
    }
  }

  /// Appends bytes that lie at a kernel-virtual address.
  mutating func append(_ address: UInt64, count: UInt64) {
    var done: UInt64 = 0
    while done < count {
      let place = (end + done) % Log.size
      let run = min(count - done, Log.size - place)
      copy_bytes(address_of_kernel_log() + place, address + done, run)
      done += run
    }
    end += count
  }

  /// Address and length of the text at a position, up to the end of the log or of the ring's memory.
  func run(at position: UInt64) -> (address: UInt64, count: UInt64) {
    let from = min(max(position, start), end)
    let place = from % Log.size
    return (address_of_kernel_log() + place, min(end - from, Log.size - place))
  }
}

/// Writes text and numbers to the log without allocating.
enum Say {
  static func text(_ text: StaticString) {
    text.withUTF8Buffer { bytes in
      for byte in bytes { kernel.pointee.log.put(byte) }
    }
  }

  static func hex(_ value: UInt64, digits: Int = 16) {
    var shift = digits * 4
    while shift > 0 {
      shift -= 4
      let digit = UInt8(truncatingIfNeeded: value >> UInt64(shift)) & 15
      kernel.pointee.log.put(digit + (digit < 10 ? 0x30 : 0x57))
    }
  }

  static func decimal(_ value: UInt64) {
    var divisor: UInt64 = 1
    while value / divisor >= 10 { divisor *= 10 }
    while divisor > 0 {
      kernel.pointee.log.put(0x30 + UInt8(truncatingIfNeeded: value / divisor % 10))
      divisor /= 10
    }
  }

  static func name(_ name: (UInt64, UInt64, UInt64, UInt64)) {
    word(name.0)
    word(name.1)
    word(name.2)
    word(name.3)
  }

  private static func word(_ word: UInt64) {
    var rest = word
    while rest & 0xff != 0 {
      kernel.pointee.log.put(UInt8(truncatingIfNeeded: rest))
      rest >>= 8
    }
  }

  static func newline() { kernel.pointee.log.put(0x0a) }
}
