// Processes, threads and handles: creating, ending, watching, listing, passing on.
import CArch
import KernelCore
import PolluxABI

enum Handles {
  /// Copies a handle with at most the given rights into another table; needs the right `grant`.
  static func copy(
    _ handle: UInt64, of owner: Reference<Process>, to target: Reference<Process>, rights: Rights, badge: UInt64
  ) throws(SystemError) -> UInt64 {
    var entry = try owner.pointee.handles.find(handle)
    guard entry.rights & UInt16(Rights.grant.rawValue) != 0 else { throw .denied }
    guard badge <= UInt64(UInt32.max) else { throw .badArgument }
    if badge != 0 {
      guard entry.kind == ObjectKind.endpoint.rawValue, entry.badge == 0 else { throw .denied }
      entry.badge = UInt32(badge)
    }
    entry.rights &= UInt16(truncatingIfNeeded: rights.rawValue)
    let copy = try target.pointee.handles.insert(entry)
    Objects.retain(entry)
    return copy
  }
}

extension Call {
  func handleDuplicate() throws(SystemError) -> Int64 {
    let rights = Rights(rawValue: UInt32(truncatingIfNeeded: second))
    return Int64(try Handles.copy(first, of: process, to: process, rights: rights, badge: third))
  }

  func handleGrant() throws(SystemError) -> Int64 {
    let target = try target(first)
    let rights = Rights(rawValue: UInt32(truncatingIfNeeded: third))
    return Int64(try Handles.copy(second, of: process, to: target, rights: rights, badge: fourth))
  }

  // MARK: Threads

  func threadSleep() -> Int64? {
    thread.pointee.state = .sleeping
    Scheduler.startTimer(thread, deadline: first, on: processor)
    processor.pointee.needsSchedule = true
    return nil
  }

  func threadCreate() throws(SystemError) -> Int64 {
    let target = try target(first)
    guard target.pointee.space.mayEnter(second), third <= target.pointee.space.end else { throw .badAddress }
    guard sixth <= UInt64(thread.pointee.ownPriority) else { throw .badArgument }
    let created = try Objects.makeThread(
      target, entry: second, stack: third, arguments: (fourth, fifth), priority: UInt8(sixth), on: processor)
    created.pointee.references += 1
    do throws(SystemError) {
      let handle = try install(created.address, .thread)
      target.pointee.space.isSealed = target.pointee.space.isDomain
      Scheduler.ready(created)
      return handle
    } catch {
      // `install` has dropped the handle's reference. The thread is in no queue; it never ran.
      created.pointee.state = .running
      Objects.finish(created, on: processor)
      throw error
    }
  }

  func threadSetPriority() throws(SystemError) -> Int64 {
    guard second <= UInt64(thread.pointee.ownPriority) else { throw .badArgument }
    let target: Reference<Thread> = first == 0 ? thread : try object(first, .thread, .manage)
    let priority = UInt8(second)
    guard target.pointee.state != .ended else { throw .notFound }
    target.setOwnPriority(priority)
    return 0
  }

  func threadSetPointer() throws(SystemError) -> Int64 {
    guard first < AddressSpace.userEnd else { throw .badAddress }
    // In a server it is still the caller's.
    guard thread.pointee.activation == nil else { throw .denied }
    thread.pointee.pointer = first
    processor.pointee.loadedThreadPointer = first
    msr_write(0xc000_0100, first)
    return 0
  }

  // MARK: Processes

  /// A process's name as a program gives it: at most 31 bytes.
  func name(_ address: UInt64, _ length: UInt64) throws(SystemError) -> (UInt64, UInt64, UInt64, UInt64) {
    let text = try UserBytes(process, address, min(length, 31))
    var name: (UInt64, UInt64, UInt64, UInt64) = (0, 0, 0, 0)
    for offset in 0..<text.count {
      let byte = UInt64(load8(try text.run(at: offset, forWriting: false).address)) << (offset % 8 * 8)
      switch offset / 8 {
      case 0: name.0 |= byte
      case 1: name.1 |= byte
      case 2: name.2 |= byte
      default: name.3 |= byte
      }
    }
    return name
  }

  func processCreate() throws(SystemError) -> Int64 {
    let created = try Objects.makeProcess(name: try name(first, second), parent: process.pointee.identifier)
    return try install(created.address, .process)
  }

