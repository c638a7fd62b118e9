// The services of the machine: their endpoints, processes and ends, and the registry that clients ask.

import Pollux

/// One service or program.
final class Service {
  let name: Bytes
  let program: Bytes
  let mode: Bytes
  /// The isolation class asked for and what it got.
  var placement = Placement()
  /// Where clients call; with the rights to call and to grant only.
  var endpoint: Endpoint
  /// How it is started again.
  var entry: CompositionEntry?
  /// The driver that it is a part of.
  var driver: DeviceDriver?
  /// What it has published for calls by thread migration, with the right to connect.
  var published: Handle?
  var process: Process?
  var state = ServiceState.notStarted
  var remark = Message()
  var restarts = RestartHistory()
  /// Who is to hear of its end, and by which bits.
  var mourner: (notification: Notification, bits: UInt64)?

  init(name: Bytes, program: Bytes, mode: Bytes, endpoint: Endpoint) {
    self.name = name
    self.program = program
    self.mode = mode
    self.endpoint = endpoint
  }
}

final class Supervisor {
  let machine: Machine
  private let placer: Placer
  private var services: [Service] = []
  private let registry: Endpoint
  private var devices = DeviceList()
  /// Bit i: the i-th service's process has ended.
  private let ends: Notification

  /// The serial line's interrupt, which outlives the console that is told of it.
  private var serial: (input: Notification, line: Interrupt)?

  /// The power button's line (docs/platform.md, port 0x60c), and its bit of `ends`.
  private static let buttonPin: UInt32 = 3
  private static let buttonPressed: UInt64 = 1 << 62
  /// Bits of `ends` are 63 in number.
  private static let maximumServices = 60

  init(machine: Machine) throws(SystemError) {
    self.machine = machine
    placer = Placer(machine)
    registry = try Endpoint.create()
    ends = try Notification.create()
    try registry.bind(ends)
    if Kernel.info(KernelInfo.flags) & KernelInfo.flagCastor != 0 {
      _ = try Interrupt.line(
        root: machine.root, pin: Self.buttonPin, flags: [], notification: ends, bits: Self.buttonPressed)
    }
  }

  // MARK: Starting

  func startAll() {
    for entry in machine.composition.entries { start(entry) }
  }

  func report(_ name: Bytes, _ what: StaticString, _ detail: StaticString) { report(name, what, Bytes(detail)) }

  func report(_ name: Bytes, _ what: StaticString, _ detail: Bytes) {
    var line = Text("init: ")
    line.add(name)
    line.add(": ")
    line.add(what)
    line.add(detail)
    line.add("\n")
    line.print()
    line.log()
  }

  private func start(_ entry: CompositionEntry) {
    do throws(LoadError) {
      if Self.isDriverContainer(entry.program) {
        try startDeviceDriver(entry)
      } else if entry.program.equals("block-twin") || entry.program.equals("net-twin") {
        // A composition may name the twin; it starts with its container.
        return
      } else {
        try startProgram(entry)
      }
    } catch {
      switch error {
      case .noSuchProgram: report(entry.name, "not in the boot archive: ", entry.program)
      case .badImage: report(entry.name, "cannot be loaded: ", "damaged image")
      case .kernel(let reason): report(entry.name, "cannot be started: ", reason.name)
      }
    }
  }

  /// A record for the service, and a handle on its endpoint with the right to receive, for the process that serves it.
  func register(
    _ name: Bytes, _ program: Bytes, _ mode: Bytes
  ) throws(LoadError) -> (service: Service, receiver: Handle) {
    guard services.count < Self.maximumServices else { throw .kernel(.tableFull) }
    do throws(SystemError) {
      let receiver = try Endpoint.create().handle
      let caller = try receiver.duplicate([.call, .grant])
      let service = Service(name: name, program: program, mode: mode, endpoint: Endpoint(caller))
      services.append(service)
      return (service, receiver)
    } catch { throw .kernel(error) }
  }

  func load(_ service: Service) throws(LoadError) -> LoadedProgram {
    let asked = machine.composition.entry(service.name)?.isolationClass ?? Bytes("ic2")
    let (placement, program) = try placer.load(service.program, named: service.name, asked: asked)
    service.placement = placement
    // Shown until the service says something of itself.
    if placement.reason.utf8CodeUnitCount > 0 { service.remark.put(Bytes(placement.reason), at: 1, words: 7) }
    service.process = program.process
    return program
  }

