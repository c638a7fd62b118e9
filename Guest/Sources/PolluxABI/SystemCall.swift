// Which system calls the Pollux kernel has, and how registers carry them.
//
// Convention, for both entries (`int $4` and SYSCALL; `KernelInfo.entryAddress` holds whichever works here, and programs
// simply call it):
//
//   in   RAX  number            RDI RSI RDX R10 R8 R9  arguments
//   out  RAX  result: zero or positive, or a negative `SystemError`
//        RBX RBP RSP R12 R13 R14 R15 are kept, except by the message calls below, which say what they return.
//        RCX RDX RSI RDI R8 R9 R10 R11 and the flags are unspecified unless a call names them as results.
//        Floating-point and vector state is kept.
//
// Message calls (`call`, `replyReceive`, `reply`) carry eight words in registers, both ways:
//
//   word 0…7 = RSI RDX R10 R8 R9 R12 R13 R14
//   R15      = a handle to pass along, `rights << 32 | handle` in the sender's table, or 0 for none; the receiver finds
//              the handle of its own table there (its low 32 bits), or 0.
//
// Addresses are guest-virtual and points in time are values of the time-stamp counter, unless a comment says otherwise.
// `forever` is the deadline that never comes.

/// What whoever got a fault answers.
public enum FaultDecision: UInt64, Sendable {
  /// The instruction can be tried again.
  case tryAgain = 0
  /// The thread goes on at word 1, with its other registers as they were.
  case goOnElsewhere = 2
}

/// Numbers of the system calls. Arguments are listed in register order; `process` = 0 means the caller's own.
public enum SystemCall: UInt64, Sendable {
  /// `()` → 0. Does nothing: the cost of entering and leaving the kernel.
  case null = 0

  // MARK: Messages

  /// `(endpoint, words…)` → 0. Waits for a receiver, hands it the words, waits for the reply, whose words it returns.
  /// `peerClosed` if nobody can receive any more, or the receiver ended before it replied.
  case call = 1
  /// `(endpoint | token << 32, words…)` → badge. Replies to the caller that `token` names (0: to nobody), then waits for
  /// the next message. Returns RAX = badge of the sender's handle, RDI = `endpoint | token << 32` of the new caller, so
  /// that a server loop leaves RDI alone, and the words. If the endpoint is bound to a notification and that was
  /// signalled: RAX = `SystemCall.notificationBadge`, RDI = endpoint, word 0 = the bits, which are thereby taken.
  /// A token that no longer names a waiting caller (it was killed) is ignored.
  case replyReceive = 2
  /// `(token << 32, words…)` → 0. Replies without receiving. `notFound` if no caller waits under this token. A server may
  /// keep several tokens and answer in any order.
  case reply = 3

  // MARK: Notifications: sets of 63 bits

  /// `(notification, bits)` → 0. Adds the bits and wakes one waiter, which takes them all.
  case notificationSignal = 4
  /// `(notification, deadline)` → bits, never 0; takes them. `timedOut` at the deadline.
  case notificationWait = 5
  /// `(notification)` → bits, 0 if none; takes them.
  case notificationPoll = 6
  /// `(interrupt)` → 0. The driver has served the interrupt: a level-triggered line is unmasked again. Not needed for
  /// edges and messages.
  case interruptAcknowledge = 7

  // MARK: Threads

  /// `()` → 0. Lets others of the same priority run.
  case threadYield = 8
  /// `(deadline)` → 0. Sleeps until the time-stamp counter reaches it.
  case threadSleep = 9
  /// `(process, entry, stack pointer, argument 0, argument 1, priority)` → thread handle. It runs at once; argument 0
  /// arrives in RDI, argument 1 in RSI; all other registers are 0, MXCSR and x87 as after FNINIT. Priority 0…31, greater
  /// is more urgent. The priority may not exceed the creator's limit (its own priority at most).
  case threadCreate = 10
  /// `()`. Ends the calling thread; the process ends with its last thread, with code 0.
  case threadExit = 11
  /// `(thread, priority)` → 0. `thread` = 0: the caller.
  case threadSetPriority = 12
  /// `(value)` → 0. Sets FS base of the calling thread.
  case threadSetPointer = 13

