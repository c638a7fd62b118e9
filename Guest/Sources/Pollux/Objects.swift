// Kernel objects as the program sees them: handles with the calls that each kind of object has.

import CPollux
import Synchronization

/// A number in this process's handle table. Copies name the same handle; `close` is explicit except for the owners
/// below, whose deinit closes.
public struct Handle: Equatable, Sendable {
  public let rawValue: UInt64
  public init(_ rawValue: UInt64) { self.rawValue = rawValue }

  public func close() {
    do throws(SystemError) { _ = try invoke(.handleClose, rawValue) } catch {}
  }
  /// Another handle of this process on the same object.
  public func duplicate(_ rights: Rights, badge: UInt64 = 0) throws(SystemError) -> Handle {
    Handle(try invoke(.handleDuplicate, rawValue, UInt64(rights.rawValue), badge))
  }
  /// This handle with some of its rights as it is passed along in a message.
  public func passing(_ rights: Rights) -> UInt64 { UInt64(rights.rawValue) << 32 | rawValue }
}

/// A set of bits that interrupts, processes and the kernel signal.
public struct Notification: Sendable {
  public let handle: Handle
  public init(_ handle: Handle) { self.handle = handle }
  public static func create() throws(SystemError) -> Notification {
    Notification(Handle(try invoke(.notificationCreate)))
  }
  public func signal(_ bits: UInt64) {
    do throws(SystemError) { _ = try invoke(.notificationSignal, handle.rawValue, bits) } catch {}
  }
  /// Waits for bits and takes them all; 0 at the deadline (a time-stamp).
  public func wait(until deadline: UInt64 = SystemCall.forever) -> UInt64 {
    do throws(SystemError) { return try invoke(.notificationWait, handle.rawValue, deadline) } catch { return 0 }
  }
  /// Takes the bits that are there.
  public func poll() -> UInt64 {
    do throws(SystemError) { return try invoke(.notificationPoll, handle.rawValue) } catch { return 0 }
  }
}

/// An interrupt line or message.
public struct Interrupt: Sendable {
  public let handle: Handle
  public init(_ handle: Handle) { self.handle = handle }

  /// An IOAPIC pin that signals `bits`; needs the root handle.
  public static func line(
    root: Handle, pin: UInt32, flags: InterruptFlags, notification: Notification, bits: UInt64
  ) throws(SystemError) -> Interrupt {
    Interrupt(
      Handle(
        try invoke(
          .interruptCreateLine, root.rawValue, UInt64(pin), flags.rawValue, notification.handle.rawValue, bits)))
  }
  /// Entry `entry` of a message table, programmed and enabled by the kernel.
  public static func message(
    table: Handle, entry: UInt32, notification: Notification, bits: UInt64
  ) throws(SystemError) -> Interrupt {
    Interrupt(
      Handle(
        try invoke(
          .interruptCreateMessage, table.rawValue, UInt64(entry), notification.handle.rawValue, bits)))
  }
  public func acknowledge() {
    do throws(SystemError) { _ = try invoke(.interruptAcknowledge, handle.rawValue) } catch {}
  }
}

/// A memory object: physically contiguous, in pages.
public struct MemoryObject: Sendable {
  public let handle: Handle
  public init(_ handle: Handle) { self.handle = handle }

  /// Zeroed RAM of `size` bytes, rounded up to pages.
  public static func create(_ size: UInt64) throws(SystemError) -> MemoryObject {
    MemoryObject(Handle(try invoke(.memoryCreate, size, 0)))
  }
  /// A physical range; needs the root handle.
  public static func physical(
    root: Handle, address: UInt64, size: UInt64, flags: MemoryFlags
  ) throws(SystemError) -> MemoryObject {
    MemoryObject(Handle(try invoke(.memoryCreatePhysical, root.rawValue, address, size, flags.rawValue)))
  }
  /// Length in bytes.
  public func size() throws(SystemError) -> UInt64 { try invoke(.memorySize, handle.rawValue) }
  /// Guest-physical address of the first byte, for DMA.
  public func physicalAddress() throws(SystemError) -> UInt64 { try invoke(.memoryPhysicalAddress, handle.rawValue) }

