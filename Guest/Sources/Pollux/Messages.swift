// Calls between processes: the message, the client's side and the server's loop.

import CPollux

/// Eight words and perhaps a handle.
public struct Message {
  var raw = pollux_message()
  public init() {}
  public init(_ word0: UInt64, _ word1: UInt64 = 0, _ word2: UInt64 = 0, _ word3: UInt64 = 0) {
    raw.word0 = word0
    raw.word1 = word1
    raw.word2 = word2
    raw.word3 = word3
  }

  public subscript(_ index: Int) -> UInt64 {
    get {
      switch index {
      case 0: raw.word0
      case 1: raw.word1
      case 2: raw.word2
      case 3: raw.word3
      case 4: raw.word4
      case 5: raw.word5
      case 6: raw.word6
      case 7: raw.word7
      default: 0
      }
    }
    set {
      switch index {
      case 0: raw.word0 = newValue
      case 1: raw.word1 = newValue
      case 2: raw.word2 = newValue
      case 3: raw.word3 = newValue
      case 4: raw.word4 = newValue
      case 5: raw.word5 = newValue
      case 6: raw.word6 = newValue
      case 7: raw.word7 = newValue
      default: break
      }
    }
  }

  /// The handle that came with the message, in this process's table.
  public var received: Handle? { raw.handle & 0xffff_ffff == 0 ? nil : Handle(raw.handle & 0xffff_ffff) }
  /// Passes a handle along.
  public mutating func pass(_ handle: Handle, _ rights: Rights) { raw.handle = handle.passing(rights) }

  /// Packs text into words `first`…, eight bytes each, at most `words` of them; the rest is zero.
  public mutating func put(_ text: Bytes, at first: Int, words: Int) {
    for word in 0..<words {
      var value: UInt64 = 0
      for byte in 0..<8 {
        value |= UInt64(text.byte(word * 8 + byte) ?? 0) << UInt64(byte * 8)
      }
      self[first + word] = value
    }
  }

  /// The text in words `first`…, up to a zero byte.
  public func text(at first: Int, words: Int) -> [UInt8] {
    var bytes: [UInt8] = []
    for index in 0..<words * 8 {
      let byte = UInt8(truncatingIfNeeded: self[first + index / 8] >> UInt64(index % 8 * 8))
      if byte == 0 { break }
      bytes.append(byte)
    }
    return bytes
  }
}

/// The client's end of a service.
public struct Endpoint: Sendable {
  public let handle: Handle
  public init(_ handle: Handle) { self.handle = handle }
  public static func create() throws(SystemError) -> Endpoint { Endpoint(Handle(try invoke(.endpointCreate))) }

  /// Sends `message`, waits for the reply and leaves it in `message`.
  public func call(_ message: inout Message) throws(SystemError) {
    message.raw.target = handle.rawValue
    let result = pollux_message_call(SystemCall.call.rawValue, &message.raw)
    if result < 0 { throw SystemError(rawValue: result) ?? .badCall }
  }

  public func bind(_ notification: Notification) throws(SystemError) {
    _ = try invoke(.endpointBind, handle.rawValue, notification.handle.rawValue)
  }
}

/// What a server received.
public enum ServerEvent {
  /// A call through a handle with this badge.
  case call(badge: UInt64)
  /// Bits of the bound notification.
  case notification(UInt64)
}

/// The caller that a server has yet to answer.
public struct ReplyToken: Equatable {
  let rawValue: UInt64
}

/// The server's end of an endpoint: receive, and reply now or later.
public struct Server {
  private let endpoint: UInt64
  /// Token of the caller that the next `replyReceive` answers; 0 for none.
  private var token: UInt64 = 0

  public init(_ endpoint: Handle) { self.endpoint = endpoint.rawValue }

  /// Answers the current caller with `message`, if one is owed an answer, and waits for the next event.
  public mutating func replyReceive(_ message: inout Message) throws(SystemError) -> ServerEvent {
    message.raw.target = endpoint | token << 32
    if token == 0 { message.raw.handle = 0 }
    token = 0
    let result = pollux_message_call(SystemCall.replyReceive.rawValue, &message.raw)
    if result < 0 { throw SystemError(rawValue: result) ?? .badCall }
    if result == SystemCall.notificationBadge { return .notification(message.raw.word0) }
    token = message.raw.target >> 32
    return .call(badge: UInt64(result))
  }

  /// Puts the current caller aside, to be answered later.
  public mutating func setAside() -> ReplyToken {
    let kept = ReplyToken(rawValue: token)
    token = 0
    return kept
  }

  /// Makes a caller that was put aside the one that the next `replyReceive` answers, if that place is free.
  public mutating func resume(_ kept: ReplyToken) -> Bool {
    guard token == 0 else { return false }
    token = kept.rawValue
    return true
  }

  /// Answers a caller that was put aside. A caller that is gone is ignored.
  public func reply(_ kept: ReplyToken, _ message: inout Message) {
    message.raw.target = kept.rawValue << 32
    _ = pollux_message_call(SystemCall.reply.rawValue, &message.raw)
  }
}
