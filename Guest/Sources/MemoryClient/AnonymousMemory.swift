// Anonymous memory from the memory manager (docs/paging.md).

import Pollux

/// Operations of the service: word 0 of a call. Word 0 of the reply is 0 or a `SystemError`.
public enum MemoryCall: UInt64 {
  /// Passes the client's process with the rights to manage and observe it; budget in pages in word 1, in word 2 whether mapping more
  /// than that is refused (else the process ends when it touches more); in word 3 the number of the client that may fork into it, plus
  /// one. → the client's number in word 1.
  case attach = 0
  /// Address (0: anywhere), bytes, mode (`Protection`, `RegionMode`) → address in word 1.
  case map = 1
  /// Address, bytes.
  case unmap = 2
  /// Address, bytes, `Protection`.
  case protect = 3
  /// Number of a client that agrees and has nothing mapped: it gets all areas, copied on write.
  case fork = 4
  /// → pages mapped, pages in the pool, free pages, faults passed on, log records, pages taken back out of pools
  /// and pages merged with the zero page under pressure in words 1…7.
  case usage = 5
  /// Reads logs, fills pools, clears pages: what the manager does by itself now and then.
  case settle = 6
}

/// The service `memory-manager` as a client sees it.
public struct AnonymousMemory {
  private let connection: Connection
  public init(_ connection: Connection) { self.connection = connection }

  private func call(_ message: inout Message) throws(SystemError) {
    try connection.call(&message)
    if message[0] != 0 { throw SystemError(rawValue: Int64(bitPattern: message[0])) ?? .badCall }
  }

  /// This client's number; `parent`: the number of the client that may fork into it.
  public func attach(budget: UInt64, isStrict: Bool, parent: UInt64? = nil) throws(SystemError) -> UInt64 {
    guard let own = Program.start.handle("process") else { throw .badHandle }
    var message = Message(MemoryCall.attach.rawValue, budget, isStrict ? 1 : 0, parent.map { $0 + 1 } ?? 0)
    message.pass(Handle(own), [.manage, .observe, .grant])
    try call(&message)
    return message[1]
  }
  /// Anonymous memory to read and write; `address` 0: anywhere. Its guest-virtual address.
  public func map(pages: UInt64, at address: UInt64 = 0) throws(SystemError) -> UInt64 {
    var message = Message(MemoryCall.map.rawValue, address, pages * 4096, Protection([.read, .write]).rawValue)
    try call(&message)
    return message[1]
  }
  public func unmap(_ address: UInt64, pages: UInt64) throws(SystemError) {
    var message = Message(MemoryCall.unmap.rawValue, address, pages * 4096)
    try call(&message)
  }
  /// Gives all memory to that client, copied on write.
  public func fork(to number: UInt64) throws(SystemError) {
    var message = Message(MemoryCall.fork.rawValue, number)
    try call(&message)
  }
  /// What the manager has and has done, all clients together but for `resident` and `pooled`. Pages.
  public struct Usage: Equatable, Sendable {
    /// Mapped for this client.
    public var resident: UInt64
    /// Lying ahead for this client.
    public var pooled: UInt64
    public var free: UInt64
    /// Faults that the kernel passed on: regions it does not page, an empty pool, a full log.
    public var passedFaults: UInt64
    /// Taken back out of pools, and given back for the zero page, when memory was short.
    public var takenBack: UInt64
    public var merged: UInt64
  }

  /// As `usage`, after the manager has read its logs and filled its pools.
  public func settledUsage() throws(SystemError) -> Usage {
    var message = Message(MemoryCall.settle.rawValue)
    try call(&message)
    return try usage()
  }

  public func usage() throws(SystemError) -> Usage {
    var message = Message(MemoryCall.usage.rawValue)
    try call(&message)
    return Usage(
      resident: message[1], pooled: message[2], free: message[3], passedFaults: message[4], takenBack: message[6],
      merged: message[7])
  }
}
