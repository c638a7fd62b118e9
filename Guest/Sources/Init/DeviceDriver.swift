// A device's driver: its container, and unless the mode is `solo` its twin. Each gets the device pages of its own plane only, and each can
// be started again without the other.

import Pollux

/// Classes of devices that have drivers in containers.
enum DriverClass {
  case block, network, entropy

  /// The device's type, virtio 1.2 §5.
  var deviceType: UInt32 {
    switch self {
    case .network: 1
    case .block: 2
    case .entropy: 4
    }
  }
  /// The program of the data plane; nil: the class has none, and its container serves the clients.
  var twin: StaticString? {
    switch self {
    case .block: "block-twin"
    case .network: "net-twin"
    case .entropy: nil
    }
  }
  /// How many of the device's queues, the first ones, are the twin's.
  var dataQueues: UInt64 {
    switch self {
    case .block: 1
    case .network: 2
    case .entropy: 0
    }
  }
}

/// Kernel objects of one device, which outlive the processes that they are shared out to.
final class DeviceDriver {
  let entry: CompositionEntry
  let device: VirtioDevice
  let kind: DriverClass
  /// The register page; beside a twin, where the machine has it, the control page, which rings for no data queue.
  let registers: Handle
  /// Where in that page the registers begin.
  let registersOffset: UInt64
  let lineEvents: Notification
  let line: Interrupt
  /// Signalled by the device's message (bit 0) and by the container when the state has changed (bit 1).
  let dataEvents: Notification
  /// What the container's device reads and writes. A container that is started again makes its rings at the same addresses, so that those
  /// who have been shown them see the new ones.
  let memory: MemoryObject
  /// Where the twin calls the container; the receiver is kept for the next container, so that the twin waits for that one.
  var control: (service: Service, receiver: Handle)?

  private static let memorySize: UInt64 = 4 << 20

  init(
    _ entry: CompositionEntry, _ device: VirtioDevice, _ kind: DriverClass, root: Handle
  ) throws(SystemError) {
    self.entry = entry
    self.device = device
    self.kind = kind
    let isDivided = device.isSplit && !entry.mode.equals("solo")
    let address = isDivided ? device.control : device.registers
    registersOffset = address & (AddressSpace.pageSize - 1)
    registers = try MemoryObject.physical(
      root: root, address: address - registersOffset, size: AddressSpace.pageSize, flags: .device
    ).handle
    lineEvents = try Notification.create()
    dataEvents = try Notification.create()
    // The line tells of configuration changes; without message interrupts it also tells of completions, and then the
    // twin takes it and passes the changes on.
    line = try Interrupt.line(
      root: root, pin: device.interrupt, flags: [],
      notification: entry.mode.equals("solo") || device.isSplit ? lineEvents : dataEvents, bits: 1)
    memory = try MemoryObject.create(Self.memorySize)
  }

  var isSolo: Bool { entry.mode.equals("solo") }
  /// Somebody wants the device quiet.
  private(set) var isSuspended = false
  /// Bits of the container's notification (`ContainerEvent` of the contract).
  private static let suspendBit: UInt64 = 4
  private static let resumeBit: UInt64 = 8

  /// Has the container suspend the device, or resume it.
  func suspend(_ suspends: Bool) throws(SystemError) {
    guard isSuspended != suspends else { throw .exists }
    isSuspended = suspends
    lineEvents.signal(suspends ? Self.suspendBit : Self.resumeBit)
  }

  /// A container begins, whose device is not suspended.
  func containerStarts() { isSuspended = false }

  /// `service` has ended and is not started again: nobody waits for a container then.
  func staysWithout(_ service: Service) {
    guard let control, control.service === service else { return }
    control.receiver.close()
    self.control = nil
  }
}

extension Supervisor {
  /// Linux's side of the container, without which no driver of it runs.
  private static let linuxSide: StaticString = "linux/container.ko"

  /// Whether a program is the control plane of a device: Pollux's own for disks, or the container of Linux's drivers.
  static func isDriverContainer(_ program: Bytes) -> Bool {
    program.equals("block-container") || program.equals("linux-container")
  }

  /// Starts the container, and unless the mode is `solo` the twin, which then serves the clients. On a machine without separate pages both
  /// get the register page, and the twin says so.
  func startDeviceDriver(_ wanted: CompositionEntry) throws(LoadError) {
    guard let (device, kind) = driven(wanted) else {
      report(wanted.name, "no such device, or none that its program drives: ", "not started")
      return
    }
    var entry = wanted
    if entry.program.equals("linux-container"), machine.archive.file(Bytes(Self.linuxSide)) == nil {
      guard kind == .block else {
        report(entry.name, "not started: Linux's drivers are not in the boot archive; ", "make drivers puts them there")
        return
      }
      report(
        entry.name, "Linux's drivers are not in the boot archive (make drivers puts them there): ",
        "block-container drives the disk")
      entry.program = Bytes("block-container")
    }
    if kind.twin == nil {
      guard entry.mode.isEmpty || entry.mode.equals("solo") else {
        report(entry.name, "not started: its device has no twin, so the only mode is solo, not ", entry.mode)
        return
      }
      entry.mode = Bytes("solo")
    }
    let isSolo = entry.mode.equals("solo")
    let server = isSolo ? entry.program : kind.twin.map { Bytes($0) } ?? entry.program
    let (service, receiver) = try register(entry.name, server, entry.mode)
    do throws(SystemError) {
      let driver = try DeviceDriver(entry, device, kind, root: machine.root)
      service.driver = driver
      service.entry = entry
      if isSolo {
        try startContainer(service, driver, receiver)
      } else {
        let control: (service: Service, receiver: Handle)
        do throws(LoadError) { control = try register(containerName(entry.name), entry.program, entry.mode) } catch {
          throw .tableFull
        }
        control.service.driver = driver
        control.service.entry = entry
        driver.control = control
        // Bit 1: the container stops the device, which would go on writing into the memory of the twin's clients.
        service.mourner = (driver.lineEvents, 2)
        try startContainer(control.service, driver, control.receiver)
        try startTwin(service, driver, receiver)
      }
      receiver.close()
    } catch { throw .kernel(error) }
  }

