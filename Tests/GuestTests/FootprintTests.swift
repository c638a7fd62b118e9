// What the VMM costs the host beyond the guest's own memory.

import Configuration
import Foundation
import Testing

/// Sums of a process's mappings in KiB (proc(5), smaps) without the guest's RAM, which is the one as large as the guest.
struct Footprint {
  var privateDirty = 0
  var resident = 0

  init(process: Int32, guestMemory: Int) throws {
    // Read to the end by hand: the file has no size, and convenience readers stop early.
    let file = open("/proc/\(process)/smaps", O_RDONLY)
    guard file >= 0 else { throw POSIXError(.ENOENT) }
    defer { close(file) }
    var bytes: [UInt8] = []
    var chunk = [UInt8](repeating: 0, count: 1 << 16)
    while case let count = read(file, &chunk, chunk.count), count > 0 { bytes += chunk[..<count] }
    let text = String(decoding: bytes, as: UTF8.self)
    var size = 0
    for line in text.split(separator: "\n") {
      let words = line.split(separator: " ", omittingEmptySubsequences: true)
      guard words.count >= 2, let value = Int(words[1]) else { continue }
      switch words[0] {
      case "Size:": size = value
      case "Rss:" where size < guestMemory: resident += value
      case "Private_Dirty:" where size < guestMemory: privateDirty += value
      default: break
      }
    }
  }
}

@Suite(.enabled(if: Host.castor.isAvailable, "needs /dev/kvm")) struct FootprintTests {
  @Test func monitorDirtiesAtMostFiveMebibytesBeyondTheGuest() throws {
    // File pages that were just linked count as dirty until they are written back.
    sync()
    let folder = try ScratchFolder()
    var description = GuestDescription()
    description.memory = "128M"
    description.disk = try folder.file("disk", bytes: 64 << 20)
    let guest = try description.start(on: .castor)
    #expect(guest.waitFor("pollux> "))
    let footprint = try Footprint(process: guest.process.processIdentifier, guestMemory: 128 << 10)
    print("footprint beyond guest memory: \(footprint.privateDirty) KiB dirty, \(footprint.resident) KiB resident")
    #expect(footprint.privateDirty <= 5 << 10)
    guest.type("halt\r")
    #expect(guest.finish().exitCode == 0)
  }
}
