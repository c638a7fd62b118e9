import KernelCore
import PolluxABI
import Testing

struct HandleTableTests {
  private func empty(_ count: Int) -> Arena<HandleEntry> {
    Arena(count) { _ in .free }
  }
  private let memory = HandleEntry(object: 0x1000, kind: .memory, rights: [.read, .grant])

  @Test func handlesStartAtOneAndTheLowestFreeIsUsed() throws {
    let arena = empty(8)
    var table = HandleTable(entries: arena.base, capacity: 8)
    for expected in 1...4 as ClosedRange<UInt64> { #expect(try table.insert(memory) == expected) }
    _ = try table.remove(2)
    _ = try table.remove(3)
    #expect(try table.insert(memory) == 2)
    #expect(try table.insert(memory) == 3)
    #expect(try table.insert(memory) == 5)
    #expect(table.count == 5)
  }

  @Test func aFullTableSaysSo() throws {
    let arena = empty(4)
    var table = HandleTable(entries: arena.base, capacity: 4)
    for _ in 1..<4 { _ = try table.insert(memory) }
    #expect(throws: SystemError.tableFull) { try table.insert(memory) }
  }

  @Test func lookupsCheckNumberKindAndRights() throws {
    let arena = empty(4)
    var table = HandleTable(entries: arena.base, capacity: 4)
    let handle = try table.insert(memory)
    #expect(try table.find(handle, kind: .memory, rights: .read).object == 0x1000)
    #expect(throws: SystemError.wrongKind) { try table.find(handle, kind: .endpoint, rights: []) }
    #expect(throws: SystemError.denied) { try table.find(handle, kind: .memory, rights: [.read, .write]) }
    for bad in [0, 2, 4, 5, UInt64.max] {
      #expect(throws: SystemError.badHandle) { try table.find(bad, kind: .memory, rights: []) }
      #expect(throws: SystemError.badHandle) { try table.find(bad) }
      #expect(throws: SystemError.badHandle) { try table.remove(bad) }
    }
  }

  @Test func takingAllOutFindsEachOnce() throws {
    let arena = empty(16)
    var table = HandleTable(entries: arena.base, capacity: 16)
    for object in 1...10 as ClosedRange<UInt64> {
      _ = try table.insert(HandleEntry(object: object, kind: .thread, rights: []))
    }
    _ = try table.remove(4)
    var first: UInt64 = 0
    var objects: [UInt64] = []
    while let entry = table.removeNext(from: &first) { objects.append(entry.object) }
    #expect(objects == [1, 2, 3, 5, 6, 7, 8, 9, 10])
    #expect(table.count == 0)
  }
}
