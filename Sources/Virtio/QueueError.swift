// Everything a driver can do wrong with a split virtqueue, as one typed error.

import GuestMemory

/// Why a virtqueue cannot be used any further (virtio 1.2 §2.7). The device answers each with DEVICE_NEEDS_RESET.
public enum QueueError: Error, Equatable, CustomStringConvertible {
  /// The queue size is zero, no power of two or larger than the device offers.
  case invalidSize(UInt16)
  /// A ring area is not aligned as §2.7 demands.
  case misalignedArea(GuestAddress)
  /// A ring area, an indirect table or a buffer is not inside guest RAM.
  case outsideMemory(GuestAddress, count: UInt64)
  /// The available index runs more than one ring ahead of the device.
  case availableIndexTooFar(available: UInt16, seen: UInt16)
  /// More chains are outstanding than the ring has descriptors: some head was made available twice.
  case tooManyOutstanding
  /// A head or `next` field names no descriptor of its table.
  case descriptorOutOfRange(index: UInt16, tableSize: Int)
  /// The chain visits more descriptors than its table has, so it loops.
  case descriptorLoop(head: UInt16)
  /// A buffer of length zero.
  case emptyBuffer(head: UInt16)
  /// The chain describes more bytes than a request may have.
  case chainTooLarge(head: UInt16)
  /// A readable descriptor follows a writable one (§2.7.4.2).
  case readableAfterWritable(head: UInt16)
  /// An indirect table where VIRTIO_F_INDIRECT_DESC was not negotiated.
  case indirectNotNegotiated(head: UInt16)
  /// An indirect descriptor with NEXT set, or inside an indirect table (§2.7.5.3.1).
  case indirectNesting(head: UInt16)
  /// An indirect table whose length is zero, no multiple of 16, or too large.
  case indirectTableLength(head: UInt16, bytes: UInt32)
  /// The buffers are too few, too small or of the wrong direction for what the device type requires.
  case malformedRequest(head: UInt16)

  public var description: String {
    switch self {
    case .invalidSize(let size): "queue size \(size) is not allowed"
    case .misalignedArea(let address): "ring area at \(address) is misaligned"
    case .outsideMemory(let address, let count): "\(count) bytes at \(address) are not guest memory"
    case .availableIndexTooFar(let available, let seen):
      "available index \(available) is more than a ring ahead of \(seen)"
    case .tooManyOutstanding: "more chains outstanding than the ring has descriptors"
    case .descriptorOutOfRange(let index, let size): "descriptor \(index) of a table of \(size)"
    case .descriptorLoop(let head): "the chain at descriptor \(head) loops"
    case .emptyBuffer(let head): "the chain at descriptor \(head) has a buffer of no bytes"
    case .chainTooLarge(let head): "the chain at descriptor \(head) is too large"
    case .readableAfterWritable(let head): "the chain at descriptor \(head) has a readable part after a writable one"
    case .indirectNotNegotiated(let head): "the chain at descriptor \(head) is indirect without the feature"
    case .indirectNesting(let head): "the chain at descriptor \(head) nests or continues an indirect table"
    case .indirectTableLength(let head, let bytes):
      "the chain at descriptor \(head) has an indirect table of \(bytes) bytes"
    case .malformedRequest(let head): "the chain at descriptor \(head) has not the buffers that its request needs"
    }
  }
}
