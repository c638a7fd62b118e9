// What machine this is: devices, clock, processors and composition, from the device tree or, under QEMU, from the
// command line.

import Pollux

/// A virtio-mmio device.
struct VirtioDevice {
  /// Guest-physical address of the registers, maybe not at the start of a page.
  var registers: UInt64
  var interrupt: UInt32
  /// Pages of the control/data split (docs/platform.md); 0 where the machine has none.
  var messages: UInt64 = 0
  var doorbells: UInt64 = 0
  var control: UInt64 = 0
  /// Virtio device type: 2 is block.
  var type: UInt32
  /// Path in the device tree.
  var path = Bytes("")

  var isSplit: Bool { messages != 0 && doorbells != 0 && control != 0 }
}

struct Machine {
  let root: Handle
  let archive: TapeArchive
  private(set) var devices: [VirtioDevice] = []
  /// Frequency of the time-stamp counter in Hz, 0 if unknown.
  private(set) var clockFrequency: UInt64 = 0
  private(set) var processors = 1
  private(set) var composition = Composition()
  private(set) var commandLine = CommandLine(Bytes(""))

  init(root: Handle) {
    self.root = root
    archive = TapeArchive(
      Self.map(Handle(InitialHandle.archive), Kernel.info(KernelInfo.archiveSize)))
    readCommandLine()
    let treeSize = Kernel.info(KernelInfo.deviceTreeSize)
    if treeSize != 0 {
      do throws(DeviceTreeReadError) {
        read(try DeviceTreeReader(Self.map(Handle(InitialHandle.deviceTree), treeSize)))
      } catch {
        Console.write("init: the device tree is damaged; going on without\n")
      }
    } else {
      readAnnouncedDevices()
    }
    if composition.entries.isEmpty { composition = Composition(commandLine) ?? defaultComposition() }
    applyOverrides()
  }

  private static func map(_ handle: Handle, _ size: UInt64) -> Bytes {
    guard size > 0 else { return Bytes("") }
    do throws(SystemError) {
      let mapping = try MemoryObject(handle).map(.read)
      // Mapped for the life of the process.
      return Bytes(unsafeBase: UnsafeRawPointer(mapping.base), count: Int(min(size, UInt64(mapping.size))))
    } catch { return Bytes("") }
  }

  private mutating func readCommandLine() {
    let address = Kernel.info(KernelInfo.commandLine)
    guard address != 0 else { return }
    let page = address & ~(AddressSpace.pageSize - 1)
    do throws(SystemError) {
      let memory = try MemoryObject.physical(root: root, address: page, size: 2 * AddressSpace.pageSize, flags: [])
      let mapping = try memory.map(.read)
      let offset = Int(address - page)
      commandLine = CommandLine(
        Bytes(unsafeBase: UnsafeRawPointer(mapping.base + offset), count: mapping.size - offset))
    } catch {
      var line = Text("init: cannot read the command line: ")
      line.add(error.name)
      line.add("\n")
      line.print()
    }
  }

  private mutating func read(_ tree: DeviceTreeReader) {
    guard let root = tree.root else { return }
    var found: [VirtioDevice] = []
    tree.forEachChild(of: root) { node in
      guard tree.isCompatible(node, with: "virtio,mmio"), let registers = tree.register(0, of: node),
        let interrupt = tree.cell("interrupts", 0, of: node)
      else { return true }
      var device = VirtioDevice(
        registers: registers.address, interrupt: interrupt, type: tree.cell("castor,device-type", 0, of: node) ?? 0)
      device.path = node.name
      if tree.isCompatible(node, with: "castor,virtio-split") {
        device.messages = tree.register(1, of: node)?.address ?? 0
        device.doorbells = tree.register(2, of: node)?.address ?? 0
        device.control = tree.register(3, of: node)?.address ?? 0
      }
      found.append(device)
      return true
    }
    devices = found
    if let clock = tree.node(at: Bytes("/clock")),
      let value = tree.property("tsc-frequency", of: clock)?.big(0, as: UInt64.self)
    {
      clockFrequency = value
    }
    if let cpus = tree.node(at: Bytes("/cpus")) {
      var count = 0
      tree.forEachChild(of: cpus) { node in
        if node.baseName.equals("cpu") { count += 1 }
        return true
      }
      processors = max(1, count)
    }
    if let listed = Composition(tree) { composition = listed }
  }

  /// Devices of `virtio_mmio.device=` arguments; the type is read from the device itself (virtio 1.2 §4.2.2).
  private mutating func readAnnouncedDevices() {
    var announced: [AnnouncedDevice] = []
    commandLine.forEachDevice { announced.append($0) }
    for device in announced {
      let page = device.address & ~(AddressSpace.pageSize - 1)
      do throws(SystemError) {
        let memory = try MemoryObject.physical(root: root, address: page, size: AddressSpace.pageSize, flags: .device)
        let mapping = try memory.map(.read)
        let registers = DeviceRegisters(unsafeBase: mapping.address + (device.address - page))
        if registers.load(0) == 0x7472_6976, registers.load(4) == 2 {
          devices.append(
            VirtioDevice(registers: device.address, interrupt: device.interrupt, type: registers.load(8)))
        }
        mapping.unmap()
        memory.handle.close()
      } catch { continue }
    }
    if let count = commandLine.value("pollux.processors")?.number { processors = Int(min(count, 64)) }
  }

  /// Without a composition: a console, the first block device with the container that `pollux.block=` names, a memory disk, and the
  /// program that `pollux.run=` names.
  private func defaultComposition() -> Composition {
    var result = Composition()
    result.append(CompositionEntry(name: Bytes("console"), program: Bytes("console")))
    if archive.file(Bytes("memdisk")) != nil {
      result.append(CompositionEntry(name: Bytes("memdisk"), program: Bytes("memdisk")))
    }
    for device in devices where device.type == 2 {
      var entry = CompositionEntry(
        name: Bytes("block"), program: commandLine.value("pollux.block") ?? Bytes("block-container"))
      entry.mode = Bytes("twin")
      entry.device = device.path
      result.append(entry)
      break
    }
    if let program = commandLine.value("pollux.run") {
      result.append(CompositionEntry(name: program, program: program))
    }
    return result
  }

  /// `pollux.mode=` and `pollux.arguments=` of the command line override the composition's driver mode, where a device has more than one,
  /// and the arguments of the last program.
  private mutating func applyOverrides() {
    var changed = Composition()
    let last = composition.entries.count - 1
    for index in composition.entries.indices {
      var entry = composition.entries[index]
      if Supervisor.isDriverContainer(entry.program), !isEntropy(entry), let mode = commandLine.value("pollux.mode") {
        entry.mode = mode
      }
      if index == last, let arguments = commandLine.value("pollux.arguments") { entry.arguments = arguments }
      changed.append(entry)
    }
    composition = changed
  }

  private func isEntropy(_ entry: CompositionEntry) -> Bool {
    let type = DriverClass.entropy.deviceType
    return entry.device.equals("entropy") || (!entry.device.isEmpty && device(entry.device, type: type)?.type == type)
  }

  /// The device at a path of the device tree; without a path, the first of `type`.
  func device(_ path: Bytes, type: UInt32) -> VirtioDevice? {
    var name = path
    if name.byte(0) == 0x2f { name = name.suffix(from: 1) ?? name }
    for device in devices {
      if name.isEmpty ? device.type == type : device.path.equals(name) { return device }
    }
    return nil
  }
}
