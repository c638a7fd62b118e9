// The console's UART: a 16550A as the guest sees it (National Semiconductor PC16550D data sheet, section 8), and the
// two byte streams that the host sees.

import Synchronization

/// A 16550A whose line is infinitely fast: a character written is sent at once and the receive time-out is zero.
///
/// Guest side: `read` and `write`, on any vCPU thread. Host side: `takeOutput` and `receive`, on any thread; `connect`
/// tells it whom to wake. Nothing here blocks.
///
/// - Output waits in a queue of at most `outputCapacity` bytes. When that is full the transmitter holding register
///   reads as not empty until a quarter of the queue has been drained; a guest which writes all the same still gets
///   `overcommit` more bytes through, and what comes after them is dropped and counted.
/// - Input waits in a queue of 4 KiB, of which the receive FIFO shows the guest the oldest 16 bytes. It flows while the
///   guest is ready to receive, that is, while MCR.RTS or IER bit 0 is set, so that what was typed before the guest's
///   driver started is not lost in the resets of the driver's start.
/// - The interrupt is an edge: one when a condition arises while none was pending, and again when the condition that
///   IIR shows goes away and uncovers another one.
public final class Serial16550: Sendable {
  /// Bytes taken from a guest that ignores a full transmitter before they are dropped.
  public static let overcommit = 64 << 10
  static let inputCapacity = 4096
  static let fifoDepth = 16

  /// What passed through the port.
  public struct Counters: Sendable, Equatable {
    /// Bytes that the guest has sent, including dropped ones.
    public var sent: UInt64 = 0
    /// Bytes that the guest sent into a full queue, and which nobody will see.
    public var dropped: UInt64 = 0
    /// Bytes that the guest has read.
    public var received: UInt64 = 0
    /// Interrupt edges.
    public var interrupts: UInt64 = 0
  }

  private let interrupt: @Sendable () -> Void
  private let state: Mutex<State>

  /// Makes a port in its power-on state.
  /// - Parameters:
  ///   - outputCapacity: bytes of output that wait for the host before the guest sees back-pressure.
  ///   - interrupt: raises one edge on the port's interrupt line; called without locks held, on the caller's thread.
  public init(outputCapacity: Int = 1 << 20, interrupt: @escaping @Sendable () -> Void) {
    self.interrupt = interrupt
    state = Mutex(State(outputCapacity: max(64, outputCapacity)))
  }

  /// Says whom to wake. Both closures run on the thread that caused the event, without locks held, and must not block.
  /// - Parameters:
  ///   - onOutput: output is waiting and `takeOutput` had found none before. Called at once if some is waiting now.
  ///   - onInputRoom: at least half of the input queue is free again after `receive` had filled it.
  public func connect(onOutput: @escaping @Sendable () -> Void, onInputRoom: @escaping @Sendable () -> Void) {
    let waiting = state.withLock { state in
      state.onOutput = onOutput
      state.onInputRoom = onInputRoom
      state.outputAnnounced = !state.output.isEmpty
      return state.outputAnnounced
    }
    if waiting { onOutput() }
  }

  /// Stops the wake-ups of `connect`; output and input wait in their queues.
  public func disconnect() {
    state.withLock { state in
      state.onOutput = nil
      state.onInputRoom = nil
    }
  }

  // MARK: Guest side

  /// The value of register `offset` (0–7; only the low three bits count).
  public func read(offset: UInt8) -> UInt8 { access { $0.read(offset & 7) } }

  /// Writes register `offset` (0–7; only the low three bits count).
  public func write(offset: UInt8, value: UInt8) { access { $0.write(offset & 7, value) } }

  /// An access of `size` bytes (1, 2 or 4): one after the other, as the ISA bus splits them.
  public func read(offset: UInt8, size: Int) -> UInt32 {
    var value: UInt32 = 0
    for index in 0..<UInt8(max(1, min(size, 4))) {
      value |= UInt32(read(offset: offset &+ index)) << (8 * UInt32(index))
    }
    return value
  }

  /// An access of `size` bytes (1, 2 or 4): one after the other, as the ISA bus splits them.
  public func write(offset: UInt8, size: Int, value: UInt32) {
    for index in 0..<UInt8(max(1, min(size, 4))) {
      write(offset: offset &+ index, value: UInt8(truncatingIfNeeded: value >> (8 * UInt32(index))))
    }
  }

