// A Linux eventfd: the doorbell between vCPU threads, the kernel (ioeventfd, irqfd) and device threads.

import CLinux
import Glibc
import SystemPackage

/// A counter in the host kernel that one side signals and another waits for (eventfd(2)). Safe to share.
public final class EventDescriptor: Sendable {
  private let descriptor: OwnedDescriptor

  /// Makes a non-blocking, close-on-exec eventfd whose counter is zero.
  public init() throws(Errno) {
    descriptor = try OwnedDescriptor { eventfd(0, CInt(EFD_NONBLOCK) | CInt(EFD_CLOEXEC)) }
  }

  /// The descriptor's number, for KVM_IRQFD, KVM_IOEVENTFD and epoll. Owned by this object.
  public var fileDescriptor: CInt { descriptor.rawValue }

  /// Adds one to the counter. Never blocks; a saturated counter already says "signalled".
  public func signal() {
    var one: UInt64 = 1
    _ = write(descriptor.rawValue, &one, 8)
  }

  /// Takes the counter's value and sets it to zero; zero when nothing was signalled.
  @discardableResult
  public func drain() -> UInt64 {
    var value: UInt64 = 0
    return read(descriptor.rawValue, &value, 8) == 8 ? value : 0
  }
}
