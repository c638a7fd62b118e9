// The register state in which the first vCPU starts: Intel SDM vol. 3, §3.4.5, §9.1, §10.8.5; Xen's PVH document;
// Linux's Documentation/x86/boot.rst. And the page tables and GDT that it needs in guest memory.

import GuestMemory

/// A segment register, as KVM and VMX describe one.
public struct BootSegment: Equatable, Sendable {
  public var selector: UInt16
  public var base: UInt64
  public var limit: UInt32
  /// Type field of the descriptor; accessed is set.
  public var type: UInt8
  /// Code or data rather than a system segment.
  public var isCodeOrData: Bool
  /// 64-bit code.
  public var isLong: Bool
  /// 32-bit default operand size.
  public var is32Bit: Bool
  /// Limit in 4 KiB units in the descriptor; `limit` here is in bytes always.
  public var hasPageGranularity: Bool
}

/// What the first vCPU holds when it starts. General-purpose registers not named are zero; all segments are present
/// with privilege level 0; the IDT is empty.
public struct BootState: Equatable, Sendable {
  public enum Mode: Sendable {
    /// Long mode, paging on.
    case long64
    /// Protected mode, paging off.
    case protected32
    /// Real mode at the reset vector.
    case realModeReset
  }
  public let mode: Mode
  public var rip: UInt64
  public var rbx: UInt64 = 0
  public var rsi: UInt64 = 0
  public let rflags: UInt64 = 2
  public let cr0: UInt64
  public let cr3: UInt64
  public let cr4: UInt64
  public let efer: UInt64
  /// Guest-physical and (identity-mapped) linear.
  public let gdtBase: UInt64
  public let gdtLimit: UInt16
  public let idtBase: UInt64 = 0
  public let idtLimit: UInt16
  public let code: BootSegment
  /// DS, ES, FS, GS and SS.
  public let data: BootSegment
  public let task: BootSegment

  /// Long mode with the first 4 GiB identity-mapped by `BootTables`.
  static func long64(entry: UInt64) -> BootState {
    BootState(
      mode: .long64, rip: entry,
      cr0: 0x8000_0033,  // PG, NE, ET, MP, PE
      cr3: BootTables.pml4, cr4: 0x220,  // OSFXSR, PAE
      efer: 0xd01,  // NXE, LMA, LME, SCE
      gdtBase: BootTables.gdt, gdtLimit: BootTables.gdtLimit, idtLimit: 0,
      code: .flat(selector: 0x10, type: 0xb, isLong: true), data: .flat(selector: 0x18, type: 0x3, isLong: false),
      task: .task(limit: 0x67))
  }

  /// Protected mode without paging.
  static func protected32(entry: UInt64) -> BootState {
    BootState(
      mode: .protected32, rip: entry, cr0: 0x11, cr3: 0, cr4: 0, efer: 0, gdtBase: BootTables.gdt,
      gdtLimit: BootTables.gdtLimit, idtLimit: 0, code: .flat(selector: 0x10, type: 0xb, isLong: false),
      data: .flat(selector: 0x18, type: 0x3, isLong: false), task: .task(limit: 0x67))
  }

  /// The processor as a hardware reset leaves it: the next instruction is at 0xffff_fff0.
  static var reset: BootState {
    BootState(
      mode: .realModeReset, rip: 0xfff0, cr0: 0x6000_0010, cr3: 0, cr4: 0, efer: 0, gdtBase: 0, gdtLimit: 0xffff,
      idtLimit: 0xffff,
      code: .realMode(selector: 0xf000, base: 0xffff_0000, type: 0xb), data: .realMode(selector: 0, base: 0, type: 0x3),
      task: .task(limit: 0xffff, selector: 0))
  }
}

extension BootSegment {
  /// Base 0, limit 4 GiB.
  static func flat(selector: UInt16, type: UInt8, isLong: Bool) -> BootSegment {
    BootSegment(
      selector: selector, base: 0, limit: 0xffff_ffff, type: type, isCodeOrData: true, isLong: isLong, is32Bit: !isLong,
      hasPageGranularity: true)
  }

  static func realMode(selector: UInt16, base: UInt64, type: UInt8) -> BootSegment {
    BootSegment(
      selector: selector, base: base, limit: 0xffff, type: type, isCodeOrData: true, isLong: false, is32Bit: false,
      hasPageGranularity: false)
  }

  /// A busy task-state segment at address 0, which nothing uses before the guest loads its own.
  static func task(limit: UInt32, selector: UInt16 = 0x20) -> BootSegment {
    BootSegment(
      selector: selector, base: 0, limit: limit, type: 0xb, isCodeOrData: false, isLong: false, is32Bit: false,
      hasPageGranularity: false)
  }
}

/// The page tables and the GDT in the boot area.
enum BootTables {
  static let pml4 = PlatformLayout.bootTables.lowerBound
  static let gdt = PlatformLayout.bootTables.upperBound - 0x1000
  static let gdtLimit: UInt16 = 6 * 8 - 1

  /// Writes page tables that identity-map the first 4 GiB by 2 MiB pages, present and writable.
  static func writePageTables(to memory: GuestMemory) throws(GuestMemoryError) {
    let present: UInt64 = 0x3
    let large: UInt64 = 0x80
    // One check for all 2053 entries: start-up time counts.
    let tables = try memory.buffer(at: GuestAddress(pml4), count: gdt - pml4)
    func set(_ entry: UInt64, table: Int, index: Int) {
      tables.storeBytes(of: entry.littleEndian, toByteOffset: table * 0x1000 + index * 8, as: UInt64.self)
    }
    set(pml4 + 0x1000 | present, table: 0, index: 0)
    for gibibyte in 0..<4 {
      set(pml4 + UInt64(2 + gibibyte) * 0x1000 | present, table: 1, index: gibibyte)
      for index in 0..<512 {
        set(UInt64(gibibyte * 512 + index) << 21 | large | present, table: 2 + gibibyte, index: index)
      }
    }
  }

  /// Writes a GDT with flat code at 0x10 and flat data at 0x18 (the selectors that Linux asks for) and a TSS at 0x20.
  static func writeGDT(to memory: GuestMemory, longMode: Bool) throws(GuestMemoryError) {
    let code: UInt64 = longMode ? 0x00af_9b00_0000_ffff : 0x00cf_9b00_0000_ffff
    let descriptors: [UInt64] = [0, 0, code, 0x00cf_9300_0000_ffff, 0x0000_8b00_0000_0067, 0]
    for (index, descriptor) in descriptors.enumerated() {
      try memory.write(descriptor.littleEndian, at: GuestAddress(gdt + UInt64(index) * 8))
    }
  }
}