  /// Power-on state for the guest; output that waits for the host stays.
  public func reset() { access { $0.resetRegisters() } }

  // MARK: Host side

  /// Moves output that the guest has sent, oldest first, into `buffer`; zero when there is none.
  public func takeOutput(into buffer: UnsafeMutableRawBufferPointer) -> Int {
    access { $0.takeOutput(into: buffer) }
  }

  /// Queues input for the guest and returns how many of `bytes` fitted; `onInputRoom` says when to offer the rest.
  public func receive(_ bytes: UnsafeRawBufferPointer) -> Int { access { $0.receive(bytes) } }

  /// Puts a break condition on the line (a zero byte that LSR marks), ahead of input that still waits.
  public func receiveBreak() { access { $0.receiveBreak() } }

  /// How many bytes `receive` would take now.
  public var inputRoom: Int { state.withLock { $0.input.room } }

  /// How many bytes wait for `takeOutput`.
  public var pendingOutput: Int { state.withLock { $0.output.count } }

  public var counters: Counters { state.withLock { $0.counters } }

  /// Runs `body` under the lock and does afterwards, without the lock, what it brought about.
  private func access<Result>(_ body: (inout State) -> Result) -> Result {
    var result: Result?
    let (edge, onOutput, onInputRoom) = state.withLock { state in
      let before = state.pendingIdentification
      result = body(&state)
      return state.consequences(before: before)
    }
    if edge { interrupt() }
    onOutput?()
    onInputRoom?()
    // The closure above ran exactly once, so `result` is set.
    return result.unsafelyUnwrapped
  }
}

/// The bits of the registers (data sheet, table II).
private enum Bit {
  // IER
  static let enableReceive: UInt8 = 0x01
  static let enableTransmit: UInt8 = 0x02
  static let enableLineStatus: UInt8 = 0x04
  static let enableModemStatus: UInt8 = 0x08
  // IIR (table IV)
  static let identifyModemStatus: UInt8 = 0x00
  static let identifyNone: UInt8 = 0x01
  static let identifyTransmit: UInt8 = 0x02
  static let identifyReceive: UInt8 = 0x04
  static let identifyLineStatus: UInt8 = 0x06
  static let identifyTimeout: UInt8 = 0x0c
  static let fifosEnabled: UInt8 = 0xc0
  // FCR
  static let enableFIFOs: UInt8 = 0x01
  static let resetReceive: UInt8 = 0x02
  // LCR
  static let divisorLatch: UInt8 = 0x80
  // MCR
  static let requestToSend: UInt8 = 0x02
  static let loopback: UInt8 = 0x10
  // LSR
  static let dataReady: UInt8 = 0x01
  static let overrun: UInt8 = 0x02
  static let breakReceived: UInt8 = 0x10
  static let holdingEmpty: UInt8 = 0x20
  static let transmitterEmpty: UInt8 = 0x40
  static let errorInFIFO: UInt8 = 0x80
  // MSR: CTS, DSR and DCD, as a null modem to a ready terminal shows them
  static let connected: UInt8 = 0xb0
}

private struct State: Sendable {
  var output: ByteQueue
  let outputCapacity: Int
  var input = ByteQueue(limit: Serial16550.inputCapacity)
  var counters = Serial16550.Counters()
  var onOutput: (@Sendable () -> Void)?
  var onInputRoom: (@Sendable () -> Void)?
  var outputAnnounced = false
  private var inputWasFull = false

  /// The receive FIFO: characters and, in the same order, whether each is a break.
  private var fifo: [(byte: UInt8, isBreak: Bool)] = []
  private var breakWaiting = false
  private var divisor: UInt16 = 1
  private var interruptEnable: UInt8 = 0
  private var fifoControl: UInt8 = 0
  private var lineControl: UInt8 = 0
  private var modemControl: UInt8 = 0
  private var scratch: UInt8 = 0
  /// OE and BI, until LSR is read.
  private var lineErrors: UInt8 = 0
  private var modemDeltas: UInt8 = 0
  private var transmitPending = false
  private var holding = false

  init(outputCapacity: Int) {
    self.outputCapacity = outputCapacity
    output = ByteQueue(limit: outputCapacity + Serial16550.overcommit)
    fifo.reserveCapacity(Serial16550.fifoDepth)
  }

