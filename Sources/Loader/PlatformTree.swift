// The device tree of docs/platform.md, "Device tree", from a description of the machine.

import DeviceTree
import GuestMemory

/// Builds the guest's device tree.
public enum PlatformTree {
  private static let ioapicHandle: UInt32 = 1

  /// - Returns: the flattened tree.
  public static func build(_ platform: PlatformDescription) throws(DeviceTreeError) -> [UInt8] {
    try DeviceTreeWriter.build { tree throws(DeviceTreeError) in
      try tree.property("compatible", "castor,vm")
      try tree.property("model", "Castor")
      try tree.property("#address-cells", cells: [2])
      try tree.property("#size-cells", cells: [2])
      try tree.property("interrupt-parent", cells: [ioapicHandle])
      try addChosen(&tree, platform)
      try addProcessors(&tree, platform)
      try tree.node("memory@0") { node throws(DeviceTreeError) in
        try node.property("device_type", "memory")
        try node.property("reg", quads: platform.memory.flatMap { [$0.lowerBound, $0.upperBound - $0.lowerBound] })
      }
      try addFixedDevices(&tree, platform)
      for device in platform.virtioDevices { try addVirtio(&tree, device) }
    }
  }

  private static func addChosen(_ tree: inout DeviceTreeWriter, _ platform: PlatformDescription)
    throws(DeviceTreeError)
  {
    try tree.node("chosen") { node throws(DeviceTreeError) in
      try node.property("bootargs", platform.commandLine)
      try node.property("stdout-path", "/serial")
      guard !platform.services.isEmpty else { return }
      try node.node("pollux,composition") { composition throws(DeviceTreeError) in
        try composition.property("#address-cells", cells: [1])
        try composition.property("#size-cells", cells: [0])
        for (index, service) in platform.services.enumerated() {
          try composition.node("service@\(String(index, radix: 16))") { item throws(DeviceTreeError) in
            try item.property("reg", cells: [UInt32(index)])
            try item.property("label", service.name)  // "name" is reserved for the node's own
            try item.property("program", service.program)
            if !service.isolationClass.isEmpty { try item.property("class", service.isolationClass) }
            if !service.mode.isEmpty { try item.property("mode", service.mode) }
            if !service.arguments.isEmpty { try item.property("arguments", service.arguments) }
            if !service.restart.isEmpty { try item.property("restart", service.restart) }
            if let device = service.device, platform.virtioDevices.indices.contains(device) {
              try item.property("device", "/" + nodeName(platform.virtioDevices[device]))
            }
          }
        }
      }
    }
  }

  private static func addProcessors(_ tree: inout DeviceTreeWriter, _ platform: PlatformDescription)
    throws(DeviceTreeError)
  {
    try tree.node("cpus") { node throws(DeviceTreeError) in
      try node.property("#address-cells", cells: [1])
      try node.property("#size-cells", cells: [0])
      for index in 0..<max(platform.processorCount, 0) {
        try node.node("cpu@\(String(index, radix: 16))") { processor throws(DeviceTreeError) in
          try processor.property("device_type", "cpu")
          try processor.property("reg", cells: [UInt32(index)])
        }
      }
    }
  }

  private static func addFixedDevices(_ tree: inout DeviceTreeWriter, _ platform: PlatformDescription)
    throws(DeviceTreeError)
  {
    try tree.node("clock") { node throws(DeviceTreeError) in
      try node.property("compatible", "castor,kvmclock")
      try node.property("tsc-frequency", quads: [platform.tscFrequency])
      try node.property("lapic-frequency", quads: [platform.lapicFrequency])
    }
    try tree.node("interrupt-controller@\(String(PlatformLayout.ioapic.rawValue, radix: 16))") {
      node throws(DeviceTreeError) in
      try node.property("compatible", "intel,ioapic")
      try node.property("reg", quads: [PlatformLayout.ioapic.rawValue, 0x1000])
      try node.property("interrupt-controller")
      try node.property("#address-cells", cells: [0])
      try node.property("#interrupt-cells", cells: [2])
      try node.property("phandle", cells: [ioapicHandle])
    }
    try tree.node("timer") { node throws(DeviceTreeError) in
      try node.property("compatible", "castor,lapic-timer")
      if platform.hasTSCDeadline { try node.property("tsc-deadline") }
    }
    try tree.node("serial") { node throws(DeviceTreeError) in
      try node.property("compatible", "ns16550a")
      try node.property("reg-io", cells: [0x3f8, 8])
      try node.property("interrupts", cells: [4, 1])
    }
    try tree.node("power-control") { node throws(DeviceTreeError) in
      try node.property("compatible", "castor,power-control")
      try node.property("reg-io", cells: [0x600, 4])
    }
    try tree.node("debug-port") { node throws(DeviceTreeError) in
      try node.property("compatible", "castor,debug-port")
      try node.property("reg-io", cells: [0x604, 4])
    }
    try tree.node("power-button") { node throws(DeviceTreeError) in
      try node.property("compatible", "castor,power-button")
      try node.property("reg-io", cells: [0x60c, 1])
      try node.property("interrupts", cells: [3, 1])
    }
  }

  private static func addVirtio(_ tree: inout DeviceTreeWriter, _ device: VirtioWindow) throws(DeviceTreeError) {
    try tree.node(nodeName(device)) { node throws(DeviceTreeError) in
      let base = device.address.rawValue
      try node.property("compatible", "virtio,mmio", "castor,virtio-split")
      try node.property(
        "reg",
        quads: [
          base, 0x1000, base + 0x1000, 0x1000, base + 0x1_0000, UInt64(max(device.queueCount, 0)) * 0x1000,
          base + 0x2000, 0x1000,
        ])
      try node.property("reg-names", "registers", "messages", "doorbells", "control")
      try node.property("interrupts", cells: [device.gsi, 1])
      try node.property("castor,device-type", cells: [device.deviceType])
      try node.property("castor,queues", cells: [UInt32(clamping: device.queueCount)])
    }
  }

  private static func nodeName(_ device: VirtioWindow) -> String {
    "virtio@\(String(device.address.rawValue, radix: 16))"
  }
}
