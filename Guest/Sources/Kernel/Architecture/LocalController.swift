// The processor's own interrupt controller (Intel SDM vol. 3, chapter 11), in xAPIC mode: end of interrupt, interrupts between
// processors, and the timer.
import CArch

enum LocalController {
  private static let base = DirectMemory.base + 0xfee0_0000
  private static func read(_ register: UInt64) -> UInt32 { load32(base + register) }
  @inline(__always) private static func write(_ register: UInt64, _ value: UInt32) { store32(base + register, value) }

  /// Enables this processor's controller, with the timer running freely from its maximum without interrupting, so that it can be
  /// compared with the time-stamp counter later.
  static func enable() {
    write(0x0f0, 0x100 | UInt32(Vector.spurious))
    write(0x350, 0x10000)  // LINT0: no legacy interrupts
    write(0x3e0, 0xb)  // divide by 1
    write(0x320, 0x10000 | UInt32(Vector.timer))
    write(0x380, 0xffff_ffff)
  }

  static var identifier: UInt32 { read(0x020) >> 24 }
  @inline(__always) static func endOfInterrupt() { write(0x0b0, 0) }
  /// Ticks since `enable`; the timer counts down at 1 GHz under KVM and QEMU.
  static var elapsed: UInt32 { 0xffff_ffff - read(0x390) }

  static func startOneShot() { write(0x320, UInt32(Vector.timer)) }
  static func setOneShot(_ count: UInt32) { write(0x380, count) }
  /// Switches the timer to TSC-deadline mode; the deadline is then MSR 0x6e0.
  static func startDeadline() {
    write(0x380, 0)
    write(0x320, 0x40000 | UInt32(Vector.timer))
  }
  static func setDeadline(_ deadline: UInt64) { msr_write(0x6e0, deadline) }

  static func send(_ vector: UInt8, to identifier: UInt32) {
    write(0x310, identifier << 24)
    write(0x300, 0x4000 | UInt32(vector))
  }
  /// INIT, or start-up at page `page`, to all other processors.
  static func broadcastInit() { write(0x300, 0xc4500) }
  static func broadcastStart(page: UInt8) { write(0x300, 0xc4600 | UInt32(page)) }
}

/// Which vector means what.
enum Vector {
  static let timer: UInt8 = 0xf0
  static let reschedule: UInt8 = 0xf1
  static let flush: UInt8 = 0xf2
  static let spurious: UInt8 = 0xff
  /// Given to interrupt objects.
  static let devices: ClosedRange<Int> = 0x30...0xef
}
