// Reads a flattened device tree in place: Devicetree Specification 0.4, chapter 5 (format version 17).

/// Why a device tree blob is refused.
public enum DeviceTreeReadError: Error, Equatable, Sendable {
  /// Not a flattened device tree, or too short for its header.
  case notADeviceTree
  /// A version this reader cannot read.
  case unsupportedVersion
  /// A block lies outside the blob.
  case blockOutsideBlob
}

/// A flattened device tree, read where it lies. Nothing is copied or allocated; damaged structure ends a walk early
/// and never leads outside the blob.
public struct DeviceTreeReader {
  private let structure: Bytes
  private let strings: Bytes
  /// The length in bytes that the header states.
  public let totalSize: Int

  private static let magic: UInt32 = 0xd00d_feed
  private static let beginNode: UInt32 = 1
  private static let endNode: UInt32 = 2
  private static let property: UInt32 = 3
  private static let nop: UInt32 = 4

  /// A node, known by the offset of its FDT_BEGIN_NODE token.
  public struct Node {
    let offset: Int
    /// The full name, unit address included; empty for the root.
    public let name: Bytes

    /// The name up to the `@`.
    public var baseName: Bytes {
      guard let at = name.firstIndex(of: 0x40) else { return name }
      return name.slice(0, at) ?? name
    }
  }

  /// Whether `blob` starts like a flattened device tree.
  public static func recognises(_ blob: Bytes) -> Bool { blob.big(0, as: UInt32.self) == magic }

  /// Checks the header (§5.2) and the places of the blocks.
  public init(_ blob: Bytes) throws(DeviceTreeReadError) {
    guard Self.recognises(blob), let total = blob.big(4, as: UInt32.self),
      let structureOffset = blob.big(8, as: UInt32.self),
      let stringsOffset = blob.big(12, as: UInt32.self), let version = blob.big(20, as: UInt32.self),
      let lastCompatible = blob.big(24, as: UInt32.self), let stringsSize = blob.big(32, as: UInt32.self),
      let structureSize = blob.big(36, as: UInt32.self)
    else { throw .notADeviceTree }
    guard version >= 17, lastCompatible <= 17 else { throw .unsupportedVersion }
    guard let whole = blob.slice(0, Int(total)), let structure = whole.slice(Int(structureOffset), Int(structureSize)),
      let strings = whole.slice(Int(stringsOffset), Int(stringsSize))
    else { throw .blockOutsideBlob }
    self.structure = structure
    self.strings = strings
    totalSize = Int(total)
  }

  private static func aligned(_ offset: Int) -> Int { (offset + 3) & ~3 }

  /// What stands at a place of the structure block (§5.4.1).
  private enum Token {
    case begin(name: Bytes, next: Int)
    case end(next: Int)
    case property(name: Bytes, value: Bytes, next: Int)
  }

  private func token(at start: Int) -> Token? {
    var offset = start
    while structure.big(offset, as: UInt32.self) == Self.nop { offset += 4 }
    guard let kind = structure.big(offset, as: UInt32.self) else { return nil }
    switch kind {
    case Self.beginNode:
      guard let name = structure.terminated(offset + 4) else { return nil }
      return .begin(name: name, next: Self.aligned(offset + 4 + name.count + 1))
    case Self.endNode:
      return .end(next: offset + 4)
    case Self.property:
      guard let length = structure.big(offset + 4, as: UInt32.self),
        let nameOffset = structure.big(offset + 8, as: UInt32.self),
        let value = structure.slice(offset + 12, Int(length)), let name = strings.terminated(Int(nameOffset))
      else { return nil }
      return .property(name: name, value: value, next: Self.aligned(offset + 12 + Int(length)))
    default:
      return nil
    }
  }

  /// The root node.
  public var root: Node? {
    guard case .begin(let name, _)? = token(at: 0) else { return nil }
    return Node(offset: 0, name: name)
  }

  /// Calls `body` for each property and child of `node` until it answers false.
  private func scan(_ node: Node, property: (Bytes, Bytes) -> Bool, child: (Node) -> Bool) {
    guard case .begin(_, var offset)? = token(at: node.offset) else { return }
    var depth = 0
    // Every token is at least four bytes long, so this ends.
    while let next = token(at: offset) {
      switch next {
      case .begin(let name, let following):
        if depth == 0, !child(Node(offset: offset, name: name)) { return }
        depth += 1
        offset = following
      case .end(let following):
        if depth == 0 { return }
        depth -= 1
        offset = following
      case .property(let name, let value, let following):
        if depth == 0, !property(name, value) { return }
        offset = following
      }
    }
  }

  /// The value of the property `name` of `node`.
  public func property(_ name: StaticString, of node: Node) -> Bytes? {
    var found: Bytes?
    scan(
      node,
      property: { candidate, value in
        if candidate.equals(name) { found = value }
        return found == nil
      }, child: { _ in true })
    return found
  }

  /// The string that the property holds, up to its terminator.
  public func string(_ name: StaticString, of node: Node) -> Bytes? { property(name, of: node)?.upToZero }

  /// The `index`-th 32-bit cell of a property.
  public func cell(_ name: StaticString, _ index: Int, of node: Node) -> UInt32? {
    property(name, of: node)?.big(index * 4, as: UInt32.self)
  }

  /// Calls `body` for each direct child of `node`, in order, until it answers false.
  public func forEachChild(of node: Node, _ body: (Node) -> Bool) {
    scan(node, property: { _, _ in true }, child: body)
  }

  /// The first direct child with this name, with or without its unit address.
  public func child(_ name: Bytes, of node: Node) -> Node? {
    var found: Node?
    forEachChild(of: node) { candidate in
      if candidate.name.equals(name) || candidate.baseName.equals(name) { found = candidate }
      return found == nil
    }
    return found
  }

  /// The node at an absolute path such as `/chosen/pollux,composition`.
  public func node(at path: Bytes) -> Node? {
    guard path.byte(0) == 0x2f, var current = root else { return nil }
    var parts = Parts(of: path, separator: 0x2f)
    while let part = parts.next() {
      guard let next = child(part, of: current) else { return nil }
      current = next
    }
    return current
  }

  /// Whether `node` lists `name` in its `compatible` property.
  public func isCompatible(_ node: Node, with name: StaticString) -> Bool {
    guard let list = property("compatible", of: node) else { return false }
    var parts = Parts(of: list, separator: 0)
    while let part = parts.next() {
      if part.equals(name) { return true }
    }
    return false
  }

  /// The `index`-th pair of 64-bit address and size in `reg`, with the two address and two size cells of the root.
  public func register(_ index: Int, of node: Node) -> (address: UInt64, size: UInt64)? {
    guard let list = property("reg", of: node), let address = list.big(index * 16, as: UInt64.self),
      let size = list.big(index * 16 + 8, as: UInt64.self)
    else { return nil }
    return (address, size)
  }
}
