// What the guest's machine consists of, as plain values: the one input of the device tree, the MP table and Linux's
// device arguments.

import GuestMemory

/// One virtio device's window.
public struct VirtioWindow: Equatable, Sendable {
  /// Guest-physical address of the register page.
  public var address: GuestAddress
  /// The device's line at the IOAPIC.
  public var gsi: UInt32
  /// Virtio device ID: 1 network, 2 block, 4 entropy (virtio 1.2, §5).
  public var deviceType: UInt32
  public var queueCount: Int

  public init(address: GuestAddress, gsi: UInt32, deviceType: UInt32, queueCount: Int) {
    self.address = address
    self.gsi = gsi
    self.deviceType = deviceType
    self.queueCount = queueCount
  }

  /// The window at place `index` of the platform's row.
  public init(index: Int, deviceType: UInt32, queueCount: Int) {
    self.init(
      address: GuestAddress(PlatformLayout.virtioBase.rawValue + UInt64(index) * PlatformLayout.virtioStride),
      gsi: PlatformLayout.virtioGSI + UInt32(index), deviceType: deviceType, queueCount: queueCount)
  }
}

/// One service of the guest's composition, in the words of the configuration.
public struct ServiceDescription: Equatable, Sendable {
  public var name: String
  public var program: String
  public var isolationClass: String
  public var mode: String
  public var arguments: String
  /// Index of the device in `PlatformDescription.virtioDevices` that the service drives, or nil.
  public var device: Int?
  /// When init starts it again; empty: never.
  public var restart: String

  public init(
    name: String, program: String, isolationClass: String = "", mode: String = "", arguments: String = "",
    device: Int? = nil, restart: String = ""
  ) {
    self.name = name
    self.program = program
    self.isolationClass = isolationClass
    self.mode = mode
    self.arguments = arguments
    self.device = device
    self.restart = restart
  }
}

/// The guest's machine.
public struct PlatformDescription: Equatable, Sendable {
  /// vCPUs; their local APIC IDs are 0 ..< processorCount.
  public var processorCount: Int
  /// Guest-physical ranges of RAM.
  public var memory: [Range<UInt64>]
  public var virtioDevices: [VirtioWindow] = []
  /// In start order.
  public var services: [ServiceDescription] = []
  /// The kernel command line, without the arguments that Linux needs for its devices.
  public var commandLine: String = ""
  /// The guest's time-stamp counter, in Hz; zero when the host does not know it.
  public var tscFrequency: UInt64 = 0
  /// The local APIC timer's clock before its divider, in Hz.
  public var lapicFrequency: UInt64 = 1_000_000_000
  /// Whether the local APIC timer's TSC-deadline mode works.
  public var hasTSCDeadline = true

  public init(processorCount: Int, memory: [Range<UInt64>]) {
    self.processorCount = processorCount
    self.memory = memory
  }
}
