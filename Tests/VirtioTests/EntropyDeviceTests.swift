import GuestMemory
import Testing

@testable import Virtio

@Suite struct EntropyDeviceTests {
  @Test func everyBufferIsFilledWithOtherBytes() throws {
    let machine = try TestMachine(EntropyDevice())
    try machine.initialize()
    let driver = machine.drivers[0]
    let (a, b) = (driver.allocate(64), driver.allocate(64))
    _ = try driver.add(writable: [(a, 64), (b, 64)])
    try machine.kick()
    #expect(try machine.used()?.written == 128)
    let (first, second) = (
      try machine.memory.readBytes(at: a, count: 64), try machine.memory.readBytes(at: b, count: 64)
    )
    #expect(first != second)
    // 64 random bytes have fewer than 20 different values once in far more than 10^20 times.
    #expect(Set(first).count > 20 && Set(second).count > 20)
  }

  @Test func hugeRequestIsAnsweredInPart() throws {
    let machine = try TestMachine(EntropyDevice())
    try machine.initialize()
    _ = try machine.drivers[0].add(writable: [(GuestAddress(0x10_0000), 0x80_0000)])
    try machine.kick()
    #expect(try machine.used()?.written == 65536)
  }

  @Test func readableBufferNeedsReset() throws {
    let machine = try TestMachine(EntropyDevice())
    try machine.initialize()
    _ = try machine.drivers[0].add(readable: [(machine.drivers[0].allocate(8), 8)])
    try machine.kick()
    #expect(eventually { machine.status & DeviceStatus.needsReset != 0 })
  }
}
