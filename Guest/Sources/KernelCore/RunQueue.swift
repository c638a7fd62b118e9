// Which thread runs next: 32 priorities, first-in first-out within one.

/// A node with a priority of 0…31; greater is more urgent.
public protocol Prioritised {
  var priority: UInt8 { get }
}

/// The ready threads of one processor.
@frozen public struct RunQueue<Field: LinkField> where Field.Node: Prioritised {
  public typealias Node = Field.Node
  public static var levels: Int { 32 }
  private var queues: InlineArray<32, Queue<Field>>
  private var occupied: UInt32 = 0
  public private(set) var count = 0

  public init() { queues = InlineArray(repeating: Queue()) }

  /// The highest priority with a ready thread, or -1.
  @inlinable public var highest: Int { 31 - occupiedLevels.leadingZeroBitCount }
  public var occupiedLevels: UInt32 { occupied }

  public mutating func append(_ node: Reference<Node>) {
    let level = Int(node.pointee.priority & 31)
    queues[level].append(node)
    occupied |= 1 << UInt32(truncatingIfNeeded: level)
    count &+= 1
  }

  /// Takes the thread that waited longest at the highest priority.
  public mutating func popHighest() -> Reference<Node>? {
    guard occupied != 0 else { return nil }
    let level = highest
    let node = queues[level].popFirst()
    if queues[level].isEmpty { occupied &= ~(1 << UInt32(truncatingIfNeeded: level)) }
    count &-= 1
    return node
  }

  public mutating func remove(_ node: Reference<Node>) {
    let level = Int(node.pointee.priority & 31)
    queues[level].remove(node)
    if queues[level].isEmpty { occupied &= ~(1 << UInt32(truncatingIfNeeded: level)) }
    count &-= 1
  }
}
