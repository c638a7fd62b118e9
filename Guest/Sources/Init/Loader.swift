// Loads a program of the boot archive into a new process: code in place, data copied.

import Pollux

/// Why a program could not be started.
enum LoadError: Error {
  case noSuchProgram
  case badImage(ExecutableError)
  case kernel(SystemError)
}

/// A process under construction; it runs from `start` on.
struct LoadedProgram {
  let process: Process
  let entry: UInt64
  /// Where its part of the address space begins: 0 in user mode.
  let base: UInt64

  private static let stackTop: UInt64 = 0x7000_0000
  private static let stackSize: UInt64 = 64 << 10
  private static let startPage: UInt64 = 0x7100_0000
  /// Where init fills new memory, one object at a time: the same addresses each time need the same page tables.
  private static let window: UInt64 = 0x60_0000_0000

  /// Maps all of `memory` there, runs `body` with the mapping, and unmaps it.
  private static func fill(
    _ memory: MemoryObject, size: UInt64, _ body: (Mapping) -> Void
  ) throws(SystemError) {
    try memory.map(at: window, size: size, [.read, .write])
    guard let base = UnsafeMutableRawPointer(bitPattern: UInt(window)) else { throw .badAddress }
    let mapping = Mapping(base: base, size: Int(size))
    body(mapping)
    mapping.unmap()
  }

  /// The name of a program's image for kernel space: NAME.kernel.
  static func kernelImage(of program: Bytes, in archive: TapeArchive) -> TapeArchive.File? {
    var name = Text()
    name.add(program)
    name.add(".kernel")
    return name.bytes.withUnsafeBytes { bytes in
      bytes.baseAddress.flatMap { archive.file(Bytes(unsafeBase: $0, count: bytes.count)) }
    }
  }

  /// Makes a domain in kernel space from a service image (HongMeng §4.2): relocated to the window that the kernel chose, its memory
  /// mapped, and its control-flow entry table told to the kernel.
  init(
    kernelImage file: TapeArchive.File, named name: Bytes, mechanism: IsolationMechanism, root: Handle
  ) throws(LoadError) {
    let image: ServiceImage
    do throws(ExecutableError) {
      image = try ServiceImage(file.contents, within: AddressSpace.userStart..<0x6000_0000)
    } catch { throw .badImage(error) }
    do throws(SystemError) {
      process = try Process.createDomain(root: root, named: name, mechanism: mechanism)
      base = try process.domain(.start)
    } catch { throw .kernel(error) }
    entry = base + image.program.entry
    for index in 0..<image.program.headerCount {
      let segment: ExecutableImage.Segment?
      do throws(ExecutableError) { segment = try image.program.segment(index) } catch { throw .badImage(error) }
      guard let segment else { continue }
      do throws(SystemError) { try map(segment, fileOffset: file.offset, image) } catch { throw .kernel(error) }
    }
    do throws(SystemError) {
      for index in 0..<image.entryCount {
        guard let entry = try? image.entry(index) else { continue }
        try process.addEntry(base + entry)
      }
      try mapStack()
    } catch { throw .kernel(error) }
  }

  /// Makes a process from the file `program` of the archive.
  init(_ program: Bytes, named name: Bytes, from archive: TapeArchive) throws(LoadError) {
    guard let file = archive.file(program) else { throw .noSuchProgram }
    base = 0
    let image: ExecutableImage
    do throws(ExecutableError) {
      image = try ExecutableImage(file.contents, within: AddressSpace.userStart..<0x6000_0000)
    } catch { throw .badImage(error) }
    entry = image.entry
    do throws(SystemError) { process = try Process.create(named: name) } catch { throw .kernel(error) }
    for index in 0..<image.headerCount {
      let segment: ExecutableImage.Segment?
      do throws(ExecutableError) { segment = try image.segment(index) } catch { throw .badImage(error) }
      guard let segment else { continue }
      do throws(SystemError) { try map(segment, fileOffset: file.offset) } catch { throw .kernel(error) }
    }
    do throws(SystemError) { try mapStack() } catch { throw .kernel(error) }
  }

  private func mapStack() throws(SystemError) {
    let memory = try MemoryObject.create(Self.stackSize)
    try memory.map(
      in: process.handle, at: base + Self.stackTop - Self.stackSize, size: Self.stackSize, [.read, .write])
    memory.handle.close()
  }

  private func map(
    _ segment: ExecutableImage.Segment, fileOffset: Int, _ service: ServiceImage? = nil
  ) throws(SystemError) {
    let pageMask = AddressSpace.pageSize - 1
    let inPage = segment.address & pageMask
    let address = base + segment.address - inPage
    let size = (segment.memorySize + inPage + pageMask) & ~pageMask
    let archiveOffset = UInt64(fileOffset + segment.fileOffset)
    if !segment.isWritable, UInt64(segment.contents.count) == segment.memorySize, archiveOffset & pageMask == inPage {
      // Code and constants: the archive's own pages.
      try MemoryObject(Handle(InitialHandle.archive)).map(
        in: process.handle, at: address, offset: archiveOffset - inPage, size: size,
        segment.isExecutable ? [.read, .execute] : .read)
      return
    }
    let memory = try MemoryObject.create(size)
    if segment.contents.count > 0 {
      try Self.fill(memory, size: size) { window in
        // The window is as long as the segment in memory, which is at least as long as its file part.
        (window.base + Int(inPage)).copyMemory(from: segment.contents.unsafeBase, byteCount: segment.contents.count)
        if segment.isWritable, let service { relocate(service, segment, window) }
      }
    }
    let protection: Protection =
      segment.isWritable ? [.read, .write] : segment.isExecutable ? [.read, .execute] : .read
    try memory.map(in: process.handle, at: address, size: size, protection)
    memory.handle.close()
  }

  /// Adds the base to the words of a writable segment that the relocations name.
  private func relocate(_ service: ServiceImage, _ segment: ExecutableImage.Segment, _ window: Mapping) {
    for index in 0..<service.relocationCount {
      guard let relocation = try? service.relocation(index), relocation.address >= segment.address,
        relocation.address - segment.address < UInt64(segment.contents.count)
      else { continue }
      // Inside the segment's contents by the checks of `ServiceImage`; the window holds them from its first page on.
      let offset = Int(relocation.address - (segment.address & ~(AddressSpace.pageSize - 1)))
      window.base.storeBytes(of: base &+ relocation.value, toByteOffset: offset, as: UInt64.self)
    }
  }

  /// Starts the first thread with `block` as its start page.
  func start(_ block: StartBlockBuilder, priority: UInt64) throws(SystemError) {
    let page = try MemoryObject.create(AddressSpace.pageSize)
    let contents = block.contents
    try Self.fill(page, size: AddressSpace.pageSize) { window in
      contents.withUnsafeBytes { bytes in
        if let base = bytes.baseAddress {
          window.base.copyMemory(from: base, byteCount: min(bytes.count, window.size))
        }
      }
    }
    try page.map(in: process.handle, at: base + Self.startPage, size: AddressSpace.pageSize, .read)
    page.handle.close()
    try process.startThread(
      entry: entry, stack: base + Self.stackTop, argument: base + Self.startPage, priority: priority
    ).close()
  }
}