  // MARK: Registers

  mutating func read(_ offset: UInt8) -> UInt8 {
    switch offset {
    case 0:
      if lineControl & Bit.divisorLatch != 0 { return UInt8(truncatingIfNeeded: divisor) }
      return readReceiver()
    case 1:
      if lineControl & Bit.divisorLatch != 0 { return UInt8(truncatingIfNeeded: divisor >> 8) }
      return interruptEnable
    case 2:
      let identification = pendingIdentification
      if identification == Bit.identifyTransmit { transmitPending = false }
      return identification | (fifosEnabled ? Bit.fifosEnabled : 0)
    case 3: return lineControl
    case 4: return modemControl
    case 5:
      let status = lineStatus
      lineErrors = 0
      return status
    case 6:
      let status = modemLines | modemDeltas
      modemDeltas = 0
      return status
    default: return scratch
    }
  }

  mutating func write(_ offset: UInt8, _ value: UInt8) {
    switch offset {
    case 0:
      if lineControl & Bit.divisorLatch != 0 {
        divisor = divisor & 0xff00 | UInt16(value)
      } else {
        transmit(value)
      }
    case 1:
      if lineControl & Bit.divisorLatch != 0 {
        divisor = divisor & 0x00ff | UInt16(value) << 8
      } else {
        setInterruptEnable(value & 0x0f)
      }
    case 2: setFIFOControl(value)
    case 3: lineControl = value
    case 4: setModemControl(value & 0x1f)
    case 5, 6: break  // LSR and MSR are for factory tests only when written.
    default: scratch = value
    }
    refill()
  }

  mutating func resetRegisters() {
    fifo.removeAll(keepingCapacity: true)
    breakWaiting = false
    divisor = 1
    interruptEnable = 0
    fifoControl = 0
    lineControl = 0
    modemControl = 0
    scratch = 0
    lineErrors = 0
    modemDeltas = 0
    transmitPending = false
  }

  private var fifosEnabled: Bool { fifoControl & Bit.enableFIFOs != 0 }
  private var inLoopback: Bool { modemControl & Bit.loopback != 0 }
  private var receiveDepth: Int { fifosEnabled ? Serial16550.fifoDepth : 1 }

  private var triggerLevel: Int {
    guard fifosEnabled else { return 1 }
    switch fifoControl >> 6 {
    case 0: return 1
    case 1: return 4
    case 2: return 8
    default: return 14
    }
  }

  private var lineStatus: UInt8 {
    var status = lineErrors
    if !fifo.isEmpty { status |= Bit.dataReady }
    if !holding { status |= Bit.holdingEmpty | Bit.transmitterEmpty }
    if fifosEnabled, fifo.contains(where: \.isBreak) { status |= Bit.errorInFIFO }
    return status
  }

  /// The upper half of MSR: the terminal's lines, or in loopback our own outputs.
  private var modemLines: UInt8 {
    guard inLoopback else { return Bit.connected }
    let control = modemControl
    // RTS → CTS, DTR → DSR, OUT1 → RI, OUT2 → DCD (data sheet, section 8.8.2).
    return (control & 0x02) << 3 | (control & 0x01) << 5 | (control & 0x04) << 4 | (control & 0x08) << 4
  }

  /// What IIR identifies now, by the priorities of table IV.
  var pendingIdentification: UInt8 {
    if interruptEnable & Bit.enableLineStatus != 0, lineErrors != 0 { return Bit.identifyLineStatus }
    if interruptEnable & Bit.enableReceive != 0, !fifo.isEmpty {
      return fifo.count >= triggerLevel ? Bit.identifyReceive : Bit.identifyTimeout
    }
    if interruptEnable & Bit.enableTransmit != 0, transmitPending { return Bit.identifyTransmit }
    if interruptEnable & Bit.enableModemStatus != 0, modemDeltas != 0 { return Bit.identifyModemStatus }
    return Bit.identifyNone
  }

  private mutating func setInterruptEnable(_ value: UInt8) {
    let newlyEnabled = value & ~interruptEnable
    interruptEnable = value
    // Enabling the transmitter's interrupt while it is empty raises it (drivers start sending that way).
    if newlyEnabled & Bit.enableTransmit != 0, !holding { transmitPending = true }
  }

