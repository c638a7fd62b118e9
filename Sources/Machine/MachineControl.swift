// What the commands of the control socket do to a machine (docs/control.md).

import Configuration
import Devices
import Glibc
import SystemPackage
import Virtio

/// Carries out control commands; belongs to the machine's main thread.
final class MachineControl: ControlTarget {
  private unowned let machine: Machine
  private var isPaused = false

  init(machine: Machine) { self.machine = machine }

  func perform(_ command: ControlCommand) throws(ControlError) -> JSONValue {
    switch command {
    case .status: return status
    case .pause:
      pause()
      return ["state": "paused"]
    case .resume:
      resume()
      return ["state": "running"]
    case .resizeDisk(let name, let bytes): return try resize(name, to: bytes)
    case .link(let name, let isUp): return try setLink(name, isUp: isUp)
    case .inject(let name, let fault):
      try inject(fault, into: name)
      return [:]
    case .stats: return statistics
    case .stop(let force):
      stop(force: force)
      return ["state": "stopping"]
    }
  }

  // MARK: Pause and stop

  private func pause() {
    guard !isPaused else { return }
    isPaused = true
    for processor in machine.processors { processor.hold() }
    for processor in machine.processors { processor.waitUntilParked() }
    for device in machine.virtioDevices { device.transport.pause() }
  }

  private func resume() {
    guard isPaused else { return }
    isPaused = false
    for device in machine.virtioDevices { device.transport.resume() }
    for processor in machine.processors { processor.release() }
  }

  private func stop(force: Bool) {
    guard !force, let graceful = machine.termination?.stop else {
      machine.log.notice("ended through the control socket")
      return machine.end(.ended(.success))
    }
    // A guest that stands still cannot power itself off.
    resume()
    graceful.request()
  }

  // MARK: Devices

  private func device(_ name: String) throws(ControlError) -> AttachedDevice {
    guard let device = machine.virtioDevices.first(where: { $0.slot.alias == name }) else {
      let names = machine.virtioDevices.map(\.slot.alias).joined(separator: ", ")
      throw ControlError("there is no device \"\(name)\"; there are: \(names.isEmpty ? "none" : names)")
    }
    return device
  }

  private func disk(_ name: String) throws(ControlError) -> BlockDevice {
    guard let disk = try device(name).device as? BlockDevice else { throw ControlError("\(name) is not a disk") }
    return disk
  }

  private func resize(_ name: String, to bytes: UInt64) throws(ControlError) -> JSONValue {
    let disk = try disk(name)
    do { try disk.resize(to: bytes) } catch { throw ControlError("\(name): \(error)") }
    return ["bytes": .counter(disk.byteCount)]
  }

  private func setLink(_ name: String, isUp: Bool) throws(ControlError) -> JSONValue {
    _ = try device(name)
    throw ControlError("\(name) is not a network device")
  }

  private func inject(_ fault: FaultInjection, into name: String) throws(ControlError) {
    let attached = try device(name)
    switch fault {
    case .needsReset: attached.transport.context.needsReset("fault injected")
    case .spuriousInterrupt(let queue):
      guard attached.device.queueSizes.indices.contains(queue) else {
        throw ControlError("\(name) has no queue \(queue)")
      }
      attached.transport.context.spuriousInterrupt(queue: queue)
    case .failNext(let count): try disk(name).inject(.failNext(count))
    case .failSectors(let sectors): try disk(name).inject(.failSectors(sectors))
    case .failRate(let rate): try disk(name).inject(.failRate(rate))
    case .delay(let microseconds): try disk(name).inject(.delay(nanoseconds: microseconds * 1000))
    case .clear: try disk(name).inject(.clear)
    }
  }

  // MARK: Reports

  private var state: JSONValue {
    if machine.isEnding || machine.termination?.stop.isAsked == true { return "stopping" }
    return isPaused ? "paused" : "running"
  }

