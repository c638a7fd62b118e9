// A guest that crashes ends in a report that names the place, and in exit code 70.

import Configuration
import Foundation
import Testing

@Suite(.enabled(if: Host.castor.isAvailable)) struct CrashTests {
  /// A kernel of a few instructions at 1 MiB, entered by the note `Castor`: `_start` calls `outer`, which runs `tail`.
  private static func kernel(_ tail: [UInt8]) -> Data {
    let base: UInt64 = 0x10_0000
    let start: [UInt8] = [
      0x48, 0xc7, 0xc4, 0x00, 0x00, 0x20, 0x00,  // mov $0x200000, %rsp
      0x31, 0xed,  // xor %ebp, %ebp
      0xe8, 0x00, 0x00, 0x00, 0x00,  // call outer, which is next
    ]
    let code = start + [0x55, 0x48, 0x89, 0xe5] + tail + [0xf4]  // push %rbp; mov %rsp, %rbp; …; hlt
    var file = Data()
    func add<T: FixedWidthInteger>(_ value: T) {
      withUnsafeBytes(of: value.littleEndian) { file.append(contentsOf: $0) }
    }
    let codeAt: UInt64 = 0x1000
    let noteAt: UInt64 = 0x200
    let tableAt: UInt64 = 0x300
    let stringsAt: UInt64 = 0x400
    let sectionsAt: UInt64 = 0x500
    let strings = Array("\0_start\0outer\0".utf8)
    // ELF header (System V ABI, chapter 4), with two program headers and three section headers.
    file.append(contentsOf: [0x7f, 0x45, 0x4c, 0x46, 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0])
    add(UInt16(2))
    add(UInt16(62))
    add(UInt32(1))
    add(base)
    add(UInt64(64))
    add(sectionsAt)
    add(UInt32(0))
    for value in [64, 56, 2, 64, 3, 0] as [UInt16] { add(value) }
    for (type, offset, address, size) in [
      (1 as UInt32, codeAt, base, UInt64(code.count)), (4, noteAt, 0, 28),
    ] {
      add(type)
      add(UInt32(5))
      for value in [offset, address, address, size, size, type == 1 ? 0x1000 : 4] { add(value) }
    }
    file.append(Data(count: Int(noteAt) - file.count))
    for value in [7, 8, 1] as [UInt32] { add(value) }
    file.append(contentsOf: Array("Castor\0\0".utf8))
    add(base)
    file.append(Data(count: Int(tableAt) - file.count))
    file.append(Data(count: 24))
    for (name, address, size) in [
      (1 as UInt32, base, UInt64(start.count)), (8, base + UInt64(start.count), UInt64(code.count - start.count)),
    ] {
      add(name)
      file.append(contentsOf: [0x12, 0])
      add(UInt16(1))
      add(address)
      add(size)
    }
    file.append(Data(count: Int(stringsAt) - file.count))
    file.append(contentsOf: strings)
    file.append(Data(count: Int(sectionsAt) - file.count))
    file.append(Data(count: 64))
    for (type, offset, size, link, entry) in [
      (2 as UInt32, tableAt, 72 as UInt64, 2 as UInt32, 24 as UInt64), (3, stringsAt, UInt64(strings.count), 0, 0),
    ] {
      add(UInt32(0))
      add(type)
      for value in [0, 0, offset, size] { add(value) }
      add(link)
      add(UInt32(type == 2 ? 1 : 0))
      add(UInt64(8))
      add(entry)
    }
    file.append(Data(count: Int(codeAt) - file.count))
    file.append(contentsOf: code)
    return file
  }

  private func run(_ tail: [UInt8]) throws -> GuestRun {
    let scratch = try ScratchFolder()
    let path = "\(scratch.path)/kernel.elf"
    try Self.kernel(tail).write(to: URL(fileURLWithPath: path))
    let folder = HostPaths.folder(of: try #require(HostPaths.executable))
    let machine = try GuestMachine(
      .castor, executable: "\(folder)/castor-vmm", arguments: ["kernel=\(path)", "memory=16M", "serial=none"])
    return machine.finish(seconds: 30)
  }

  @Test func tripleFaultIsReportedWithItsPlace() throws {
    // mov $0x700000000000, %rax; mov (%rax), %rax: a page fault without an IDT.
    let run = try run([0x48, 0xb8, 0, 0, 0, 0, 0, 0x70, 0, 0, 0x48, 0x8b, 0x00])
    #expect(run.exitCode == 70)
    for part in [
      "castor: vCPU 0 cannot go on: triple fault at 0x10001c", "rax 0000700000000000", "cr2 0000700000000000",
      "instruction bytes: 48 8b 00 f4", "#0  000000000010001c  outer + 0xe", "#1  000000000010000e  _start + 0xe",
    ] {
      #expect(run.errors.contains(part), "\(part)\n\(run.errors)")
    }
  }

  @Test func guestThatWaitsForEverWithoutInterruptsIsEndedBySIGTERM() throws {
    let scratch = try ScratchFolder()
    let path = "\(scratch.path)/kernel.elf"
    try Self.kernel([0xeb, 0xfe]).write(to: URL(fileURLWithPath: path))
    let folder = HostPaths.folder(of: try #require(HostPaths.executable))
    let machine = try GuestMachine(
      .castor, executable: "\(folder)/castor-vmm",
      arguments: ["kernel=\(path)", "memory=16M", "serial=none", "control=\(scratch.path)/c.sock"])
    // The socket is there once the machine serves signals.
    let deadline = Date().addingTimeInterval(20)
    while access("\(scratch.path)/c.sock", F_OK) != 0, Date() < deadline { usleep(10_000) }
    let begin = Date()
    machine.process.terminate()
    usleep(300_000)
    #expect(machine.process.isRunning, "the first SIGTERM only asks")
    machine.process.terminate()
    let run = machine.finish(seconds: 20)
    #expect(run.exitCode == 143)
    #expect(Date().timeIntervalSince(begin) < 4.9, "the second one does not wait for the guest")
    #expect(access("\(scratch.path)/c.sock", F_OK) != 0)
  }
}
