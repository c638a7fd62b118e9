// What time it is: the time-stamp counter, its frequency from kvmclock (Linux Documentation/virt/kvm/x86/msr.rst) or measured
// against the local timer, and the next timer interrupt.
import CArch
import KernelCore
import PolluxABI

struct Clock {
  /// Local-timer ticks per 2³² TSC ticks; 0 until calibrated, or in deadline mode.
  var oneShotScale: UInt64
  /// Ticks of a time slice; 0 until calibrated: no preemption yet.
  var slice: UInt64
  var usesDeadline: Bool
  /// TSC when the boot processor's local timer was started.
  var localStart: UInt64

  static let localFrequency: UInt64 = 1_000_000_000
  static let sliceNanoseconds: UInt64 = 5_000_000

  /// Finds the frequency and starts this processor's timer. Takes up to a millisecond where it has to measure.
  mutating func calibrate(known: UInt64) -> UInt64 {
    var frequency = known
    if kvmSignature() {
      let page = address_of_clock_page()
      msr_write(0x4b56_4d01, DirectMemory.physical(image: page) | 1)
      // pvclock_vcpu_time_info: version 0, TSC 8, system time 16, multiplier 24, shift 28.
      let multiplier = UInt64(load32(page + 24))
      let shift = Int8(bitPattern: load8(page + 28))
      if multiplier != 0 {
        KernelInfoPage.set(KernelInfo.flags, KernelInfoPage.get(KernelInfo.flags) | KernelInfo.flagClockPage)
        store64(
          address_of_shared_pt() + 509 * 8,
          DirectMemory.physical(image: page) | PageEntry.present | PageEntry.user | PageEntry.accessedDirty
            | PageEntry.noExecute)
        store64(
          address_of_service_pt() + 509 * 8,
          DirectMemory.physical(image: page) | PageEntry.present | PageEntry.accessedDirty | PageEntry.noExecute)
        // ns = (ticks << shift) · multiplier >> 32, so the frequency is 10⁹ · 2³² / multiplier >> shift.
        if frequency == 0 {
          let unshifted = divide_scaled(Clock.localFrequency, multiplier)
          frequency = shift >= 0 ? unshifted >> UInt64(shift) : unshifted << UInt64(-shift)
        }
      }
    }
    if frequency == 0 {
      while LocalController.elapsed < 1_000_000 { spin_pause() }
      let local = UInt64(LocalController.elapsed)
      let ticks = time_stamp() &- localStart
      // The local timer counted `local` ns while the TSC counted `ticks`.
      frequency = multiply_high(divide_scaled(ticks, local), Clock.localFrequency << 32)
    }
    slice = multiply_high(frequency << 24, ((Clock.sliceNanoseconds << 32) / 1_000_000_000) << 8)
    usesDeadline = cpu_identify(1, 0).ecx & 1 << 24 != 0
    oneShotScale = usesDeadline ? 0 : divide_scaled(Clock.localFrequency, frequency)
    if usesDeadline {
      KernelInfoPage.set(KernelInfo.flags, KernelInfoPage.get(KernelInfo.flags) | KernelInfo.flagDeadlineTimer)
    }
    startTimer()
    return frequency
  }

  /// Puts this processor's timer in the mode that `calibrate` chose.
  func startTimer() {
    if usesDeadline { LocalController.startDeadline() } else { LocalController.startOneShot() }
  }

  /// Asks for a timer interrupt at a TSC value on this processor.
  func arm(_ deadline: UInt64, now: UInt64) {
    // 0 would disarm it.
    if usesDeadline { return LocalController.setDeadline(max(deadline, 1)) }
    let ticks = deadline > now ? deadline - now : 0
    let count = ticks >= 1 << 40 ? 0x7fff_ffff : min(multiply_high(ticks << 24, oneShotScale << 8), 0x7fff_ffff)
    LocalController.setOneShot(UInt32(truncatingIfNeeded: max(count, 1)))
  }

  private func kvmSignature() -> Bool {
    let leaf = cpu_identify(0x4000_0000, 0)
    guard leaf.ebx == 0x4b4d_564b, leaf.ecx == 0x564b_4d56, leaf.edx == 0x4d else { return false }
    return cpu_identify(0x4000_0001, 0).eax & 1 << 3 != 0
  }
}

/// The kernel's side of the kernel-info page.
enum KernelInfoPage {
  static func set(_ offset: UInt64, _ value: UInt64) { store64(address_of_info_page() + offset, value) }
  static func get(_ offset: UInt64) -> UInt64 { load64(address_of_info_page() + offset) }
}
