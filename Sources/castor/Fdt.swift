// `castor fdt`: the device tree that a machine's guest would get, as source.

import ArgumentParser
import Configuration
import DeviceTree
import Foundation
import KVM
import Loader

struct Fdt: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Print the device tree of a machine as source (dtc reads it).",
    discussion: """
      Takes the same configuration and flags as run. The clock's frequency is this host's; where KVM is not usable it is \
      zero.
      """)

  @OptionGroup var machine: MachineOptions
  @Flag(help: "Write the flattened (binary) tree instead.")
  var binary = false

  func run() throws {
    try reportingFailures {
      let tree: [UInt8]
      do {
        let system = try? KVMSystem()
        var platform = Self.platform(try machine.resolve(), frequency: system.flatMap(Self.timestampFrequency))
        if let system { platform.hasTSCDeadline = system.value(of: .tscDeadline) != 0 }
        tree = try PlatformTree.build(platform)
        if !binary {
          print(try DeviceTreeNode(blob: tree).sourceText, terminator: "")
          return
        }
      } catch let error as DeviceTreeError {
        throw CommandFailure(message: "device tree: \(error)", exitCode: .invalidConfiguration)
      }
      try FileHandle.standardOutput.write(contentsOf: Data(tree))
    }
  }

  /// The machine in the loader's words.
  /// - Parameter frequency: the time-stamp counter's, in Hz; nil where it is not known.
  static func platform(_ machine: MachineConfiguration, frequency: UInt64?) -> PlatformDescription {
    var platform = PlatformDescription(
      processorCount: machine.cpus, memory: PlatformLayout.memoryRanges(bytes: machine.memory))
    platform.virtioDevices = machine.virtioSlots.map { slot in
      // virtio 1.2 §5: device IDs, and §5.1.2, §5.2.2, §5.4.2: queues.
      switch slot.device {
      case .disk(let index):
        VirtioWindow(index: slot.index, deviceType: 2, queueCount: machine.disks[index].queues)
      case .net: VirtioWindow(index: slot.index, deviceType: 1, queueCount: 3)
      case .entropy: VirtioWindow(index: slot.index, deviceType: 4, queueCount: 1)
      }
    }
    let aliases = machine.virtioSlots.map(\.alias)
    platform.services = machine.services.map { service in
      ServiceDescription(
        name: service.name, program: service.program, isolationClass: service.isolationClass, mode: service.mode,
        arguments: service.arguments, device: aliases.firstIndex(of: service.device),
        restart: service.restart.text)
    }
    platform.commandLine = machine.commandLine
    platform.tscFrequency = frequency ?? 0
    return platform
  }

  /// The frequency that KVM gives a guest's time-stamp counter, in Hz.
  private static func timestampFrequency(_ system: KVMSystem) -> UInt64? {
    guard let virtualMachine = try? VirtualMachine(system: system),
      let cpuid = try? system.supportedCPUID(),
      let processor = try? VirtualCPU(machine: virtualMachine, index: 0, cpuid: cpuid)
    else { return nil }
    return processor.timestampFrequency * 1000
  }
}
