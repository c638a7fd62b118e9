// Guest-physical addresses as a type of their own, so that they are not mixed with host pointers.

/// A guest-physical address (GPA) in bytes.
public struct GuestAddress: RawRepresentable, Hashable, Comparable, Sendable, CustomStringConvertible {
  public var rawValue: UInt64
  public init(rawValue: UInt64) { self.rawValue = rawValue }
  public init(_ rawValue: UInt64) { self.rawValue = rawValue }

  public static func < (left: GuestAddress, right: GuestAddress) -> Bool { left.rawValue < right.rawValue }

  /// The address `offset` bytes further, or nil where that leaves 64 bits.
  public func advanced(by offset: UInt64) -> GuestAddress? {
    let (sum, overflow) = rawValue.addingReportingOverflow(offset)
    return overflow ? nil : GuestAddress(sum)
  }

  public var description: String { "0x" + String(rawValue, radix: 16) }
}

/// An access that guest memory refused.
public enum GuestMemoryError: Error, Equatable, CustomStringConvertible {
  /// `count` bytes at `address` do not lie inside one RAM region.
  case outsideMemory(address: GuestAddress, count: UInt64)
  /// An atomic access at an address that is not a multiple of its size.
  case misaligned(address: GuestAddress)
  /// The host refused to map the region.
  case mappingFailed(bytes: UInt64, errno: Int32)

  public var description: String {
    switch self {
    case .outsideMemory(let address, let count): "guest memory has no \(count) bytes at \(address)"
    case .misaligned(let address): "atomic access to misaligned guest address \(address)"
    case .mappingFailed(let bytes, let errno): "cannot map \(bytes >> 20) MiB of guest memory (errno \(errno))"
    }
  }
}
