// How bytes from a debugger become packets (GDB manual, "Remote Serial Protocol", Overview): `$data#checksum`, the
// acknowledgements and the interrupt byte. Every byte sequence has a meaning or is a typed error; none is trusted.

/// What the decoder refuses.
public enum PacketError: Error, Equatable, CustomStringConvertible {
  /// The two digits after `#` do not match the data.
  case checksum(expected: UInt8, received: UInt8)
  /// The characters after `#` are not two hexadecimal digits.
  case badChecksumDigits
  /// More data than the largest packet that we announced.
  case tooLong(limit: Int)
  /// The data ends in an escape character.
  case truncatedEscape

  public var description: String {
    switch self {
    case .checksum(let expected, let received):
      "packet checksum \(Hexadecimal.text(received)), computed \(Hexadecimal.text(expected))"
    case .badChecksumDigits: "packet checksum is not hexadecimal"
    case .tooLong(let limit): "packet is longer than \(limit) bytes"
    case .truncatedEscape: "packet ends within an escape"
    }
  }
}

/// One thing that a debugger sent.
public enum PacketEvent: Equatable, Sendable {
  /// A whole packet, escapes resolved.
  case packet([UInt8])
  /// `+`: the debugger has received our last packet.
  case acknowledged
  /// `-`: the debugger wants our last packet again.
  case retransmit
  /// The interrupt byte 0x03 outside a packet: Ctrl-C.
  case interrupt
  /// A packet that is to be dropped.
  case malformed(PacketError)
}

/// An incremental decoder: bytes go in as they arrive, events come out.
public struct PacketDecoder: Sendable {
  /// The longest packet data, in bytes as sent: what qSupported announces as PacketSize.
  public static let packetSize = 16384

  private enum State {
    case idle
    case data
    case firstDigit
    case secondDigit(UInt8)
  }
  private var state = State.idle
  private var raw: [UInt8] = []
  private var sum: UInt8 = 0
  private var overlong = false
  /// Whether checksums are compared; off in no-ack mode, where the transport is trusted.
  public var verifiesChecksum = true

  public init() {}

  /// Takes one byte.
  /// - Returns: the event that it completes, or nil.
  public mutating func feed(_ byte: UInt8) -> PacketEvent? {
    switch state {
    case .idle:
      switch byte {
      case UInt8(ascii: "$"): begin()
      case UInt8(ascii: "+"): return .acknowledged
      case UInt8(ascii: "-"): return .retransmit
      case 0x03: return .interrupt
      default: break  // Noise between packets means nothing.
      }
      return nil
    case .data:
      if byte == UInt8(ascii: "#") {
        state = .firstDigit
      } else if byte == UInt8(ascii: "$") {
        // Data never contains an unescaped `$`: the sender gave up and started again.
        begin()
      } else if raw.count < Self.packetSize {
        raw.append(byte)
        sum &+= byte
      } else {
        overlong = true
      }
      return nil
    case .firstDigit:
      state = .secondDigit(byte)
      return nil
    case .secondDigit(let first):
      state = .idle
      return finish(first, byte)
    }
  }

  private mutating func begin() {
    raw.removeAll(keepingCapacity: true)
    sum = 0
    overlong = false
    state = .data
  }

  private func finish(_ first: UInt8, _ second: UInt8) -> PacketEvent {
    if overlong { return .malformed(.tooLong(limit: Self.packetSize)) }
    guard let high = Hexadecimal.value(first), let low = Hexadecimal.value(second) else {
      return .malformed(.badChecksumDigits)
    }
    let received = high << 4 | low
    guard !verifiesChecksum || received == sum else { return .malformed(.checksum(expected: sum, received: received)) }
    var data: [UInt8] = []
    data.reserveCapacity(raw.count)
    var escaped = false
    for byte in raw {
      if escaped {
        data.append(byte ^ 0x20)
        escaped = false
      } else if byte == UInt8(ascii: "}") {
        escaped = true
      } else {
        data.append(byte)
      }
    }
    return escaped ? .malformed(.truncatedEscape) : .packet(data)
  }
}

/// How packets to a debugger are written.
public enum PacketEncoder {
  /// `$data#checksum`, with `#`, `$`, `}` and `*` escaped (the last would mean run-length encoding).
  public static func encode(_ data: some Sequence<UInt8>) -> [UInt8] {
    var packet = [UInt8(ascii: "$")]
    for byte in data {
      switch byte {
      case UInt8(ascii: "#"), UInt8(ascii: "$"), UInt8(ascii: "}"), UInt8(ascii: "*"):
        packet.append(UInt8(ascii: "}"))
        packet.append(byte ^ 0x20)
      default: packet.append(byte)
      }
    }
    let sum = packet.dropFirst().reduce(0 as UInt8, &+)
    packet.append(UInt8(ascii: "#"))
    packet += Hexadecimal.encode([sum])
    return packet
  }
}
