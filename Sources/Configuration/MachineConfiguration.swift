// The complete description of one virtual machine, as `castor` resolves it and `castor-vmm` runs it.

/// How guest RAM is backed on the host.
public enum BackingChoice: String, CaseIterable, Sendable {
  /// Private anonymous memory.
  case anonymous
  /// A memfd, mapped shared.
  case memfd
}

/// The least important messages that are printed.
public enum LogLevel: String, CaseIterable, Sendable {
  case trace, debug, info, notice, warning, error, critical
}

/// The complete description of one virtual machine.
public struct MachineConfiguration: Equatable, Sendable {
  /// The name under which `castor ctl` finds the machine.
  public var name = "castor"
  /// RAM in bytes.
  public var memory: UInt64 = 128 << 20
  public var backing = BackingChoice.anonymous
  /// Ask for transparent huge pages for guest RAM (MADV_HUGEPAGE).
  public var hugePages = true
  /// Number of virtual CPUs.
  public var cpus = 1
  /// Kernel image: a PVH ELF or a Linux bzImage. Nil until resolved.
  public var kernel: String?
  /// Boot archive of Pollux, given to the guest as its first module. Nil: none.
  public var archive: String?
  /// Initial RAM disk of a Linux guest. Nil: none.
  public var initrd: String?
  /// The kernel's command line.
  public var commandLine = ""
  /// Start at the reset vector through the boot ROM instead of entering the kernel directly.
  public var firmware = false
  /// Block devices, in the order of their windows.
  public var disks: [DiskConfiguration] = []
  /// Network interfaces; their windows follow the disks'.
  public var nets: [NetworkConfiguration] = []
  /// Whether there is an entropy device; its window is the last.
  public var entropy = false
  public var serial = SerialEndpoint.stdio
  /// Path of the control socket. Nil: none.
  public var control: String?
  /// Where gdb connects. Nil: no debugger.
  public var gdb: DebuggerEndpoint?
  /// Wait for the debugger before the first instruction.
  public var waitForDebugger = false
  /// The guest's composition, in start order.
  public var services: [ServiceConfiguration] = []
  /// A reboot of the guest ends the machine instead.
  public var noReboot = false
  public var logLevel = LogLevel.notice
  /// Print when each stage of the start was reached (docs/platform.md, boot mark).
  public var timing = false
  /// Give each queue a doorbell page and a message interrupt beside the standard registers.
  public var doorbellPages = true

  /// A machine with the default of every key.
  public init() {}
}

/// One virtio device's place in the machine: disks first, then interfaces, then entropy, each with the next window and
/// the next interrupt line (docs/platform.md, "virtio device window").
public struct VirtioSlot: Equatable, Sendable {
  /// Which device it is, with its index among its kind.
  public enum Device: Equatable, Sendable {
    case disk(Int)
    case net(Int)
    case entropy
  }
  /// Most slots that a machine has: GSIs 5–23 of the IOAPIC, less three kept free.
  public static let maximumCount = 16

  public let device: Device
  /// Position among all virtio devices.
  public let index: Int

  /// Guest-physical address of the register page.
  public var address: UInt64 { 0xd000_0000 + UInt64(index) * 0x4_0000 }
  /// The device's line at the IOAPIC.
  public var gsi: UInt32 { 5 + UInt32(index) }
  /// The path of its node in the device tree.
  public var nodePath: String { "/virtio@" + String(address, radix: 16) }
  /// The name by which a service's `device` refers to it: `disk0`, `net1`, `entropy`.
  public var alias: String {
    switch device {
    case .disk(let index): "disk\(index)"
    case .net(let index): "net\(index)"
    case .entropy: "entropy"
    }
  }
}

extension MachineConfiguration {
  /// All virtio devices with their places.
  public var virtioSlots: [VirtioSlot] {
    let devices =
      disks.indices.map { VirtioSlot.Device.disk($0) } + nets.indices.map { .net($0) } + (entropy ? [.entropy] : [])
    return devices.enumerated().map { VirtioSlot(device: $1, index: $0) }
  }
}
