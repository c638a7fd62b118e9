// The console on standard input and output: raw terminal with an escape key, or plain pipes and files.

import CLinux
import Glibc
import HostSystem
import SystemPackage

/// Carries the console over two descriptors that belong to the process, usually 0 and 1.
///
/// When `input` is a terminal it is raw from now until `finish` or the end of the process, typed input is always read
/// (so that the escape key works although the guest does not listen) and what the guest does not take waits, up to
/// 64 KiB. Otherwise input is read as the guest takes it, and its end means nothing.
final class StandardStreams {
  private static let typeAhead = 64 << 10

  private let serial: Serial16550
  private let loop: EventLoop
  private let input: CInt
  private let writer: SerialWriter
  private let roomAgain: EventDescriptor
  private let continued: EventDescriptor
  private let onEvent: @Sendable (SerialEvent) -> Void
  private let isTerminal: Bool
  private var typed = ByteQueue(limit: StandardStreams.typeAhead)
  private var filter = EscapeFilter()
  /// How `input` is waited for.
  private enum Waiting {
    case no, inLoop
    /// A regular file, which is always ready and which epoll does not take.
    case alwaysReady
    case ended
  }
  private var waiting = Waiting.no

  init(
    serial: Serial16550, loop: EventLoop, input: CInt, output: CInt, onEvent: @escaping @Sendable (SerialEvent) -> Void
  ) throws(SerialBackendError) {
    self.serial = serial
    self.loop = loop
    self.input = input
    self.onEvent = onEvent
    isTerminal = isatty(input) == 1
    do {
      roomAgain = try EventDescriptor()
      continued = try EventDescriptor()
      writer = try SerialWriter(serial: serial, descriptor: output) { onEvent(.outputFailed($0)) }
    } catch { throw .resources(error) }
    do {
      if isTerminal { try systemCall { castor_terminal_make_raw(input, continued.fileDescriptor) } }
    } catch { throw .terminal(error) }
    do {
      try loop.add(roomAgain.fileDescriptor, for: .readable) { [unowned self] _ in
        roomAgain.drain()
        resume()
      }
      try loop.add(continued.fileDescriptor, for: .readable) { [unowned self] _ in
        continued.drain()
        resume()
      }
    } catch {
      castor_terminal_restore()
      throw .resources(error)
    }
    let writer = writer
    let room = roomAgain
    serial.connect(onOutput: { writer.notify() }, onInputRoom: { room.signal() })
    resume()
  }

  func finish(milliseconds: CInt) {
    // A writer that is stuck in the host keeps its thread until the process ends; nothing waits for it.
    _ = writer.finish(milliseconds: milliseconds)
    loop.remove(roomAgain.fileDescriptor)
    loop.remove(continued.fileDescriptor)
    stopWaiting()
    serial.disconnect()
    if isTerminal { castor_terminal_restore() }
  }

  /// Offers the guest what waits and takes up reading where that was given up.
  private func resume() {
    if isTerminal { offerTyped() }
    if waiting == .no { startWaiting() }
    if waiting == .alwaysReady { while waiting == .alwaysReady, readPlain() {} }
  }

  private func startWaiting() {
    // Reading would stop a process that is in the background; SIGCONT brings us back here.
    if isTerminal, castor_terminal_in_foreground(input) == 0 { return }
    do {
      try loop.add(input, for: .readable) { [unowned self] readiness in serve(readiness) }
      waiting = .inLoop
    } catch .notPermitted {
      waiting = .alwaysReady
    } catch {
      waiting = .ended  // No standard input at all.
    }
  }

  private func stopWaiting() {
    if waiting == .inLoop { loop.remove(input) }
    waiting = .no
  }

  private func serve(_ readiness: Readiness) {
    if isTerminal {
      readTerminal()
    } else if !readPlain(), waiting == .inLoop {
      stopWaiting()  // Until the guest has taken some.
    }
  }

  /// Reads a pipe or file as far as there is room; false when there is none or nothing more to read.
  private func readPlain() -> Bool {
    let room = serial.inputRoom
    guard room > 0 else { return false }
    return withUnsafeTemporaryAllocation(byteCount: room, alignment: 1) { buffer in
      guard let count = readInput(into: buffer) else { return waiting == .inLoop }
      // No other thread adds input, so what fitted a moment ago fits now.
      _ = serial.receive(UnsafeRawBufferPointer(rebasing: buffer[..<count]))
      return true
    }
  }

  private func readTerminal() {
    guard castor_terminal_in_foreground(input) != 0 else { return stopWaiting() }
    withUnsafeTemporaryAllocation(byteCount: 1024, alignment: 1) { buffer in
      guard let count = readInput(into: buffer) else { return }
      filter.split(UnsafeRawBufferPointer(rebasing: buffer[..<count])) { byte in
        _ = typed.append(byte)
      } command: { command in
        switch command {
        case .quit: onEvent(.quitRequested)
        case .sendBreak:
          offerTyped()
          serial.receiveBreak()
        case .help: showHelp()
        }
      }
    }
    offerTyped()
  }

  /// Reads once; nil when nothing came. At the end of input waiting ends for good.
  private func readInput(into buffer: UnsafeMutableRawBufferPointer) -> Int? {
    do {
      let count = try systemCall { read(input, buffer.baseAddress, buffer.count) }
      if count > 0 { return count }
      stopWaiting()
      waiting = .ended
    } catch .wouldBlock {
    } catch {
      // EIO: the terminal is gone, or we lost the foreground between the check and the read.
      stopWaiting()
      if error != .ioError || !isTerminal { waiting = .ended }
    }
    return nil
  }

  private func offerTyped() {
    while !typed.isEmpty {
      let accepted = typed.withFirstRun { serial.receive($0) }
      if accepted == 0 { return }
      typed.dropFirst(accepted)
    }
  }

  private func showHelp() {
    let text = Array(("\r\n" + EscapeFilter.help).utf8)
    // A terminal that does not take a few lines loses them.
    text.withUnsafeBytes { _ = write(input, $0.baseAddress, $0.count) }
  }
}
