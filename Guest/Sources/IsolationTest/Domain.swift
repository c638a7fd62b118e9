// A domain in kernel space that runs one of the small programs in CIsolationTest.
import CIsolationTest
import CPollux
import Pollux

struct Domain {
  let process: UInt64
  /// Its window.
  let start: UInt64
  var code: UInt64 { start + 0x40_0000 }
  /// End of its stack.
  var stack: UInt64 { start + 0x80_1000 }

  /// A domain with the code, a stack of a page and a page of data, not yet running.
  init(_ mechanism: IsolationMechanism) {
    let name: StaticString = "intruder"
    process = must(
      .domainCreate, InitialHandle.root, UInt64(UInt(bitPattern: name.utf8Start)), UInt64(name.utf8CodeUnitCount),
      mechanism.rawValue)
    start = must(.domainQuery, process, DomainQuery.start.rawValue)
    let readWrite = Protection([.read, .write]).rawValue
    let memory = must(.memoryCreate, 4096)
    let address = 0x40_0000_0000 + (start & 0x7f_ffff_ffff)
    _ = must(.memoryMap, 0, memory, address, 0, 4096, readWrite)
    if let to = UnsafeMutableRawPointer(bitPattern: UInt(address)) {
      // Both are one page: the mapping just made and the assembled block.
      to.copyMemory(from: intruders_base(), byteCount: 4096)
    }
    _ = must(.memoryUnmap, 0, address, 4096)
    _ = must(.memoryMap, process, memory, code, 0, 4096, Protection([.read, .execute]).rawValue)
    _ = must(.handleClose, memory)
    for place in [stack - 4096, start + 0x90_0000] {
      let page = must(.memoryCreate, 4096)
      _ = must(.memoryMap, process, page, place, 0, 4096, readWrite)
      _ = must(.handleClose, page)
    }
  }

  /// Starts its first thread.
  func start(_ offset: UInt64, _ argument: UInt64 = 0, _ second: UInt64 = 0) {
    _ = must(.domainEntry, process, code + offset)
    let thread = must(.threadCreate, process, code + offset, stack - 64, argument, second, 10)
    _ = must(.handleClose, thread)
  }

  func close() { _ = must(.handleClose, process) }
}

/// Waits until a process has ended, at most two seconds.
func waitForEnd(_ process: UInt64) -> ProcessStatus {
  let notification = must(.notificationCreate)
  _ = must(.processWatch, process, notification, 1)
  _ = raw(.notificationWait, notification, deadline(milliseconds: 2000))
  _ = must(.handleClose, notification)
  return ProcessStatus(rawValue: raw(.processStatus, process))
}

func deadline(milliseconds: UInt64) -> UInt64 {
  pollux_time_stamp() &+ Kernel.info(KernelInfo.tscFrequency) / 1000 &* milliseconds
}