  /// What every program gets: its texts, and the registry under a badge that names it (index + 1).
  func commonStart(
    _ service: Service, _ entry: CompositionEntry, _ process: Process
  ) throws(SystemError) -> StartBlockBuilder {
    var block = StartBlockBuilder()
    let index = services.firstIndex { $0 === service } ?? 0
    var fits = block.add(
      "registry", handle: try process.grant(registry.handle, [.call], badge: UInt64(index + 1)))
    // Itself, to show to services, which end what they keep for it when it ends.
    fits = block.add("self", handle: try process.grant(process.handle, [.observe, .grant])) && fits
    // Itself with all it may do to itself anyway, for the memory manager that it chooses.
    fits = block.add("process", handle: try process.grant(process.handle, [.manage, .observe, .grant])) && fits
    fits = block.add("name", text: entry.name) && fits
    fits = block.add("mode", text: entry.mode) && fits
    fits = block.add("arguments", text: entry.arguments) && fits
    guard fits else { throw .badArgument }
    return block
  }

  func launch(
    _ service: Service, _ program: LoadedProgram, _ block: StartBlockBuilder, priority: UInt64
  ) throws(SystemError) {
    let index = services.firstIndex { $0 === service } ?? 0
    try program.process.watch(ends, bits: 1 << UInt64(index))
    try program.start(block, priority: priority)
    service.state = .running
  }

  private func startProgram(_ entry: CompositionEntry) throws(LoadError) {
    let (service, receiver) = try register(entry.name, entry.program, entry.mode)
    service.entry = entry
    try startProgram(entry, service, receiver)
  }

  private func startProgram(_ entry: CompositionEntry, _ service: Service, _ receiver: Handle) throws(LoadError) {
    let program = try load(service)
    do throws(SystemError) {
      var block = try commonStart(service, entry, program.process)
      _ = block.add("service", handle: try program.process.grant(receiver, [.call, .receive, .grant]))
      receiver.close()
      let isConsole = entry.program.equals("console")
      if isConsole { try addConsole(to: &block, program.process) }
      if isConsole || entry.program.equals("vfs") { try addArchive(to: &block, program.process) }
      try launch(service, program, block, priority: isConsole ? 14 : entry.program.equals("memdisk") ? 12 : 8)
    } catch {
      // Nothing of it runs yet.
      program.process.handle.close()
      service.process = nil
      throw .kernel(error)
    }
  }

  /// The console hears of serial input through pin 4.
  private func addConsole(to block: inout StartBlockBuilder, _ process: Process) throws(SystemError) {
    let serial: (input: Notification, line: Interrupt)
    if let known = self.serial {
      serial = known
    } else {
      let input = try Notification.create()
      serial = (
        input, try Interrupt.line(root: machine.root, pin: 4, flags: [], notification: input, bits: 1)
      )
      self.serial = serial
    }
    _ = block.add("input", handle: try process.grant(serial.input.handle, [.wait, .signal]))
    _ = block.add("input-line", handle: try process.grant(serial.line.handle, [.manage]))
  }

  /// The boot archive, to look into.
  func addArchive(to block: inout StartBlockBuilder, _ process: Process) throws(SystemError) {
    _ = block.add(
      "archive", handle: try process.grant(Handle(InitialHandle.archive), [.read]))
    _ = block.add("archive-size", number: Kernel.info(KernelInfo.archiveSize))
  }

  /// Starts a service again that has ended; its clients have to connect anew.
  private func restart(_ service: Service) throws(LoadError) {
    guard let entry = service.entry, service.process == nil else { throw .kernel(.exists) }
    do throws(SystemError) {
      if let driver = service.driver {
        try restart(service, of: driver)
        return
      }
      let receiver = try Endpoint.create().handle
      service.remark = Message()
      service.endpoint.handle.close()
      service.endpoint = Endpoint(try receiver.duplicate([.call, .grant]))
      do throws(LoadError) { try startProgram(entry, service, receiver) } catch {
        receiver.close()
        if case .kernel(let reason) = error { throw reason }
        throw .notFound
      }
    } catch { throw .kernel(error) }
  }

