// What can be wrong with a device tree, or with a request to build one.

import CFDT

/// A device tree that cannot be built or read.
public enum DeviceTreeError: Error, Equatable, Sendable, CustomStringConvertible {
  /// libfdt refused; its code (a negated FDT_ERR_…) and what was to be done.
  case refused(code: Int32, action: String)
  /// A node or property name, or a string value, that the format cannot hold.
  case invalidText(String)
  /// The blob is not a consistent device tree.
  case malformed(String)
  /// The host has no memory for the blob.
  case outOfMemory

  public var description: String {
    switch self {
    case .refused(let code, let action): "device tree: \(action): \(String(cString: fdt_strerror(code)))"
    case .invalidText(let text): "device tree: not a valid name or string: '\(text)'"
    case .malformed(let what): "device tree: \(what)"
    case .outOfMemory: "device tree: out of memory"
    }
  }
}
