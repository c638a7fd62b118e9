import Glibc
import Testing

@testable import GuestMemory

@Suite struct GuestMemoryTests {
  let memory = try! GuestMemory(ranges: [0..<0x10000, 0x20000..<0x30000])

  @Test func valueWrittenIsReadBack() throws {
    try memory.write(UInt32(0xdead_beef), at: GuestAddress(0x101))
    #expect(try memory.read(UInt32.self, at: GuestAddress(0x101)) == 0xdead_beef)
  }

  @Test(arguments: [0xfffd as UInt64, 0x10000, 0x1ffff, 0x2fffd, 0x30000, UInt64.max - 1])
  func accessThatLeavesARegionThrows(address: UInt64) {
    #expect(throws: GuestMemoryError.outsideMemory(address: GuestAddress(address), count: 4)) {
      try memory.read(UInt32.self, at: GuestAddress(address))
    }
  }

  @Test func hugeCountDoesNotWrapAround() {
    #expect(throws: GuestMemoryError.self) { try memory.buffer(at: GuestAddress(0x8000), count: .max) }
  }

  @Test func atomicAccessRefusesOddAddresses() {
    #expect(throws: GuestMemoryError.misaligned(address: GuestAddress(0x11))) {
      try memory.loadAcquire(at: GuestAddress(0x11))
    }
  }

  @Test func memfdBackedMemoryIsSharedThroughItsDescriptor() throws {
    let shared = try GuestMemory(ranges: [0..<0x2000, 0x100000..<0x102000], backing: .memfd, hugePages: false)
    try shared.write(UInt64(42), at: GuestAddress(0x100008))
    let file = try #require(shared.regions[1].file)
    var value: UInt64 = 0
    #expect(pread(file.descriptor, &value, 8, Int(file.offset) + 8) == 8)
    #expect(value == 42)
  }
}
