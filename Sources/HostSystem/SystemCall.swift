// The one funnel for host system calls: EINTR is retried and errno becomes a typed error here, nowhere else.

import CLinux
import Glibc
import SystemPackage

/// Calls `body` until it is not interrupted by a signal, and returns its result.
/// - Throws: the `Errno` that the call left when it returned a negative value.
@discardableResult
public func systemCall<Result: FixedWidthInteger & SignedInteger>(_ body: () -> Result) throws(Errno) -> Result {
  while true {
    let result = body()
    if result >= 0 { return result }
    let code = Errno(rawValue: errno)
    if code != .interrupted { throw code }
  }
}

/// Owns one host file descriptor and closes it when it goes out of scope.
public struct OwnedDescriptor: ~Copyable, Sendable {
  /// The descriptor's number; valid as long as this value lives.
  public let rawValue: CInt

  /// Takes ownership of an open descriptor.
  public init(owning rawValue: CInt) { self.rawValue = rawValue }

  /// Takes ownership of the descriptor that a system call returns.
  public init(_ call: () -> CInt) throws(Errno) { rawValue = try systemCall(call) }

  /// Gives up ownership without closing.
  public consuming func release() -> CInt {
    let value = rawValue
    discard self
    return value
  }

  deinit { _ = close(rawValue) }
}
