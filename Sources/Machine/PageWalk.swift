// Where a guest-virtual address lies in guest-physical memory: a walk of the vCPU's page tables in memory, for the
// debugger and for reports (Intel SDM vol. 3, §4.5).

import GuestMemory

/// What a page-table walk found.
public struct PageTranslation: Equatable, Sendable {
  /// The guest-physical address.
  public var physical: GuestAddress
  /// Bytes in the page: 4 KiB, 2 MiB or 1 GiB. With paging off, 4 KiB.
  public var pageSize: UInt64
  public var isWritable: Bool
  /// Whether ring 3 may use the page.
  public var isUser: Bool
  public var isExecutable: Bool
}

/// The paging state of a vCPU at one moment.
public struct PageWalk: Sendable {
  let memory: GuestMemory
  let cr0: UInt64
  let cr3: UInt64
  let cr4: UInt64
  let efer: UInt64

  init(memory: GuestMemory, cr0: UInt64, cr3: UInt64, cr4: UInt64, efer: UInt64) {
    self.memory = memory
    self.cr0 = cr0
    self.cr3 = cr3
    self.cr4 = cr4
    self.efer = efer
  }

  private static let addressMask: UInt64 = 0x000f_ffff_ffff_f000

  /// Whether addresses are translated at all (CR0.PG).
  var isPaging: Bool { cr0 >> 31 & 1 == 1 }

  /// Translates a guest-virtual address; nil where nothing is mapped, or where the tables lie outside RAM. With paging
  /// off, addresses are physical. Accessed and dirty bits stay as they are.
  public func translate(_ address: UInt64) -> PageTranslation? {
    guard isPaging else {
      guard address <= UInt64(UInt32.max) else { return nil }
      return PageTranslation(
        physical: GuestAddress(address), pageSize: 4096, isWritable: true, isUser: true, isExecutable: true)
    }
    if efer >> 10 & 1 == 1 { return walkLongMode(address) }
    return cr4 >> 5 & 1 == 1 ? walkPAE(address) : walkLegacy(address)
  }

  private func walkLongMode(_ address: UInt64) -> PageTranslation? {
    let levels = cr4 >> 12 & 1 == 1 ? 5 : 4
    let unused = 64 - (12 + 9 * UInt64(levels))
    // Canonical: the unused bits repeat the highest used one.
    guard UInt64(bitPattern: Int64(bitPattern: address << unused) >> Int64(unused)) == address else { return nil }
    return walk(address, table: cr3 & Self.addressMask, levels: levels)
  }

  private func walkPAE(_ address: UInt64) -> PageTranslation? {
    guard address <= UInt64(UInt32.max) else { return nil }
    let directory = (cr3 & 0xffff_ffe0) + (address >> 30) * 8
    guard let entry = try? memory.read(UInt64.self, at: GuestAddress(directory)), entry & 1 == 1 else { return nil }
    return walk(address, table: entry & Self.addressMask, levels: 2)
  }

  /// Levels of 512 entries; the lowest maps 4 KiB, the two above it may map large pages.
  private func walk(_ address: UInt64, table: UInt64, levels: Int) -> PageTranslation? {
    var table = table
    var isWritable = true
    var isUser = true
    var isExecutable = true
    for level in stride(from: levels - 1, through: 0, by: -1) {
      let shift = UInt64(12 + 9 * level)
      let slot = GuestAddress(table + (address >> shift & 511) * 8)
      guard let entry = try? memory.read(UInt64.self, at: slot), entry & 1 == 1 else { return nil }
      isWritable = isWritable && entry >> 1 & 1 == 1
      isUser = isUser && entry >> 2 & 1 == 1
      isExecutable = isExecutable && !(efer >> 11 & 1 == 1 && entry >> 63 == 1)
      let isPage = level == 0 || ((level == 1 || level == 2) && entry >> 7 & 1 == 1)
      if isPage {
        let size: UInt64 = 1 << shift
        return PageTranslation(
          physical: GuestAddress(entry & Self.addressMask & ~(size - 1) | address & (size - 1)), pageSize: size,
          isWritable: isWritable, isUser: isUser, isExecutable: isExecutable)
      }
      table = entry & Self.addressMask
    }
    return nil
  }

  /// 32-bit paging without PAE: two levels of 1024 entries, 4 MiB pages with CR4.PSE.
  private func walkLegacy(_ address: UInt64) -> PageTranslation? {
    guard address <= UInt64(UInt32.max) else { return nil }
    let directory = GuestAddress((cr3 & 0xffff_f000) + (address >> 22) * 4)
    guard let upper = try? memory.read(UInt32.self, at: directory), upper & 1 == 1 else { return nil }
    if upper >> 7 & 1 == 1, cr4 >> 4 & 1 == 1 {
      return PageTranslation(
        physical: GuestAddress(UInt64(upper & 0xffc0_0000) | address & 0x3f_ffff), pageSize: 4 << 20,
        isWritable: upper >> 1 & 1 == 1, isUser: upper >> 2 & 1 == 1, isExecutable: true)
    }
    let slot = GuestAddress(UInt64(upper & 0xffff_f000) + (address >> 12 & 1023) * 4)
    guard let entry = try? memory.read(UInt32.self, at: slot), entry & 1 == 1 else { return nil }
    return PageTranslation(
      physical: GuestAddress(UInt64(entry & 0xffff_f000) | address & 0xfff), pageSize: 4096,
      isWritable: upper & entry >> 1 & 1 == 1, isUser: upper & entry >> 2 & 1 == 1, isExecutable: true)
  }
}
