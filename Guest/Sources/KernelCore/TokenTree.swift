// Who holds which address token, and from whom (HongMeng §4.4): a forest in which every token hangs below the one it was derived
// from, so that taking one takes all that came of it. A token lies in a slot of its holder's token space; what a slot means to
// the processor is the host's affair.
import PolluxABI

/// One token of one holder.
public struct TokenNode {
  /// The token it was derived from; nil for the creator's, and for one whose origin's holders have all ended.
  public fileprivate(set) var parent: Reference<TokenNode>?
  fileprivate var children = Queue<TokenSiblings>()
  fileprivate var siblingLink = Link<TokenNode>()
  fileprivate var spaceLink = Link<TokenNode>()
  /// The object it names, to the host.
  public let object: UInt64
  public let space: Reference<TokenSpace>
  public let slot: UInt64
  /// Empty while it is being taken.
  public fileprivate(set) var rights: TokenRights

  /// Guest-virtual address in the holder: the token.
  public var address: UInt64 { AddressSpace.tokenStart + slot * AddressSpace.pageSize }
}

/// The tokens of one holder.
public struct TokenSpace {
  /// A word a slot: the address of its node, or 0.
  fileprivate let directory: Reference<UInt64>
  fileprivate var nodes = Queue<TokenSpaceMembers>()
  /// Where the search for a free slot goes on, so that slots rest as long as possible before they are used again.
  private var next: UInt64 = 0
  /// Translations may be left of mappings that have changed.
  fileprivate var isStale = false
  public fileprivate(set) var count: UInt64 = 0
  /// The holder, to the host.
  public let holder: UInt64

  /// `directory` are `AddressSpace.tokenSlots` words that are 0.
  public init(directory: Reference<UInt64>, holder: UInt64) {
    self.directory = directory
    self.holder = holder
  }

  fileprivate mutating func takeSlot() -> UInt64? {
    guard count < AddressSpace.tokenSlots else { return nil }
    while directory.element(Int(next)).pointee != 0 { next = (next + 1) % AddressSpace.tokenSlots }
    let slot = next
    next = (next + 1) % AddressSpace.tokenSlots
    return slot
  }

  /// The token at an address that a program alleges: `badAddress` where there are no tokens, `notFound` where there is none now.
  @inline(__always)
  public func find(_ address: UInt64) throws(SystemError) -> Reference<TokenNode> {
    let offset = address &- AddressSpace.tokenStart
    guard offset < AddressSpace.tokenSlots * AddressSpace.pageSize, offset & (AddressSpace.pageSize - 1) == 0 else {
      throw .badAddress
    }
    let slot = Int(truncatingIfNeeded: offset / AddressSpace.pageSize)
    guard let node = Reference<TokenNode>(address: directory.element(slot).pointee) else { throw .notFound }
    return node
  }
}

/// What the tree needs done.
public protocol TokenHost {
  mutating func allocateNode() -> Reference<TokenNode>?
  mutating func releaseNode(_ node: Reference<TokenNode>)
  /// Makes the object's page appear at a new token's address. False: no memory for tables, nothing was done.
  mutating func map(_ node: Reference<TokenNode>) -> Bool
  /// Makes the mapping follow rights that have shrunk, maybe to none. True: processors may still have the old translation.
  mutating func remap(_ node: Reference<TokenNode>) -> Bool
  /// Returns when no processor has old translations of the holder.
  mutating func flush(_ space: Reference<TokenSpace>)
  /// Tokens of an object come and go; with the last one its page may be used for something else.
  mutating func retain(object: UInt64)
  mutating func release(object: UInt64)
}

public enum TokenTree {
  /// A new token in `space`, derived from `parent`, which must have the right `grant` and all of `rights`; without a parent it is an
  /// object's first.
  public static func add<Host: TokenHost>(
    _ object: UInt64, from parent: Reference<TokenNode>?, to space: Reference<TokenSpace>, _ rights: TokenRights,
    host: inout Host
  ) throws(SystemError) -> Reference<TokenNode> {
    guard rights.contains(.read), rights.isSubset(of: .all) else { throw .badArgument }
    if let parent, !parent.pointee.rights.isSuperset(of: rights.union(.grant)) { throw .denied }
    guard let node = host.allocateNode() else { throw .noMemory }
    guard let slot = space.pointee.takeSlot() else {
      host.releaseNode(node)
      throw .tableFull
    }
    node.initialize(to: TokenNode(parent: parent, object: object, space: space, slot: slot, rights: rights))
    guard host.map(node) else {
      host.releaseNode(node)
      throw .noMemory
    }
    host.retain(object: object)
    space.pointee.directory.element(Int(slot)).pointee = node.address
    space.pointee.nodes.append(node)
    space.pointee.count += 1
    parent?.pointee.children.append(node)
    return node
  }

