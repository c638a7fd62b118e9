// Turns a boot request into guest memory and a boot plan: which kernel format, which entry, what lies where.
// docs/platform.md, "Boot contract".

import DeviceTree
import GuestMemory

/// What the guest is to start with.
public struct BootRequest: Sendable {
  /// An ELF kernel or a Linux bzImage on the host.
  public var kernelPath: String
  /// The boot archive, or a Linux initrd; or nil.
  public var archivePath: String?
  /// The machine, for the device tree (kernels with a Castor note) or the MP table and device arguments (others).
  public var platform: PlatformDescription
  /// Start at the reset vector, through the boot ROM.
  public var throughFirmware: Bool

  public init(
    kernelPath: String, archivePath: String? = nil, platform: PlatformDescription, throughFirmware: Bool = false
  ) {
    self.kernelPath = kernelPath
    self.archivePath = archivePath
    self.platform = platform
    self.throughFirmware = throughFirmware
  }
}

/// How the guest that was loaded starts.
public struct BootPlan: Equatable, Sendable {
  public enum KernelFormat: Equatable, Sendable {
    /// An ELF with the note Castor/1: Pollux.
    case castorELF
    /// An ELF with the note Xen/18 only: a Linux `vmlinux`, say.
    case pvhELF
    /// A Linux bzImage.
    case bzImage
  }
  public let format: KernelFormat
  /// The first vCPU's registers.
  public let state: BootState
  /// What lies where in guest memory besides the boot area.
  public let parts: [PlacedPart]
  /// The command line as the guest reads it.
  public let commandLine: String
  /// The boot archive or initrd, guest-physical.
  public let archive: Range<UInt64>?
  /// The device tree, guest-physical.
  public let deviceTree: Range<UInt64>?
  /// Where the segments of an ELF kernel are linked to run, for debuggers that come before paging is on.
  public var segments: [LinkedSegment] = []
}

/// A segment of an ELF kernel.
public struct LinkedSegment: Equatable, Sendable {
  /// First guest-virtual address.
  public let virtualAddress: UInt64
  /// First guest-physical address.
  public let address: UInt64
  /// Bytes in memory.
  public let count: UInt64
}

/// Loads the kernel and its modules into guest memory, which must be all zero, and writes what the boot contract
/// demands. Calling it again after the memory is zeroed reboots the guest.
/// - Throws: `LoaderError` naming the file at fault.
public func loadGuest(_ request: BootRequest, into memory: GuestMemory) throws(LoaderError) -> BootPlan {
  let file = try LoadableFile.open(request.kernelPath)
  guard let first = memory.regions.first, first.base == GuestAddress(0), first.count >= 2 << 20 else {
    throw file.failure(.noRoom(part: "any kernel", bytes: 2 << 20))
  }
  let magic = try file.bytes(at: 0, count: 4, part: "its first four bytes")
  if magic.bytes == ELFKernel.magic { return try loadELF(file, request, memory) }
  guard file.count >= 0x210, SetupHeader.isPresent(try file.bytes(at: 0, count: 0x210, part: "the setup header")) else {
    throw file.failure(.unknownFormat)
  }
  return try loadBzImage(file, request, memory)
}

/// What the loaders of all formats share while they place things.
struct LoadInProgress {
  let request: BootRequest
  let memory: GuestMemory
  var placement: Placement

  init(_ request: BootRequest, _ memory: GuestMemory) {
    self.request = request
    self.memory = memory
    placement = Placement(memory: memory)
  }

  /// Loads the boot archive or initrd, when there is one, at a page boundary as high as possible below `limit`.
  mutating func loadArchive(below limit: UInt64 = PlatformLayout.mmioHole.lowerBound) throws(LoaderError)
    -> Range<UInt64>?
  {
    guard let path = request.archivePath else { return nil }
    let file = try LoadableFile.open(path)
    guard file.count > 0 else { throw file.failure(.malformed("it is empty")) }
    let address = try placement.placeHigh("the boot archive", count: file.count, below: limit, path: path)
    try file.load("the boot archive", at: 0, count: file.count, to: address.rawValue, memory: memory)
    return address.rawValue..<(address.rawValue + file.count)
  }

  /// Builds the device tree and puts it at a page boundary as high as possible.
  mutating func placeDeviceTree() throws(LoaderError) -> Range<UInt64> {
    let blob: [UInt8]
    do {
      blob = try PlatformTree.build(request.platform)
    } catch {
      throw LoaderError(path: request.kernelPath, problem: .platformNotDescribable("\(error)"))
    }
    let count = UInt64(blob.count)
    let address = try placement.placeHigh(
      "the device tree", count: count, below: PlatformLayout.mmioHole.lowerBound, path: request.kernelPath)
    let range = address.rawValue..<(address.rawValue + count)
    do {
      try memory.write(bytes: blob, at: address)
    } catch {
      throw LoaderError(path: request.kernelPath, problem: .outsideMemory(part: "the device tree", range: range))
    }
    return range
  }

  /// Runs writes to the boot area, which lies in the RAM that `loadGuest` checked to exist.
  func write(_ body: () throws(GuestMemoryError) -> Void) throws(LoaderError) {
    do {
      try body()
    } catch {
      throw LoaderError(
        path: request.kernelPath, problem: .outsideMemory(part: "the boot area", range: PlatformLayout.bootArea))
    }
  }
}
