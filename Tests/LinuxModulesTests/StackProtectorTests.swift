// Accesses to the stack protector's canary in modules: found in all forms that gcc makes, and nothing else is touched.

import LinuxModules
import Testing

@Suite struct StackProtectorTests {
  private func redirect(_ code: [UInt8]) -> (found: Int, code: [UInt8]) {
    var code = code
    let found = code.withUnsafeMutableBytes { StackProtector.redirect($0, to: 0x1234_5678) }
    return (found, code)
  }

  /// mov %gs:40,%rax; sub %gs:40,%rdx; xor %gs:40,%rcx; cmp %gs:40,%r8; cmp %rsi,%gs:40.
  @Test(
    arguments: [
      [0x65, 0x48, 0x8b, 0x04, 0x25], [0x65, 0x48, 0x2b, 0x14, 0x25], [0x65, 0x48, 0x33, 0x0c, 0x25],
      [0x65, 0x4c, 0x3b, 0x04, 0x25], [0x65, 0x48, 0x39, 0x34, 0x25],
    ] as [[UInt8]])
  func accessIsRedirectedAndItsNeighboursStay(operation: [UInt8]) {
    let (found, code) = redirect([0x90] + operation + [0x28, 0, 0, 0, 0xc3])
    #expect(found == 1)
    #expect(code == [0x90, 0x3e] + operation.dropFirst() + [0x78, 0x56, 0x34, 0x12, 0xc3])
  }

  @Test(
    arguments: [
      // Another offset, a register instead of an address, FS, no segment, cut off.
      [0x65, 0x48, 0x8b, 0x04, 0x25, 0x30, 0, 0, 0], [0x65, 0x48, 0x8b, 0x04, 0x24, 0x28, 0, 0, 0],
      [0x64, 0x48, 0x8b, 0x04, 0x25, 0x28, 0, 0, 0], [0x48, 0x8b, 0x04, 0x25, 0x28, 0, 0, 0, 0x90],
      [0x65, 0x48, 0x8b, 0x04, 0x25, 0x28, 0, 0],
    ] as [[UInt8]])
  func otherCodeStays(code: [UInt8]) {
    let (found, after) = redirect(code)
    #expect(found == 0)
    #expect(after == code)
  }
}
