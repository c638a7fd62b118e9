// How the application processors are brought in: INIT and start-up interrupts to all (Intel SDM vol. 3, 9.4), a copy of the
// real-mode trampoline below 1 MiB, and the big kernel lock from then on.
import CArch
import KernelCore
import PolluxABI

enum Processors {
  /// Starts all others. They come in when the caller has left the kernel; `processorCount` tells. Returns what runs already.
  static func start(wanted: UInt64) -> Int {
    guard load8(address_of_smp_active()) == 0, wanted != 1 else { return kernel.pointee.processorCount }
    // This processor holds the lock from now on; the way out of the kernel releases it.
    store32(address_of_kernel_lock(), 1)
    store8(address_of_smp_active(), 1)
    copy_bytes(
      DirectMemory.address(UInt64(TRAMPOLINE)), address_of_trampoline_start(),
      address_of_trampoline_end() - address_of_trampoline_start())
    LocalController.broadcastInit()
    wait(microseconds: 200)
    LocalController.broadcastStart(page: UInt8(TRAMPOLINE >> 12))
    return kernel.pointee.processorCount
  }

  private static func wait(microseconds: UInt64) {
    let frequency = KernelInfoPage.get(KernelInfo.tscFrequency)
    let ticks = max(frequency, 1_000_000) / 1_000_000 * microseconds
    let start = time_stamp()
    while time_stamp() &- start < ticks { spin_pause() }
  }
}

/// The first Swift code of an application processor; it holds the big kernel lock.
@c(kernel_start_processor)
public func kernelStartProcessor(_ index: UInt64, _ block: UInt64) -> UInt64 {
  Processor.loadTaskState(Int(index))
  let processor = Processor.start(Int(index))
  // Count only processors without gaps, in the order of their blocks.
  while kernel.pointee.processorCount < Processor.limit,
    Processor.at(kernel.pointee.processorCount).pointee.online
  {
    kernel.pointee.processorCount += 1
  }
  KernelInfoPage.set(KernelInfo.processorCount, UInt64(kernel.pointee.processorCount))
  if kernel.pointee.clock.slice != 0 { kernel.pointee.clock.startTimer() }
  return processor.leave()
}
