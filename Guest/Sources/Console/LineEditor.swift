// Line editing on a terminal that sends bytes in bursts: backspace, Ctrl-U, Ctrl-C, Ctrl-L, and a history on the arrow keys.

import Pollux

/// What a byte led to.
enum LineEvent {
  case none
  /// A line is complete; it is in `line`.
  case line
  /// Ctrl-C: the line was dropped.
  case interrupt
}

/// A line under construction. What is to be echoed collects in `echo`, so that a burst of input is one write.
struct LineEditor {
  private(set) var line: [UInt8] = []
  private(set) var echo: [UInt8] = []
  private var history: [[UInt8]] = []
  private var historyPosition = 0
  private var escape = 0
  private var lastWasReturn = false

  private static let longest = 200
  private static let historyLimit = 16

  mutating func takeEcho() -> [UInt8] {
    let taken = echo
    echo.removeAll(keepingCapacity: true)
    return taken
  }

  /// Begins a new line; the last one goes into the history.
  mutating func begin() {
    if !line.isEmpty {
      history.append(line)
      if history.count > Self.historyLimit { history.removeFirst() }
    }
    line.removeAll(keepingCapacity: true)
    historyPosition = history.count
  }

  mutating func feed(_ byte: UInt8) -> LineEvent {
    if escape > 0 { return feedEscape(byte) }
    let followsReturn = lastWasReturn
    lastWasReturn = byte == 0x0d
    switch byte {
    case 0x0a where followsReturn: break
    case 0x0a, 0x0d:
      echo.append(0x0a)
      return .line
    case 0x08, 0x7f:
      if line.popLast() != nil { eraseEcho(1) }
    case 0x15:
      eraseEcho(line.count)
      line.removeAll(keepingCapacity: true)
    case 0x03:
      echo.append(contentsOf: [0x5e, 0x43, 0x0a])
      line.removeAll(keepingCapacity: true)
      return .interrupt
    case 0x1b: escape = 1
    case 0x20...0x7e:
      if line.count < Self.longest {
        line.append(byte)
        echo.append(byte)
      } else {
        echo.append(0x07)
      }
    default: break
    }
    return .none
  }

  /// `ESC [ A` and `ESC [ B` are the arrow keys up and down (ECMA-48 §8.3.22, §8.3.19); other sequences are dropped.
  private mutating func feedEscape(_ byte: UInt8) -> LineEvent {
    if escape == 1 {
      escape = byte == 0x5b ? 2 : 0
      return .none
    }
    if (0x40...0x7e).contains(byte) {
      escape = 0
      if byte == 0x41, historyPosition > 0 { recall(historyPosition - 1) }
      if byte == 0x42, historyPosition < history.count { recall(historyPosition + 1) }
    }
    return .none
  }

  private mutating func recall(_ position: Int) {
    eraseEcho(line.count)
    historyPosition = position
    line = position < history.count ? history[position] : []
    echo.append(contentsOf: line)
  }

  private mutating func eraseEcho(_ count: Int) {
    for _ in 0..<count { echo.append(contentsOf: [0x08, 0x20, 0x08]) }
  }
}
