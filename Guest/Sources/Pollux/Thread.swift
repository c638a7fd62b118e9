// Threads of this process.

import CPollux

/// What a new thread runs; kept alive by the reference that travels in the thread's argument.
private final class ThreadStart {
  let body: () -> Void
  init(_ body: @escaping () -> Void) { self.body = body }
}

public enum Thread {
  public static func yield() {
    do throws(SystemError) { _ = try invoke(.threadYield) } catch {}
  }

  public static func setPriority(_ priority: UInt64) {
    do throws(SystemError) { _ = try invoke(.threadSetPriority, 0, priority) } catch {}
  }

  /// Runs `body` on a new thread of this process with a stack of its own. What `body` shares with others it must guard
  /// itself.
  public static func start(
    stackSize: UInt64 = 32 << 10, priority: UInt64, _ body: @escaping () -> Void
  ) throws(SystemError) {
    let stack = try MemoryObject.create(stackSize).map([.read, .write])
    let start = Unmanaged.passRetained(ThreadStart(body))
    _ = try invoke(
      .threadCreate, 0, pollux_thread_entry_address(), stack.address + UInt64(stack.size),
      UInt64(UInt(bitPattern: start.toOpaque())), 0, priority)
  }
}

@c(pollux_thread_main)
public func threadMain(_ argument: UnsafeMutableRawPointer) {
  // `Thread.start` passed a retained ThreadStart.
  Unmanaged<ThreadStart>.fromOpaque(argument).takeRetainedValue().body()
}
