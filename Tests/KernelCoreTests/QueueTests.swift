import KernelCore
import Testing

/// A node with what the queues ask for.
struct TestNode: Prioritised, Timed {
  var link = Link<TestNode>()
  var timer = Link<TestNode>()
  var priority: UInt8 = 0
  var deadline: UInt64 = 0
  var identifier = 0
}

enum TestLinks: LinkField {
  static func link(_ node: Reference<TestNode>) -> Link<TestNode> { node.pointee.link }
  static func setNext(_ node: Reference<TestNode>, _ next: Reference<TestNode>?) { node.pointee.link.next = next }
  static func setPrevious(_ node: Reference<TestNode>, _ previous: Reference<TestNode>?) {
    node.pointee.link.previous = previous
  }
}

/// Nodes at fixed addresses for as long as the arena lives.
final class Arena<Object> {
  private let buffer: UnsafeMutableBufferPointer<Object>
  init(_ count: Int, _ make: (Int) -> Object) {
    buffer = .allocate(capacity: count)
    for index in 0..<count { buffer.initializeElement(at: index, to: make(index)) }
  }
  deinit {
    buffer.deinitialize()
    buffer.deallocate()
  }
  // The arena outlives the references that tests take from it.
  subscript(index: Int) -> Reference<Object> { Reference(buffer.baseAddress.unsafelyUnwrapped + index) }
  var base: Reference<Object> { self[0] }
}

struct QueueTests {
  private func drain(_ queue: inout Queue<TestLinks>) -> [Int] {
    var order: [Int] = []
    while let node = queue.popFirst() { order.append(node.pointee.identifier) }
    return order
  }

  @Test func nodesLeaveInTheOrderTheyCame() {
    let arena = Arena(5) { TestNode(identifier: $0) }
    var queue = Queue<TestLinks>()
    for index in 0..<5 { queue.append(arena[index]) }
    #expect(drain(&queue) == [0, 1, 2, 3, 4])
    #expect(queue.isEmpty)
  }

  @Test(arguments: 0..<4)
  func anyNodeCanBeTakenOut(victim: Int) {
    let arena = Arena(4) { TestNode(identifier: $0) }
    var queue = Queue<TestLinks>()
    for index in 0..<4 { queue.append(arena[index]) }
    queue.remove(arena[victim])
    #expect(drain(&queue) == (0..<4).filter { $0 != victim })
    queue.append(arena[victim])
    #expect(drain(&queue) == [victim])
  }

  @Test func theHighestPriorityRunsFirstAndEqualsTakeTurns() {
    let priorities: [UInt8] = [3, 31, 3, 0, 31, 15]
    let arena = Arena(6) { TestNode(priority: priorities[$0], identifier: $0) }
    var queue = RunQueue<TestLinks>()
    #expect(queue.highest == -1)
    for index in 0..<6 { queue.append(arena[index]) }
    #expect(queue.highest == 31 && queue.count == 6)
    var order: [Int] = []
    while let node = queue.popHighest() { order.append(node.pointee.identifier) }
    #expect(order == [1, 4, 5, 0, 2, 3])
    #expect(queue.highest == -1 && queue.count == 0)
  }

  @Test func aPriorityIsVacantOnceItsLastThreadIsTakenOut() {
    let arena = Arena(2) { TestNode(priority: UInt8($0 + 4), identifier: $0) }
    var queue = RunQueue<TestLinks>()
    queue.append(arena[0])
    queue.append(arena[1])
    queue.remove(arena[1])
    #expect(queue.highest == 4)
    queue.remove(arena[0])
    #expect(queue.popHighest() == nil)
  }

  @Test(arguments: 1...10)
  func deadlinesExpireInOrderWhateverTheOrderOfInsertion(seed: Int) {
    var random = TestRandom(state: UInt64(seed))
    let deadlines = (0..<30).map { _ in UInt64.random(in: 0..<20, using: &random) }
    let arena = Arena(30) { TestNode(deadline: deadlines[$0], identifier: $0) }
    var timers = TimerQueue<TestLinks>()
    #expect(timers.earliest == .max)
    for index in 0..<30 { timers.insert(arena[index]) }
    timers.remove(arena[7])
    var expected = deadlines
    expected.remove(at: 7)
    var seen: [UInt64] = []
    for now in UInt64(0)..<20 {
      while let node = timers.popExpired(now: now) {
        #expect(node.pointee.deadline == now)
        seen.append(now)
      }
      #expect(timers.earliest > now)
    }
    #expect(seen == expected.sorted())
  }
}
