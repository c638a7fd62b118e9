// What the control socket can ask of a machine (docs/control.md). On the main thread.

import Configuration
import Devices
import Glibc
import HostSystem
import SystemPackage
import Virtio

/// A machine under the control socket.
final class MachineControl: ControlTarget {
  private unowned let machine: Machine
  private var server: ControlServer?
  private var isPaused = false

  /// Listens where the configuration says, if it does.
  init(of machine: Machine) throws(MachineError) {
    self.machine = machine
    guard let path = machine.configuration.control else { return }
    do throws(SocketPathError) {
      server = try ControlServer(path: path, loop: machine.loop, target: self)
    } catch {
      let code: ExitCode = if case .inUse = error { .addressInUse } else { .cannotCreate }
      throw MachineError("control: \(error)", exitCode: code)
    }
  }

  /// Closes the socket and removes its file.
  func close() { server?.close() }

  func perform(_ command: ControlCommand) throws(ControlError) -> JSONValue {
    switch command {
    case .status: return status
    case .stats: return statistics
    case .pause:
      pause()
      return ["state": "paused"]
    case .resume:
      resume()
      return ["state": "running"]
    case .resizeDisk(let device, let bytes):
      let disk = try disk(named: device)
      do { try disk.resize(to: bytes) } catch { throw ControlError(error.description) }
      return ["bytes": .counter(disk.byteCount)]
    case .link(let device, let isUp):
      try network(named: device).setLink(up: isUp)
      return ["up": .boolean(isUp)]
    case .mac(let device, let address):
      do { try network(named: device).setAddress(address) } catch let error as ControlError { throw error } catch {
        throw ControlError("mac: \(error)")
      }
      return .object([])
    case .inject(let device, let fault):
      try inject(fault, into: device)
      return .object([])
    case .stop(let force):
      resume()
      if force {
        machine.log.notice("ended on request")
        machine.end(.ended(.success))
      } else {
        machine.requestStop()
      }
      return ["state": "stopping"]
    }
  }

  // MARK: Pausing

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

  // MARK: Devices

  private func attached(_ name: String) throws(ControlError) -> AttachedDevice {
    guard let device = machine.virtioDevices.first(where: { $0.slot.alias == name }) else {
      throw ControlError(
        "there is no device \"\(name)\"; there are: \(machine.virtioDevices.map(\.slot.alias).joined(separator: ", "))")
    }
    return device
  }

  private func disk(named name: String) throws(ControlError) -> BlockDevice {
    guard let disk = try attached(name).device as? BlockDevice else { throw ControlError("\(name) is not a disk") }
    return disk
  }

  private func network(named name: String) throws(ControlError) -> NetworkDevice {
    guard let device = try attached(name).device as? NetworkDevice else {
      throw ControlError("\(name) is not a network device")
    }
    return device
  }

  private func inject(_ fault: FaultInjection, into name: String) throws(ControlError) {
    let device = try attached(name)
    if let disk = device.device as? BlockDevice {
      let translated: BlockFault =
        switch fault {
        case .failNext(let count): .failNext(count)
        case .failSectors(let range): .failSectors(range)
        case .failRate(let rate): .failRate(rate)
        case .delay(let microseconds): .delay(nanoseconds: microseconds * 1000)
        case .needsReset: .needsReset
        case .spuriousInterrupt(let queue): .spuriousInterrupt(queue: queue)
        case .wedge(let queue): .wedge(queue: queue)
        case .off: .clear
        }
      disk.inject(translated)
      return
    }
    switch fault {
    case .needsReset: device.transport.context.needsReset("fault injected")
    case .spuriousInterrupt(let queue): device.transport.context.spuriousInterrupt(queue: queue)
    case .wedge(let queue): device.transport.context.wedge(queue: queue)
    case .off: device.transport.context.wedge(queue: nil)
    default: throw ControlError("\(name) is not a disk: it takes needs-reset, spurious-interrupt and wedge only")
    }
  }

  // MARK: Reports

  private var status: JSONValue {
    let configuration = machine.configuration
    var members: [JSONValue.Member] = [
      .init(
        "state",
        .string(
          machine.isEnding || machine.termination?.stop.isAsked == true ? "stopping" : isPaused ? "paused" : "running")),
      .init("name", .string(configuration.name)), .init("pid", .integer(Int64(getpid()))),
      .init("uptime_ns", .counter(monotonicNanoseconds() - machine.start)),
      .init("cpus", .integer(Int64(configuration.cpus))), .init("memory_bytes", .counter(configuration.memory)),
      .init(
        "boot_ns",
        .object(
          BootMarks.stages.compactMap { stage in
            machine.bootMarks.time(of: stage).map { .init(String(stage), .counter($0)) }
          })),
      .init("serial", .string(configuration.serial.description)),
    ]
    if let path = machine.serialBackend?.terminalPath { members.append(.init("serial_path", .string(path))) }
    members.append(.init("debugger", .boolean(machine.debugPort.wantsTraps)))
    members.append(.init("devices", .array(machine.virtioDevices.map(describe))))
    return .object(members)
  }

  private func describe(_ device: AttachedDevice) -> JSONValue {
    var members: [JSONValue.Member] = [.init("name", .string(device.slot.alias))]
    switch device.device {
    case let disk as BlockDevice:
      members += [.init("type", "block"), .init("bytes", .counter(disk.byteCount))]
    case let network as NetworkDevice:
      members += [.init("type", "net"), .init("up", .boolean(network.isLinkUp))]
    default: members.append(.init("type", "entropy"))
    }
    members += [
      .init("gsi", .integer(Int64(device.slot.gsi))),
      .init("queues", .integer(Int64(device.device.queueSizes.count))),
      // Register Status at 0x70 (virtio 1.2 §4.2.2).
      .init("status", .counter(device.transport.read(offset: 0x70, size: 4))),
    ]
    return .object(members)
  }

  private var statistics: JSONValue {
    let serial = machine.serial.counters
    return [
      "time_ns": .counter(monotonicNanoseconds()),
      "cpus": .array(
        machine.processors.map { processor in
          let exits = ExitKind.allCases.map {
            JSONValue.Member($0.name, .counter(processor.statistics.value(of: $0)))
          }
          return ["exits": .object(exits)]
        }),
      "serial": [
        "sent": .counter(serial.sent), "dropped": .counter(serial.dropped), "received": .counter(serial.received),
        "interrupts": .counter(serial.interrupts),
      ],
      "devices": .array(
        machine.virtioDevices.map { device in
          [
            "name": .string(device.slot.alias),
            "queues": .array(device.transport.statistics().map(describe)),
          ]
        }),
    ]
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
