// The device tree of a configuration: every device at its place, every service with its device.

import Configuration
import DeviceTree
import Loader
import Testing

@testable import castor

@Suite struct FdtTests {
  @Test func devicesAndServicesReachTheTree() throws {
    var machine = try ConfigurationFile.parse(
      """
      cpus: 3
      memory: 4G
      disks: [{null: 1M, queues: 4}, {null: 1M}]
      nets: [tap0]
      entropy: on
      services: [{name: a, device: disk1, mode: twin, arguments: x y}, b]
      """, path: "m.yaml")
    machine.resolveReferences()
    let platform = Fdt.platform(machine, frequency: 5_000_000_000)
    #expect(platform.virtioDevices.map(\.address.rawValue) == machine.virtioSlots.map(\.address))
    #expect(platform.virtioDevices.map(\.gsi) == machine.virtioSlots.map(\.gsi))
    #expect(platform.virtioDevices.map(\.queueCount) == [4, 1, 3, 1])
    #expect(platform.virtioDevices.map(\.deviceType) == [2, 2, 1, 4])
    let tree = try DeviceTreeNode(blob: try PlatformTree.build(platform))
    #expect(tree.node(at: "/cpus")?.children.count == 3)
    #expect(tree.node(at: "/clock")?.cells("tsc-frequency") == [1, 0x2a05_f200])
    // 3 GiB below the device region, the rest from 4 GiB.
    #expect(tree.node(at: "/memory@0")?.cells("reg") == [0, 0, 0, 0xc000_0000, 1, 0, 0, 0x4000_0000])
    for slot in machine.virtioSlots { #expect(tree.node(at: slot.nodePath) != nil, "\(slot.alias)") }
    let services = try #require(tree.node(at: "/chosen/pollux,composition")?.children)
    #expect(services.count == 2)
    #expect(services[0].strings("device") == [machine.virtioSlots[1].nodePath])
    #expect(services[0].strings("arguments") == ["x y"])
    #expect(services[1].strings("device") == nil)
  }
}
