// The console on a pseudo-terminal (pty(7)): whoever opens its device is connected.

import CLinux
import Glibc
import HostSystem
import SystemPackage

/// A pseudo-terminal in raw mode. While nobody has its device open, output is kept for who comes.
final class PseudoTerminal {
  /// The device to open, such as `/dev/pts/4`.
  let path: String
  private let loop: EventLoop
  private let connection: SerialConnection
  private let controller: OwnedDescriptor
  /// Tells of everybody who opens the device; the controller's side hears nothing of that.
  private let opens: OwnedDescriptor

  init(serial: Serial16550, loop: EventLoop) throws(SerialBackendError) {
    self.loop = loop
    do {
      let controller = try OwnedDescriptor { castor_open("/dev/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC | O_NONBLOCK, 0) }
      let descriptor = controller.rawValue
      var number: UInt32 = 0
      var locked: CInt = 0
      // TIOCGPTN stores one unsigned int, TIOCSPTLCK reads one int.
      try systemCall { castor_ioctl_pointer(descriptor, castor_TIOCGPTN, &number) }
      try systemCall { castor_ioctl_pointer(descriptor, castor_TIOCSPTLCK, &locked) }
      let path = "/dev/pts/\(number)"
      // Neither echo nor line editing: the guest does both.
      var mode = termios()
      try systemCall { tcgetattr(descriptor, &mode) }
      cfmakeraw(&mode)
      try systemCall { tcsetattr(descriptor, TCSANOW, &mode) }
      // After the device was open once, the controller's side reports a hang-up whenever nobody has it open.
      _ = try OwnedDescriptor { castor_open(path, O_RDWR | O_NOCTTY | O_CLOEXEC, 0) }
      opens = try OwnedDescriptor { inotify_init1(CInt(O_CLOEXEC | O_NONBLOCK)) }
      let watcher = opens.rawValue
      try systemCall { inotify_add_watch(watcher, path, UInt32(IN_OPEN)) }
      self.path = path
      self.controller = controller
      connection = try SerialConnection(serial: serial, loop: loop)
      try loop.add(watcher, for: .readable) { [unowned self] _ in
        drainOpens()
        connectIfOpen()
      }
    } catch { throw .pseudoTerminal(error) }
  }

  func finish(milliseconds: UInt64) {
    connection.finish(milliseconds: milliseconds)
    loop.remove(opens.rawValue)
  }

  private func drainOpens() {
    withUnsafeTemporaryAllocation(byteCount: 4096, alignment: 8) { buffer in
      while read(opens.rawValue, buffer.baseAddress, buffer.count) > 0 {}
    }
  }

  private func connectIfOpen() {
    guard !connection.isConnected else { return }
    var entry = pollfd(fd: controller.rawValue, events: Int16(POLLOUT), revents: 0)
    guard poll(&entry, 1, 0) > 0, entry.revents & Int16(POLLHUP) == 0 else { return }
    // It may have been opened once more between the hang-up and our hearing of it.
    try? connection.connect(controller.rawValue, isSocket: false) { [unowned self] in connectIfOpen() }
  }
}