  func processKill() throws(SystemError) -> Int64? {
    let target: Reference<Process> = try object(first, .process, .manage)
    // The caller may be among those that end; its result is written only while it lives.
    thread.pointee.frame.rax = 0
    Objects.end(target, status: .exited(UInt32(truncatingIfNeeded: second)), on: processor)
    return nil
  }

  func processWatch() throws(SystemError) -> Int64 {
    let target: Reference<Process> = try object(first, .process, .observe)
    let notification: Reference<Notification> = try object(second, .notification, .signal)
    guard third != 0, third <= .max >> 1 else { throw .badArgument }
    if target.pointee.hasEnded {
      notification.signal(third)
      return 0
    }
    let watch = try kernel.pointee.heap.make(
      Watch(next: target.pointee.watches, notification: notification, bits: third))
    notification.pointee.references += 1
    target.pointee.watches = watch
    return 0
  }

  func processStatus() throws(SystemError) -> Int64 {
    let target: Reference<Process> = try object(first, .process, .observe)
    return target.pointee.hasEnded ? target.pointee.status : 0
  }

  // MARK: Lists

  func processList() throws(SystemError) -> Int64 {
    let capacity = min(second, UInt64(PROCESS_LIMIT))
    let size = UInt64(MemoryLayout<ProcessInfo>.size)
    let buffer = try UserBytes(process, first, capacity * size)
    processor.charge(time_stamp())
    var count: UInt64 = 0
    var identifier = UInt32(truncatingIfNeeded: min(third, UInt64(PROCESS_LIMIT)))
    while identifier < UInt32(PROCESS_LIMIT), count < capacity {
      defer { identifier += 1 }
      guard let listed = Objects.process(identifier) else { continue }
      var info = ProcessInfo()
      info.identifier = identifier
      info.parent = listed.pointee.parent
      info.status = listed.pointee.hasEnded ? listed.pointee.status : 0
      info.processorTime = listed.pointee.processorTime
      var next = listed.pointee.threads.first
      while let member = next {
        info.processorTime &+= member.pointee.processorTime
        next = member.pointee.processLink.next
      }
      info.memory = listed.pointee.memoryBytes
      info.threads = listed.pointee.threadCount
      info.handles = UInt32(listed.pointee.handles.count)
      info.pageTables = listed.pointee.tableFrames
      info.name = listed.pointee.name
      try buffer.write(info, at: count * size)
      count += 1
    }
    return Int64(count)
  }

  func threadList() throws(SystemError) -> Int64 {
    let capacity = min(second, UInt64(THREAD_LIMIT))
    let size = UInt64(MemoryLayout<ThreadInfo>.size)
    let buffer = try UserBytes(process, first, capacity * size)
    processor.charge(time_stamp())
    var count: UInt64 = 0
    var identifier = UInt32(truncatingIfNeeded: min(third, UInt64(THREAD_LIMIT)))
    while identifier <= kernel.pointee.highestThread, count < capacity {
      defer { identifier += 1 }
      guard let listed = Objects.thread(identifier), listed.pointee.state != .spare else { continue }
      var info = ThreadInfo()
      info.identifier = identifier
      info.process = listed.pointee.home.pointee.identifier
      info.domain = listed.pointee.process.pointee.identifier
      info.state = listed.pointee.state.rawValue
      info.priority = listed.pointee.priority
      info.processor = UInt8(truncatingIfNeeded: listed.pointee.processor.pointee.index)
      info.processorTime = listed.pointee.processorTime
      info.switches = listed.pointee.switches
      info.instructionPointer = listed.pointee.frame.rip
      try buffer.write(info, at: count * size)
      count += 1
    }
    return Int64(count)
  }
}

extension UserBytes {
  /// Copies a record of plain data to `offset`.
  func write<Record: BitwiseCopyable>(_ record: Record, at offset: UInt64) throws(SystemError) {
    // The pointer is used only inside the closure; nothing is written through it.
    let result = withUnsafePointer(to: record) { pointer -> Result<Void, SystemError> in
      Result { () throws(SystemError) in
        try write(UInt64(UInt(bitPattern: pointer)), count: UInt64(MemoryLayout<Record>.size), at: offset)
      }
    }
    try result.get()
  }
}
