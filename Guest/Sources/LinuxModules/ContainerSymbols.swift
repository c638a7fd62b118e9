// The one list of what the driver container offers to Linux modules.

import BootFormats

/// The kernel symbols that the Linux driver container provides. What runs a module resolves its imports from here, and
/// `castor ldc coverage` counts against it; a name enters with the code behind it, not before.
public enum ContainerSymbols {
  /// Empty: the container's kernel API does not exist yet.
  public static let names: [StaticString] = []

  /// Whether the container provides a symbol of that name.
  public static func provides(_ name: Bytes) -> Bool {
    for candidate in names where name.equals(candidate) { return true }
    return false
  }
}
