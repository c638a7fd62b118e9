// Where the serial port leads on the host: the terminal, a file, a pseudo-terminal, a Unix socket, or nowhere.

import CLinux
import Glibc
import HostSystem
import SystemPackage

/// Where the console leads. As text: `stdio`, `none`, `pty`, `file:PATH`, `unix:PATH`.
public enum SerialDestination: Equatable, Sendable, CustomStringConvertible {
  /// Standard input and output; raw with an escape key when standard input is a terminal.
  case standardStreams
  /// Output is discarded and there is no input.
  case none
  /// Output is appended to a file (a reboot goes on in the same one); no input.
  case file(String)
  /// A new pseudo-terminal.
  case pseudoTerminal
  /// A Unix socket that serves one client at a time.
  case unixSocket(String)

  /// - Throws: `SerialBackendError.unknownDestination`.
  public init(parsing text: String) throws(SerialBackendError) {
    switch text {
    case "stdio": self = .standardStreams
    case "none": self = .none
    case "pty": self = .pseudoTerminal
    default:
      if text.hasPrefix("file:"), text.utf8.count > 5 {
        self = .file(String(text.dropFirst(5)))
      } else if text.hasPrefix("unix:"), text.utf8.count > 5 {
        self = .unixSocket(String(text.dropFirst(5)))
      } else {
        throw .unknownDestination(text)
      }
    }
  }

  public var description: String {
    switch self {
    case .standardStreams: "stdio"
    case .none: "none"
    case .file(let path): "file:\(path)"
    case .pseudoTerminal: "pty"
    case .unixSocket(let path): "unix:\(path)"
    }
  }
}

/// Why the console cannot lead where it should.
public enum SerialBackendError: Error, Equatable, CustomStringConvertible {
  case unknownDestination(String)
  case cannotOpen(path: String, Errno)
  case socket(SocketPathError)
  case terminal(Errno)
  case pseudoTerminal(Errno)
  /// The host lacks descriptors, threads or memory.
  case resources(Errno)

  public var description: String {
    switch self {
    case .unknownDestination(let text):
      "serial port: \"\(text)\" is none of stdio, none, pty, file:PATH, unix:PATH"
    case .cannotOpen(let path, let code): "serial port: cannot open \(path): \(code)"
    case .socket(let error): "serial port: \(error)"
    case .terminal(let code): "serial port: cannot set up the terminal: \(code)"
    case .pseudoTerminal(let code): "serial port: cannot make a pseudo-terminal: \(code)"
    case .resources(let code): "serial port: \(code)"
    }
  }
}

/// What happens at the host's end of the console that the machine should know of.
public enum SerialEvent: Equatable, Sendable {
  /// Ctrl-A x was typed.
  case quitRequested
  /// The host refused output; what the guest sends from now on is discarded.
  case outputFailed(Errno)
}

/// The host's end of the console. Lives on an event loop: make it before the loop runs, or on the loop's thread; call
/// `close` when the guest has stopped.
public final class SerialBackend {
  private enum Implementation {
    case none
    case streams(StandardStreams)
    case file(SerialWriter, OwnedDescriptorBox)
    case socket(SerialSocket)
    case pseudoTerminal(PseudoTerminal)
  }
  private let serial: Serial16550
  private let implementation: Implementation

  /// Opens `destination` and connects `serial` to it.
  /// - Parameter onEvent: called on the loop's thread or on the writer's; must not block.
  public init(
    _ destination: SerialDestination, serial: Serial16550, loop: EventLoop,
    onEvent: @escaping @Sendable (SerialEvent) -> Void
  ) throws(SerialBackendError) {
    self.serial = serial
    switch destination {
    case .none:
      serial.connect(onOutput: { [unowned serial] in discardOutput(of: serial) }, onInputRoom: {})
      implementation = .none
    case .standardStreams:
      implementation = .streams(
        try StandardStreams(serial: serial, loop: loop, input: STDIN_FILENO, output: STDOUT_FILENO, onEvent: onEvent))
    case .file(let path):
      do {
        let file = OwnedDescriptorBox(try Self.open(path))
        let writer = try SerialWriter(serial: serial, descriptor: file.rawValue) { onEvent(.outputFailed($0)) }
        serial.connect(onOutput: { writer.notify() }, onInputRoom: {})
        implementation = .file(writer, file)
      } catch { throw .cannotOpen(path: path, error) }
    case .unixSocket(let path): implementation = .socket(try SerialSocket(path: path, serial: serial, loop: loop))
    case .pseudoTerminal: implementation = .pseudoTerminal(try PseudoTerminal(serial: serial, loop: loop))
    }
  }

  /// The path of the terminal device that a person opens, for a pseudo-terminal.
  public var terminalPath: String? {
    guard case .pseudoTerminal(let terminal) = implementation else { return nil }
    return terminal.path
  }

  /// Writes out what waits, for at most about a second where the reader is slow, and puts the terminal back. Call it on
  /// the loop's thread after the vCPUs have stopped, once.
  public func close() {
    switch implementation {
    case .none: break
    case .streams(let streams): streams.finish(milliseconds: 1000)
    case .file(let writer, let file): if !writer.finish(milliseconds: 5000) { file.leak() }
    case .socket(let socket): socket.finish(milliseconds: 1000)
    case .pseudoTerminal(let terminal): terminal.finish(milliseconds: 1000)
    }
    serial.disconnect()
  }

  private static func open(_ path: String) throws(Errno) -> OwnedDescriptor {
    // O_NONBLOCK: a FIFO without a reader is an error (ENXIO), not a wait for ever.
    let descriptor = try OwnedDescriptor {
      castor_open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOCTTY | O_NONBLOCK, 0o644)
    }
    return descriptor
  }
}

/// Takes and forgets everything that waits.
func discardOutput(of serial: Serial16550) {
  withUnsafeTemporaryAllocation(byteCount: 1024, alignment: 1) { buffer in
    while serial.takeOutput(into: buffer) > 0 {}
  }
}

/// Owns a descriptor on behalf of several holders, or of a thread that outlives them.
final class OwnedDescriptorBox: Sendable {
  let rawValue: CInt
  private let leaked = EventFlag()

  init(_ descriptor: consuming OwnedDescriptor) { rawValue = descriptor.release() }
  /// Leaves the descriptor open until the process ends: somebody still writes to it.
  func leak() { leaked.raise() }
  deinit { if !leaked.isRaised { close(rawValue) } }
}
