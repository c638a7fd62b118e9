// What belongs to one processor: its block, found from the running thread, holds its run queue, its timers, and its task state;
// its stacks lie behind it.
import CArch
import KernelCore

/// The start of a CPU block; zero memory is its initial value. The first six words are known to entry.S.
struct Processor {
  /// The user's stack pointer for a moment in the SYSCALL entry.
  var scratch: UInt64
  /// The thread that runs in ring 3 or whose system call is being served; nil while idle.
  var current: Reference<Thread>?
  /// Not 0: another processor waits until this one has loaded its page table again, and so forgotten translations.
  var flush: UInt64
  /// The page-table root in CR3.
  var loadedPageTable: UInt64
  /// Address of its task state, and the end of its interrupt stack in the entry area (domain.S).
  var taskState: UInt64
  var domainStack: UInt64

  var index: UInt32
  /// Identifier of the local interrupt controller.
  var identifier: UInt32
  var needsSchedule: Bool
  /// The armed timer may be later than what is needed.
  var timerStale: Bool
  /// Runs threads.
  var online: Bool
  /// The thread whose floating-point state is in the registers and nowhere else.
  var floatOwner: Reference<Thread>?
  var loadedThreadPointer: UInt64
  var armedDeadline: UInt64
  /// When the current thread's slice ends.
  var sliceEnd: UInt64
  /// When the current thread, or idling, began.
  var lastSwitch: UInt64
  var idleTime: UInt64
  var contextSwitches: UInt64
  var runQueue: RunQueue<ReadyLinks>
  var timers: TimerQueue<TimerLinks>

  static let limit = 8
  static func at(_ index: Int) -> Reference<Processor> {
    Reference(trusted: address_of_cpu_blocks() + UInt64(index) * UInt64(CPU_SIZE))
  }

  /// Gives the processor that runs this code its task state (Intel SDM vol. 3, 8.7), without which it can take no fault: interrupt
  /// stacks 1 (NMI), 2 (double fault) and 3 (machine check), and 4 for the rest, all but the last in the block.
  static func loadTaskState(_ index: Int) {
    let processor = at(index)
    let base = processor.address
    let task = address_of_task_states() + UInt64(index) * UInt64(TASK_SIZE)
    processor.pointee.taskState = task
    processor.pointee.domainStack = address_of_domain_stacks() + UInt64(index + 1) * 4096
    store64(task + 36, base + 0x1800)
    store64(task + 44, base + 0x3000)
    store64(task + 52, base + UInt64(CPU_PANIC_STACK))
    processor.setKernelStack(base + 0x2000)
    store32(task + 100, 104 << 16)
    let descriptor = address_of_kernel_gdt() + UInt64(TSS_SELECTOR) + UInt64(index) * 16
    let middle = (task & 0xff_ffff) << 16 | (task >> 24 & 0xff) << 56
    store64(descriptor, middle | 103 | 0x89 << 40)
    store64(descriptor + 8, task >> 32)
    task_register_load(UInt16(TSS_SELECTOR) + UInt16(index) * 16)
  }

  /// Prepares the processor that runs this code, which has its task state: SYSCALL, protection features, local controller.
  static func start(_ index: Int) -> Reference<Processor> {
    let processor = at(index)
    let base = processor.address
    processor.pointee.index = UInt32(index)
    processor.pointee.armedDeadline = .max
    processor.pointee.loadedPageTable = DirectMemory.physical(image: address_of_kernel_pml4())
    processor.pointee.lastSwitch = time_stamp()

    msr_write(0xc000_0081, UInt64(KERNEL_SS) << 48 | UInt64(KERNEL_CS) << 32)  // STAR
    msr_write(0xc000_0082, address_of_system_call_entry())  // LSTAR
    msr_write(0xc000_0084, 0x47700)  // SFMASK: AC NT IOPL DF IF TF
    msr_write(0xc000_0102, base)  // KERNEL_GS_BASE

    // SMEP, SMAP and UMIP where the processor has them (SDM vol. 2, CPUID leaf 7).
    let features = cpu_identify(7, 0)
    var control = control4_get()
    if features.ebx & 1 << 7 != 0 { control |= 1 << 20 }
    if features.ebx & 1 << 20 != 0 { control |= 1 << 21 }
    if features.ecx & 1 << 2 != 0 { control |= 1 << 11 }
    // No global pages: domains with page tables of their own must not see the kernel's through the TLB.
    control &= ~(1 << 7)
    control4_set(control)
    Walls.start(on: index)

    LocalController.enable()
    processor.pointee.identifier = LocalController.identifier
    processor.pointee.online = true
    return processor
  }
}

extension Reference<Processor> {
  /// Where the next interrupt saves registers.
  @inline(__always) func setKernelStack(_ end: UInt64) { store64(pointee.taskState + UInt64(TASK_STACK), end) }
  /// While no thread runs.
  func setIdleStack() { setKernelStack(address + 0x2000) }
}
