// What the VMM costs the host beyond the guest's own memory.

import Configuration
import Foundation
import Testing

/// Sums of a process's mappings in KiB (proc(5), smaps) without the guest's RAM, which is the one as large as the guest.
struct Footprint {
  var privateDirty = 0
  var resident = 0

  init(process: Int32, guestMemory: Int) throws {
    let text = try String(contentsOfFile: "/proc/\(process)/smaps", encoding: .utf8)
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
