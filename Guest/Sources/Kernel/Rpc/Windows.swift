// Memory that a caller grants for the time of one call (HongMeng §4.1): pages of one of its mappings appear in the server, behind the
// stack that the call uses, and disappear on all processors before the call returns.
import CArch
import KernelCore
import PolluxABI

enum Windows {
  static let maximumPages: UInt64 = 256

  /// Maps what `grant` describes (`rpcCall`, R15); returns the same description with the server's address.
  static func open(
    _ grant: UInt64, of caller: Reference<Process>, in server: Reference<Process>, _ activation: Reference<Activation>
  ) throws(SystemError) -> UInt64 {
    let address = grant & 0x7fff_ffff_f000
    let pages = (grant & 0xff) + 1
    let size = pages * 4096
    let writable = grant >> 11 & 1 != 0
    guard activation.pointee.window != 0 else { throw .unsupported }
    let space = caller.pointee.space
    guard address >= space.start, address <= space.end, size <= space.end - address,
      let region = caller.pointee.regions.covering(start: address, end: address + size)
    else { throw .badAddress }
    let memory = Reference<MemoryObject>(trusted: region.object)
    let rights = PageEntry.present | (space.isDomain ? 0 : PageEntry.user) | (writable ? PageEntry.write : 0)
    let table = PageTable(memory: DirectMemory(), root: caller.pointee.pageTable)
    guard let physical = table.translate(address, rights: rights), kernel.pointee.isMemory(physical) else {
      throw .badAddress
    }
    // A region's memory is contiguous, but each page has rights of its own.
    var offset: UInt64 = 4096
    while offset < size {
      guard table.translate(address + offset, rights: rights) == physical + offset else { throw .badAddress }
      offset += 4096
    }
    let protection: Protection = writable ? [.read, .write] : .read
    try Mappings.map(
      server, memory, at: activation.pointee.window, physical: physical, size: size,
      access: (protection, UInt8(truncatingIfNeeded: protection.rawValue)))
    activation.pointee.granted = memory
    activation.pointee.grantedPages = pages
    activation.pointee.attention.insert(.window)
    return 1 << 63 | activation.pointee.window | grant & 0x8ff
  }

  static func close(_ activation: Reference<Activation>) {
    guard activation.pointee.attention.contains(.window) else { return }
    activation.pointee.granted = nil
    let server = activation.pointee.service.pointee.process
    // A server that has ended has lost its mappings already.
    guard server.pointee.pageTable != 0 else { return }
    Mappings.unmap(server, activation.pointee.window, size: activation.pointee.grantedPages * 4096)
  }
}
