// Which deadline comes first: a list sorted by deadline. Insertion looks from the end, since new deadlines are mostly late.

/// A node with a deadline, in ticks of the time-stamp counter.
public protocol Timed {
  var deadline: UInt64 { get }
}

@frozen public struct TimerQueue<Field: LinkField> where Field.Node: Timed {
  public typealias Node = Field.Node
  private var queue = Queue<Field>()
  public init() {}

  /// The earliest deadline; `UInt64.max` if there is none.
  public var earliest: UInt64 { queue.first?.pointee.deadline ?? .max }

  public mutating func insert(_ node: Reference<Node>) {
    var before: Reference<Node>?
    var candidate = queue.last
    while let other = candidate, other.pointee.deadline > node.pointee.deadline {
      before = other
      candidate = Field.link(other).previous
    }
    queue.insert(node, before: before)
  }

  public mutating func remove(_ node: Reference<Node>) { queue.remove(node) }

  /// Takes a node whose deadline is not after `now`, earliest first.
  public mutating func popExpired(now: UInt64) -> Reference<Node>? {
    guard let first = queue.first, first.pointee.deadline <= now else { return nil }
    return queue.popFirst()
  }
}