  // MARK: Processes

  /// `(name, length)` → process handle. An empty address space without threads. At most 31 bytes of name are kept.
  case processCreate = 16
  /// `(code)`. Ends the calling process.
  case processExit = 17
  /// `(process, code)` → 0. Ends it. Needs the right `manage`.
  case processKill = 18
  /// `(process, notification, bits)` → 0. Signals the bits when the process ends, at once if it has.
  case processWatch = 19
  /// `(process)` → a `ProcessStatus` value: running, or how it ended.
  case processStatus = 20
  /// `(buffer, capacity, first)` → count. Fills `ProcessInfo` records, in order of identifier, from identifier `first`.
  case processList = 21
  /// `(buffer, capacity, first)` → count. Fills `ThreadInfo` records, in order of identifier, from identifier `first`.
  case threadList = 22

  // MARK: Memory

  /// `(size, flags)` → memory handle. Physically contiguous, zero, a multiple of 4 KiB (rounded up); from 2 MiB on aligned
  /// to 2 MiB. Flags: `MemoryFlags`.
  case memoryCreate = 24
  /// `(root, physical address, size, flags)` → memory handle on a device range or a boot module. Needs the root handle.
  case memoryCreatePhysical = 25
  /// `(process, memory, address, offset, size, protection)` → address. All page-aligned; pages that are mapped already
  /// give `exists` and nothing is mapped. Protection: `Protection`.
  case memoryMap = 26
  /// `(process, address, size)` → 0. Pages that are not mapped are skipped.
  case memoryUnmap = 27
  /// `(process, address, size, protection)` → 0. May add only what the mapping's handle allowed.
  case memoryProtect = 28
  /// `(memory)` → size in bytes.
  case memorySize = 29
  /// `(memory)` → guest-physical address of its first byte, for DMA. Needs the right `physical`.
  case memoryPhysicalAddress = 30
  /// `(memory, offset, size)` → memory handle on a part of it, in whole pages, with the same rights. The whole stays as long as the
  /// part.
  case memorySlice = 31

  // MARK: Handles

  /// `(handle)` → 0.
  case handleClose = 32
  /// `(handle, rights, badge)` → handle in the caller's table on the same object, with the rights both have. A badge other
  /// than 0 replaces the badge of an unbadged endpoint handle. Needs the right `grant`.
  case handleDuplicate = 33
  /// `(process, handle, rights, badge)` → number of the new handle in the other process's table. Needs `manage` on the
  /// process and `grant` on the handle.
  case handleGrant = 34
  /// `(handle)` → kind of the object, an `ObjectKind`, in the low 8 bits; rights from bit 8.
  case handleKind = 35

  // MARK: Endpoints, notifications, interrupts

  /// `()` → endpoint handle.
  case endpointCreate = 40
  /// `(endpoint, notification)` → 0. From now on `replyReceive` on the endpoint takes this notification's bits too, until nobody can receive
  /// there any more. Each can be bound to one other; the same pair again changes nothing.
  case endpointBind = 41
  /// `()` → notification handle.
  case notificationCreate = 42
  /// `(root, IOAPIC pin, flags, notification, bits)` → interrupt handle. Flags: `InterruptFlags`. Each interrupt signals the
  /// bits.
  case interruptCreateLine = 43
  /// `(message table memory, entry, notification, bits)` → interrupt handle. The kernel chooses the vector and programs
  /// and enables the entry (docs/platform.md, message table). The memory object must have been made with the flag
  /// `messageTable`, and the handle needs `write`. Closing the last handle disables the entry.
  case interruptCreateMessage = 44
  /// `(interrupt, 0 or 1)` → 0. Masks (1) or unmasks the line or message.
  case interruptMask = 45

  // MARK: Console, log, system

