// How the machine ends: Castor's power-control port, or what QEMU offers (docs/platform.md, "Ports").
import CArch
import KernelCore

enum PowerControl {
  static func powerOff() -> Never { exit(0, castorValue: 0) }

  static func reboot() -> Never {
    if kernel.pointee.underCastor { port_write32(0x600, 1) }
    port_write8(0x64, 0xfe)
    stop()
  }

  /// Ends the virtual machine with an exit code. QEMU's isa-debug-exit turns a value v into 2·v + 1.
  static func exit(_ code: UInt8) -> Never { exit(code, castorValue: 0x100 + UInt32(code)) }

  /// Reads and clears what the power button asks for.
  static func takeButton() -> UInt8 {
    guard kernel.pointee.underCastor else { return 0 }
    let requests = port_read8(0x60c)
    if requests != 0 { port_write8(0x60c, requests) }
    return requests
  }

  private static func exit(_ code: UInt8, castorValue: UInt32) -> Never {
    if kernel.pointee.underCastor {
      port_write32(0x600, castorValue)
    } else {
      port_write32(0xf4, UInt32(code))
    }
    stop()
  }

  static func stop() -> Never {
    while true { halt_once() }
  }
}
