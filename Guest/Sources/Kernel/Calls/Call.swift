// What a system call is to the kernel: the caller, its registers, and which function serves which number.
import CArch
import KernelCore
import PolluxABI

/// A system call in progress. A function that returns nil has written the result itself, or made the caller wait.
struct Call {
  let thread: Reference<Thread>
  let processor: Reference<Processor>

  @inline(__always) var process: Reference<Process> { thread.pointee.process }
  // Arguments, in register order.
  @inline(__always) var first: UInt64 { thread.pointee.frame.rdi }
  @inline(__always) var second: UInt64 { thread.pointee.frame.rsi }
  @inline(__always) var third: UInt64 { thread.pointee.frame.rdx }
  @inline(__always) var fourth: UInt64 { thread.pointee.frame.r10 }
  @inline(__always) var fifth: UInt64 { thread.pointee.frame.r8 }
  @inline(__always) var sixth: UInt64 { thread.pointee.frame.r9 }

  /// The object behind a handle of the caller, if it is of this kind and the handle has the rights.
  @inline(__always)
  func object<Object>(_ handle: UInt64, _ kind: ObjectKind, _ rights: Rights) throws(SystemError) -> Reference<Object> {
    Reference(trusted: try process.pointee.handles.find(handle, kind: kind, rights: rights).object)
  }

  /// The process that a handle names; 0 is the caller's own. It has not ended.
  func target(_ handle: UInt64) throws(SystemError) -> Reference<Process> {
    if handle == 0 { return process }
    let target: Reference<Process> = try object(handle, .process, .manage)
    guard !target.pointee.isEnding else { throw .notFound }
    return target
  }

  func requireRoot(_ handle: UInt64) throws(SystemError) {
    _ = try process.pointee.handles.find(handle, kind: .root, rights: .manage)
  }

  /// Gives the caller a handle on a new object, whose first reference this is; undoes the object if the table is full.
  func install(
    _ object: UInt64, _ kind: ObjectKind, _ rights: Rights = .all
  ) throws(SystemError) -> Int64 {
    let entry = HandleEntry(object: object, kind: kind, rights: rights)
    do throws(SystemError) {
      return Int64(try process.pointee.handles.insert(entry))
    } catch {
      Objects.release(entry)
      throw error
    }
  }