  /// Whether `node` is `ancestor` or was derived from it.
  public static func isDerived(_ node: Reference<TokenNode>, from ancestor: Reference<TokenNode>) -> Bool {
    var current: Reference<TokenNode>? = node
    while let candidate = current {
      if candidate == ancestor { return true }
      current = candidate.pointee.parent
    }
    return false
  }

  /// How many tokens were derived from this one.
  public static func derivedCount(_ top: Reference<TokenNode>) -> UInt64 {
    var count: UInt64 = 0
    var node = first(in: top)
    while node != top {
      count += 1
      node = following(node)
    }
    return count
  }

  /// Leaves a token and all derived from it at most `rights`; without `read` they are taken. All mappings change first, then
  /// processors forget, and only then is anything freed.
  public static func restrict<Host: TokenHost>(
    _ top: Reference<TokenNode>, to rights: TokenRights, host: inout Host
  ) {
    let mask = rights.contains(.read) ? rights : []
    var node = first(in: top)
    while true {
      let rest = node.pointee.rights.intersection(mask)
      if rest != node.pointee.rights {
        node.pointee.rights = rest
        if host.remap(node) { node.pointee.space.pointee.isStale = true }
      }
      if node == top { break }
      node = following(node)
    }
    node = first(in: top)
    while true {
      let space = node.pointee.space
      if space.pointee.isStale {
        space.pointee.isStale = false
        host.flush(space)
      }
      let isTop = node == top
      let next = isTop ? node : following(node)
      if mask.isEmpty { remove(node, host: &host) }
      if isTop { break }
      node = next
    }
  }

  /// Takes all tokens derived from this one.
  public static func revokeDerived<Host: TokenHost>(_ node: Reference<TokenNode>, host: inout Host) {
    while let child = node.pointee.children.first { restrict(child, to: [], host: &host) }
  }

  /// The holder has ended, and its mappings and all translations of them are gone: what was derived from its tokens stays, below
  /// the tokens that these were derived from.
  public static func abandon<Host: TokenHost>(_ space: Reference<TokenSpace>, host: inout Host) {
    while let node = space.pointee.nodes.first {
      let parent = node.pointee.parent
      while let child = node.pointee.children.popFirst() {
        child.pointee.parent = parent
        parent?.pointee.children.append(child)
      }
      remove(node, host: &host)
    }
  }

  private static func remove<Host: TokenHost>(_ node: Reference<TokenNode>, host: inout Host) {
    let space = node.pointee.space
    space.pointee.directory.element(Int(node.pointee.slot)).pointee = 0
    space.pointee.nodes.remove(node)
    space.pointee.count -= 1
    node.pointee.parent?.pointee.children.remove(node)
    host.release(object: node.pointee.object)
    host.releaseNode(node)
  }

  // The walk visits what was derived before what it was derived from, without recursion.

  private static func first(in top: Reference<TokenNode>) -> Reference<TokenNode> {
    var node = top
    while let child = node.pointee.children.first { node = child }
    return node
  }

  /// Only for a node below the top of the walk.
  private static func following(_ node: Reference<TokenNode>) -> Reference<TokenNode> {
    if let sibling = node.pointee.siblingLink.next { return first(in: sibling) }
    return node.pointee.parent ?? node
  }
}

public enum TokenSiblings: LinkField {
  public static func link(_ node: Reference<TokenNode>) -> Link<TokenNode> { node.pointee.siblingLink }
  public static func setNext(_ node: Reference<TokenNode>, _ next: Reference<TokenNode>?) {
    node.pointee.siblingLink.next = next
  }
  public static func setPrevious(_ node: Reference<TokenNode>, _ previous: Reference<TokenNode>?) {
    node.pointee.siblingLink.previous = previous
  }
}

public enum TokenSpaceMembers: LinkField {
  public static func link(_ node: Reference<TokenNode>) -> Link<TokenNode> { node.pointee.spaceLink }
  public static func setNext(_ node: Reference<TokenNode>, _ next: Reference<TokenNode>?) {
    node.pointee.spaceLink.next = next
  }
  public static func setPrevious(_ node: Reference<TokenNode>, _ previous: Reference<TokenNode>?) {
    node.pointee.spaceLink.previous = previous
  }
}
