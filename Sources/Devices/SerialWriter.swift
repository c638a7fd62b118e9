// Carries serial output to a descriptor whose writes may block (a terminal, a pipe, a file): a thread of its own.

import Glibc
import HostSystem
import Synchronization
import SystemPackage

/// How long output may wait for more before it is written, in nanoseconds. A guest sends a byte every 10 to 50 µs; one
/// host write for each would double that.
let outputGathering: UInt64 = 1_000_000

/// Writes what a serial port sends to one descriptor, in batches, on its own thread.
final class SerialWriter: Sendable {
  private struct State {
    var finishing = false
    var failure: Errno?
  }
  private let serial: Serial16550
  private let descriptor: CInt
  private let timer: TimerDescriptor
  private let done: EventDescriptor
  private let state = Mutex(State())
  private let onFailure: @Sendable (Errno) -> Void

  /// Starts the thread.
  /// - Parameters:
  ///   - descriptor: where to write; stays the caller's, who keeps it open until the process ends or `finish` said true.
  ///   - onFailure: called once, on the writer's thread, when the host refuses a write; later output is discarded.
  init(serial: Serial16550, descriptor: CInt, onFailure: @escaping @Sendable (Errno) -> Void) throws(Errno) {
    self.serial = serial
    self.descriptor = descriptor
    self.onFailure = onFailure
    timer = try TimerDescriptor(blocking: true)
    done = try EventDescriptor()
    _ = try HostThread(name: "serial") { [self] in run() }
  }

  /// Output waits: write it soon. Any thread.
  func notify() { timer.arm(nanoseconds: outputGathering) }

  /// Ends the thread after it has written what waits; false when that took longer than `milliseconds`.
  func finish(milliseconds: CInt) -> Bool {
    state.withLock { $0.finishing = true }
    timer.arm(nanoseconds: 1)
    var entry = pollfd(fd: done.fileDescriptor, events: Int16(POLLIN), revents: 0)
    return poll(&entry, 1, milliseconds) > 0
  }

  private func run() {
    while true {
      timer.drain()
      // Read before draining: what is sent after a guest has been stopped and `finish` called is nobody's loss.
      let finishing = state.withLock { $0.finishing }
      drain()
      if finishing { break }
    }
    done.signal()
  }

  private func drain() {
    withUnsafeTemporaryAllocation(byteCount: 16 << 10, alignment: 16) { buffer in
      while true {
        let count = serial.takeOutput(into: buffer)
        if count == 0 { return }
        write(UnsafeRawBufferPointer(rebasing: buffer[..<count]))
      }
    }
  }

  private func write(_ bytes: UnsafeRawBufferPointer) {
    var rest = bytes
    while !rest.isEmpty, state.withLock({ $0.failure == nil }) {
      do {
        let written = try systemCall { Glibc.write(descriptor, rest.baseAddress, rest.count) }
        rest = UnsafeRawBufferPointer(rebasing: rest[written...])
      } catch .wouldBlock {
        // Whoever started us made the descriptor non-blocking.
        var entry = pollfd(fd: descriptor, events: Int16(POLLOUT), revents: 0)
        poll(&entry, 1, -1)
      } catch {
        state.withLock { $0.failure = error }
        onFailure(error)
      }
    }
  }
}
