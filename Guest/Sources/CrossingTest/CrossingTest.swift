// A driver pair that tries to cross the border between control and data plane, in the places of block-container and block-twin: init starts
// both and gives them what it gives the real ones. Each line tells what was tried and whether it was stopped; the last attempts cost
// the one who makes them its life, which init tells of.

import Pollux

/// Words 0 of the twin's calls.
enum CrossingCall {
  /// → the guest-virtual address at which the container has the registers.
  static let registers: UInt64 = 0
  /// The twin has rung its doorbell → 1 in word 0 if the device has done the request since.
  static let rung: UInt64 = 1
  /// Word 1: the guest-virtual address at which the twin has its doorbell.
  static let doorbell: UInt64 = 2
}

@main enum CrossingTest {
  static func main() {
    let start = Program.start
    do throws(SystemError) {
      if start.handle("control") != nil { try CrossingTwin(start).run() } else { try CrossingContainer(start).run() }
    } catch {
      var line = Text("crossing: FAILED before anything was tried: ")
      line.add(error.name)
      line.add("\n")
      line.print()
      Kernel.exit(1)
    }
  }

  /// Says how an attempt ended.
  static func expect(_ attempt: StaticString, _ isStopped: Bool) {
    var line = Text("crossing: ")
    line.add(attempt)
    line.add(isStopped ? ": ok\n" : ": FAILED\n")
    line.print()
  }

  /// Whether the kernel refuses.
  static func isRefused(_ attempt: () throws(SystemError) -> Void) -> Bool {
    do throws(SystemError) { try attempt() } catch { return true }
    return false
  }

  /// What either plane can ask the kernel for, to get at pages of the device that it was not given, with the page that it has.
  static func reachBeyond(_ page: Handle) {
    let memory = MemoryObject(page)
    expect(
      "a page of the device that lies behind the own",
      isRefused { () throws(SystemError) in _ = try memory.slice(0x1000, 0x1000) })
    expect(
      "a mapping that begins behind the own page",
      isRefused { () throws(SystemError) in
        try memory.map(at: freePlace, offset: 0x1000, size: 0x1000, [.read, .write])
      })
    expect(
      "the device's pages by their physical address",
      isRefused { () throws(SystemError) in
        _ = try MemoryObject.physical(root: page, address: windows, size: 0x20000, flags: .device)
      })
  }

  /// Where Castor's windows of virtio devices begin (docs/platform.md).
  private static let windows: UInt64 = 0xd000_0000
  /// A guest-virtual address at which nothing is mapped.
  private static let freePlace: UInt64 = 1 << 34
}
