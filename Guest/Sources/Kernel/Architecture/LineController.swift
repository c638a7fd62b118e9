// The interrupt lines' controller (82093AA I/O APIC datasheet): 24 pins, each with a redirection entry.
import CArch

enum LineController {
  private static let base = DirectMemory.base + 0xfec0_0000
  static let pins: UInt64 = 24

  private static func write(_ register: UInt32, _ value: UInt32) {
    store32(base, register)
    store32(base + 0x10, value)
  }

  private static func low(vector: UInt8, level: Bool, activeLow: Bool, masked: Bool) -> UInt32 {
    UInt32(vector) | (activeLow ? 0x2000 : 0) | (level ? 0x8000 : 0) | (masked ? 0x10000 : 0)
  }

  static func route(pin: UInt8, vector: UInt8, level: Bool, activeLow: Bool, to identifier: UInt32) {
    write(0x11 + 2 * UInt32(pin), identifier << 24)
    write(0x10 + 2 * UInt32(pin), low(vector: vector, level: level, activeLow: activeLow, masked: false))
  }

  static func setMask(pin: UInt8, vector: UInt8, level: Bool, activeLow: Bool, masked: Bool) {
    write(0x10 + 2 * UInt32(pin), low(vector: vector, level: level, activeLow: activeLow, masked: masked))
  }
}
