// How the kernel reaches guest-physical memory: through the direct map in PML4 slot 254, of which the image brings the first
// 4 GiB and `extend` makes the rest.
import CArch
import KernelCore

/// Guest-physical memory through the direct map. The kernel's own image is not in it.
struct DirectMemory: PhysicalMemory {
  static let base: UInt64 = 0x7f00_0000_0000

  @inline(__always) static func address(_ physical: UInt64) -> UInt64 { base + physical }
  @inline(__always) static func physical(_ address: UInt64) -> UInt64 { address &- base }
  /// Guest-physical address of something in the kernel's image.
  static func physical(image address: UInt64) -> UInt64 { address &- 0x7f80_0000_0000 }

  @inline(__always) func load(_ address: UInt64) -> UInt64 { load64(Self.base &+ address) }
  @inline(__always) func store(_ address: UInt64, _ value: UInt64) { store64(Self.base &+ address, value) }
  func clear(_ address: UInt64, size: UInt64) { clear_words(Self.base + address, size / 8) }

  /// Bytes of physical memory. Safe while they are RAM that stays what it is: boot modules.
  @_lifetime(immortal)
  static func bytes(_ physical: UInt64, count: UInt64) -> RawSpan {
    // The direct map covers all RAM and is never unmapped; address 0 of it is not null.
    let pointer = UnsafeRawPointer(bitPattern: UInt(address(physical))).unsafelyUnwrapped
    return _overrideLifetime(RawSpan(_unsafeStart: pointer, byteCount: Int(count)), copying: ())
  }

  /// Adds RAM above 4 GiB to the direct map, 1 GiB of address space at a time, with 2 MiB pages. `table` gives zero frames
  /// that are in the map already.
  static func extend(to end: UInt64, table: () -> UInt64?) -> Bool {
    var start: UInt64 = 4 << 30
    while start < end {
      let slot = address_of_direct_pdpt() + (start >> 30) * 8
      if load64(slot) == 0 {
        guard let frame = table() else { return false }
        var entry = start | PageEntry.present | PageEntry.write | PageEntry.accessedDirty
        entry |= PageEntry.large | PageEntry.noExecute
        for index in 0..<UInt64(512) {
          store64(address(frame) + index * 8, entry)
          entry += 1 << 21
        }
        store64(slot, frame | PageEntry.present | PageEntry.write | PageEntry.accessedDirty)
      }
      start += 1 << 30
    }
    return true
  }
}
