// The state of a block device as its container tells the twin (docs/linux-driver-container.md).
//
// Words of the reply: 0 status (0 working, 1 lost), 1 sectors, 2 block size | abilities << 32, 3 queue size | data
// segments << 16 | segment limit << 32, 4 negotiated features, 5 guest-physical address of the queue memory, 6 generation, 7 guest-physical
// address of the completion memory.

import DriverContract

/// What the container tells the twin about the device.
public struct DeviceState: ContractState, Equatable, Sendable {
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

  /// The words of a reply; there is one queue.
  public func encode(queue: Int = 0, _ put: (Int, UInt64) -> Void) {
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