  /// The device that an entry names and the class of its driver. Without a name it is the first disk; `net` is the first interface, and
  /// `entropy` the first entropy device.
  private func driven(_ entry: CompositionEntry) -> (VirtioDevice, DriverClass)? {
    let isLinux = entry.program.equals("linux-container")
    let first: DriverClass? =
      !isLinux ? nil : entry.device.equals("net") ? .network : entry.device.equals("entropy") ? .entropy : nil
    let found =
      if let first { machine.device(Bytes(""), type: first.deviceType) } else {
        machine.device(entry.device, type: DriverClass.block.deviceType)
      }
    guard let device = found else { return nil }
    switch device.type {
    case DriverClass.block.deviceType: return (device, .block)
    case DriverClass.network.deviceType: return isLinux ? (device, .network) : nil
    case DriverClass.entropy.deviceType: return isLinux ? (device, .entropy) : nil
    default: return nil
    }
  }

  private func containerName(_ name: Bytes) -> Bytes {
    var text = Text()
    text.add(name)
    text.add(".container")
    return Self.keep(text.bytes)
  }

  /// Starts a part of a driver again. The twin's clients have to connect anew, as those of a solo driver; the twin itself waits for its
  /// container.
  func restart(_ service: Service, of driver: DeviceDriver) throws(SystemError) {
    service.remark = Message()
    if let control = driver.control, control.service === service {
      try startContainer(service, driver, control.receiver)
      return
    }
    // A container that has gone for good takes its twin's part with it.
    guard driver.isSolo || driver.control != nil else { throw .peerClosed }
    let receiver = try Endpoint.create().handle
    service.endpoint.handle.close()
    service.endpoint = Endpoint(try receiver.duplicate([.call, .grant]))
    if driver.isSolo {
      try startContainer(service, driver, receiver)
    } else {
      try startTwin(service, driver, receiver)
    }
    receiver.close()
  }

  private func startContainer(_ service: Service, _ driver: DeviceDriver, _ receiver: Handle) throws(SystemError) {
    driver.containerStarts()
    let program = try loadOrFail(service)
    let process = program.process
    var block = try commonStart(service, driver.entry, process)
    _ = block.add("service", handle: try process.grant(receiver, [.call, .receive, .grant]))
    _ = block.add("registers", handle: try process.grant(driver.registers, [.read, .write]))
    _ = block.add("registers-offset", number: driver.registersOffset)
    _ = block.add("device-type", number: UInt64(driver.kind.deviceType))
    _ = block.add("line-events", handle: try process.grant(driver.lineEvents.handle, [.wait, .signal]))
    _ = block.add("line", handle: try process.grant(driver.line.handle, [.manage]))
    _ = block.add("data-events", handle: try process.grant(driver.dataEvents.handle, [.signal]))
    _ = block.add("memory", handle: try process.grant(driver.memory.handle, [.read, .write, .physical, .grant]))
    if driver.device.isSplit {
      let messages = try MemoryObject.physical(
        root: machine.root, address: driver.device.messages, size: AddressSpace.pageSize,
        flags: [.device, .messageTable])
      _ = block.add("messages", handle: try process.grant(messages.handle, [.read, .write]))
      messages.handle.close()
    }
    if driver.entry.program.equals("linux-container") { try addArchive(to: &block, process) }
    try launch(service, program, block, priority: 13)
  }

  private func startTwin(_ service: Service, _ driver: DeviceDriver, _ receiver: Handle) throws(SystemError) {
    guard let control = driver.control else { throw .peerClosed }
    let program = try loadOrFail(service)
    let process = program.process
    var block = try commonStart(service, driver.entry, process)
    _ = block.add("service", handle: try process.grant(receiver, [.call, .receive, .grant]))
    _ = block.add("control", handle: try process.grant(control.service.endpoint.handle, [.call]))
    _ = block.add("data-events", handle: try process.grant(driver.dataEvents.handle, [.wait, .signal]))
    if driver.device.isSplit {
      let doorbell = try MemoryObject.physical(
        root: machine.root, address: driver.device.doorbells,
        size: driver.kind.dataQueues * AddressSpace.pageSize, flags: .device)
      _ = block.add("doorbell", handle: try process.grant(doorbell.handle, [.read, .write]))
      doorbell.handle.close()
    } else {
      _ = block.add("line", handle: try process.grant(driver.line.handle, [.manage]))
      _ = block.add("registers", handle: try process.grant(driver.registers, [.read, .write]))
      _ = block.add("registers-offset", number: driver.registersOffset)
      _ = block.add("line-events", handle: try process.grant(driver.lineEvents.handle, [.signal]))
    }
    try launch(service, program, block, priority: 12)
  }

  private func loadOrFail(_ service: Service) throws(SystemError) -> LoadedProgram {
    do throws(LoadError) { return try load(service) } catch {
      switch error {
      case .kernel(let reason): throw reason
      case .noSuchProgram: throw .notFound
      case .badImage: throw .badArgument
      }
    }
  }
}
