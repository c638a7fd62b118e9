// The PVH start info: Xen's public header arch-x86/hvm/start_info.h, version 1, with module list, memory map and
// command line, in the boot area.

import GuestMemory

/// Writes `hvm_start_info` and what it points to.
enum StartInfo {
  static let magic: UInt32 = 0x336e_c578
  private static let moduleList = PlatformLayout.startInfo.rawValue + 0x40
  private static let memoryMap = PlatformLayout.startInfo.rawValue + 0x100
  /// Bytes of a command line that fit, without its NUL.
  static let commandLineLimit =
    Int(PlatformLayout.firmwareMailbox.rawValue - PlatformLayout.commandLine.rawValue) - 1

  /// - Parameter modules: guest-physical ranges, at most six.
  /// - Parameter commandLine: at most `commandLineLimit` bytes of UTF-8.
  static func write(
    modules: [Range<UInt64>], map: [MemoryMapEntry], commandLine: String, to memory: GuestMemory
  ) throws(GuestMemoryError) {
    let base = PlatformLayout.startInfo.rawValue
    try memory.write(magic.littleEndian, at: GuestAddress(base))
    try memory.write(UInt32(1).littleEndian, at: GuestAddress(base + 4))  // version
    try memory.write(UInt32(0), at: GuestAddress(base + 8))  // flags
    try memory.write(UInt32(modules.count).littleEndian, at: GuestAddress(base + 12))
    try memory.write((modules.isEmpty ? 0 : moduleList).littleEndian, at: GuestAddress(base + 16))
    try memory.write(PlatformLayout.commandLine.rawValue.littleEndian, at: GuestAddress(base + 24))
    try memory.write(UInt64(0), at: GuestAddress(base + 32))  // no ACPI tables
    try memory.write(memoryMap.littleEndian, at: GuestAddress(base + 40))
    try memory.write(UInt32(map.count).littleEndian, at: GuestAddress(base + 48))
    try memory.write(UInt32(0), at: GuestAddress(base + 52))
    for (index, module) in modules.enumerated() {
      let entry = moduleList + UInt64(index) * 32
      try memory.write(module.lowerBound.littleEndian, at: GuestAddress(entry))
      try memory.write(UInt64(module.count).littleEndian, at: GuestAddress(entry + 8))
      try memory.write(UInt64(0), at: GuestAddress(entry + 16))  // no command line of its own
      try memory.write(UInt64(0), at: GuestAddress(entry + 24))
    }
    for (index, item) in map.enumerated() {
      let entry = memoryMap + UInt64(index) * 24
      try memory.write(item.range.lowerBound.littleEndian, at: GuestAddress(entry))
      try memory.write((item.range.upperBound - item.range.lowerBound).littleEndian, at: GuestAddress(entry + 8))
      try memory.write(item.kind.rawValue.littleEndian, at: GuestAddress(entry + 16))
      try memory.write(UInt32(0), at: GuestAddress(entry + 20))
    }
    try memory.write(bytes: Array(commandLine.utf8) + [0], at: PlatformLayout.commandLine)
  }
}