  private mutating func setFIFOControl(_ value: UInt8) {
    let wasEnabled = fifosEnabled
    let enables = value & Bit.enableFIFOs != 0
    // The other bits can be written only together with the enable bit; changing that one empties the FIFOs.
    fifoControl = enables ? value & 0xc1 : 0
    if wasEnabled != enables || (enables && value & Bit.resetReceive != 0) {
      fifo.removeAll(keepingCapacity: true)
    }
  }

  private mutating func setModemControl(_ value: UInt8) {
    let before = modemLines
    modemControl = value
    noteModemChange(from: before)
  }

  private mutating func noteModemChange(from before: UInt8) {
    let changed = before ^ modemLines
    modemDeltas |= (changed & 0xb0) >> 4
    // TERI marks only the trailing edge of the ring indicator.
    if before & 0x40 != 0, modemLines & 0x40 == 0 { modemDeltas |= 0x04 }
  }

  // MARK: Transmitter

  private mutating func transmit(_ byte: UInt8) {
    transmitPending = false
    if inLoopback {
      if fifo.count < receiveDepth {
        pushCharacter(byte, isBreak: false)
      } else {
        lineErrors |= Bit.overrun
        // Without FIFOs the newcomer replaces the unread character; with them it is lost in the shift register.
        if !fifosEnabled { fifo[0] = (byte, false) }
      }
    } else {
      counters.sent &+= 1
      if !output.append(byte) { counters.dropped &+= 1 }
      if output.count >= outputCapacity { holding = true }
    }
    if !holding { transmitPending = true }
  }

  mutating func takeOutput(into buffer: UnsafeMutableRawBufferPointer) -> Int {
    let taken = output.take(into: buffer)
    if holding, output.count <= outputCapacity / 4 * 3 {
      holding = false
      transmitPending = true
    }
    if output.isEmpty, taken == 0 { outputAnnounced = false }
    return taken
  }

  // MARK: Receiver

  private var flows: Bool {
    !inLoopback && (modemControl & Bit.requestToSend != 0 || interruptEnable & Bit.enableReceive != 0)
  }

  mutating func receive(_ bytes: UnsafeRawBufferPointer) -> Int {
    let accepted = input.append(bytes)
    if accepted < bytes.count || input.room == 0 { inputWasFull = true }
    refill()
    return accepted
  }

  mutating func receiveBreak() {
    breakWaiting = true
    refill()
  }

  private mutating func refill() {
    guard flows else { return }
    if breakWaiting, fifo.count < receiveDepth {
      breakWaiting = false
      pushCharacter(0, isBreak: true)
    }
    while fifo.count < receiveDepth, let byte = input.popFirst() { pushCharacter(byte, isBreak: false) }
  }

  private mutating func pushCharacter(_ byte: UInt8, isBreak: Bool) {
    fifo.append((byte, isBreak))
    if fifo.count == 1 { revealTop() }
  }

  /// LSR shows a character's errors when it becomes the oldest one in the FIFO.
  private mutating func revealTop() {
    if let top = fifo.first, top.isBreak { lineErrors |= Bit.breakReceived }
  }

  private mutating func readReceiver() -> UInt8 {
    guard !fifo.isEmpty else { return 0 }
    let byte = fifo.removeFirst().byte
    counters.received &+= 1
    if !fifo.isEmpty { revealTop() }
    refill()
    return byte
  }

  // MARK: Consequences

  /// What an access brought about: an interrupt edge, and whom to tell on the host's side.
  mutating func consequences(before: UInt8) -> (
    edge: Bool, output: (@Sendable () -> Void)?, input: (@Sendable () -> Void)?
  ) {
    let after = pendingIdentification
    // "Receive" and "time-out" are one condition at two fill levels.
    let condition = { (identification: UInt8) in identification & 0x07 }
    let edge = after != Bit.identifyNone && condition(after) != condition(before)
    if edge { counters.interrupts &+= 1 }

    var announce: (@Sendable () -> Void)?
    if !output.isEmpty, !outputAnnounced, let onOutput {
      outputAnnounced = true
      announce = onOutput
    }
    var roomAgain: (@Sendable () -> Void)?
    if inputWasFull, input.count <= input.limit / 2 {
      inputWasFull = false
      roomAgain = onInputRoom
    }
    return (edge, announce, roomAgain)
  }
}
