// The `monitor` commands of the debug stub.

import CLinux
import GDBRemote
import GuestMemory
import KVM

extension MachineDebugTarget {
  func monitor(_ command: String, thread: ThreadIdentifier) throws(DebugTargetError) -> String {
    settle()
    guard processors.indices.contains(thread.vCPU) else { throw .noThread(thread) }
    let words = command.split(separator: " ")
    switch words.first {
    case nil, "help": return help()
    case "regs": return registers(processors[thread.vCPU].processor)
    case "exits": return exits()
    case "virtq": return queues()
    case "translate":
      guard words.count == 2, let address = Self.number(words[1]) else {
        throw .failed("usage: monitor translate ADDRESS (guest-virtual; hexadecimal with 0x, else decimal)")
      }
      return translate(address, processors[thread.vCPU].processor)
    case "reset":
      machine.end(.reboot)
      return "The machine restarts as after power-on; the connection closes. Connect again with `target remote`."
    default: throw .failed("unknown command '\(command)'; try `monitor help`")
    }
  }

  private static func number(_ text: Substring) -> UInt64? {
    text.hasPrefix("0x") ? UInt64(text.dropFirst(2), radix: 16) : UInt64(text)
  }

  private func help() -> String {
    var text = """
      regs                system registers, descriptor tables and segments of the current thread's vCPU
      exits               VM exits of each vCPU, by kind
      virtq               rings and indices of every virtio queue
      translate ADDRESS   page-table walk of a guest-virtual address
      reset               restart the machine as after power-on (closes the connection)

      """
    if capability.isEmulated {
      text += """

        This host's KVM emulates ring 0. What differs from a hardware KVM:
        - Watchpoints: the host has none. Say `set can-use-hw-watchpoints 0` and gdb steps instead (slowly).
        - Hardware breakpoints: 2 (`hbreak`), in ring 0; in ring 3 they are software breakpoints.
        - `stepi` on a system call of ring 3 steps over the kernel; `stepi` on a return to ring 3 stops at its target.

        """
    } else {
      text += "\nHardware breakpoints and watchpoints: 4 in all, write and access, 1 to 8 aligned bytes.\n"
    }
    return text + """

      Programs share addresses: `set breakpoint always-inserted on` keeps a breakpoint in the process where it was set.
      A breakpoint at an address that is not mapped waits until some process maps it.

      """
  }

  private func registers(_ processor: VirtualCPU) -> String {
    let system = processor.systemRegisters
    let general = processor.registers
    func segment(_ name: String, _ value: kvm_segment) -> String {
      "\(name) \(Self.hex(UInt64(value.selector), 4))  base \(Self.hex(value.base, 16))  limit \(Self.hex(UInt64(value.limit), 8))"
        + "  type \(Self.hex(UInt64(value.type), 1)) dpl \(value.dpl)\(value.present == 1 ? "" : " absent")"
        + "\(value.l == 1 ? " 64-bit" : "")\n"
    }
    return "rip \(Self.hex(general.rip, 16))  rsp \(Self.hex(general.rsp, 16))  rflags \(Self.hex(general.rflags, 8))"
      + "  ring \(processor.isInUserMode ? 3 : 0)\n"
      + "cr0 \(Self.hex(system.cr0, 8))  cr2 \(Self.hex(system.cr2, 16))  cr3 \(Self.hex(system.cr3, 16))\n"
      + "cr4 \(Self.hex(system.cr4, 8))  cr8 \(Self.hex(system.cr8, 1))  efer \(Self.hex(system.efer, 4))"
      + "  apic-base \(Self.hex(system.apic_base, 8))\n" + segment("cs ", system.cs) + segment("ss ", system.ss)
      + segment("ds ", system.ds) + segment("es ", system.es) + segment("fs ", system.fs) + segment("gs ", system.gs)
      + segment("tr ", system.tr) + segment("ldt", system.ldt)
      + "gdt base \(Self.hex(system.gdt.base, 16))  limit \(Self.hex(UInt64(system.gdt.limit), 4))\n"
      + "idt base \(Self.hex(system.idt.base, 16))  limit \(Self.hex(UInt64(system.idt.limit), 4))\n"
  }

  private func exits() -> String {
    var text = ""
    for processor in processors {
      let counts = ExitKind.allCases.map { "\($0.name) \(processor.statistics.value(of: $0))" }
      text += "vCPU \(processor.processor.index): \(counts.joined(separator: ", "))\n"
    }
    return text
  }

  private func queues() -> String {
    guard !machine.virtioDevices.isEmpty else { return "no virtio devices\n" }
    var text = ""
    for device in machine.virtioDevices {
      text += "\(device.slot.alias) at 0x\(String(device.slot.address, radix: 16))\n"
      for line in device.transport.describeQueues() { text += "  \(line)\n" }
    }
    return text
  }

  private func translate(_ address: UInt64, _ processor: VirtualCPU) -> String {
    let walk = processor.pageWalk(in: memory)
    guard let found = walk.translate(address) else {
      guard let place = physical(address, processor) else { return "\(Self.hex(address, 16)) is not mapped\n" }
      return "\(Self.hex(address, 16)) is not mapped yet; the kernel's image has it at physical \(place)\n"
    }
    let rights =
      (found.isUser ? "user" : "kernel") + (found.isWritable ? " writable" : " read-only")
      + (found.isExecutable ? " executable" : "")
    let size = found.pageSize >= 1 << 20 ? "\(found.pageSize >> 20) MiB" : "\(found.pageSize >> 10) KiB"
    return
      "\(Self.hex(address, 16)) -> physical \(found.physical), \(walk.isPaging ? "\(size) page, \(rights)" : "paging off")\n"
  }

  private static func hex(_ value: UInt64, _ digits: Int) -> String {
    let text = String(value, radix: 16)
    return String(repeating: "0", count: max(0, digits - text.count)) + text
  }
}
