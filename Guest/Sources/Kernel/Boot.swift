// From the first Swift code to init's first instruction (docs/platform.md, "Boot contract"). Little happens here: tables are in
// the image, RAM is zero, init is mapped in place, and everything else is init's work in ring 3.
import CArch
import KernelCore
import PolluxABI

@c(kernel_start)
public func kernelStart(_ startInfo: UInt64, _ entryTime: UInt64) -> Never {
  Boot.start(startInfo, entryTime)
}

@c(kernel_boot_finish)
public func kernelBootFinish(_ entryKind: UInt64) -> UInt64 {
  kernel.pointee.isProbing = false
  Boot.finish(entryKind: entryKind)
  return Processor.at(0).leave()
}

enum Boot {
  /// One module of `hvm_start_info`, guest-physical.
  private struct Module {
    var address: UInt64 = 0
    var size: UInt64 = 0
    var end: UInt64 { address + size }
  }

  static func start(_ startInfo: UInt64, _ entryTime: UInt64) -> Never {
    let memory = DirectMemory()
    Processor.loadTaskState(0)
    SerialPort.enable()
    // The legacy interrupt controllers stay masked.
    port_write8(0x21, 0xff)
    port_write8(0xa1, 0xff)

    // hvm_start_info (Xen public/arch-x86/hvm/start_info.h): magic, version, flags, module count, module list, command line,
    // RSDP, memory map, its entry count.
    guard UInt32(truncatingIfNeeded: memory.load(startInfo)) == 0x336e_c578 else { stop("no hvm_start_info") }
    let moduleCount = memory.load(startInfo + 8) >> 32
    let moduleList = memory.load(startInfo + 16)
    guard moduleCount > 0 else { stop("no boot archive") }
    let archive = Module(address: memory.load(moduleList), size: memory.load(moduleList + 8))
    var tree = Module()
    for index in 1..<max(moduleCount, 2) where index < moduleCount {
      let module = Module(address: memory.load(moduleList + index * 32), size: memory.load(moduleList + index * 32 + 8))
      // A device tree is recognised by its magic, big-endian 0xd00dfeed.
      if module.size >= 8, UInt32(truncatingIfNeeded: memory.load(module.address & ~7)) == 0xedfe_0dd0 { tree = module }
    }
    kernel.pointee.underCastor = tree.size != 0
    if kernel.pointee.underCastor { port_write32(0x608, 1) }

    addMemory(startInfo, archive, tree)
    Walls.makeServiceSlot()
    kernel.pointee.callSequence = 0
    kernel.pointee.nextVector = Vector.devices.lowerBound
    kernel.pointee.clock.localStart = time_stamp()
    let processor = Processor.start(0)
    kernel.pointee.processorCount = 1

    KernelInfoPage.set(KernelInfo.magic, KernelInfo.magicValue)
    KernelInfoPage.set(KernelInfo.version, KernelInfo.currentVersion)
    KernelInfoPage.set(KernelInfo.flags, kernel.pointee.underCastor ? KernelInfo.flagCastor : 0)
    KernelInfoPage.set(KernelInfo.tscBase, entryTime)
    KernelInfoPage.set(KernelInfo.processorCount, 1)
    KernelInfoPage.set(KernelInfo.startInfo, startInfo)
    KernelInfoPage.set(KernelInfo.archiveAddress, archive.address)
    KernelInfoPage.set(KernelInfo.archiveSize, archive.size)
    KernelInfoPage.set(KernelInfo.deviceTreeAddress, tree.address)
    KernelInfoPage.set(KernelInfo.deviceTreeSize, tree.size)
    KernelInfoPage.set(KernelInfo.commandLine, memory.load(startInfo + 24))
    Say.text("Pollux: memory ")
    Say.decimal(kernel.pointee.frames.totalBytes >> 20)
    Say.text(" MiB, archive ")
    Say.decimal(archive.size >> 10)
    Say.text(kernel.pointee.underCastor ? " KiB, device tree\n" : " KiB, no device tree\n")

    do throws(SystemError) {
      let thread = try makeInit(archive, tree, processor)
      kernel.pointee.initThread = thread
      probe(thread, processor)
    } catch {
      kernel.pointee.log.isUrgent = true
      Say.text("Pollux cannot start init: error ")
      Say.decimal(UInt64(-error.rawValue))
      Say.newline()
      PowerControl.exit(100)
    }
  }

