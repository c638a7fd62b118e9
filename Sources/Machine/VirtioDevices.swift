// The virtio devices of a machine: their windows, doorbells and interrupts (docs/platform.md, "virtio device window").

import BlockStorage
import Configuration
import Devices
import HostSystem
import KVM
import Loader
import NetworkLink
import SystemPackage
import Virtio

/// A virtio device at its place in the machine.
final class AttachedDevice: Sendable {
  let slot: VirtioSlot
  let transport: MMIOTransport
  let device: any VirtioDevice

  init(slot: VirtioSlot, transport: MMIOTransport, device: any VirtioDevice) {
    self.slot = slot
    self.transport = transport
    self.device = device
  }
}

extension Machine {
  /// Makes every configured virtio device and connects it: window, line, messages, doorbells.
  func addVirtioDevices() throws(MachineError) {
    for slot in configuration.virtioSlots {
      let device = try makeDevice(for: slot)
      do {
        let queues = device.queueSizes.count
        let line = try PinInterrupt(machine: virtualMachine, pin: slot.gsi)
        let messages = try QueueMessages(machine: virtualMachine, queues: queues, log: log)
        let transport = try MMIOTransport(
          name: slot.alias, device: device, memory: memory, line: line, messages: messages, options: options(for: slot))
        for (queue, event) in transport.queueEvents.enumerated() {
          try virtualMachine.addDoorbell(
            at: slot.address + MMIOTransport.queueNotify, match: UInt32(queue), event: event)
          if device.controlQueues.contains(queue) {
            try virtualMachine.addDoorbell(
              at: slot.address + MMIOTransport.controlPage + MMIOTransport.queueNotify, match: UInt32(queue),
              event: event)
          }
          if configuration.doorbellPages {
            try virtualMachine.addDoorbell(
              at: slot.address + MMIOTransport.doorbells + UInt64(queue) * MMIOTransport.doorbellStride, match: nil,
              event: event)
          }
        }
        let attached = AttachedDevice(slot: slot, transport: transport, device: device)
        try windows.add(attached, at: slot.address, count: MMIOTransport.windowSize)
        virtioDevices.append(attached)
      } catch { throw MachineError(wrapping: error) }
    }
  }

  /// What the guest is told about its hardware.
  func platformDescription() -> PlatformDescription {
    var platform = PlatformDescription(
      processorCount: configuration.cpus, memory: PlatformLayout.memoryRanges(bytes: configuration.memory))
    platform.virtioDevices = virtioDevices.map {
      VirtioWindow(
        address: .init($0.slot.address), gsi: $0.slot.gsi, deviceType: $0.device.deviceID,
        queueCount: $0.device.queueSizes.count)
    }
    let aliases = configuration.virtioSlots.map(\.alias)
    platform.services = configuration.services.map { service in
      ServiceDescription(
        name: service.name, program: service.program, isolationClass: service.isolationClass, mode: service.mode,
        arguments: service.arguments, device: aliases.firstIndex(of: service.device),
        restart: service.restart.text)
    }
    platform.commandLine = configuration.commandLine
    platform.tscFrequency = (processors.first?.processor.timestampFrequency ?? 0) * 1000
    platform.hasTSCDeadline = kvm.value(of: .tscDeadline) != 0
    return platform
  }
}

extension Machine {
  private func makeDevice(for slot: VirtioSlot) throws(MachineError) -> any VirtioDevice {
    switch slot.device {
    case .disk(let index): try makeDisk(configuration.disks[index], index: index)
    case .entropy: EntropyDevice()
    case .net(let index): try makeInterface(configuration.nets[index], index: index)
    }
  }

  /// Opens a disk's file; `direct: on` is a demand, `auto` a wish.
  private func openFile(_ path: String, _ disk: DiskConfiguration) throws -> FileBackend {
    let backend = try FileBackend(path: path, readOnly: disk.readOnly, direct: disk.direct != .off)
    guard disk.direct != .on || backend.isDirect else {
      throw MachineError(
        "disk \(path): direct 'on', but its file system does not allow O_DIRECT; use auto or off",
        exitCode: .invalidConfiguration)
    }
    return backend
  }

  private func makeDisk(_ disk: DiskConfiguration, index: Int) throws(MachineError) -> BlockDevice {
    do {
      let backend: any BlockBackend =
        switch disk.backend {
        case .file(let path): try openFile(path, disk)
        case .memory(let size): try MemoryBackend(byteCount: size, readOnly: disk.readOnly)
        case .null(let size): NullBackend(byteCount: size)
        }
      var options = BlockDeviceOptions(
        queueCount: disk.queues, queueSize: UInt16(disk.queueSize),
        identifier: disk.serial.isEmpty ? "castor-disk\(index)" : disk.serial)
      options.logicalBlockSize = UInt32(disk.logicalBlockSize)
      return try BlockDevice(backend: backend, options: options)
    } catch { throw MachineError(wrapping: error) }
  }

  private func makeInterface(_ net: NetworkConfiguration, index: Int) throws(MachineError) -> NetworkDevice {
    do {
      let link: any PacketLink =
        switch net.backend {
        case .tap(let name): try TapLink(name: name)
        case .listen(let path): try SocketLink.listening(path: path)
        case .connect(let path): try SocketLink.connected(path: path)
        }
      let address = net.mac ?? MACAddress(machine: configuration.name, index: index)
      return try NetworkDevice(link: link, address: address.bytes, queueSize: UInt16(net.queueSize))
    } catch { throw MachineError(wrapping: error) }
  }

  private func options(for slot: VirtioSlot) -> DeviceOptions {
    guard case .disk(let index) = slot.device else { return DeviceOptions(longestPollNanoseconds: 0) }
    let poll =
      configuration.disks[index].pollMicroseconds
      ?? Self.pollMicroseconds(disk: index, cpus: configuration.cpus, processors: HostProcessors.allowed)
    return DeviceOptions(longestPollNanoseconds: UInt64(poll) * 1000)
  }

  /// How long a disk's thread polls where nobody has said: as many disks poll as there are processors beside those of the vCPUs. A thread
  /// that polls on a vCPU's processor keeps that from what is polled for (measured on one processor: a third of the throughput).
  static func pollMicroseconds(disk index: Int, cpus: Int, processors: Int) -> Int {
    index < processors - cpus ? 200 : 0
  }
}
