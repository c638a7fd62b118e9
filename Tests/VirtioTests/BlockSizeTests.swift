import BlockStorage
import Testing

@testable import Virtio

@Suite struct BlockSizeTests {
  @Test(arguments: [512, 4096] as [UInt32]) func driverIsToldTheLogicalBlockSize(size: UInt32) throws {
    var options = BlockDeviceOptions()
    options.logicalBlockSize = size
    let disk = try BlockDevice(backend: NullBackend(byteCount: 1 << 20), options: options)
    #expect(disk.configuration.read(at: 20, size: 4) == UInt64(size))
    // Capacity stays in units of 512 bytes (§5.2.4).
    #expect(disk.configuration.read(at: 0, size: 8) == 2048)
  }
}
