// Intrusive lists: a node carries its own links, so that queueing never allocates.

/// The links of one list through a node.
@frozen public struct Link<Node> {
  public var next: Reference<Node>?
  public var previous: Reference<Node>?
  @inlinable public init() {}
}

/// Says which of a node's links a list uses, so that a node can be in several lists.
public protocol LinkField {
  associatedtype Node
  static func link(_ node: Reference<Node>) -> Link<Node>
  static func setNext(_ node: Reference<Node>, _ next: Reference<Node>?)
  static func setPrevious(_ node: Reference<Node>, _ previous: Reference<Node>?)
}

/// A doubly linked first-in, first-out list.
@frozen public struct Queue<Field: LinkField> {
  public typealias Node = Field.Node
  public private(set) var first: Reference<Node>?
  public private(set) var last: Reference<Node>?
  public init() {}
  public var isEmpty: Bool { first == nil }

  /// Adds a node that is in no list of this field at the end.
  public mutating func append(_ node: Reference<Node>) {
    Field.setNext(node, nil)
    Field.setPrevious(node, last)
    if let last { Field.setNext(last, node) } else { first = node }
    last = node
  }

  /// Adds a node before another of this list, or at the end.
  public mutating func insert(_ node: Reference<Node>, before next: Reference<Node>?) {
    guard let next else { return append(node) }
    let previous = Field.link(next).previous
    Field.setNext(node, next)
    Field.setPrevious(node, previous)
    Field.setPrevious(next, node)
    if let previous { Field.setNext(previous, node) } else { first = node }
  }

  /// Takes the first node.
  public mutating func popFirst() -> Reference<Node>? {
    guard let node = first else { return nil }
    let next = Field.link(node).next
    first = next
    if let next { Field.setPrevious(next, nil) } else { last = nil }
    return node
  }

  /// Takes a node of this list out.
  public mutating func remove(_ node: Reference<Node>) {
    let link = Field.link(node)
    if let next = link.next { Field.setPrevious(next, link.previous) } else { last = link.previous }
    if let previous = link.previous { Field.setNext(previous, link.next) } else { first = link.next }
  }
}
