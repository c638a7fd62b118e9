import CLinux
import KVM
import Testing

@testable import Loader
@testable import Machine

@Suite struct CrashReportTests {
  /// A stack of frames at 0x1000, 0x1020, …, each of which returns to 0x40_0000 plus its number.
  private func stack(frames: Int) -> [UInt64: UInt64] {
    var memory: [UInt64: UInt64] = [:]
    for index in 0..<UInt64(frames) {
      memory[0x1000 + index * 32] = index + 1 < UInt64(frames) ? 0x1000 + (index + 1) * 32 : 0
      memory[0x1008 + index * 32] = 0x40_0000 + index
    }
    return memory
  }

  @Test func frameChainIsFollowedToItsEnd() {
    let memory = stack(frames: 3)
    let frames = CrashReport.walk(rip: 7, rbp: 0x1000) { memory[$0] }
    #expect(frames == [7, 0x40_0000, 0x40_0001, 0x40_0002])
  }

  @Test func longChainIsCut() {
    let memory = stack(frames: 1000)
    #expect(CrashReport.walk(rip: 7, rbp: 0x1000) { memory[$0] }.count == CrashReport.maximumFrames)
  }

  @Test(arguments: [0, 0x1001, 0x9000, UInt64.max - 7] as [UInt64])
  func unusableFramePointerLeavesOnlyTheInstruction(rbp: UInt64) {
    #expect(CrashReport.walk(rip: 7, rbp: rbp) { [0x1000: 0x2000, 0x1008: 9][$0] } == [7])
  }

  @Test func chainThatLeadsBackEnds() {
    var memory = stack(frames: 3)
    memory[0x1020] = 0x1000
    #expect(CrashReport.walk(rip: 7, rbp: 0x1000) { memory[$0] } == [7, 0x40_0000, 0x40_0001])
  }

  @Test func reportNamesCauseRegistersInstructionAndFunctions() {
    var registers = kvm_regs()
    registers.rip = 0xffff_ffff_8010_0005
    registers.rsp = 0x7000
    registers.r15 = 0x1234
    var system = kvm_sregs()
    system.cr2 = 0xdead_beef
    system.cs.selector = 0x08
    let report = CrashReport(
      processor: 1, cause: "triple fault at 0x5", registers: registers, system: system, instruction: [0x0f, 0x0b],
      disassembly: ["ffffffff80100005: ud2"], frames: [registers.rip, 0xffff_ffff_8020_0000], stack: [1, 2, 3, 4, 5],
      symbols: [.init(name: "$s6Kernel4mainyyF", address: 0xffff_ffff_8010_0000, size: 16), nil]
    ).text
    for part in [
      "castor: vCPU 1 cannot go on: triple fault at 0x5", "r15 0000000000001234", "cr2 00000000deadbeef", "ring 0",
      "instruction bytes: 0f 0b", "ffffffff80100005: ud2", "#0  ffffffff80100005  Kernel.main() -> () + 0x5",
      "#1  ffffffff80200000\n", "0000000000007020: 0000000000000005",
    ] {
      #expect(report.contains(part), "\(part)\n\(report)")
    }
  }

  @Test func instructionsAreTakenFromTheDisassembler() {
    let text = """

      /proc/self/fd/3:     file format binary

      Disassembly of section .data:

      0000000000100000 <.data>:
        100000:\tmov    (%rax),%rbx
        100003:\tud2
        100005:\tnop
        100006:\tnop
      """
    #expect(instructions(in: text) == ["100000: mov (%rax),%rbx", "100003: ud2", "100005: nop"])
    #expect(instructions(in: "").isEmpty)
  }

  @Test func disassemblyIsRightOrEmpty() {
    let lines = disassemble([0x0f, 0x0b, 0x90], at: 0x10_0000)
    #expect(lines.isEmpty || lines == ["100000: ud2", "100002: nop"])
    #expect(disassemble([], at: 0).isEmpty)
  }
}
