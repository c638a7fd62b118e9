// What a block device can do, and the check of a request against it.

/// Size and abilities of a block device.
public struct BlockGeometry: Equatable, Sendable {
  /// Sectors of 512 bytes.
  public var sectors: UInt64
  /// The unit that the device likes, in bytes; a multiple of 512.
  public var blockSize: UInt32
  /// The longest data of one request, in bytes.
  public var maximumTransfer: UInt64
  public var isReadOnly: Bool
  public var canFlush: Bool
  public var canDiscard: Bool
  public var canWriteZeroes: Bool

  public init(sectors: UInt64, blockSize: UInt32, maximumTransfer: UInt64) {
    self.sectors = sectors
    self.blockSize = blockSize
    self.maximumTransfer = maximumTransfer
    isReadOnly = false
    canFlush = false
    canDiscard = false
    canWriteZeroes = false
  }

  /// The abilities as bits, for a message word.
  public var flags: UInt64 {
    get { (isReadOnly ? 1 : 0) | (canFlush ? 2 : 0) | (canDiscard ? 4 : 0) | (canWriteZeroes ? 8 : 0) }
    set {
      isReadOnly = newValue & 1 != 0
      canFlush = newValue & 2 != 0
      canDiscard = newValue & 4 != 0
      canWriteZeroes = newValue & 8 != 0
    }
  }

  /// Checks a client's request against the device and the client's region of `regionSize` bytes. Nil: it may be done.
  public func refusal(_ request: BlockRequest, regionSize: UInt64) -> BlockStatus? {
    let length = UInt64(request.length)
    if request.operation == .flush {
      if length != 0 { return .invalid }
      return canFlush ? nil : .unsupported
    }
    guard length > 0, length % 512 == 0 else { return .invalid }
    let count = length / 512
    guard request.sector <= sectors, count <= sectors - request.sector else { return .outOfRange }
    switch request.operation {
    case .read, .write:
      guard length <= maximumTransfer, request.offset <= regionSize, length <= regionSize - request.offset,
        request.offset % 512 == 0
      else { return .invalid }
    case .discard: if !canDiscard { return .unsupported }
    case .writeZeroes: if !canWriteZeroes { return .unsupported }
    case .flush: break
    }
    return request.operation != .read && isReadOnly ? .readOnly : nil
  }
}
