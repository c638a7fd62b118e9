// Loads a Linux bzImage by the 64-bit boot protocol, or by the 32-bit one through the firmware: Linux's
// Documentation/x86/boot.rst and zero-page.rst.

import GuestMemory

/// The parts of a bzImage's setup header that a loader needs.
struct SetupHeader {
  /// The header as the kernel gets it back, at `offset` of boot_params.
  let bytes: [UInt8]
  static let offset = 0x1f1
  /// Where in the file the protected-mode kernel begins.
  let kernelOffset: UInt64
  let commandLineLimit: Int
  /// Highest guest-physical address that the initrd may occupy.
  let archiveMaximum: UInt64
  /// Where the kernel runs after it has decompressed itself, and how much it needs there.
  let runAddress: UInt64
  let runCount: UInt64

  static func isPresent(_ start: FileBytes) -> Bool {
    start.integer(0x1fe, as: UInt16.self) == 0xaa55 && start.integer(0x202, as: UInt32.self) == 0x5372_6448  // "HdrS"
  }

  init(file: borrowing LoadableFile) throws(LoaderError) {
    let start = try file.bytes(at: 0, count: 0x270, part: "the setup header")
    guard Self.isPresent(start) else { throw file.failure(.unknownFormat) }
    let version: UInt16 = start.integer(0x206)
    guard version >= 0x20c, start.integer(0x236, as: UInt16.self) & 1 != 0 else {
      throw file.failure(
        .noEntryPoint("boot protocol \(version >> 8).\(version & 0xff) of this bzImage lacks the 64-bit entry"))
    }
    guard start.bytes[0x211] & 1 != 0 else {
      throw file.failure(.malformed("the kernel does not load at 1 MiB"))
    }
    let end = 0x202 + Int(start.bytes[0x201])
    guard end > 0x264, end <= 0x290 else { throw file.failure(.malformed("setup header that ends at \(end)")) }
    bytes = try file.bytes(at: UInt64(Self.offset), count: end - Self.offset, part: "the setup header").bytes
    let sectors = start.bytes[Self.offset]
    kernelOffset = (UInt64(sectors == 0 ? 4 : sectors) + 1) * 512
    commandLineLimit = Int(start.integer(0x238, as: UInt32.self))
    archiveMaximum = UInt64(start.integer(0x22c, as: UInt32.self))
    runAddress = start.integer(0x258)
    runCount = UInt64(start.integer(0x260, as: UInt32.self))
    // The header gives the kernel's size in paragraphs of 16 bytes; the last one may be short.
    let size = UInt64(start.integer(0x1f4, as: UInt32.self)) * 16
    guard kernelOffset + max(size, 0x220) < file.count + 16, kernelOffset + 0x220 <= file.count else {
      throw file.failure(.truncated(part: "the protected-mode kernel"))
    }
  }
}

/// Offsets in `boot_params`, the zero page.
private enum BootParameters {
  static let mapCount: UInt64 = 0x1e8
  static let typeOfLoader: UInt64 = 0x210
  static let archiveAddress: UInt64 = 0x218
  static let archiveCount: UInt64 = 0x21c
  static let commandLine: UInt64 = 0x228
  static let map: UInt64 = 0x2d0
}

func loadBzImage(_ file: borrowing LoadableFile, _ request: BootRequest, _ memory: GuestMemory) throws(LoaderError)
  -> BootPlan
{
  let header = try SetupHeader(file: file)
  var load = LoadInProgress(request, memory)
  let commandLine = load.commandLineWithDevices()
  let limit = min(header.commandLineLimit, StartInfo.commandLineLimit)
  guard commandLine.utf8.count <= limit else {
    throw file.failure(.commandLineTooLong(bytes: commandLine.utf8.count, limit: limit))
  }

  // The compressed kernel goes to 1 MiB and unpacks itself to its preferred address: one claim covers both.
  let address: UInt64 = 0x10_0000
  let count = file.count - header.kernelOffset
  let (runEnd, overflow) = header.runAddress.addingReportingOverflow(header.runCount)
  guard !overflow, header.runAddress >= address else {
    throw file.failure(.malformed("preferred load address 0x\(String(header.runAddress, radix: 16))"))
  }
  try load.placement.claim(
    "the kernel", at: address, count: max(address + count, runEnd) - address, path: file.path)
  try file.load("the protected-mode kernel", at: header.kernelOffset, count: count, to: address, memory: memory)
  let archive = try load.loadArchive(below: min(header.archiveMaximum + 1, PlatformLayout.mmioHole.lowerBound))

  let zeroPage = PlatformLayout.startInfo.rawValue
  try load.write { () throws(GuestMemoryError) in
    try memory.write(bytes: header.bytes, at: GuestAddress(zeroPage + UInt64(SetupHeader.offset)))
    try memory.write(UInt8(0xff), at: GuestAddress(zeroPage + BootParameters.typeOfLoader))  // not a registered one
    try memory.write(
      UInt32(truncatingIfNeeded: PlatformLayout.commandLine.rawValue).littleEndian,
      at: GuestAddress(zeroPage + BootParameters.commandLine))
    if let archive {
      try memory.write(
        UInt32(truncatingIfNeeded: archive.lowerBound).littleEndian,
        at: GuestAddress(zeroPage + BootParameters.archiveAddress))
      try memory.write(
        UInt32(archive.count).littleEndian, at: GuestAddress(zeroPage + BootParameters.archiveCount))
    }
    let map = PlatformLayout.memoryMap(of: memory.regions.map { $0.base.rawValue..<$0.end })
    try memory.write(UInt8(map.count), at: GuestAddress(zeroPage + BootParameters.mapCount))
    for (index, item) in map.enumerated() {
      let entry = zeroPage + BootParameters.map + UInt64(index) * 20
      try memory.write(item.range.lowerBound.littleEndian, at: GuestAddress(entry))
      try memory.write((item.range.upperBound - item.range.lowerBound).littleEndian, at: GuestAddress(entry + 8))
      try memory.write(item.kind.rawValue.littleEndian, at: GuestAddress(entry + 16))
    }
    try memory.write(bytes: Array(commandLine.utf8) + [0], at: PlatformLayout.commandLine)
    if request.throughFirmware {
      try FirmwareMailbox(entry: UInt32(address), ebx: 0, esi: UInt32(zeroPage)).write(to: memory)
    } else {
      try BootTables.writeGDT(to: memory, longMode: true)
      try BootTables.writePageTables(to: memory)
    }
  }
  try load.writeMPTable()

  var state: BootState = request.throughFirmware ? .reset : .long64(entry: address + 0x200)
  if !request.throughFirmware { state.rsi = zeroPage }
  return BootPlan(
    format: .bzImage, state: state, parts: load.placement.parts, commandLine: commandLine, archive: archive,
    deviceTree: nil)
}
