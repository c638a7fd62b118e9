// The contract between a driver container and its twin: what crosses the border of control and data plane, for devices of every class.
//
// Only the twin calls; the container says that something has changed by signalling the twin's notification
// (`TwinEvent.control`). So neither can wait for the other in a circle. Every reply is the device's state, whose words 1 to 4 are the
// class's own: 0 status (0 working, 1 lost), 5 guest-physical address of the queue memory, 6 generation, 7 guest-physical address of
// the completion memory. Queue numbers are the device's.
//
//   attach       (0, –, queue)    → state, with the memory of that queue: descriptor table, available ring
//   synchronise  (1, generation)  → state
//   failed       (2, generation)  → state, after the container has reset and set up the device again
//   completions  (3, –, queue)    → state, with what the device writes: used ring, and room for status bytes
//   interrupt    (4, –, queue)    → state, with the queue's message interrupt, where it has one; the twin holds it, so that
//                                   completions come while the container is away, and gives it back before it synchronises
//   perform      (5, command, argument) → state; a command of the class, for what only the control plane can do. Word 0: 2 if it failed
//
// States of a device: down (not set up, or reset), working, lost. It is set up when the twin calls, not before: then the twin waits, and
// touches no ring meanwhile. The generation is another whenever the device has been set up anew, by this container or one that came
// after it: then all rings are empty, and the twin submits again what was in flight. Rings are at the same place as before. A
// container that is started again signals the twin, and until the twin's call data flows as before.
//
// A suspended device is down and stays so: the container signals the twin, and answers no call until the device resumes, so the twin waits
// in its call, and requests wait with it. Then what was in flight is submitted again.

/// Word 0 of a call to the container.
public enum ControlCall: UInt64, Sendable {
  case attach = 0
  case synchronise = 1
  case failed = 2
  case completions = 3
  case interrupt = 4
  case perform = 5
}

/// Word 0 of a reply.
public enum ControlReply {
  public static let working: UInt64 = 0
  public static let lost: UInt64 = 1
  /// The call is unknown, or its command failed.
  public static let refused: UInt64 = 2
}

/// Bits of the twin's notification.
public enum TwinEvent {
  /// The device has used buffers.
  public static let device: UInt64 = 1
  /// The container has news.
  public static let control: UInt64 = 2
  /// The device has used buffers of its second queue.
  public static let secondQueue: UInt64 = 4
}

/// Bits of the container's notification.
public enum ContainerEvent {
  /// The device's line: the configuration has changed (in mode solo: or buffers have been used).
  public static let device: UInt64 = 1
  /// The twin's process has ended.
  public static let twinEnded: UInt64 = 2
  /// Somebody wants the device quiet: it is reset, and stays so …
  public static let suspend: UInt64 = 4
  /// … until somebody wants it back.
  public static let resume: UInt64 = 8
}

/// What a container tells its twin about a device.
public protocol ContractState {
  var isLost: Bool { get set }
  var generation: UInt64 { get set }
  /// The words of a reply that concerns that queue.
  func encode(queue: Int, _ put: (Int, UInt64) -> Void)
}

/// A queue as the control plane set it up.
public struct ContractQueue: Equatable, Sendable {
  /// Entries; 0: not set up.
  public var size = 0
  /// Guest-physical address of descriptor table and available ring.
  public var address: UInt64 = 0
  /// Guest-physical address of the used ring.
  public var completionAddress: UInt64 = 0
  public init() {}
}
