// What a program finds in its address space and in its registers when it starts, and the layout of records that the kernel
// writes into user memory.
//
// Address space (4-level paging; one slot is 512 GiB):
//   slots 0 … 250   the program's own, laid out as its loader likes (user.ld links at 4 MiB)
//   slot 251        services in kernel space, a window each; at its top what slot 253 is to programs
//   slot 252        address tokens (Tokens.swift)
//   slot 253        shared by all: the kernel-info pages at its top, read-only
//   slots 254, 255  kernel
//
// Start of a program other than init: its parent creates the process, maps segments and stack, grants handles, and creates
// the first thread with `threadCreate`; argument 0 (RDI) is by convention the address of a start block, whose layout the
// runtime defines. RSP must be a multiple of 16 at the entry point.
//
// Start of init, which the kernel maps itself: RDI = 0, RSI = 0, RSP = `AddressSpace.initStackTop` − 0 with
// `AddressSpace.initStackSize` bytes below; segments as its ELF says: in place from the boot archive, so the file contents of
// every segment must be page-aligned in the file, and a writable segment's must fill whole pages. Handles:
// `InitialHandle`. Everything else is in `KernelInfo`.

/// Fixed places in every address space.
public enum AddressSpace {
  /// First address of a program's own slots that may be mapped: the first page stays empty.
  public static let userStart: UInt64 = 0x1000
  /// End of a program's own slots.
  public static let userEnd: UInt64 = 251 << 39
  /// Bytes of a page.
  public static let pageSize: UInt64 = 4096
  /// The kernel-info page, `KernelInfo`.
  public static let kernelInfo: UInt64 = 0x7eff_ffff_e000
  /// The executable page with the system-call entry: programs `call` this address.
  public static let systemCallEntry: UInt64 = 0x7eff_ffff_f000
  /// The kvmclock page of processor 0 (`pvclock_vcpu_time_info`), if `KernelInfo.flags` says so.
  public static let clockPage: UInt64 = 0x7eff_ffff_d000
  /// The same three pages for services in kernel space: `systemCallEntry` is there the gate to the kernel.
  public static let serviceEntry: UInt64 = 0x7dff_ffff_f000
  public static let serviceInfo: UInt64 = 0x7dff_ffff_e000
  /// The windows of services in kernel space: the first address, the size of each, and how many there are.
  public static let serviceStart: UInt64 = 251 << 39
  public static let serviceWindow: UInt64 = 1 << 33
  public static let serviceWindows: UInt64 = 62
  /// End of the stack that the kernel gives init.
  public static let initStackTop: UInt64 = 0x7000_0000
  /// Its size.
  public static let initStackSize: UInt64 = 64 * 1024
}

/// Handles that init starts with.
public enum InitialHandle {
  /// Its own process, all rights.
  public static let process: UInt64 = 1
  /// Its first thread.
  public static let thread: UInt64 = 2
  /// The root authority: physical memory, interrupt lines, system control.
  public static let root: UInt64 = 3
  /// The boot archive, a memory object with read and execute (programs are mapped from it), starting page-aligned.
  public static let archive: UInt64 = 4
  /// The device tree; 0 bytes of it are there if `KernelInfo.deviceTreeSize` is 0, and then the handle is not in use.
  public static let deviceTree: UInt64 = 5
}

