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

  private static let stackTop: UInt64 = 0x7000_0000
  private static let stackSize: UInt64 = 64 << 10
  private static let startPage: UInt64 = 0x7100_0000

  /// Makes a process from the file `program` of the archive.
  init(_ program: Bytes, named name: Bytes, from archive: TapeArchive) throws(LoadError) {
    guard let file = archive.file(program) else { throw .noSuchProgram }
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
    do throws(SystemError) {
      try MemoryObject.create(Self.stackSize).map(
        in: process.handle, at: Self.stackTop - Self.stackSize, size: Self.stackSize, [.read, .write])
    } catch { throw .kernel(error) }
  }

  private func map(_ segment: ExecutableImage.Segment, fileOffset: Int) throws(SystemError) {
    let pageMask = AddressSpace.pageSize - 1
    let inPage = segment.address & pageMask
    let address = segment.address - inPage
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
      let window = try memory.map([.read, .write])
      // The window is as long as the segment in memory, which is at least as long as its file part.
      (window.base + Int(inPage)).copyMemory(from: segment.contents.unsafeBase, byteCount: segment.contents.count)
      window.unmap()
    }
    let protection: Protection =
      segment.isWritable ? [.read, .write] : segment.isExecutable ? [.read, .execute] : .read
    try memory.map(in: process.handle, at: address, size: size, protection)
    memory.handle.close()
  }

  /// Starts the first thread with `block` as its start page.
  func start(_ block: StartBlockBuilder, priority: UInt64) throws(SystemError) {
    let page = try MemoryObject.create(AddressSpace.pageSize)
    let window = try page.map([.read, .write])
    let contents = block.contents
    contents.withUnsafeBytes { bytes in
      if let base = bytes.baseAddress { window.base.copyMemory(from: base, byteCount: min(bytes.count, window.size)) }
    }
    window.unmap()
    try page.map(in: process.handle, at: Self.startPage, size: AddressSpace.pageSize, .read)
    page.handle.close()
    _ = try process.startThread(
      entry: entry, stack: Self.stackTop, argument: Self.startPage, priority: priority)
  }
}
