// The calls between a block twin and its container: what crosses the border of data and control plane.
//
// Only the twin calls; the container says that something has changed by signalling the twin's notification
// (`TwinEvent.control`). So neither can wait for the other in a circle.
//
//   attach       (0)              → state, with the memory of the request queue
//   synchronise  (1, generation)  → state
//   failed       (2, generation)  → state, after the container has reset and set up the device again
//   completions  (3)              → state, with the completion memory: used ring and status bytes
//   interrupt    (4)              → state, with the device's message interrupt, where it has one; the twin holds it, so that
//                                   completions come while the container is away, and gives it back before it synchronises
//
// State, words of the reply: 0 status (0 working, 1 lost), 1 sectors, 2 block size | abilities << 32, 3 queue size | data
// segments << 16 | segment limit << 32, 4 negotiated features, 5 guest-physical address of the queue memory, 6 generation, 7 guest-physical
// address of the completion memory.
// The generation is another whenever the device has been set up anew, by this container or one that came after it: then all rings are
// empty, and the twin submits again what was in flight. Rings are at the same place as before.
//
// A container sets the device up when the twin calls, not before: then the twin waits, and touches no ring meanwhile. A container
// that is started again signals the twin, and until the twin's call data flows as before.

/// Word 0 of a call to the container.
public enum ControlCall: UInt64, Sendable {
  case attach = 0
  case synchronise = 1
  case failed = 2
  case completions = 3
  case interrupt = 4
}

/// Bits of the twin's notification.
public enum TwinEvent {
  /// The device has used buffers.
  public static let device: UInt64 = 1
  /// The container has news.
  public static let control: UInt64 = 2
}

/// What the container tells the twin about the device.
public struct DeviceState: Equatable, Sendable {
  public var isLost: Bool
  public var geometry: BlockGeometry
  public var queueSize: Int
  public var dataSegments: Int
  /// The longest piece of contiguous data that one descriptor may carry, in bytes.
  public var segmentLimit: UInt32
  public var features: UInt64
  /// Guest-physical address of the queue memory.
  public var queueAddress: UInt64
  /// Guest-physical address of the completion memory.
  public var completionAddress: UInt64
  public var generation: UInt64

  public init() {
    isLost = true
    geometry = BlockGeometry(sectors: 0, blockSize: 512, maximumTransfer: 0)
    queueSize = 0
    dataSegments = 1
    segmentLimit = 0
    features = 0
    queueAddress = 0
    completionAddress = 0
    generation = 0
  }

  /// The words of a reply.
  public func encode(_ put: (Int, UInt64) -> Void) {
    put(0, isLost ? 1 : 0)
    put(1, geometry.sectors)
    put(2, UInt64(geometry.blockSize) | geometry.flags << 32)
    put(3, UInt64(queueSize) | UInt64(dataSegments) << 16 | UInt64(segmentLimit) << 32)
    put(4, features)
    put(5, queueAddress)
    put(6, generation)
    put(7, completionAddress)
  }

  /// The state that the words of a reply tell.
  public init(_ word: (Int) -> UInt64) {
    isLost = word(0) != 0
    queueSize = Int(word(3) & 0xffff)
    dataSegments = Int(word(3) >> 16 & 0xffff)
    segmentLimit = UInt32(truncatingIfNeeded: word(3) >> 32)
    geometry = BlockGeometry(
      sectors: word(1), blockSize: UInt32(truncatingIfNeeded: word(2)),
      maximumTransfer: UInt64(segmentLimit) * UInt64(dataSegments))
    geometry.flags = word(2) >> 32
    features = word(4)
    queueAddress = word(5)
    generation = word(6)
    completionAddress = word(7)
  }
}
