// The bug table of a module: where its code has the instruction `ud2` because of BUG or WARN (Linux: include/asm-generic/bug.h).

import BootFormats

/// The table of x86-64 with relative addresses: entries of 12 bytes, the code's place relative to the entry, the file's likewise, line and
/// flags.
public enum BugTable {
  private static let section: StaticString = "__bug_table"
  private static let entrySize = 12
  private static let isWarning: UInt16 = 1

  /// Linux says a warning by an exception and goes on behind it. Where exceptions are the end, this makes every warning of a loaded module in
  /// `memory` an instruction that does nothing, so that the module goes on there too, in silence; returns how many. What is no
  /// warning stays: code behind it was not made to run.
  public static func passOverWarnings(
    of placement: ModulePlacement, in memory: UnsafeMutableRawBufferPointer
  ) -> Int {
    guard let table = placement.range(ofSection: section) else { return 0 }
    var count = 0
    var place = Int(table.offset)
    let end = Int(table.offset + table.size)
    guard end <= memory.count else { return 0 }
    while place + entrySize <= end {
      // Inside `memory` by the loop's condition; loads need no alignment.
      let distance = Int(Int32(littleEndian: memory.loadUnaligned(fromByteOffset: place, as: Int32.self)))
      let flags = UInt16(littleEndian: memory.loadUnaligned(fromByteOffset: place + 10, as: UInt16.self))
      let code = place + distance
      place += entrySize
      guard flags & isWarning != 0, code >= 0, code + 2 <= memory.count, memory[code] == 0x0f, memory[code + 1] == 0x0b
      else { continue }
      // The no-operation of two bytes.
      memory[code] = 0x66
      memory[code + 1] = 0x90
      count += 1
    }
    return count
  }
}