  /// `(address, length)` → count of bytes taken, maybe 0 while the serial port is full: then sleep a little and go on. At
  /// most 256 bytes are taken a call.
  case consoleWrite = 48
  /// `(address, capacity)` → count of bytes received, 0 if none wait. To wait, create an interrupt on pin 4.
  case consoleRead = 49
  /// `(address, length)` → count of bytes taken (at most 256), appended to the kernel log, not to the console.
  case logWrite = 50
  /// `(position, address, capacity)` → count. Reads the log from a position counted since boot; a position that has been
  /// overwritten reads from the oldest byte still there; `SystemQuery.logStart` and `.logEnd` tell the bounds.
  case logRead = 51
  /// `(root, operation, value)` → 0. A `SystemControl`.
  case systemControl = 52
  /// `(query)` → value. A `SystemQuery`.
  case systemQuery = 53

  // MARK: Isolation classes (HongMeng §4.2)

  /// `(root, name, name length, mechanism)` → process. A domain in kernel space, as `processCreate` makes a process in user space. An
  /// `IsolationMechanism`; `.best` is the one of class IC1 that works here. `unsupported` if that mechanism does not, or the other one is in use,
  /// `tableFull` if all windows or keys are taken. Until its first thread is created, memory can be mapped executable into it.
  case domainCreate = 70
  /// `(process, address)` → 0. Adds to the domain's control-flow entry table: threads and calls enter it at these addresses
  /// only. `denied` once it has a thread.
  case domainEntry = 71
  /// `(process, query)` → value. A `DomainQuery`.
  case domainQuery = 72

  // MARK: Address tokens (Tokens.swift)

  /// `(kind, object)` → token with all rights that the `TokenKind` has. `object`: for `threadParameters` a thread handle and for
  /// `processAccount` a process handle, both with `manage` (0: the caller's own); else 0. `exists` if the thread or process has
  /// such a page already: ask its creator for a token.
  case tokenCreate = 80
  /// `(process, token, rights)` → the new token's address in `process`. Needs `manage` on the process and `grant` on the token;
  /// `denied` if the token lacks one of `rights`, which contain `read`.
  case tokenGrant = 81
  /// `(token, process, other)` → 0. Takes the token `other` of `process` and all that were derived from it, which must be derived
  /// from `token` (or be the caller's own); `other` = 0: all that were derived from `token`. When it returns, no processor can
  /// use them any more. Any handle of the process will do.
  case tokenRevoke = 82
  /// `(token, process, other, rights)` → 0. As `tokenRevoke`, but leaves `rights`; `other` = 0: the caller's own token too.
  case tokenNarrow = 83
  /// `(vector, count)` → 0. Writes words of objects that the caller holds with the right `update`: `count` elements
  /// (`TokenUpdate`, at most `TokenUpdate.limit`, no word twice). All are checked before any takes effect.
  case tokenWrite = 84
  /// `(token, process, other)` → a `TokenInfo` of the token that `tokenRevoke` would take; `other` = 0: of the caller's own.
  case tokenQuery = 85
  /// `(token, deadline)` → bits, never 0; takes them. Kind `notification`, right `write`. `timedOut` at the deadline, `notFound`
  /// when the token is revoked or loses `write` meanwhile.
  case tokenWait = 86
  /// `(token, bits)` → 0. Adds the bits, maybe none, and wakes a waiter if there are any.
  case tokenSignal = 87
  /// `(token)` → handle: for a notification one with the right `signal`, so that interrupts and watches set bits on the page; for
  /// other kinds one for `tokenAccess`. Only the creator gets one, because handles are not revoked with tokens.
  case tokenHandle = 88
  /// `(handle, offset, 0 or 1, value)` → word. Reads or writes a word of the object by handle: the capability table that tokens are
  /// measured against (Fig. 6). The same fields may be written as by a token.
  case tokenAccess = 89

  // MARK: Synchronous RPC by thread migration (HongMeng §4.1)