  // MARK: The registry

  func serve() throws(SystemError) -> Never {
    var server = Server(registry.handle)
    var message = Message()
    while true {
      switch try server.replyReceive(&message) {
      case .notification(let bits):
        if bits & Self.buttonPressed != 0 { try answerButton() }
        noteEnds(bits)
        message = Message()
      case .call(let badge):
        answer(&message, caller: Int(badge) - 1)
      }
    }
  }

  /// Somebody outside wants the machine off. The disk drivers hold nothing back, so there is nothing to write first.
  private func answerButton() throws(SystemError) {
    guard try Kernel.control(machine.root, .powerButton, 0) & 1 != 0 else { return }
    Console.write("\ninit: power button: the system is going down\n")
    _ = try Kernel.control(machine.root, .powerOff, 0)
  }

  /// A service has ended: whoever calls it gets `peerClosed` from the kernel from now on.
  private func noteEnds(_ bits: UInt64) {
    for index in services.indices where bits >> UInt64(index) & 1 != 0 {
      let service = services[index]
      guard let process = service.process else { continue }
      let status = process.status
      service.state = status.didFault ? .faulted : .exited
      devices.remove(of: index)
      if status.didFault || status.code != 0 {
        var line = Text("init: ")
        line.add(service.name)
        line.add(status.didFault ? " died of exception " : " ended with code ")
        line.add(status.code)
        line.add("\n")
        line.print()
        line.log()
      }
      process.handle.close()
      service.process = nil
      service.published?.close()
      service.published = nil
      if let mourner = service.mourner { mourner.notification.signal(mourner.bits) }
      restartIfAsked(service, didFail: status.didFault || status.code != 0)
    }
  }

  /// Starts a service again if its composition says so (`restart`), unless it has ended too often of late.
  private func restartIfAsked(_ service: Service, didFail: Bool) {
    guard let entry = service.entry,
      entry.restart.equals("always") || (didFail && entry.restart.equals("on-failure"))
    else {
      service.driver?.staysWithout(service)
      return
    }
    guard service.restarts.allowsAnother(at: Clock.now) else {
      service.driver?.staysWithout(service)
      return report(service.name, "stays down: ", "it has ended too often")
    }
    do throws(LoadError) {
      try restart(service)
      report(service.name, "started again", "")
    } catch {
      switch error {
      case .kernel(let reason): report(service.name, "cannot be started again: ", reason.name)
      case .noSuchProgram, .badImage: report(service.name, "cannot be started again: ", "its image is damaged")
      }
    }
  }

  private func answer(_ message: inout Message, caller: Int) {
    let request = message
    message = Message()
    do throws(SystemError) {
      if request[0] == RegistryCall.publish.rawValue {
        try publish(request, caller)
      } else {
        if let stray = request.received { stray.close() }
        try perform(request, caller: caller, &message)
      }
    } catch {
      message = Message(UInt64(bitPattern: error.rawValue))
    }
  }

  private func publish(_ request: Message, _ caller: Int) throws(SystemError) {
    guard let handle = request.received else { throw .badHandle }
    guard services.indices.contains(caller), services[caller].published == nil else {
      handle.close()
      throw .exists
    }
    services[caller].published = handle
  }

