// The console's 16550A (PC16550D datasheet) at port 0x3f8, polled; its receive interrupt is enabled for whoever creates an
// interrupt object on pin 4.
import CArch

enum SerialPort {
  private static let port: UInt16 = 0x3f8

  static func enable() {
    port_write8(port + 3, 0x03)  // 8 data bits
    port_write8(port + 2, 0x07)  // FIFOs on and empty
    port_write8(port + 1, 0x01)  // interrupt on received data
    port_write8(port + 4, 0x0b)  // DTR, RTS, OUT2
  }

  /// The transmit FIFO is empty: 16 bytes fit.
  static var canSend: Bool { port_read8(port + 5) & 0x20 != 0 }

  /// Sends up to 16 bytes that lie at a kernel-virtual address, after `canSend`.
  static func send(_ address: UInt64, count: UInt64) {
    port_write_bytes(port, UnsafeRawPointer(bitPattern: UInt(address)), count)
  }

  /// For a panic: waits for the port, but not for ever.
  static func sendWaiting(_ byte: UInt8) {
    var patience = 100_000
    while !canSend, patience > 0 { patience -= 1 }
    port_write8(port, byte)
  }

  static func receive() -> UInt8? {
    guard port_read8(port + 5) & 1 != 0 else { return nil }
    return port_read8(port)
  }
}