  /// `(process, entry, context)` → service handle. Calls of the service go on in that process at `entry`, with RAX = context,
  /// RDI = the connection's badge, and RSP = the end of one of its stacks. Needs the right `manage` on the process, which may have
  /// no threads of its own.
  case serviceCreate = 54
  /// `(service, stack end, window)` → 0. Adds a stack to the service's pool: as many calls can be in the service at once as it has
  /// stacks. Window: where granted pages appear while this stack is used, 1 MiB that nothing is mapped in, or 0. Needs `manage`.
  case serviceAddStack = 55
  /// `(service, badge, flags)` → connection handle. Binds a stack if one is free. Flags: `ConnectionFlags`. Needs `connect`.
  case connectionCreate = 56
  /// As `rpcCall`, with a deadline in RBX at which the call ends with `timedOut`; the server finishes without the caller.
  case rpcCallTimed = 57
  /// `(thread)` → 0. Ends the outermost call that the thread is in with `cancelled`. `notFound` if it is in none. Needs `manage`.
  case rpcCancel = 58
  /// `(service, ServiceQuery)` → value.
  case serviceQuery = 59

  /// `(connection, words…)` → 0. The calling thread goes on in the server, with its own priority and for its own account, until the
  /// server returns. R15: 0, or a handle to pass along, or `1 << 63 | address | write << 11 | pages − 1` to grant the server up to 256
  /// pages of one of the caller's mappings until it returns. On return R15 = 0 or a handle. All registers but RSP are lost or carry the
  /// message, vector registers too. Errors: `peerClosed` (the server ended), `exhausted`, `deadlock`, `cancelled`, `aborted`.
  case rpcCall = 128
  /// `(words…)`: ends the call that the thread is in; does not return to the server. R15 = 0 or a handle to pass. `notFound` if it is in
  /// no call.
  case rpcReturn = 129

  // MARK: Paging, for a memory manager (HongMeng §4.5); `process` needs the right `manage`

  /// `(memory of one page, memory)` → pager handle. The page holds the pool and the OPLog (`PagerPage`), the other object the
  /// pages that they name.
  case pagerCreate = 90
  /// `(pager)` → how many pages were left in the pool: the last entries before its tail. They are the manager's again.
  case pagerTakeBack = 91
  /// `(process, pager, address, size, mode)` → 0. Mode: `Protection`, also none, and `RegionMode`. `exists` where something is.
  case regionCreate = 92
  /// `(process, address, size, keep)` → 0. Takes the pages of a range out of its address space, and with `keep` = 0 the
  /// regions.
  case regionRemove = 93
  /// `(process, address, size, mode)` → 0. `notFound` if regions do not cover the range.
  case regionProtect = 94
  /// `(process, other process, address, size)` → address it came to: do it again from there. The pages of the range are
  /// mapped at the same addresses of the other process and are shared from now on: a write gets a copy. Appends a record
  /// to the log of the region, in which the range must lie; `tableFull` if that is full.
  case regionShare = 95
  /// `(process, address, page, mode, expected)` → 0. Maps a page of the region's pager's memory, or `PageMode.zeroPage` or
  /// `.nothing`, if at the address is what is expected; else `exists`. Mode: `PageMode`.
  case pageMap = 96
  /// `(process, address, size)` → 0. Makes page tables for the range (at most 128 MiB), so that faults there need none.
  case tablesPrepare = 97
  /// `(process, connection, exceptions)` → 0. Page faults of the process that the kernel does not serve call the connection from now on,
  /// on the faulting thread: words 0…3 are the address, the page fault's error code, the instruction and the exception's number, 14.
  /// With `exceptions` = 1 so do exceptions that instructions cause, with address 0. Word 0 of the reply is a `FaultDecision`; if it is
  /// none, or the call fails, the process ends.
  case pagingAttach = 98
  /// `(status, decision, instruction)`. What follows such a call; not for programs.
  case faultReturn = 99
  /// `(token, offset, value)` → 0: `tokenWrite` of one element, in registers.
  case tokenUpdate = 100

  /// What `replyReceive` returns in RAX when it took notification bits instead of a message.
  public static let notificationBadge: Int64 = 1 << 62
  /// The deadline that never comes.
  public static let forever: UInt64 = .max
  /// Message words a call carries.
  public static let messageWords = 8
}

