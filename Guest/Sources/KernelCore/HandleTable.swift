// What a process's small integers name, with which rights.
import PolluxABI

/// One handle; an entry of kind 0 is free. RPC reads entries without a lock (entry.S), so a free one is all zero.
@frozen public struct HandleEntry {
  /// Kernel-virtual address of the object.
  public var object: UInt64
  public var rights: UInt16
  /// An `ObjectKind`; 0: free.
  public var kind: UInt8
  public var reserved: UInt8
  /// What `replyReceive` tells the receiver about the sender; endpoints only.
  public var badge: UInt32

  @inlinable public init(object: UInt64, kind: ObjectKind, rights: Rights, badge: UInt32 = 0) {
    self.object = object
    self.rights = UInt16(truncatingIfNeeded: rights.rawValue)
    self.kind = kind.rawValue
    reserved = 0
    self.badge = badge
  }
}

extension HandleEntry {
  private init() {
    object = 0
    rights = 0
    kind = 0
    reserved = 0
    badge = 0
  }
  /// What a free slot holds.
  public static var free: HandleEntry { HandleEntry() }
}

/// The table of one process: an array of entries in memory that was zero. Handle 0 is never used.
@frozen public struct HandleTable {
  private let entries: Reference<HandleEntry>
  private let capacity: UInt64
  public private(set) var count = 0
  /// No free handle lies below.
  private var lowestFree = 1

  public init(entries: Reference<HandleEntry>, capacity: Int) {
    self.entries = entries
    self.capacity = UInt64(capacity)
  }

  /// The entry of a handle in use, if it names the kind and has the rights.
  @inline(__always)
  public func find(_ handle: UInt64, kind: ObjectKind, rights: Rights) throws(SystemError) -> HandleEntry {
    guard handle < capacity else { throw .badHandle }
    let entry = entries.element(Int(truncatingIfNeeded: handle)).pointee
    guard entry.kind == kind.rawValue else { throw entry.kind == 0 ? .badHandle : .wrongKind }
    let needed = UInt16(truncatingIfNeeded: rights.rawValue)
    guard entry.rights & needed == needed else { throw .denied }
    return entry
  }

  /// The entry of a handle of any kind.
  public func find(_ handle: UInt64) throws(SystemError) -> HandleEntry {
    guard handle < capacity else { throw .badHandle }
    let entry = entries.element(Int(truncatingIfNeeded: handle)).pointee
    guard entry.kind != 0 else { throw .badHandle }
    return entry
  }

  /// Puts an entry under the lowest free handle.
  public mutating func insert(_ entry: HandleEntry) throws(SystemError) -> UInt64 {
    var handle = lowestFree
    while UInt64(handle) < capacity, entries.element(handle).pointee.kind != 0 { handle += 1 }
    guard UInt64(handle) < capacity else { throw .tableFull }
    entries.element(handle).pointee = entry
    lowestFree = handle + 1
    count += 1
    return UInt64(handle)
  }

  /// Frees a handle and returns what it named.
  public mutating func remove(_ handle: UInt64) throws(SystemError) -> HandleEntry {
    let entry = try find(handle)
    entries.element(Int(truncatingIfNeeded: handle)).pointee = .free
    lowestFree = min(lowestFree, Int(handle))
    count -= 1
    return entry
  }

  /// Frees the handle with the lowest number from `first` on; nil if none is left.
  public mutating func removeNext(from first: inout UInt64) -> HandleEntry? {
    while count > 0, first < capacity {
      defer { first += 1 }
      if let entry = try? remove(first) { return entry }
    }
    return nil
  }
}
