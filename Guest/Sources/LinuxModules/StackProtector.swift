// The compiler's stack protector in modules. It reads its canary at a fixed offset of the segment GS, where Linux keeps what belongs
// to a processor; a process of another system has no such segment.

/// Accesses of `%gs:40`, as gcc makes them in Linux for x86-64: a load, or a comparison by subtraction or exclusive or, of 64 bits with
/// an absolute address. Those nine bytes occur in no other way in code that a compiler made.
public enum StackProtector {
  private static let length = 9

  /// Makes every such access in `code` read 64 bits at `address`, which must be below 2 GiB; returns how many there were.
  public static func redirect(_ code: UnsafeMutableRawBufferPointer, to address: UInt32) -> Int {
    guard code.count >= length, address < 1 << 31 else { return 0 }
    var found = 0
    var place = 0
    while place <= code.count - length {
      guard isAccess(code, place) else {
        place += 1
        continue
      }
      // DS instead of GS: in 64-bit mode it has no base. All nine bytes lie in `code`, by the loop's condition.
      code[place] = 0x3e
      code.storeBytes(of: address.littleEndian, toByteOffset: place + 5, as: UInt32.self)
      found += 1
      place += length
    }
    return found
  }

  /// GS, REX.W, the operation, ModRM and SIB for an absolute address, and the address 40.
  private static func isAccess(_ code: UnsafeMutableRawBufferPointer, _ place: Int) -> Bool {
    guard code[place] == 0x65, code[place + 1] & 0xfb == 0x48 else { return false }
    let operation = code[place + 2]
    // mov, sub, xor and cmp of a register with memory, and cmp of memory with a register.
    guard operation == 0x8b || operation == 0x2b || operation == 0x33 || operation == 0x3b || operation == 0x39 else {
      return false
    }
    guard code[place + 3] & 0xc7 == 0x04, code[place + 4] == 0x25, code[place + 5] == 0x28 else { return false }
    return code[place + 6] == 0 && code[place + 7] == 0 && code[place + 8] == 0
  }
}
