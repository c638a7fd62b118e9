// The books' view of kernel and memory: clients' processes and pagers by number, the manager's own mapping of its pages.

import MemoryBooks
import Pollux

final class KernelPaging: PagingKernel {
  private struct Client {
    var badge: UInt64
    var process: Handle
    var pager: Pager
    var rings: Mapping
    /// The client that may fork into this one, plus one.
    var parent: UInt64
  }

  /// The memory that all clients' pages come from.
  private let memory: MemoryObject
  private let pages: Mapping
  private var clients: [Client?] = []

  init(pages count: UInt64) throws(SystemError) {
    memory = try MemoryObject.create(count * 4096)
    pages = try memory.map([.read, .write])
  }

  // MARK: Clients

  func add(_ number: Int, _ badge: UInt64, _ process: Handle, forkFrom parent: UInt64) throws(SystemError) {
    let shared = try MemoryObject.create(4096)
    defer { shared.handle.close() }
    let rings = try shared.map([.read, .write])
    let pager: Pager
    do throws(SystemError) { pager = try Pager.create(shared: shared, memory: memory) } catch {
      rings.unmap()
      throw error
    }
    while clients.count <= number { clients.append(nil) }
    clients[number] = Client(badge: badge, process: process, pager: pager, rings: rings, parent: parent)
  }

  func remove(_ number: Int) {
    guard let client = clients[number] else { return }
    client.rings.unmap()
    client.pager.handle.close()
    client.process.close()
    clients[number] = nil
  }

  var numbers: [Int] { clients.indices.filter { clients[$0] != nil } }
  func number(of badge: UInt64) -> Int? { clients.firstIndex { $0?.badge == badge } }
  func hasEnded(_ number: Int) -> Bool { clients[number].map { Process($0.process).status.hasEnded } ?? true }

  func accepts(_ number: Int, forkFrom parent: Int) -> Bool {
    clients.indices.contains(number) && clients[number]?.parent == UInt64(parent) + 1
  }

  private func client(_ number: Int) throws(SystemError) -> Client {
    guard clients.indices.contains(number), let client = clients[number] else { throw .notFound }
    return client
  }

  // MARK: The kernel's calls

  func regionCreate(_ number: Int, _ range: Range<UInt64>, mode: UInt64) throws(SystemError) {
    let client = try client(number)
    try client.pager.createRegion(
      in: client.process, at: range.lowerBound, size: range.upperBound - range.lowerBound, mode: mode)
  }
  func regionRemove(_ number: Int, _ range: Range<UInt64>) throws(SystemError) {
    try Pager.remove(
      from: try client(number).process, at: range.lowerBound, size: range.upperBound - range.lowerBound)
  }
  func regionProtect(_ number: Int, _ range: Range<UInt64>, mode: UInt64) throws(SystemError) {
    try Pager.protect(
      in: try client(number).process, at: range.lowerBound, size: range.upperBound - range.lowerBound, mode: mode)
  }
  func regionShare(_ number: Int, with child: Int, _ range: Range<UInt64>) throws(SystemError) -> UInt64? {
    let parent = try client(number)
    do throws(SystemError) {
      return try Pager.share(
        parent.process, with: try client(child).process, at: range.lowerBound,
        size: range.upperBound - range.lowerBound)
    } catch {
      if error == .tableFull { return nil }
      throw error
    }
  }
  func pageMap(
    _ number: Int, _ address: UInt64, page: UInt64, mode: UInt64, expected: UInt64
  ) throws(SystemError) {
    try Pager.map(in: try client(number).process, at: address, page: page, mode: mode, expected: expected)
  }
  func tablesPrepare(_ number: Int, _ range: Range<UInt64>) throws(SystemError) {
    try Pager.prepareTables(
      of: try client(number).process, at: range.lowerBound, size: range.upperBound - range.lowerBound)
  }
  func takeBack(_ number: Int) -> UInt64 { clients[number]?.pager.takeBack() ?? 0 }

  // MARK: Rings and pages. The kernel reads and writes the rings at the same time, in the order that a processor keeps by itself:
  // entries before the counts that publish them. Volatile access keeps the compiler to it.

  func load(_ number: Int, _ offset: UInt64) -> UInt64 {
    guard let rings = clients[number]?.rings, offset <= 4088 else { return 0 }
    return VolatileWord.load(rings.base + Int(offset))
  }
  func store(_ number: Int, _ offset: UInt64, _ value: UInt64) {
    guard let rings = clients[number]?.rings, offset <= 4088 else { return }
    VolatileWord.store(value, to: rings.base + Int(offset))
  }

  private func address(_ page: UInt64) -> UnsafeMutableRawPointer {
    // Page numbers come from the books, which have as many as the memory.
    precondition(page < UInt64(pages.size / 4096))
    return pages.base + Int(page) * 4096
  }
  func clear(_ page: UInt64) { address(page).initializeMemory(as: UInt8.self, repeating: 0, count: 4096) }
  func isZero(_ page: UInt64) -> Bool {
    let words = address(page).assumingMemoryBound(to: UInt64.self)
    for index in 0..<512 where words[index] != 0 { return false }
    return true
  }
  func copy(_ page: UInt64, from source: UInt64) { address(page).copyMemory(from: address(source), byteCount: 4096) }
}
