// The boot ROM that `--firmware` starts from; its source is in firmware/.

import CBootROM
import GuestMemory

/// The boot ROM.
public enum BootROM {
  /// Guest-physical address of its first byte; it ends at 4 GiB.
  public static let address = GuestAddress(0xffff_f000)
  /// Length in bytes, one page.
  public static let count = 4096

  /// The ROM's bytes: page-aligned, read-only, valid as long as the program runs.
  public static var bytes: UnsafeRawBufferPointer {
    // The C array is `count` bytes of this program's read-only data.
    UnsafeRawBufferPointer(start: castor_boot_rom_bytes(), count: count)
  }
}
