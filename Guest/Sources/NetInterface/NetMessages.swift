// The calls of the network interface: what the words of a message to a network service mean. One session at a time has the interface, as
// one network stack has a card.
//
//   describe   (0)                                    → status, MAC address, MTU, mode, link state
//   attach     (1, receive entries | transmit entries << 16) with the ring memory → status, session
//   region     (2, session) with the packet memory    → status; the handle needs read, write and physical
//   enter      (3, session, received, transmitted, limit) → status; takes what was posted and submitted, and replies when that many
//                                                       received packets or that many transmitted ones wait, or the link state is
//                                                       another; 0 and 0: at once. `limit`: `timedOut` after so many µs, 0: never
//   detach     (4, session)                           → status, when the device has let go of the packet memory
//   report     (5)                                    → status, resets, doorbells, interrupts, packets received, transmitted, without a buffer
//   owner      (6, session) with the client's process → status; the session ends with the process. Right needed: observe
//   setAddress (7, session, MAC address)              → status
//
// A MAC address is a number: its first byte is bits 40 to 47.

/// Number of a call; word 0 of the message.
public enum NetCall: UInt64, Sendable {
  case describe = 0
  case attach = 1
  case region = 2
  case enter = 3
  case detach = 4
  case report = 5
  case owner = 6
  case setAddress = 7
}

/// Word 0 of the reply.
public enum NetReply: UInt64, Sendable {
  case done = 0
  case badCall = 1
  case noSuchSession = 2
  case badMemory = 3
  /// Another session has the interface.
  case busy = 4
  /// The client wrote nonsense into the rings; the session is closed.
  case protocolError = 5
  /// The device is gone for good.
  case deviceLost = 6
  /// The device did not accept it.
  case refused = 7
  /// What `enter` waited for did not come within its limit.
  case timedOut = 8
}

/// How the driver runs, as a message word.
public enum NetMode: UInt64, Sendable {
  case solo = 1
  case twin = 2
  case twinPoll = 3
  /// A twin on a machine without doorbell pages and message interrupts: it uses the register page and the line.
  case twinUnsplit = 4
  case twinPollUnsplit = 5
}

/// What a driver knows of its interface.
public struct NetLink: Equatable, Sendable {
  /// The MAC address as a number.
  public var address: UInt64
  /// The largest payload of a frame, in bytes.
  public var mtu: UInt32
  /// Somebody is at the other end of the cable.
  public var isUp: Bool

  public init(address: UInt64 = 0, mtu: UInt32 = 1500, isUp: Bool = false) {
    self.address = address
    self.mtu = mtu
    self.isUp = isUp
  }

  /// MTU and link state in one word.
  public var flags: UInt64 {
    get { UInt64(mtu) << 32 | (isUp ? 1 : 0) }
    set {
      mtu = UInt32(truncatingIfNeeded: newValue >> 32)
      isUp = newValue & 1 != 0
    }
  }
}