/// Why a system call failed; RAX holds the raw value.
public enum SystemError: Int64, Error, Sendable {
  /// No system call has this number.
  case badCall = -1
  /// The handle is not in use.
  case badHandle = -2
  /// The handle names an object of another kind.
  case wrongKind = -3
  /// The handle lacks a right that the call needs.
  case denied = -4
  /// A number is out of its range.
  case badArgument = -5
  /// An address is not page-aligned where it must be, not a user address, or not mapped with the access needed.
  case badAddress = -6
  /// No physical memory, or none contiguous.
  case noMemory = -7
  /// A table of fixed size (handles, vectors, processes) is full.
  case tableFull = -8
  /// The other side of the endpoint is gone.
  case peerClosed = -9
  /// The deadline passed.
  case timedOut = -10
  /// What was named does not exist (any more).
  case notFound = -11
  /// Something is there already.
  case exists = -12
  /// This machine cannot do it.
  case unsupported = -13
  /// What the thread waited for was given up: its caller is gone, or somebody cancelled the call.
  case cancelled = -14
  /// All stacks of the service are in use, and the connection does not wait.
  case exhausted = -15
  /// All stacks of the service are held by threads that wait for stacks themselves, in the end for this caller's.
  case deadlock = -16
  /// The server's thread ended in the middle of the call.
  case aborted = -17
}

/// What a handle can name.
public enum ObjectKind: UInt8, Sendable {
  case process = 1
  case thread = 2
  case memory = 3
  case endpoint = 4
  case notification = 5
  case interrupt = 6
  case root = 7
  case service = 8
  case connection = 9
  case token = 10
  case pager = 12
}

/// What a holder of a handle may do with the object. The meaning of the low bits depends on the kind.
public struct Rights: OptionSet, Sendable {
  public let rawValue: UInt32
  public init(rawValue: UInt32) { self.rawValue = rawValue }

  /// Memory: map readable.
  public static let read = Rights(rawValue: 1)
  /// Memory: map writable; a message table: create interrupts.
  public static let write = Rights(rawValue: 2)
  /// Memory: map executable.
  public static let execute = Rights(rawValue: 4)
  /// Memory: learn the guest-physical address.
  public static let physical = Rights(rawValue: 8)
  /// Endpoint: call.
  public static let call = Rights(rawValue: 1)
  /// Endpoint: receive and reply, bind. The endpoint closes with the last handle that has it.
  public static let receive = Rights(rawValue: 2)
  /// Notification: signal; also to be named as the target of an interrupt or a watch.
  public static let signal = Rights(rawValue: 1)
  /// Notification: wait and poll.
  public static let wait = Rights(rawValue: 2)
  /// Interrupt: acknowledge and mask. Process: map, start threads, kill, grant to. Thread: set its priority, cancel its call. Service: add
  /// stacks, query. Root: all.
  public static let manage = Rights(rawValue: 1)
  /// Service: make connections.
  public static let connect = Rights(rawValue: 2)
  /// Process: status and watch.
  public static let observe = Rights(rawValue: 2)
  /// Any kind: duplicate and pass on.
  public static let grant = Rights(rawValue: 0x8000)
  /// Everything.
  public static let all = Rights(rawValue: 0xffff)
}

/// Access of a mapping. Write and execute together are refused.
public struct Protection: OptionSet, Sendable {
  public let rawValue: UInt64
  public init(rawValue: UInt64) { self.rawValue = rawValue }
  public static let read = Protection(rawValue: 1)
  public static let write = Protection(rawValue: 2)
  public static let execute = Protection(rawValue: 4)
}

/// Kinds of memory object.
public struct MemoryFlags: OptionSet, Sendable {
  public let rawValue: UInt64
  public init(rawValue: UInt64) { self.rawValue = rawValue }
  /// A device: uncached. Implied for ranges outside RAM.
  public static let device = MemoryFlags(rawValue: 1)
  /// A message table (docs/platform.md): never mapped, only used by `interruptCreateMessage`.
  public static let messageTable = MemoryFlags(rawValue: 2)
}

/// How a connection behaves.
public struct ConnectionFlags: OptionSet, Sendable {
  public let rawValue: UInt64
  public init(rawValue: UInt64) { self.rawValue = rawValue }
  /// A call fails with `exhausted` when all stacks are in use, instead of waiting for one.
  public static let refuse = ConnectionFlags(rawValue: 1)
}

