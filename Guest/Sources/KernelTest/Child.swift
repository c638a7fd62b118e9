// Processes that run one of the small programs in CKernelTest.
import CKernelTest
import CPollux
import Pollux

/// The memory that all children run from.
struct ChildCode {
  private let memory: UInt64

  init() {
    memory = must(.memoryCreate, 4096)
    let address: UInt64 = 0x40_0000_0000
    _ = must(.memoryMap, 0, memory, address, 0, 4096, Protection([.read, .write]).rawValue)
    if let to = UnsafeMutableRawPointer(bitPattern: UInt(address)) {
      // Both are one page: the mapping just made and the assembled block.
      to.copyMemory(from: children_base(), byteCount: Int(children_size()))
    }
    _ = must(.memoryUnmap, 0, address, 4096)
  }

  /// A process with the code at 0x400000 and a page of stack, not yet running.
  func process() -> UInt64 {
    let name: StaticString = "child"
    let process = must(.processCreate, UInt64(UInt(bitPattern: name.utf8Start)), UInt64(name.utf8CodeUnitCount))
    _ = must(.memoryMap, process, memory, 0x40_0000, 0, 4096, Protection([.read, .execute]).rawValue)
    let stack = must(.memoryCreate, 4096)
    _ = must(.memoryMap, process, stack, 0x80_0000, 0, 4096, Protection([.read, .write]).rawValue)
    _ = must(.handleClose, stack)
    return process
  }

  /// Starts a child's first thread.
  func start(_ process: UInt64, _ offset: UInt64, _ argument: UInt64 = 0, priority: UInt64 = 10) {
    let thread = must(.threadCreate, process, 0x40_0000 + offset, 0x80_1000 - 64, argument, 0, priority)
    _ = must(.handleClose, thread)
  }

  func close() { _ = must(.handleClose, memory) }
}

/// Waits until a process has ended, at most two seconds.
func waitForEnd(_ process: UInt64) -> ProcessStatus {
  let notification = must(.notificationCreate)
  _ = must(.processWatch, process, notification, 1)
  _ = raw(.notificationWait, notification, deadline(milliseconds: 2000))
  _ = must(.handleClose, notification)
  return ProcessStatus(rawValue: raw(.processStatus, process))
}

/// Whether something is so at once or within two seconds: a busy host gives another processor its turn late.
func soon(_ isSo: () -> Bool) -> Bool {
  let end = deadline(milliseconds: 2000)
  while !isSo() {
    if pollux_time_stamp() > end { return false }
    _ = must(.threadSleep, deadline(milliseconds: 1))
  }
  return true
}

/// Sleeps, so that others get on with what they do. Another processor may not run for a while where it is a thread of a busy host:
/// with several, this takes ten times as long.
func letOthersRun(milliseconds: UInt64) {
  let processors = UInt64(max(1, must(.systemQuery, SystemQuery.processorCount.rawValue)))
  _ = must(.threadSleep, deadline(milliseconds: milliseconds * (processors > 1 ? 10 : 1)))
}

func deadline(milliseconds: UInt64) -> UInt64 {
  pollux_time_stamp() &+ Kernel.info(KernelInfo.tscFrequency) / 1000 &* milliseconds
}