  private static func stop(_ reason: StaticString) -> Never {
    kernel.pointee.log.isUrgent = true
    Say.text("Pollux cannot boot: ")
    Say.text(reason)
    Say.newline()
    PowerControl.exit(100)
  }

  /// Gives the allocator what the memory map calls RAM, except the first MiB, the kernel, and what the boot loader brought. The
  /// largest piece comes first, since fresh memory is taken from the first piece with room.
  private static func addMemory(_ startInfo: UInt64, _ archive: Module, _ tree: Module) {
    let memory = DirectMemory()
    let map = memory.load(startInfo + 40)
    let count = memory.load(startInfo + 48) & 0xffff_ffff
    // From the kernel's image to its end nothing else is loaded, but a module may follow at once.
    let kernelEnd = (DirectMemory.physical(image: address_of_kernel_end()) + 0x1f_ffff) & ~0x1f_ffff
    var index: UInt64 = 0
    while index < count {
      let entry = map + index * 24
      index += 1
      guard memory.load(entry + 16) & 0xffff_ffff == 1 else { continue }
      var start = memory.load(entry)
      let end = start + memory.load(entry + 8)
      kernel.pointee.frames.countMemory(bytes: end - start)
      if start < 4 << 30 { start = max(start, kernelEnd) }
      guard start < end else { continue }
      // Above 4 GiB the direct map has to grow first, with tables from below.
      if end > 4 << 30 {
        guard DirectMemory.extend(to: end, table: { kernel.pointee.frames.allocate(size: 4096) }) else { continue }
      }
      addFree(start, end, excluding: [archive, tree])
    }
  }

  /// Adds [start, end) without the pages of the modules.
  private static func addFree(_ start: UInt64, _ end: UInt64, excluding modules: InlineArray<2, Module>) {
    var from = start
    while from < end {
      var cut = end
      var resume = end
      for index in modules.indices where modules[index].size != 0 {
        let moduleStart = modules[index].address & ~4095
        let moduleEnd = (modules[index].end + 4095) & ~4095
        if moduleEnd > from, moduleStart < cut {
          cut = max(moduleStart, from)
          resume = moduleEnd
        }
      }
      kernel.pointee.frames.addFresh(start: from, end: cut)
      from = resume
    }
  }

  // MARK: init

  /// The process that is mapped in place from the archive, with the handles of `InitialHandle`.
  private static func makeInit(
    _ archive: Module, _ tree: Module, _ processor: Reference<Processor>
  ) throws(SystemError) -> Reference<Thread> {
    let bytes = DirectMemory.bytes(archive.address, count: archive.size)
    guard archive.address & 4095 == 0, let (offset, size) = BootArchive.find("init", in: bytes), offset & 4095 == 0,
      let image = ProgramImage(bytes.extracting(offset..<offset + size))
    else { throw .notFound }

    let name: UInt64 = 0x7469_6e69  // "init"
    let process = try Objects.makeProcess(name: (name, 0, 0, 0), parent: 0)
    let archiveObject = try moduleObject(archive)
    for index in 0..<image.segmentCount {
      guard let segment = try image.segment(index) else { continue }
      let inFile = (segment.fileSize + 4095) & ~4095
      let inMemory = (segment.memorySize + 4095) & ~4095
      let access = (now: segment.protection, maximum: UInt8(truncatingIfNeeded: segment.protection.rawValue))
      if inFile != 0 {
        try Mappings.map(
          process, archiveObject, at: segment.address,
          physical: archive.address + UInt64(offset) + segment.fileOffset, size: inFile, access: access)
      }
      if inMemory > inFile { try mapZero(process, at: segment.address + inFile, size: inMemory - inFile) }
    }
    try mapZero(
      process, at: AddressSpace.initStackTop - AddressSpace.initStackSize, size: AddressSpace.initStackSize)

    let thread = try Objects.makeThread(
      process, entry: image.entry, stack: AddressSpace.initStackTop, arguments: (0, 0), priority: 31, on: processor)
    thread.pointee.references += 1
    _ = try process.pointee.handles.insert(HandleEntry(object: process.address, kind: .process, rights: .all))
    _ = try process.pointee.handles.insert(HandleEntry(object: thread.address, kind: .thread, rights: .all))
    _ = try process.pointee.handles.insert(HandleEntry(object: kernel.address, kind: .root, rights: .all))
    _ = try process.pointee.handles.insert(
      HandleEntry(object: archiveObject.address, kind: .memory, rights: [.read, .execute, .grant]))
    if tree.size != 0 {
      let treeObject = try moduleObject(tree)
      _ = try process.pointee.handles.insert(
        HandleEntry(object: treeObject.address, kind: .memory, rights: [.read, .grant]))
    }
    return thread
  }