  /// A part of it as an object of its own, in whole pages, with the same rights.
  public func slice(_ offset: UInt64, _ size: UInt64) throws(SystemError) -> MemoryObject {
    MemoryObject(Handle(try invoke(.memorySlice, handle.rawValue, offset, size)))
  }

  /// Maps `size` bytes from `offset` into `process` (default: this one) at the guest-virtual `address`.
  public func map(
    in process: Handle = Handle(0), at address: UInt64, offset: UInt64 = 0, size: UInt64, _ protection: Protection
  ) throws(SystemError) {
    _ = try invoke(
      .memoryMap, process.rawValue, handle.rawValue, address, offset, size, protection.rawValue)
  }

  /// Maps all of it somewhere into this process.
  public func map(_ protection: Protection) throws(SystemError) -> Mapping {
    let size = (try size() + AddressSpace.pageSize - 1) & ~(AddressSpace.pageSize - 1)
    let address = Mapping.reserve(size)
    try map(at: address, size: size, protection)
    guard let base = UnsafeMutableRawPointer(bitPattern: UInt(address)) else { throw .badAddress }
    return Mapping(base: base, size: Int(size))
  }
}

/// A memory object's pages in this process, until `unmap`.
public struct Mapping {
  /// Guest-virtual address; valid for `size` bytes with the protection it was mapped with.
  public let base: UnsafeMutableRawPointer
  public let size: Int
  public var address: UInt64 { UInt64(UInt(bitPattern: base)) }

  /// A mapping that the caller has made at an address of its own.
  public init(base: UnsafeMutableRawPointer, size: Int) {
    self.base = base
    self.size = size
  }

  public func unmap() {
    do throws(SystemError) { _ = try invoke(.memoryUnmap, 0, address, UInt64(size)) } catch {}
  }

  /// Addresses for mappings are handed out upwards from `ProgramSpace.firstMapping`, with a gap between any two, and are not used again.
  static func reserve(_ size: UInt64) -> UInt64 {
    let room = (size + 0x3f_ffff) & ~0x1f_ffff
    return ProgramSpace.start + nextMapping.wrappingAdd(room, ordering: .relaxed).oldValue
  }
}

/// A process other than this one.
public struct Process: Sendable {
  public let handle: Handle
  public init(_ handle: Handle) { self.handle = handle }

  public static func create(named name: Bytes) throws(SystemError) -> Process {
    Process(Handle(try invoke(.processCreate, UInt64(UInt(bitPattern: name.unsafeBase)), UInt64(name.count))))
  }
  /// A domain in kernel space (HongMeng §4.2); needs the root handle.
  public static func createDomain(
    root: Handle, named name: Bytes, mechanism: IsolationMechanism
  ) throws(SystemError) -> Process {
    Process(
      Handle(
        try invoke(
          .domainCreate, root.rawValue, UInt64(UInt(bitPattern: name.unsafeBase)), UInt64(name.count),
          mechanism.rawValue)))
  }
  /// Adds an address to its control-flow entry table, before its first thread.
  public func addEntry(_ address: UInt64) throws(SystemError) {
    _ = try invoke(.domainEntry, handle.rawValue, address)
  }
  public func domain(_ query: DomainQuery) throws(SystemError) -> UInt64 {
    try invoke(.domainQuery, handle.rawValue, query.rawValue)
  }
  /// Puts a handle into the process's table; the number it has there.
  public func grant(_ object: Handle, _ rights: Rights, badge: UInt64 = 0) throws(SystemError) -> UInt64 {
    try invoke(.handleGrant, handle.rawValue, object.rawValue, UInt64(rights.rawValue), badge)
  }
  public func startThread(
    entry: UInt64, stack: UInt64, argument: UInt64, priority: UInt64
  ) throws(SystemError) -> Handle {
    Handle(try invoke(.threadCreate, handle.rawValue, entry, stack, argument, 0, priority))
  }
  public func watch(_ notification: Notification, bits: UInt64) throws(SystemError) {
    _ = try invoke(.processWatch, handle.rawValue, notification.handle.rawValue, bits)
  }
  public func kill(code: UInt32) throws(SystemError) { _ = try invoke(.processKill, handle.rawValue, UInt64(code)) }
  public var status: ProcessStatus {
    do throws(SystemError) {
      return ProcessStatus(rawValue: Int64(try invoke(.processStatus, handle.rawValue)))
    } catch { return .exited(255) }
  }
}
