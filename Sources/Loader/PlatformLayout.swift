// Where things are in guest-physical memory, as docs/platform.md fixes it.

import GuestMemory

/// The fixed guest-physical addresses of the Castor platform.
public enum PlatformLayout {
  /// `hvm_start_info` (or Linux's `boot_params`), and what it points to.
  public static let startInfo = GuestAddress(0x6000)
  /// The command line, NUL-terminated, up to the firmware's mailbox.
  public static let commandLine = GuestAddress(0x7000)
  /// What the boot ROM jumps to; see `FirmwareMailbox`.
  public static let firmwareMailbox = GuestAddress(0x8fe0)
  /// Boot page tables and GDT: PML4, page-directory-pointer table, four page directories, GDT, one page each.
  public static let bootTables: Range<UInt64> = 0x9000..<0x10000
  /// All that the VMM writes below 64 KiB.
  public static let bootArea: Range<UInt64> = 0x6000..<0x10000
  /// From the extended BIOS data area to 1 MiB: RAM, but the memory map calls it reserved. The MP table is here.
  public static let firmwareTables: Range<UInt64> = 0x9_fc00..<0x10_0000
  /// The MP floating pointer structure, at the last kilobyte of base memory, where guests search first.
  public static let mpFloatingPointer = GuestAddress(0x9_fc00)
  /// The MP configuration table.
  public static let mpTable = GuestAddress(0xf_0000)
  /// Where there never is RAM.
  public static let mmioHole: Range<UInt64> = 0xc000_0000..<0x1_0000_0000
  /// The window of virtio device 0.
  public static let virtioBase = GuestAddress(0xd000_0000)
  /// Bytes from the window of one virtio device to that of the next.
  public static let virtioStride: UInt64 = 0x4_0000
  /// The line (GSI) of virtio device 0; the others follow.
  public static let virtioGSI: UInt32 = 5
  public static let ioapic = GuestAddress(0xfec0_0000)
  public static let localAPIC = GuestAddress(0xfee0_0000)

  /// The guest-physical ranges of RAM for a guest with `bytes` of memory: up to the MMIO hole, the rest from 4 GiB.
  public static func memoryRanges(bytes: UInt64) -> [Range<UInt64>] {
    let low = min(bytes, mmioHole.lowerBound)
    guard bytes > low else { return [0..<low] }
    let end = mmioHole.upperBound.addingReportingOverflow(bytes - low)
    return [0..<low, mmioHole.upperBound..<(end.overflow ? UInt64.max & ~0xfff : end.partialValue)]
  }

  /// The memory map for the guest: RAM ranges without the area for firmware tables, which is reserved.
  public static func memoryMap(of ranges: [Range<UInt64>]) -> [MemoryMapEntry] {
    var entries: [MemoryMapEntry] = []
    for range in ranges {
      let reserved = range.clamped(to: firmwareTables)
      if reserved.isEmpty {
        entries.append(MemoryMapEntry(range: range, kind: .ram))
        continue
      }
      for (part, kind) in [
        (range.lowerBound..<reserved.lowerBound, MemoryMapEntry.Kind.ram), (reserved, .reserved),
        (reserved.upperBound..<range.upperBound, .ram),
      ] where !part.isEmpty {
        entries.append(MemoryMapEntry(range: part, kind: kind))
      }
    }
    return entries
  }
}

/// One line of the memory map, with the types of the BIOS call E820 that PVH and Linux share.
public struct MemoryMapEntry: Equatable, Sendable {
  public enum Kind: UInt32, Sendable {
    case ram = 1
    case reserved = 2
  }
  /// Guest-physical addresses.
  public let range: Range<UInt64>
  public let kind: Kind
}
