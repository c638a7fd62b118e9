// What the VMM leaves in guest memory for the boot ROM: where the kernel starts in 32-bit protected mode.

import GuestMemory

/// The mailbox at `PlatformLayout.firmwareMailbox`; docs/platform.md, "Boot ROM".
struct FirmwareMailbox {
  /// "CBOM", little-endian.
  static let magic: UInt32 = 0x4d4f_4243
  /// Guest-physical address to jump to.
  let entry: UInt32
  /// EBX and ESI there.
  let ebx: UInt32
  let esi: UInt32

  func write(to memory: GuestMemory) throws(GuestMemoryError) {
    for (index, word) in [Self.magic, entry, ebx, esi].enumerated() {
      try memory.write(
        word.littleEndian, at: GuestAddress(PlatformLayout.firmwareMailbox.rawValue + UInt64(index) * 4))
    }
  }
}
