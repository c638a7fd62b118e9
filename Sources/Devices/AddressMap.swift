// Which device answers at an address: I/O ports and memory-mapped registers of one machine.

/// Why a range cannot be added to an `AddressMap`.
public enum AddressMapError: Error, Equatable {
  /// The range holds no address.
  case empty(at: UInt64)
  /// Some device answers in `taken` already.
  case overlap(ClosedRange<UInt64>, taken: ClosedRange<UInt64>)
}

/// Disjoint address ranges and what answers there, sorted for binary search.
///
/// Filled before the vCPUs start and only read afterwards; a look-up neither allocates nor locks. `Device` is best an
/// enumeration, so that dispatch is a switch.
public struct AddressMap<Address: FixedWidthInteger & UnsignedInteger & Sendable, Device> {
  private struct Entry {
    let first: Address
    let last: Address
    let device: Device
  }
  private var entries: [Entry] = []

  public init() {}

  /// Lets `device` answer at the addresses of `range`.
  /// - Throws: `AddressMapError` when the range overlaps one that was added before.
  public mutating func add(_ device: Device, at range: ClosedRange<Address>) throws(AddressMapError) {
    let index = firstEntry(endingAtOrAfter: range.lowerBound)
    if index < entries.count, entries[index].first <= range.upperBound {
      let taken = entries[index]
      throw .overlap(
        UInt64(range.lowerBound)...UInt64(range.upperBound), taken: UInt64(taken.first)...UInt64(taken.last))
    }
    entries.insert(Entry(first: range.lowerBound, last: range.upperBound, device: device), at: index)
  }

  /// Lets `device` answer at `count` addresses from `base`.
  /// - Throws: `AddressMapError`; also when the range is empty or leaves the address space.
  public mutating func add(_ device: Device, at base: Address, count: Address) throws(AddressMapError) {
    guard count > 0, base <= Address.max - (count - 1) else { throw .empty(at: UInt64(base)) }
    try add(device, at: base...base + (count - 1))
  }

  /// Who answers an access of `size` bytes at `address`, and at which offset from the beginning of its range; nil when
  /// nobody does, or when the access leaves the device's range.
  public func find(_ address: Address, size: Int = 1) -> (device: Device, offset: Address)? {
    let index = firstEntry(endingAtOrAfter: address)
    guard index < entries.count else { return nil }
    let entry = entries[index]
    guard entry.first <= address, size >= 1, UInt64(entry.last - address) >= UInt64(size - 1) else { return nil }
    return (entry.device, address - entry.first)
  }

  private func firstEntry(endingAtOrAfter address: Address) -> Int {
    var low = 0
    var high = entries.count
    while low < high {
      let middle = (low + high) / 2
      if entries[middle].last < address { low = middle + 1 } else { high = middle }
    }
    return low
  }
}

/// The machine's I/O ports.
public typealias PortMap<Device> = AddressMap<UInt16, Device>
/// The machine's memory-mapped registers, by guest-physical address.
public typealias MMIOMap<Device> = AddressMap<UInt64, Device>
