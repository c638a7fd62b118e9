// Reads a flattened device tree into values: every offset and length is checked by libfdt's full check first.

import CFDT

/// A node of a device tree, with everything below it.
public struct DeviceTreeNode: Equatable, Sendable {
  public struct Property: Equatable, Sendable {
    public let name: String
    public let value: [UInt8]
  }
  /// With the unit address; empty for the root.
  public let name: String
  public private(set) var properties: [Property] = []
  public private(set) var children: [DeviceTreeNode] = []

  /// Nodes inside nodes that a tree may have; deeper ones are refused so that reading cannot exhaust the stack.
  public static let depthLimit = 32

  /// Reads a blob and returns its root.
  public init(blob: [UInt8]) throws(DeviceTreeError) {
    let result: Result<DeviceTreeNode, DeviceTreeError> = blob.withUnsafeBytes { bytes in
      guard let base = bytes.baseAddress, bytes.count >= 40 else {
        return .failure(.malformed("shorter than its header"))
      }
      // libfdt reads its header fields as aligned 32-bit words; an array's storage is aligned to 16 bytes.
      let check = fdt_check_full(base, bytes.count)
      guard check == 0 else { return .failure(.refused(code: check, action: "check")) }
      do throws(DeviceTreeError) {
        return .success(try DeviceTreeNode(tree: base, offset: 0, depth: 0))
      } catch {
        return .failure(error)
      }
    }
    self = try result.get()
  }

  /// - Parameter tree: a blob that passed `fdt_check_full`, so that libfdt stays inside it.
  private init(tree: UnsafeRawPointer, offset: Int32, depth: Int) throws(DeviceTreeError) {
    guard depth <= Self.depthLimit else { throw .malformed("nodes nested deeper than \(Self.depthLimit)") }
    name = fdt_get_name(tree, offset, nil).map { String(cString: $0) } ?? ""
    var property = fdt_first_property_offset(tree, offset)
    while property >= 0 {
      var key: UnsafePointer<CChar>?
      var count: Int32 = 0
      guard let value = fdt_getprop_by_offset(tree, property, &key, &count), let key, count >= 0 else {
        throw .refused(code: count, action: "read a property")
      }
      properties.append(
        Property(
          name: String(cString: key), value: [UInt8](UnsafeRawBufferPointer(start: value, count: Int(count)))))
      property = fdt_next_property_offset(tree, property)
    }
    var child = fdt_first_subnode(tree, offset)
    while child >= 0 {
      children.append(try DeviceTreeNode(tree: tree, offset: child, depth: depth + 1))
      child = fdt_next_subnode(tree, child)
    }
  }

  /// The node at an absolute path ("/cpus/cpu@0"), or nil. Meaningful for the root.
  public func node(at path: String) -> DeviceTreeNode? {
    var node = self
    for step in path.split(separator: "/") {
      guard let next = node.children.first(where: { $0.name == step }) else { return nil }
      node = next
    }
    return node
  }

  /// The bytes of a property, or nil.
  public func bytes(_ name: String) -> [UInt8]? { properties.first { $0.name == name }?.value }

  /// A property as 32-bit cells, or nil when it is absent or its length no multiple of four.
  public func cells(_ name: String) -> [UInt32]? {
    guard let value = bytes(name), value.count % 4 == 0 else { return nil }
    return stride(from: 0, to: value.count, by: 4).map { start in
      value[start..<(start + 4)].reduce(0) { $0 << 8 | UInt32($1) }
    }
  }

  /// A property as strings, or nil when it is absent or not NUL-terminated text.
  public func strings(_ name: String) -> [String]? {
    guard let value = bytes(name), value.last == 0 else { return nil }
    return value.dropLast().split(separator: 0, omittingEmptySubsequences: false).map {
      String(decoding: $0, as: UTF8.self)
    }
  }
}
