// The guest's RAM as the host sees it: regions, and checked access to them. Every guest-physical address that a guest
// supplies is checked here, once, before it becomes a host pointer.

import CLinux
import Glibc
import HostSystem
import SystemPackage

/// How guest RAM is backed on the host.
public enum MemoryBacking: String, Sendable {
  /// Private anonymous memory.
  case anonymous
  /// A memfd, mapped shared, so that another process can be given the same memory.
  case memfd
}

/// One contiguous piece of guest RAM.
public struct MemoryRegion: Sendable {
  /// First guest-physical address.
  public let base: GuestAddress
  /// Length in bytes, a multiple of 4 KiB.
  public let count: UInt64
  /// Where the region is mapped in this process; owned by `GuestMemory`.
  public nonisolated(unsafe) let host: UnsafeMutableRawPointer
  /// The memfd behind it and the region's offset there, or nil.
  public let file: (descriptor: CInt, offset: UInt64)?

  /// First guest-physical address after the region.
  public var end: UInt64 { base.rawValue + count }
}

/// The guest's RAM. Shared by all threads of the VMM; the guest changes it at any time, so a value read twice may
/// differ: read once, check, use the copy.
public final class GuestMemory: @unchecked Sendable {
  // @unchecked: the regions never change after `init`; their bytes are shared with the guest by design.
  public let regions: [MemoryRegion]
  private let file: CInt

  /// Maps RAM for the given guest-physical ranges, which must be sorted, disjoint and 4 KiB-aligned.
  /// - Parameter hugePages: ask for transparent huge pages (MADV_HUGEPAGE).
  public init(ranges: [Range<UInt64>], backing: MemoryBacking = .anonymous, hugePages: Bool = true)
    throws(GuestMemoryError)
  {
    let total = ranges.reduce(0) { $0 + UInt64($1.count) }
    var descriptor: CInt = -1
    if backing == .memfd {
      descriptor = castor_memfd_create("castor-guest", UInt32(MFD_CLOEXEC))
      guard descriptor >= 0, ftruncate(descriptor, Int(total)) == 0 else {
        throw .mappingFailed(bytes: total, errno: errno)
      }
    }
    var made: [MemoryRegion] = []
    var offset: UInt64 = 0
    for range in ranges {
      let count = range.upperBound - range.lowerBound
      let flags =
        backing == .memfd ? CInt(MAP_SHARED) : CInt(MAP_PRIVATE) | CInt(MAP_ANONYMOUS) | CInt(MAP_NORESERVE)
      // Map 2 MiB more than needed and cut the ends, so that host and guest huge pages line up.
      let alignment: UInt64 = 2 << 20
      guard
        let area = mmap(
          nil, Int(count + alignment), PROT_NONE, CInt(MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE), -1, 0),
        area != MAP_FAILED
      else { throw .mappingFailed(bytes: count, errno: errno) }
      let skew = (alignment - UInt64(UInt(bitPattern: area)) % alignment) % alignment
      let base = area + Int(skew)
      if skew > 0 { munmap(area, Int(skew)) }
      if alignment - skew > 0 { munmap(base + Int(count), Int(alignment - skew)) }
      let mapped = mmap(
        base, Int(count), PROT_READ | PROT_WRITE, flags | CInt(MAP_FIXED), descriptor, off_t(offset))
      guard let mapped, mapped != MAP_FAILED else { throw .mappingFailed(bytes: count, errno: errno) }
      if hugePages { madvise(mapped, Int(count), CInt(MADV_HUGEPAGE)) }
      // Guest memory in a core dump would make it as large as the guest.
      madvise(mapped, Int(count), CInt(MADV_DONTDUMP))
      made.append(
        MemoryRegion(
          base: GuestAddress(range.lowerBound), count: count, host: mapped,
          file: backing == .memfd ? (descriptor, offset) : nil))
      offset += count
    }
    regions = made
    file = descriptor
  }

  deinit {
    for region in regions { munmap(region.host, Int(region.count)) }
    if file >= 0 { close(file) }
  }

  /// Bytes of RAM in all regions.
  public var totalCount: UInt64 { regions.reduce(0) { $0 + $1.count } }

  /// The host bytes of a guest-physical range, which must lie inside one region. Valid while this object lives; the
  /// guest may change them at any time.
  public func buffer(at address: GuestAddress, count: UInt64) throws(GuestMemoryError) -> UnsafeMutableRawBufferPointer
  {
    for region in regions where address >= region.base && address.rawValue < region.end {
      let offset = address.rawValue - region.base.rawValue
      guard count <= region.count - offset else { break }
      return UnsafeMutableRawBufferPointer(start: region.host + Int(offset), count: Int(count))
    }
    throw .outsideMemory(address: address, count: count)
  }

  /// Copies a plain value out of guest memory; any alignment.
  public func read<T: BitwiseCopyable>(_ type: T.Type = T.self, at address: GuestAddress) throws(GuestMemoryError) -> T
  {
    let bytes = try buffer(at: address, count: UInt64(MemoryLayout<T>.size))
    return UnsafeRawBufferPointer(bytes).loadUnaligned(as: T.self)
  }

  /// Copies a plain value into guest memory; any alignment.
  public func write<T: BitwiseCopyable>(_ value: T, at address: GuestAddress) throws(GuestMemoryError) {
    let bytes = try buffer(at: address, count: UInt64(MemoryLayout<T>.size))
    bytes.storeBytes(of: value, as: T.self)
  }

  /// Copies bytes into guest memory.
  public func write(bytes source: UnsafeRawBufferPointer, at address: GuestAddress) throws(GuestMemoryError) {
    try buffer(at: address, count: UInt64(source.count)).copyMemory(from: source)
  }

  /// Copies bytes into guest memory.
  public func write(bytes source: [UInt8], at address: GuestAddress) throws(GuestMemoryError) {
    let target = try buffer(at: address, count: UInt64(source.count))
    source.withUnsafeBytes { target.copyMemory(from: $0) }
  }

  /// Copies `count` bytes out of guest memory.
  public func readBytes(at address: GuestAddress, count: Int) throws(GuestMemoryError) -> [UInt8] {
    [UInt8](try buffer(at: address, count: UInt64(count)))
  }

  /// A 16-bit load with acquire order, for ring indices. The address must be even.
  public func loadAcquire(at address: GuestAddress) throws(GuestMemoryError) -> UInt16 {
    guard address.rawValue % 2 == 0 else { throw .misaligned(address: address) }
    return castor_load_acquire_u16(try buffer(at: address, count: 2).baseAddress)
  }

  /// A 16-bit store with release order, for ring indices. The address must be even.
  public func storeRelease(_ value: UInt16, at address: GuestAddress) throws(GuestMemoryError) {
    guard address.rawValue % 2 == 0 else { throw .misaligned(address: address) }
    castor_store_release_u16(try buffer(at: address, count: 2).baseAddress, value)
  }

  /// Orders all earlier loads and stores before all later ones (needed around EVENT_IDX checks).
  public static func fullFence() { castor_full_fence() }
}
