// The MP configuration table for guests that know neither a device tree nor ACPI: Intel MultiProcessor Specification 1.4,
// chapter 4.

import GuestMemory

/// Builds the table and its floating pointer.
enum MPTable {
  /// Local APIC IDs are bytes, 255 is the broadcast, and the IOAPIC needs one of its own.
  static let processorLimit = 254
  private static let isaBus: UInt8 = 0

  /// Writes both structures where `PlatformLayout` says. The I/O interrupt assignments are those of the devices present:
  /// ISA interrupts, active high and edge-triggered, each on the IOAPIC pin of its number.
  /// - Parameter platform: with at most `processorLimit` processors.
  static func write(_ platform: PlatformDescription, to memory: GuestMemory) throws(GuestMemoryError) {
    let table = configuration(platform)
    try memory.write(bytes: table, at: PlatformLayout.mpTable)
    var pointer = Array("_MP_".utf8) + little(UInt32(truncatingIfNeeded: PlatformLayout.mpTable.rawValue))
    pointer += [1, 4, 0, 0, 0, 0, 0, 0]  // paragraphs, revision, checksum, features
    pointer[10] = checksum(pointer)
    try memory.write(bytes: pointer, at: PlatformLayout.mpFloatingPointer)
  }

  static func configuration(_ platform: PlatformDescription) -> [UInt8] {
    let ioapicID = UInt8(clamping: platform.processorCount)
    var entries: [[UInt8]] = []
    for index in 0..<min(max(platform.processorCount, 0), processorLimit) {
      let flags: UInt8 = index == 0 ? 3 : 1  // enabled, and the first is the bootstrap processor
      let signature: UInt32 = 0x600  // family 6
      let features: UInt32 = 0x201  // FPU, APIC
      entries.append(
        [0, UInt8(index), 0x14, flags] + little(signature) + little(features) + [UInt8](repeating: 0, count: 8))
    }
    entries.append([1, isaBus] + Array("ISA   ".utf8))
    entries.append([2, ioapicID, 0x11, 1] + little(UInt32(truncatingIfNeeded: PlatformLayout.ioapic.rawValue)))
    let serial: UInt32 = 4
    for line in [serial] + platform.virtioDevices.map(\.gsi) {
      guard let pin = UInt8(exactly: line) else { continue }
      let activeHighEdge: UInt16 = 0x5
      entries.append([3, 0] + little(activeHighEdge) + [isaBus, pin, ioapicID, pin])
    }
    // LINT0 is wired to the (absent) PIC, LINT1 to NMI, of all processors.
    entries.append([4, 3] + little(UInt16(0)) + [isaBus, 0, 0xff, 0])
    entries.append([4, 1] + little(UInt16(0)) + [isaBus, 0, 0xff, 1])

    let body = entries.flatMap { $0 }
    var table = Array("PCMP".utf8) + little(UInt16(44 + body.count)) + [4, 0]
    table += Array("CASTOR  ".utf8) + Array("VM          ".utf8)
    table += little(UInt32(0)) + little(UInt16(0)) + little(UInt16(entries.count))
    table += little(UInt32(truncatingIfNeeded: PlatformLayout.localAPIC.rawValue)) + little(UInt32(0))
    table += body
    table[7] = checksum(table)
    return table
  }

  /// The byte that makes all bytes add up to zero.
  private static func checksum(_ bytes: [UInt8]) -> UInt8 { 0 &- bytes.reduce(0, &+) }

  private static func little<T: FixedWidthInteger>(_ value: T) -> [UInt8] {
    withUnsafeBytes(of: value.littleEndian) { [UInt8]($0) }
  }
}