/// Values `serviceQuery` can tell.
public enum ServiceQuery: UInt64, Sendable {
  /// Stacks in the pool.
  case stacks = 0
  /// Stacks that calls use now.
  case inUse = 1
  /// Threads that wait for a stack.
  case waiting = 2
  /// Connections.
  case connections = 3
}

/// How an IOAPIC pin signals.
public struct InterruptFlags: OptionSet, Sendable {
  public let rawValue: UInt64
  public init(rawValue: UInt64) { self.rawValue = rawValue }
  /// Level-triggered: masked by the kernel at each interrupt until acknowledged. Otherwise edge.
  public static let level = InterruptFlags(rawValue: 1)
  /// Active low. Otherwise active high.
  public static let low = InterruptFlags(rawValue: 2)
}

/// Result of `processStatus`.
public struct ProcessStatus: RawRepresentable, Equatable, Sendable {
  public let rawValue: Int64
  public init(rawValue: Int64) { self.rawValue = rawValue }
  /// It has not ended.
  public static let running = ProcessStatus(rawValue: 0)
  /// It called `processExit`, or was killed by `processKill`, with this code (low 32 bits).
  public static func exited(_ code: UInt32) -> ProcessStatus { ProcessStatus(rawValue: 1 << 32 | Int64(code)) }
  /// A processor exception that it did not survive, by vector (14: page fault).
  public static func faulted(vector: UInt8) -> ProcessStatus { ProcessStatus(rawValue: 2 << 32 | Int64(vector)) }
  public var hasEnded: Bool { rawValue != 0 }
  public var didFault: Bool { rawValue >> 32 == 2 }
  /// The exit code or the vector.
  public var code: UInt32 { UInt32(truncatingIfNeeded: rawValue) }
}

/// Operations of `systemControl`.
public enum SystemControl: UInt64, Sendable {
  /// Power off.
  case powerOff = 0
  /// Reboot.
  case reboot = 1
  /// End the virtual machine with the exit code `value` (0…255).
  case exit = 2
  /// Start the application processors. → count of processors that run. `value`: how many to wait for (0: the device
  /// tree was not read; wait a moment and take those that come).
  case startProcessors = 3
  /// Find the frequency of the time-stamp counter, publish it in `KernelInfo`, start the preemption timer. init calls this
  /// once before it starts threads. `value`: frequency in Hz if known (from the device tree), else 0.
  case calibrate = 4
  /// Take the requests of the power button (docs/platform.md, port 0x60c): → bits, 0 where the machine has none.
  case powerButton = 5
}

/// What keeps a service and the others apart (HongMeng §4.2, Fig. 4).
public enum IsolationMechanism: UInt64, Sendable {
  /// In `domainCreate`: protection keys where they work, else page tables.
  case best = 0
  /// IC2: an address space of its own in user mode.
  case userMode = 1
  /// IC1: supervisor protection keys (IA32_PKRS) in the kernel's address space.
  case protectionKeys = 2
  /// IC1: a page table of its own, without a change of ring.
  case pageTable = 3
  /// IC0: nothing; it runs in the kernel's domain.
  case none = 4
}

/// What `domainQuery` can tell.
public enum DomainQuery: UInt64, Sendable {
  /// The process's `IsolationMechanism`.
  case mechanism = 0
  /// First address of the range in which it has its memory, and the range's size.
  case start = 1
  case size = 2
  /// Process 0: ticks of the time-stamp counter that a loop of 1,000 turns takes in ring 0.
  case kernelLoop = 3
  /// Process 0: 1 if protection keys work here.
  case hasKeys = 4
}

/// Values `systemQuery` can tell.
public enum SystemQuery: UInt64, Sendable {
  /// Bytes of RAM.
  case memoryTotal = 0
  /// Bytes of RAM not allocated.
  case memoryFree = 1
  /// Bytes the kernel's own objects and page tables take.
  case memoryKernel = 2
  case logStart = 3
  case logEnd = 4
  case processorCount = 5
  case contextSwitches = 6
  case interrupts = 7
  case systemCalls = 8
  case pageFaults = 9
  /// Ticks of the time-stamp counter that all processors together were idle.
  case idleTime = 10
}
