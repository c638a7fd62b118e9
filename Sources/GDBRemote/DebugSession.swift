// What one connected debugger may say and what it is answered: the packet dispatch of the remote protocol in all-stop
// mode (GDB manual, "Remote Serial Protocol", Packets). No sockets here: bytes in, bytes out.

import Logging

/// Names one run of the target, so that a stop that comes after a detach is recognised as stale.
public struct RunToken: Equatable, Sendable {
  var number: UInt64
}

/// The conversation with one debugger. Belongs to one thread.
public final class DebugSession<Target: DebugTarget> {
  enum State: Equatable {
    case stopped(StopEvent)
    case running(RunToken)
    /// Detached, killed or disconnected.
    case over
  }

  let target: Target
  let logger: Logger
  private let stopped: @Sendable (RunToken, StopEvent) -> Void
  private var decoder = PacketDecoder()
  private var acknowledges = true
  private var lastPacket: [UInt8] = []
  private var nextToken = RunToken(number: 1)

  var state: State
  /// Thread that register and memory packets mean (`Hg`).
  var generalThread: ThreadIdentifier
  /// Threads that `c` and `s` mean (`Hc`).
  var continueThread = ThreadSelection.any
  /// Registers of the stopped threads that were asked for.
  var registerCache: [ThreadIdentifier: RegisterFile] = [:]
  var clientKnowsSoftwareBreakpointStops = false
  var clientKnowsHardwareBreakpointStops = false

  /// Bytes for the debugger, which the owner takes from here and sends.
  public var output: [UInt8] = []
  /// Whether the conversation has ended: send what is in `output` and close.
  public var isOver: Bool { state == .over }

  /// Attaches to the target, which stops.
  /// - Parameter stopped: called from any thread when the target has stopped; the owner hands its arguments to
  ///   `targetStopped` on the session's own thread.
  public init(target: Target, logger: Logger, stopped: @escaping @Sendable (RunToken, StopEvent) -> Void) {
    self.target = target
    self.logger = logger
    self.stopped = stopped
    let event = target.attach()
    state = .stopped(event)
    generalThread = event.thread
  }

  /// Takes bytes that the debugger sent.
  public func receive(_ bytes: some Sequence<UInt8>) {
    for byte in bytes {
      guard !isOver else { return }
      guard let event = decoder.feed(byte) else { continue }
      switch event {
      case .packet(let data):
        if acknowledges { output.append(UInt8(ascii: "+")) }
        handle(data)
      case .acknowledged: break
      case .retransmit:
        // A peer that only asks again must not make the output grow without bound.
        if output.count < 4 * PacketDecoder.packetSize { output += lastPacket }
      case .interrupt: if case .running = state { target.interrupt() }
      case .malformed(let error): refuse(error)
      }
    }
  }

  /// The run that `token` names has ended.
  public func targetStopped(_ token: RunToken, _ event: StopEvent) {
    guard state == .running(token) else { return }
    state = .stopped(event)
    generalThread = event.thread
    continueThread = .any
    send(stopReply(event))
  }

  /// The connection is lost: the target runs on without a debugger.
  public func disconnected() {
    guard !isOver else { return }
    state = .over
    target.detach()
  }

  // MARK: Answers

  func send(_ data: [UInt8]) {
    logger.trace("gdb <- \(String(decoding: data.prefix(200), as: UTF8.self))")
    lastPacket = PacketEncoder.encode(data)
    output += lastPacket
  }

  func send(_ text: String) { send(Array(text.utf8)) }

  /// `E` and an errno in hexadecimal: all that gdb 13 understands everywhere.
  func send(_ error: PacketFailure) { send("E" + (error.rawValue < 16 ? "0" : "") + Hexadecimal.text(error.rawValue)) }

  /// An empty answer says "not supported", after which gdb looks for another way.
  func send(_ error: DebugTargetError) {
    logger.debug("gdb request refused: \(error)")
    switch error {
    case .unsupported: send("")
    case .unmapped: send(.badAddress)
    case .noThread: send(.noThread)
    case .failed: send(.failed)
    }
  }