/// The read-only page at `AddressSpace.kernelInfo`: 64-bit little-endian words in this order. Read a word by its offset:
/// `KernelInfo.tscFrequency` is the byte offset of that word.
public enum KernelInfo {
  /// The word `KernelInfo.magicValue`.
  public static let magic: UInt64 = 0x00
  /// `KernelInfo.currentVersion`.
  public static let version: UInt64 = 0x08
  /// 1: `int $4`; 2: SYSCALL.
  public static let entryKind: UInt64 = 0x10
  /// Bits: 0 = the clock page is valid (KVM); 1 = the timer is in TSC-deadline mode; 2 = started under Castor.
  public static let flags: UInt64 = 0x18
  /// Hz; 0 until calibrated.
  public static let tscFrequency: UInt64 = 0x20
  /// Time since boot in ns = ((TSC − tscBase) · tscMultiplier) >> 32, with a 128-bit product; 0 until calibrated.
  public static let tscMultiplier: UInt64 = 0x28
  /// TSC at the kernel's first instructions.
  public static let tscBase: UInt64 = 0x30
  /// Nanoseconds of UTC since 1970 at `tscBase`, 0 if unknown.
  public static let wallClockBase: UInt64 = 0x38
  /// Processors that run.
  public static let processorCount: UInt64 = 0x40
  /// Ring-0 instructions (QEMU -icount) or TSC ticks from the kernel's entry to init's first instruction.
  public static let bootTicks: UInt64 = 0x48
  /// Guest-physical address of `hvm_start_info`.
  public static let startInfo: UInt64 = 0x50
  /// Guest-physical address and length in bytes of the boot archive.
  public static let archiveAddress: UInt64 = 0x58
  public static let archiveSize: UInt64 = 0x60
  /// Guest-physical address and length in bytes of the device tree; 0 if there is none.
  public static let deviceTreeAddress: UInt64 = 0x68
  public static let deviceTreeSize: UInt64 = 0x70
  /// Guest-physical address of the command line (zero-terminated); 0 if there is none.
  public static let commandLine: UInt64 = 0x78

  public static let magicValue: UInt64 = 0x3130_5855_4c4c_4f50  // "POLLUX01"
  public static let currentVersion: UInt64 = 1
  public static let flagClockPage: UInt64 = 1
  public static let flagDeadlineTimer: UInt64 = 2
  public static let flagCastor: UInt64 = 4
}

/// Record of `processList`: 96 bytes.
public struct ProcessInfo: Sendable, BitwiseCopyable {
  public var identifier: UInt32
  public var parent: UInt32
  /// A `ProcessStatus`.
  public var status: Int64
  /// TSC ticks its threads ran.
  public var processorTime: UInt64
  /// Bytes of memory objects it created that still exist.
  public var memory: UInt64
  public var threads: UInt32
  public var handles: UInt32
  public var pageTables: UInt32
  public var reserved: UInt32
  /// Zero-padded UTF-8, 32 bytes.
  public var name: (UInt64, UInt64, UInt64, UInt64)
  public var reserved2: (UInt64, UInt64)
  public init() {
    identifier = 0
    parent = 0
    status = 0
    processorTime = 0
    memory = 0
    threads = 0
    handles = 0
    pageTables = 0
    reserved = 0
    name = (0, 0, 0, 0)
    reserved2 = (0, 0)
  }
}

/// Record of `threadList`: 48 bytes.
public struct ThreadInfo: Sendable, BitwiseCopyable {
  public var identifier: UInt32
  /// Identifier of the process it belongs to.
  public var process: UInt32
  /// A `ThreadState`.
  public var state: UInt8
  public var priority: UInt8
  /// Processor it runs or last ran on.
  public var processor: UInt8
  public var reserved: UInt8
  /// Identifier of the process it runs in now; another than `process` while it is in a call.
  public var domain: UInt32
  /// TSC ticks it ran.
  public var processorTime: UInt64
  /// Times it was given a processor.
  public var switches: UInt64
  /// Its last saved instruction pointer.
  public var instructionPointer: UInt64
  public var reserved3: UInt64
  public init() {
    identifier = 0
    process = 0
    state = 0
    priority = 0
    processor = 0
    reserved = 0
    domain = 0
    processorTime = 0
    switches = 0
    instructionPointer = 0
    reserved3 = 0
  }
}

/// What a thread is doing.
public enum ThreadState: UInt8, Sendable {
  case ready = 0
  case running = 1
  /// Waits for a notification or a deadline.
  case waiting = 2
  case sleeping = 3
  /// Waits for a receiver of its call.
  case calling = 4
  /// Waits for the reply.
  case awaitingReply = 5
  /// Waits for a message.
  case receiving = 6
  case ended = 7
  /// Waits for a stack of the service it calls.
  case awaitingStack = 8
  /// Kept ready to go on in a server when a call's deadline passes.
  case spare = 9
}