  private func perform(_ request: Message, caller: Int, _ reply: inout Message) throws(SystemError) {
    guard let call = RegistryCall(rawValue: request[0]) else { throw .badCall }
    switch call {
    case .connect:
      let wanted = request.text(at: 1, words: 3)
      guard let service = service(named: wanted) else { throw .notFound }
      if service.state != .running { throw .peerClosed }
      // A badge of its own tells the server its clients apart.
      let handle = try service.endpoint.handle.duplicate([.call, .grant], badge: UInt64(caller + 1))
      reply.pass(handle, [.call, .grant])
      handles.append(handle)
    case .publish: throw .badCall
    case .open:
      guard let service = service(named: request.text(at: 1, words: 3)) else { throw .notFound }
      if service.state != .running { throw .peerClosed }
      // A program that has not got so far yet: the client asks again.
      guard let published = service.published else { throw .notFound }
      let connection = try RPCService.connect(
        published, badge: UInt64(caller + 1), flags: ConnectionFlags(rawValue: request[4]))
      reply.pass(connection.handle, [.call, .grant])
      handles.append(connection.handle)
    case .control:
      guard let operation = SystemControl(rawValue: request[1]) else { throw .badArgument }
      _ = try Kernel.control(machine.root, operation, request[2])
    case .service:
      let service = try service(at: request[1])
      reply.put(service.name, at: 1, words: 2)
      reply.put(service.program, at: 3, words: 2)
      reply.put(service.mode, at: 5, words: 2)
      reply[7] = service.state.rawValue | service.placement.bits << 8
    case .serviceRemark:
      reply = try service(at: request[1]).remark
      reply[0] = 0
    case .remark:
      guard services.indices.contains(caller) else { throw .notFound }
      services[caller].remark = request
    case .run:
      let index = services.count
      let entry = try entry(request)
      do throws(LoadError) { try startProgram(entry) } catch {
        if services.count > index { services.removeLast() }
        switch error {
        case .kernel(let reason): throw reason
        default: throw .notFound
        }
      }
      reply[1] = UInt64(index)
    case .restart:
      let service = try service(at: request[1])
      do throws(LoadError) { try restart(service) } catch {
        if case .kernel(let reason) = error { throw reason }
        throw .notFound
      }
    case .power:
      guard let driver = try service(at: request[1]).driver else { throw .wrongKind }
      try driver.suspend(request[2] == 0)
    case .announce:
      guard services.indices.contains(caller), let kind = DeviceClass(rawValue: request[3]) else { throw .badArgument }
      let name = try devices.announce(request.text(at: 1, words: 2), kind, size: request[4], by: caller)
      name.withUnsafeBytes { buffer in
        if let base = buffer.baseAddress { reply.put(Bytes(unsafeBase: base, count: buffer.count), at: 1, words: 2) }
      }
    case .device:
      guard request[1] < UInt64(devices.devices.count) else { throw .notFound }
      let device = devices.devices[Int(request[1])]
      device.name.withUnsafeBytes { buffer in
        if let base = buffer.baseAddress { reply.put(Bytes(unsafeBase: base, count: buffer.count), at: 1, words: 2) }
      }
      reply[3] = device.kind.rawValue | device.serial << 8
      reply[4] = device.size
      reply.put(services[device.service].name, at: 5, words: 3)
    case .kill:
      guard let process = try service(at: request[1]).process else { throw .notFound }
      try process.kill(code: 137)
    }
  }

  /// Handles passed in the last replies: the kernel has copied them by the time of the next call.
  private var handles: [Handle] = [] {
    didSet {
      if handles.count > 4 {
        handles[0].close()
        handles.removeFirst()
      }
    }
  }

  private func service(at index: UInt64) throws(SystemError) -> Service {
    guard index < UInt64(services.count) else { throw .notFound }
    return services[Int(index)]
  }

  /// The service of that name that runs, or else the last one that had it.
  private func service(named name: [UInt8]) -> Service? {
    name.withUnsafeBytes { buffer in
      guard let base = buffer.baseAddress else { return nil }
      let wanted = Bytes(unsafeBase: base, count: buffer.count)
      var found: Service?
      for service in services where service.name.equals(wanted) {
        found = service
        if service.state == .running { break }
      }
      return found
    }
  }

  /// An entry for a program that a client asks to run; the texts are kept for ever, like those of the composition.
  private func entry(_ request: Message) throws(SystemError) -> CompositionEntry {
    let program = Self.keep(request.text(at: 1, words: 2))
    guard let file = machine.archive.file(program) else { throw .notFound }
    var entry = CompositionEntry(name: file.name, program: file.name)
    entry.arguments = Self.keep(request.text(at: 3, words: 5))
    return entry
  }

  /// The text, for as long as the machine runs.
  static func keep(_ text: [UInt8]) -> Bytes {
    let copy = UnsafeMutableRawPointer.allocate(byteCount: max(1, text.count), alignment: 16)
    for index in text.indices { copy.storeBytes(of: text[index], toByteOffset: index, as: UInt8.self) }
    return Bytes(unsafeBase: UnsafeRawPointer(copy), count: text.count)
  }
}
