// The few registers of the device that the container looks at itself (virtio 1.2 §4.2.2); all others are the driver's.

import Pollux

struct VirtioRegisters {
  private let registers: DeviceRegisters
  private static let interruptStatus: UInt64 = 0x060
  private static let interruptAcknowledge: UInt64 = 0x064
  private static let status: UInt64 = 0x070
  /// Bits of the device status, §2.1.
  private static let needsResetBit: UInt32 = 64

  /// Registers that stay mapped at `base`.
  init(unsafeBase base: UnsafeMutableRawPointer) {
    registers = DeviceRegisters(unsafeBase: UInt64(UInt(bitPattern: base)))
  }

  /// DEVICE_NEEDS_RESET.
  var needsReset: Bool { registers.load(Self.status) & Self.needsResetBit != 0 }

  /// Takes the interrupt's reasons, acknowledged.
  func acknowledge() -> UInt32 {
    let reasons = registers.load(Self.interruptStatus)
    if reasons != 0 { registers.store(reasons, at: Self.interruptAcknowledge) }
    return reasons
  }
}