  private var status: JSONValue {
    let configuration = machine.configuration
    let marks = BootMarks.stages.compactMap { stage in
      machine.bootMarks.time(of: stage).map { JSONValue.Member("\(stage)", .counter($0)) }
    }
    var members: [JSONValue.Member] = [
      .init("state", state), .init("name", .string(configuration.name)), .init("pid", .integer(Int64(getpid()))),
      .init("uptime_ns", .counter(Devices.monotonicNanoseconds() &- machine.start)),
      .init("cpus", .integer(Int64(configuration.cpus))), .init("memory_bytes", .counter(configuration.memory)),
      .init("boot_ns", .object(marks)), .init("serial", .string(configuration.serial.description)),
    ]
    if let path = machine.serialBackend?.terminalPath { members.append(.init("serial_path", .string(path))) }
    members += [
      .init("debugger", .boolean(machine.debugPort.wantsTraps)),
      .init("devices", .array(machine.virtioDevices.map(describe))),
    ]
    return .object(members)
  }

  private func describe(_ attached: AttachedDevice) -> JSONValue {
    var members: [JSONValue.Member] = [
      .init("name", .string(attached.slot.alias)), .init("type", .string(typeName(of: attached.device))),
      .init("gsi", .integer(Int64(attached.slot.gsi))),
      .init("queues", .integer(Int64(attached.device.queueSizes.count))),
      // The device status register (virtio 1.2 §4.2.2).
      .init("status", .counter(attached.transport.read(offset: 0x70, size: 4))),
    ]
    if let disk = attached.device as? BlockDevice { members.append(.init("bytes", .counter(disk.byteCount))) }
    return .object(members)
  }

  private func typeName(of device: any VirtioDevice) -> String {
    switch device.deviceID {  // virtio 1.2 §5
    case 1: "net"
    case 2: "block"
    case 4: "entropy"
    default: "\(device.deviceID)"
    }
  }

  private var statistics: JSONValue {
    let counters = machine.serial.counters
    return [
      "time_ns": .counter(Devices.monotonicNanoseconds()),
      "cpus": .array(machine.processors.map { ["exits": describe($0.statistics)] }),
      "serial": [
        "sent": .counter(counters.sent), "dropped": .counter(counters.dropped),
        "received": .counter(counters.received), "interrupts": .counter(counters.interrupts),
      ],
      "devices": .array(
        machine.virtioDevices.map { attached in
          [
            "name": .string(attached.slot.alias),
            "queues": .array(attached.transport.statistics().map(describe)),
          ]
        }),
    ]
  }

  private func describe(_ statistics: ExitStatistics) -> JSONValue {
    .object(ExitKind.allCases.map { .init($0.name, .counter(statistics.value(of: $0))) })
  }

  private func describe(_ queue: QueueStatistics) -> JSONValue {
    let latency = queue.latency
    return [
      "requests": .counter(queue.requests), "bytes_to_guest": .counter(queue.bytesToGuest),
      "bytes_from_guest": .counter(queue.bytesFromGuest), "errors": .counter(queue.errors),
      "doorbells": .counter(queue.doorbells), "interrupts": .counter(queue.interrupts),
      "interrupts_suppressed": .counter(queue.interruptsSuppressed), "batches": .counter(queue.batches),
      "latency_ns": [
        "count": .counter(latency.count), "mean": .counter(latency.count == 0 ? 0 : latency.total / latency.count),
        "p50": .counter(latency.percentile(50)), "p90": .counter(latency.percentile(90)),
        "p99": .counter(latency.percentile(99)), "p999": .counter(latency.percentile(99.9)),
        "max": .counter(latency.maximum),
        "buckets": .array(latency.buckets.map { [.counter($0.upTo), .counter($0.count)] }),
      ],
    ]
  }
}

extension Machine {
  /// Listens on the control socket, where the configuration has one.
  func makeControlServer() throws(MachineError) -> ControlServer? {
    guard let path = configuration.control else { return nil }
    let target = MachineControl(machine: self)
    control = target
    do throws(SocketPathError) { return try ControlServer(path: path, loop: loop, target: target) } catch {
      let code: ExitCode =
        switch error {
        case .inUse: .addressInUse
        case .cannotListen(_, .permissionDenied): .permissionDenied
        case .unusablePath: .invalidConfiguration
        default: .cannotCreate
        }
      throw MachineError("control: \(error)", exitCode: code)
    }
  }
}