  private func refuse(_ error: PacketError) {
    logger.debug("gdb packet dropped: \(error)")
    switch error {
    case .checksum, .badChecksumDigits:
      if acknowledges { output.append(UInt8(ascii: "-")) } else { send(.invalid) }
    case .tooLong, .truncatedEscape:
      // Sending it again would not help, so no `-`.
      if acknowledges { output.append(UInt8(ascii: "+")) }
      send(.invalid)
    }
  }

  // MARK: Dispatch

  private func handle(_ data: [UInt8]) {
    logger.trace("gdb -> \(String(decoding: data.prefix(200), as: UTF8.self))")
    var reader = PacketReader(data)
    guard let letter = reader.byte() else { return send("") }
    guard case .stopped(let event) = state else {
      // In all-stop mode a debugger sends nothing but the interrupt byte while the target runs, except to give up.
      switch letter {
      case UInt8(ascii: "k"): kill()
      case UInt8(ascii: "D"): detach()
      default: send(.busy)
      }
      return
    }
    if case .exited = event.reason, "gGpPmMXZzcCsSv".utf8.contains(letter), !data.starts(with: "vMustReply".utf8),
      !data.starts(with: "vCont?".utf8), !data.starts(with: "vKill".utf8)
    {
      return send(.noThread)
    }
    switch letter {
    case UInt8(ascii: "?"): send(stopReply(event))
    case UInt8(ascii: "g"): readAllRegisters()
    case UInt8(ascii: "G"): writeAllRegisters(&reader)
    case UInt8(ascii: "p"): readRegister(&reader)
    case UInt8(ascii: "P"): writeRegister(&reader)
    case UInt8(ascii: "m"): readMemory(&reader)
    case UInt8(ascii: "M"): writeMemory(&reader, binary: false)
    case UInt8(ascii: "X"): writeMemory(&reader, binary: true)
    case UInt8(ascii: "Z"): changeBreakpoint(&reader, insert: true)
    case UInt8(ascii: "z"): changeBreakpoint(&reader, insert: false)
    case UInt8(ascii: "c"): resumeOld(&reader, .continue, hasSignal: false)
    case UInt8(ascii: "C"): resumeOld(&reader, .continue, hasSignal: true)
    case UInt8(ascii: "s"): resumeOld(&reader, .step, hasSignal: false)
    case UInt8(ascii: "S"): resumeOld(&reader, .step, hasSignal: true)
    case UInt8(ascii: "v"): handleNamed(&reader)
    case UInt8(ascii: "H"): selectThread(&reader)
    case UInt8(ascii: "T"): isAlive(&reader)
    case UInt8(ascii: "q"): query(&reader)
    case UInt8(ascii: "Q"): set(&reader)
    case UInt8(ascii: "D"): detach()
    case UInt8(ascii: "k"): kill()
    default: send("")
    }
  }

  private func set(_ reader: inout PacketReader) {
    if reader.take(prefix: "StartNoAckMode"), reader.isAtEnd {
      send("OK")
      acknowledges = false
      decoder.verifiesChecksum = false
    } else if reader.take(prefix: "NonStop:0") {
      send("OK")
    } else {
      send("")
    }
  }

  func detach() {
    send("OK")
    state = .over
    target.detach()
  }

  /// `k` has no answer.
  func kill() {
    state = .over
    target.kill()
  }

  // MARK: Running

  /// Lets the threads run as `actions` says. Registers that were read are no longer known.
  func resume(_ actions: [ThreadIdentifier: ResumeAction]) {
    registerCache.removeAll(keepingCapacity: true)
    let token = nextToken
    nextToken.number += 1
    state = .running(token)
    target.resume(actions) { [stopped] event in stopped(token, event) }
  }
}

/// Error numbers of `E` answers: Linux errno values.
enum PacketFailure: UInt8 {
  case failed = 1
  case noThread = 3
  case badAddress = 14
  case busy = 16
  case invalid = 22
}
