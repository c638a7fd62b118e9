// The console on a Unix socket: clients come and go, one at a time.

import CLinux
import Glibc
import HostSystem
import SystemPackage

/// Listens at a path and connects the serial port to one client at a time; who comes meanwhile is told so and sent away.
final class SerialSocket {
  private let listener: UnixListener
  private let connection: SerialConnection
  private let loop: EventLoop
  private var client: CInt?

  init(path: String, serial: Serial16550, loop: EventLoop) throws(SerialBackendError) {
    self.loop = loop
    do { listener = try UnixListener(path: path) } catch { throw .socket(error) }
    do {
      connection = try SerialConnection(serial: serial, loop: loop)
      try loop.add(listener.fileDescriptor, for: .readable) { [unowned self] _ in welcome() }
    } catch { throw .resources(error) }
  }

  func finish(milliseconds: UInt64) {
    connection.finish(milliseconds: milliseconds)
    loop.remove(listener.fileDescriptor)
    closeClient()
  }

  private func welcome() {
    guard let newcomer = listener.accept() else { return }
    guard client == nil else {
      let text = "castor: another client is connected to this console\r\n"
      _ = text.utf8.withContiguousStorageIfAvailable {
        send(newcomer, $0.baseAddress, $0.count, CInt(MSG_NOSIGNAL))
      }
      Glibc.close(newcomer)
      return
    }
    client = newcomer
    do {
      try connection.connect(newcomer, isSocket: true) { [unowned self] in closeClient() }
    } catch { closeClient() }
  }

  private func closeClient() {
    if let client { Glibc.close(client) }
    client = nil
  }
}
