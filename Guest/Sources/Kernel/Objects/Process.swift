// What the kernel knows of a process: an address space, a handle table, its threads, and who wants to know when it ends.
import CArch
import KernelCore
import PolluxABI

/// The first words, up to the ways of calls, are known to entry.S and domain.S.
struct Process {
  /// Guest-physical root of the page tables; 0 once they are gone.
  var pageTable: UInt64
  var handles: HandleTable
  /// PKRS while its threads run in kernel space under protection keys; 0: everything.
  var keys: UInt64
  /// Where calls and returns go on that lead here from programs, and from domains (domain.S, "Ways into the other domain").
  var waysIn = (fromUser: address_of_user_to_user(), fromDomain: address_of_domain_to_user())
  /// Where its memory is, and what keeps others out.
  var space: ProcessSpace
  var identifier: UInt32
  var parent: UInt32
  /// Handles and threads.
  var references: UInt32
  var threadCount: UInt32
  /// A `ProcessStatus`, final once `hasEnded`.
  var status: Int64
  var hasEnded: Bool
  /// Its end has begun: no new threads, mappings or handles.
  var isEnding: Bool
  var tableFrames: UInt32
  /// Guest-physical frame of the handle table.
  var handleFrame: UInt64
  var regions = RegionMap()
  var threads = Queue<ProcessThreadLinks>()
  /// Services of this process.
  var services = Queue<ServiceLinks>()
  var watches: Reference<Watch>?
  /// Its paged regions, if a memory manager made any.
  var paging: Reference<PagedSpace>?
  var name: (UInt64, UInt64, UInt64, UInt64)
  /// Of threads that have ended.
  var processorTime: UInt64
  var memoryBytes: UInt64
  /// The most that `memoryBytes` may become.
  var memoryBudget = UInt64.max
  /// Its page, if it has one (TokenCalls.swift).
  var account: Reference<TokenObject>?
  /// The tokens it holds, and the frame of their directory.
  var tokens: Reference<TokenSpace>?
  var tokenDirectory: UInt64 = 0

  static let handleCapacity = Int(HANDLE_LIMIT)
}

/// A notification to signal when a process ends.
struct Watch {
  var next: Reference<Watch>?
  var notification: Reference<Notification>
  var bits: UInt64
}

/// Physically contiguous memory, or a device range.
struct MemoryObject {
  var references: UInt32
  /// Identifier of the process it is accounted to; 0: nobody.
  var owner: UInt32
  var physical: UInt64
  var size: UInt64
  var flags: MemoryFlags
  /// The frames return to the allocator with the last reference.
  var isOwned: Bool
  /// The memory that this is a part of, and keeps alive.
  var whole: Reference<MemoryObject>?
}

/// Where callers and receivers meet.
struct Endpoint {
  var references: UInt32
  /// Handles with the right `receive`; without any the endpoint is closed.
  var receivers: UInt32
  /// Threads that wait for a receiver, or for a message; never both.
  var callers = Queue<ReadyLinks>()
  var waiting = Queue<ReadyLinks>()
  var notification: Reference<Notification>?
}

/// 63 bits that threads can wait for.
struct Notification {
  var references: UInt32
  var bits: UInt64
  /// Kernel-virtual address of the page that more bits lie on (`NotificationPage`), set by programs; 0: none.
  var page: UInt64
  var waiting = Queue<ReadyLinks>()
  /// An endpoint whose receivers take the bits too; it clears this when it goes.
  var endpoint: Reference<Endpoint>?
}

/// An interrupt that signals a notification.
struct Interrupt {
  var references: UInt32
  var vector: UInt8
  var pin: UInt8
  var isLevel: Bool
  var isActiveLow: Bool
  /// A message-table entry, not a line.
  var isMessage: Bool
  /// Kernel-virtual address of the message-table entry.
  var entry: UInt64
  var table: Reference<MemoryObject>?
  var notification: Reference<Notification>
  var bits: UInt64
}
