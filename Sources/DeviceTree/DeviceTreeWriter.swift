// Builds a flattened device tree (Devicetree Specification v0.4, chapter 5) through libfdt's sequential-write calls.

import CFDT
import Glibc

/// Builds a device tree blob from front to back. Use `DeviceTreeWriter.build`.
public struct DeviceTreeWriter: ~Copyable {
  // Allocated with malloc, `capacity` bytes, owned; holds libfdt's state of a tree in the making.
  private var buffer: UnsafeMutableRawPointer
  private var capacity: Int

  private init() throws(DeviceTreeError) {
    capacity = 4096
    guard let memory = malloc(capacity) else { throw .outOfMemory }
    buffer = memory
  }

  deinit { free(buffer) }

  /// Builds a tree whose root node `body` fills.
  /// - Returns: the blob, as long as its header says.
  public static func build(
    _ body: (inout DeviceTreeWriter) throws(DeviceTreeError) -> Void
  ) throws(DeviceTreeError) -> [UInt8] {
    var writer = try DeviceTreeWriter()
    try writer.call("start") { fdt_create($0, $1) }
    try writer.call("finish the reservation map") { memory, _ in fdt_finish_reservemap(memory) }
    try writer.enter(name: "", body)
    try writer.call("finish") { memory, _ in fdt_finish(memory) }
    // fdt_finish made the blob complete; its total size lies inside the buffer.
    let count = Int(castor_fdt_totalsize(writer.buffer))
    return [UInt8](UnsafeRawBufferPointer(start: writer.buffer, count: count))
  }

  /// Adds a child node, which `body` fills. Properties of a node come before its children.
  public mutating func node(
    _ name: String, _ body: (inout DeviceTreeWriter) throws(DeviceTreeError) -> Void
  ) throws(DeviceTreeError) {
    guard Self.isNodeName(name) else { throw .invalidText(name) }
    try enter(name: name, body)
  }

  /// Adds a property without a value.
  public mutating func property(_ name: String) throws(DeviceTreeError) {
    try property(name, bytes: [])
  }

  /// Adds a property of one or more strings.
  public mutating func property(_ name: String, _ strings: String...) throws(DeviceTreeError) {
    var bytes: [UInt8] = []
    for text in strings {
      guard !text.utf8.contains(0) else { throw .invalidText(text) }
      bytes += Array(text.utf8) + [0]
    }
    try property(name, bytes: bytes)
  }

  /// Adds a property of 32-bit cells.
  public mutating func property(_ name: String, cells: [UInt32]) throws(DeviceTreeError) {
    try property(name, bytes: cells.flatMap { cell in withUnsafeBytes(of: cell.bigEndian) { [UInt8]($0) } })
  }

  /// Adds a property of 64-bit numbers, two cells each.
  public mutating func property(_ name: String, quads: [UInt64]) throws(DeviceTreeError) {
    try property(name, cells: quads.flatMap { [UInt32($0 >> 32), UInt32(truncatingIfNeeded: $0)] })
  }

  /// Adds a property of bytes.
  public mutating func property(_ name: String, bytes: [UInt8]) throws(DeviceTreeError) {
    guard Self.isPropertyName(name) else { throw .invalidText(name) }
    guard let count = Int32(exactly: bytes.count) else { throw .invalidText(name) }
    try call("add property \(name)") { memory, _ in
      // libfdt copies `count` bytes out of `value` during the call.
      bytes.withUnsafeBytes { value in fdt_property(memory, name, value.baseAddress, count) }
    }
  }

  private mutating func enter(
    name: String, _ body: (inout DeviceTreeWriter) throws(DeviceTreeError) -> Void
  ) throws(DeviceTreeError) {
    try call("add node \(name)") { memory, _ in fdt_begin_node(memory, name) }
    try body(&self)
    try call("end node \(name)") { memory, _ in fdt_end_node(memory) }
  }

  /// Runs a libfdt call, in a larger buffer when the first was too small: libfdt changes nothing in that case.
  private mutating func call(
    _ action: @autoclosure () -> String, _ body: (UnsafeMutableRawPointer, Int32) -> Int32
  ) throws(DeviceTreeError) {
    while true {
      let result = body(buffer, Int32(capacity))
      if result == 0 { return }
      guard result == -FDT_ERR_NOSPACE, capacity < 1 << 26 else {
        throw .refused(code: result, action: action())
      }
      guard let larger = malloc(capacity * 2) else { throw .outOfMemory }
      let moved = fdt_resize(buffer, larger, Int32(capacity * 2))
      guard moved == 0 else {
        free(larger)
        throw .refused(code: moved, action: "grow")
      }
      free(buffer)
      buffer = larger
      capacity *= 2
    }
  }

  /// Devicetree Specification §2.2.1: name, optionally @ and a unit address.
  static func isNodeName(_ name: String) -> Bool {
    let parts = name.utf8.split(separator: UInt8(ascii: "@"), omittingEmptySubsequences: false)
    return parts.count <= 2
      && parts.allSatisfy { part in
        !part.isEmpty && part.allSatisfy { isLetterOrDigit($0) || ",._+-".utf8.contains($0) }
      }
  }

  /// Devicetree Specification §2.2.4.
  static func isPropertyName(_ name: String) -> Bool {
    !name.isEmpty && name.utf8.allSatisfy { isLetterOrDigit($0) || ",._+-?#".utf8.contains($0) }
  }

  private static func isLetterOrDigit(_ byte: UInt8) -> Bool {
    (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(byte) || (UInt8(ascii: "a")...UInt8(ascii: "z")).contains(byte)
      || (UInt8(ascii: "A")...UInt8(ascii: "Z")).contains(byte)
  }
}
