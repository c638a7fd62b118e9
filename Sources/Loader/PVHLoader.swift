// Loads an ELF kernel by the PVH boot protocol, with Castor's 64-bit entry where the kernel offers it.

import GuestMemory

func loadELF(_ file: borrowing LoadableFile, _ request: BootRequest, _ memory: GuestMemory) throws(LoaderError)
  -> BootPlan
{
  let kernel = try ELFKernel(file: file)
  let isCastor = kernel.castorEntry != nil
  let direct = isCastor && !request.throughFirmware
  guard let entry = direct ? kernel.castorEntry : kernel.pvhEntry else {
    throw file.failure(.noEntryPoint("the ELF file has no note Xen/18 (PVH)"))
  }
  guard kernel.contains(entry), entry < 1 << 32 else {
    throw file.failure(.malformed("entry point 0x\(String(entry, radix: 16)) is in no segment below 4 GiB"))
  }
  var load = LoadInProgress(request, memory)
  let commandLine = isCastor ? request.platform.commandLine : load.commandLineWithDevices()
  guard commandLine.utf8.count <= StartInfo.commandLineLimit else {
    throw file.failure(.commandLineTooLong(bytes: commandLine.utf8.count, limit: StartInfo.commandLineLimit))
  }

  try kernel.load(file: file, memory: memory, placement: &load.placement)
  let archive = try load.loadArchive()
  let deviceTree = isCastor ? try load.placeDeviceTree() : nil
  let modules = [archive, deviceTree].compactMap { $0 }
  var state: BootState = direct ? .long64(entry: entry) : request.throughFirmware ? .reset : .protected32(entry: entry)
  if !request.throughFirmware { state.rbx = PlatformLayout.startInfo.rawValue }
  try load.write { () throws(GuestMemoryError) in
    try StartInfo.write(
      modules: modules, map: PlatformLayout.memoryMap(of: memory.regions.map { $0.base.rawValue..<$0.end }),
      commandLine: commandLine, to: memory)
    if request.throughFirmware {
      try FirmwareMailbox(entry: UInt32(entry), ebx: UInt32(PlatformLayout.startInfo.rawValue), esi: 0)
        .write(to: memory)
    } else {
      try BootTables.writeGDT(to: memory, longMode: direct)
    }
    if direct { try BootTables.writePageTables(to: memory) }
  }
  if !isCastor { try load.writeMPTable() }
  return BootPlan(
    format: isCastor ? .castorELF : .pvhELF, state: state, parts: load.placement.parts, commandLine: commandLine,
    archive: archive, deviceTree: deviceTree,
    segments: kernel.segments.map {
      LinkedSegment(virtualAddress: $0.virtualAddress, address: $0.address, count: $0.memoryCount)
    })
}
