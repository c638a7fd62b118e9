// The calls of the block interface: what the words of a message to a block service mean.
//
//   describe  (0)                                     → status, sectors, block size, maximum transfer, flags, mode
//   attach    (1, entries) with the ring memory       → status, session
//   region    (2, session) with the data memory       → status; the handle needs read, write and physical
//   enter     (3, session, least completions)         → status, completions waiting; replies when that many wait or
//                                                       nothing is in flight any more
//   detach    (4, session)                            → status; waits for what is in flight
//   report    (5)                                     → status, resets, doorbells, interrupts, requests
//   owner     (6, session) with the client's process  → status; the session ends with the process. Right needed: observe
//   completions (7)                                   → status, queue size, with the device's used ring and status bytes
//                                                       (read-only), where clients may watch the device themselves
//   door      (8, session)                            → status, with a connection by which the session's `enter (0)` is a call by
//                                                       thread migration, without words → status; `busy`: send a message

/// Number of a call; word 0 of the message.
public enum BlockCall: UInt64, Sendable {
  case describe = 0
  case attach = 1
  case region = 2
  case enter = 3
  case detach = 4
  case report = 5
  case owner = 6
  case completions = 7
  case door = 8
}

/// Word 0 of the reply.
public enum BlockReply: UInt64, Sendable {
  case done = 0
  case badCall = 1
  case noSuchSession = 2
  case badMemory = 3
  case tooManySessions = 4
  /// The client wrote nonsense into the ring header; the session is closed.
  case protocolError = 5
  /// By the door only: the driver's own thread is at work.
  case busy = 6
}

/// How the driver runs, as a message word.
public enum BlockMode: UInt64, Sendable {
  case memory = 0
  case solo = 1
  case twin = 2
  case twinPoll = 3
  /// A twin on a machine without doorbell pages and message interrupts: it uses the register page and the line.
  case twinUnsplit = 4
  case twinPollUnsplit = 5
}