  private static func moduleObject(_ module: Module) throws(SystemError) -> Reference<MemoryObject> {
    let start = module.address & ~4095
    return try kernel.pointee.heap.make(
      MemoryObject(
        references: 1, owner: 0, physical: start, size: (module.end - start + 4095) & ~4095, flags: [], isOwned: false))
  }

  private static func mapZero(_ process: Reference<Process>, at address: UInt64, size: UInt64) throws(SystemError) {
    guard let physical = kernel.pointee.frames.allocate(size: size) else { throw .noMemory }
    let memory = try kernel.pointee.heap.make(
      MemoryObject(
        references: 0, owner: process.pointee.identifier, physical: physical, size: size, flags: [], isOwned: true))
    process.pointee.memoryBytes &+= size
    try Mappings.map(process, memory, at: address, physical: physical, size: size, access: ([.read, .write], 3))
  }

  // MARK: The system-call entry

  /// Runs a SYSCALL in ring 3 to see where it goes: to `probe_entry` in ring 0, or (software KVM) to its address in ring 3, which
  /// faults. Both continue with `finish`.
  private static func probe(_ thread: Reference<Thread>, _ processor: Reference<Processor>) -> Never {
    kernel.pointee.isProbing = true
    kernel.pointee.initEntry = thread.pointee.frame.rip
    thread.pointee.frame.rip = AddressSpace.systemCallEntry + UInt64(ENTRY_PROBE_OFFSET)
    msr_write(0xc000_0082, address_of_probe_entry())
    processor.resume(thread)
    enter_frame(thread.framePointer)
  }

  /// The last step: the entry is known; init's registers are as documented; the way out of the kernel starts it.
  static func finish(entryKind: UInt64) {
    msr_write(0xc000_0082, address_of_system_call_entry())
    if entryKind == 2 { store32(address_of_entry_page(), 0xcc_c3_05_0f) }  // syscall; ret
    KernelInfoPage.set(KernelInfo.entryKind, entryKind)
    Say.text(entryKind == 2 ? "System calls: SYSCALL\n" : "System calls: int $4\n")
    if let thread = kernel.pointee.initThread {
      thread.pointee.frame.rip = kernel.pointee.initEntry
      thread.pointee.frame.rflags = 0x202
      thread.pointee.frame.rcx = 0
      thread.pointee.frame.r11 = 0
    }
    let ticks = time_stamp() &- KernelInfoPage.get(KernelInfo.tscBase)
    KernelInfoPage.set(KernelInfo.bootTicks, ticks)
    // Under QEMU -icount shift=0 a tick is an instruction; this line itself takes about 500 more.
    Say.text("Entry to init: ")
    Say.decimal(ticks)
    Say.text(" ticks\n")
    if kernel.pointee.underCastor { port_write32(0x608, 2) }
  }
}