  func perform() throws(SystemError) -> Int64? {
    guard let number = SystemCall(rawValue: thread.pointee.frame.rax) else { throw .badCall }
    switch number {
    // entry.S sends these straight to HotCalls.swift.
    case .null, .call, .replyReceive, .reply, .notificationSignal, .notificationWait, .notificationPoll,
      .interruptAcknowledge:
      throw .badCall
    case .threadYield:
      processor.pointee.needsSchedule = true
      return 0
    case .threadSleep: return threadSleep()
    case .threadCreate: return try threadCreate()
    case .threadExit:
      if thread.pointee.activation != nil {
        Unwinding.unwind(thread, .aborted)
        processor.follow()
      } else {
        Objects.finish(thread, on: processor)
      }
      return nil
    case .threadSetPriority: return try threadSetPriority()
    case .threadSetPointer: return try threadSetPointer()
    case .processCreate: return try processCreate()
    case .processExit:
      Objects.end(process, status: .exited(UInt32(truncatingIfNeeded: first)), on: processor)
      return nil
    case .processKill: return try processKill()
    case .processWatch: return try processWatch()
    case .processStatus: return try processStatus()
    case .processList: return try processList()
    case .threadList: return try threadList()
    case .memoryCreate: return try memoryCreate()
    case .memoryCreatePhysical: return try memoryCreatePhysical()
    case .memoryMap: return try memoryMap()
    case .memoryUnmap: return try memoryUnmap()
    case .memoryProtect: return try memoryProtect()
    case .memorySize:
      let memory: Reference<MemoryObject> = try object(first, .memory, [])
      return Int64(memory.pointee.size)
    case .memoryPhysicalAddress:
      let memory: Reference<MemoryObject> = try object(first, .memory, .physical)
      return Int64(memory.pointee.physical)
    case .memorySlice: return try memorySlice()
    case .handleClose:
      Objects.release(try process.pointee.handles.remove(first))
      return 0
    case .handleDuplicate: return try handleDuplicate()
    case .handleGrant: return try handleGrant()
    case .handleKind:
      let entry = try process.pointee.handles.find(first)
      return Int64(entry.kind) | Int64(entry.rights) << 8
    case .endpointCreate: return try endpointCreate()
    case .endpointBind: return try endpointBind()
    case .notificationCreate:
      let notification = try kernel.pointee.heap.make(Notification(references: 1, bits: 0, page: 0, endpoint: nil))
      return try install(notification.address, .notification)
    case .interruptCreateLine: return try interruptCreateLine()
    case .interruptCreateMessage: return try interruptCreateMessage()
    case .interruptMask: return try interruptMask()
    case .consoleWrite: return try consoleWrite()
    case .consoleRead: return try consoleRead()
    case .logWrite: return try logWrite()
    case .logRead: return try logRead()
    case .systemControl: return try systemControl()
    case .systemQuery: return try systemQuery()
    case .domainCreate: return try domainCreate()
    case .domainEntry: return try domainEntry()
    case .domainQuery: return try domainQuery()
    case .tokenCreate: return try tokenCreate()
    case .tokenGrant: return try tokenGrant()
    case .tokenRevoke: return try tokenRevoke()
    case .tokenNarrow: return try tokenNarrow()
    case .tokenWrite: return try tokenWrite()
    case .tokenUpdate: return try tokenUpdate()
    case .tokenQuery: return try tokenQuery()
    case .tokenWait: return try tokenWait()
    case .tokenSignal: return try tokenSignal()
    case .tokenHandle: return try tokenHandle()
    case .tokenAccess: return try tokenAccess()
    case .serviceCreate: return try serviceCreate()
    case .serviceAddStack: return try serviceAddStack()
    case .connectionCreate: return try connectionCreate()
    case .rpcCall: return try rpcCall()
    case .rpcCallTimed: return try rpcCall(deadline: thread.pointee.frame.rbx)
    case .rpcReturn: return try rpcReturn()
    case .rpcCancel: return try rpcCancel()
    case .serviceQuery: return try serviceQuery()
    case .pagerCreate: return try pagerCreate()
    case .pagerTakeBack: return try pagerTakeBack()
    case .regionCreate: return try regionCreate()
    case .regionRemove: return try regionRemove()
    case .regionProtect: return try regionProtect()
    case .regionShare: return try regionShare()
    case .pageMap: return try pageMap()
    case .tablesPrepare: return try tablesPrepare()
    case .pagingAttach: return try pagingAttach()
    case .faultReturn: return try faultReturn()
    }
  }
}

@c(kernel_system_call)
public func kernelSystemCall(_ thread: UInt64, _ processor: UInt64) -> UInt64 {
  Call.serve(thread, processor) { call throws(SystemError) in try call.perform() }
}

extension Call {
  /// Serves one system call: its result or error into RAX, and what runs next as the answer to entry.S.
  @inline(__always)
  static func serve(
    _ thread: UInt64, _ processor: UInt64, _ body: (Call) throws(SystemError) -> Int64?
  ) -> UInt64 {
    let call = Call(thread: Reference(trusted: thread), processor: Reference(trusted: processor))
    kernel.pointee.systemCalls &+= 1
    do throws(SystemError) {
      if let result = try body(call) { call.thread.pointee.frame.rax = UInt64(bitPattern: result) }
    } catch {
      call.thread.pointee.frame.rax = UInt64(bitPattern: error.rawValue)
    }
    return call.processor.leave()
  }
}
