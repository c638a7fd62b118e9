// The escape key of the console: which typed bytes go to the guest and which are commands to Castor.

/// What a person can ask of Castor at the keyboard.
enum EscapeCommand: Equatable, Sendable {
  case quit
  case help
  /// Send a break condition on the serial line.
  case sendBreak
}

/// Takes commands out of typed input: Ctrl-A and one more key. Ctrl-A twice sends one Ctrl-A.
struct EscapeFilter: Sendable {
  static let escape: UInt8 = 0x01
  /// Shown for Ctrl-A h.
  static let help = """
    Ctrl-A h  this help
    Ctrl-A x  end the virtual machine
    Ctrl-A b  send a break
    Ctrl-A Ctrl-A  send Ctrl-A

    """

  private var afterEscape = false

  /// Splits `typed` into what the guest gets and commands, in the order in which they were typed.
  mutating func split(_ typed: UnsafeRawBufferPointer, pass: (UInt8) -> Void, command: (EscapeCommand) -> Void) {
    for byte in typed {
      guard afterEscape else {
        if byte == Self.escape { afterEscape = true } else { pass(byte) }
        continue
      }
      afterEscape = false
      switch byte {
      case Self.escape: pass(byte)
      case UInt8(ascii: "x"): command(.quit)
      case UInt8(ascii: "h"), UInt8(ascii: "?"): command(.help)
      case UInt8(ascii: "b"): command(.sendBreak)
      default: break  // A key without a meaning is swallowed, so that a slip of the finger reaches nobody.
      }
    }
  }
}
