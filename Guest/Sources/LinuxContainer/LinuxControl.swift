// Modes twin and twin-poll with Linux's driver: the driver probes and configures the device, then the twin gets the rings that the driver made.
// The driver itself never puts anything into them.

import CLinuxContainer
import DriverContract
import DriverControl
import Pollux

final class LinuxControl<Device: LinuxDevice>: ControlPlane {
  private let linux: Linux
  private let registers: VirtioRegisters
  private let messages: Handle?
  private let dataEvents: Notification?
  /// Has the modules loaded and the device probed.
  private let probe: () throws(LoadFailure) -> Void
  private var isProbed = false
  /// Not yet set up, or reset and not yet set up again.
  private var isDown = true

  private(set) var state = Device.initialState

  /// What is handed over of a queue.
  private struct Queue {
    let address: UInt64
    let completionAddress: UInt64
    let memory: MemoryObject
    let completions: MemoryObject
    var message: Interrupt?
  }
  private var queues: [Queue] = []

  private static var pageSize: UInt64 { AddressSpace.pageSize }

  /// `probe` is called when the twin wants the device for the first time.
  init(
    _ linux: Linux, _ registers: VirtioRegisters, _ start: StartBlock, probe: @escaping () throws(LoadFailure) -> Void
  ) {
    self.linux = linux
    self.registers = registers
    self.probe = probe
    messages = start.handle("messages").map { Handle($0) }
    dataEvents = start.handle("data-events").map { Notification(Handle($0)) }
    // Another container's generations are others.
    state.generation = Clock.now
  }

  func queueMemory(_ queue: Int) -> MemoryObject? { queues.indices.contains(queue) ? queues[queue].memory : nil }
  func completionMemory(_ queue: Int) -> MemoryObject? {
    queues.indices.contains(queue) ? queues[queue].completions : nil
  }
  func messageInterrupt(_ queue: Int) -> Handle? {
    queues.indices.contains(queue) ? queues[queue].message?.handle : nil
  }

  /// Takes down what the driver has set up, for the twin.
  private func handOver() -> Bool {
    state.isLost = true
    var found: [container_queue] = []
    for index in 0..<Device.queueCount {
      guard let queue = linux.queue(index) else { return false }
      // A ring in which the driver has requests is the driver's.
      guard queue.submitted == 0, queue.available == queue.descriptors + UInt(queue.size) * 16 else { return false }
      do throws(SystemError) { try share(queue, index) } catch { return false }
      found.append(queue)
    }
    guard Device.read(linux, into: &state) else { return false }
    Device.note(found, in: &state)
    // Until now completions came by the line; the device forgets its message table at a reset.
    for index in queues.indices {
      queues[index].message?.handle.close()
      queues[index].message = nil
      guard let messages, let dataEvents else { continue }
      do throws(SystemError) {
        queues[index].message = try Interrupt.message(
          table: messages, entry: UInt32(index), notification: dataEvents,
          bits: index == 0 ? TwinEvent.device : TwinEvent.secondQueue)
      } catch { return false }
    }
    state.isLost = false
    state.generation += 1
    linux.handOver(true)
    return true
  }

  /// Makes objects of the pages with the rings: descriptor table and available ring in one, the used ring in another.
  private func share(_ queue: container_queue, _ index: Int) throws(SystemError) {
    let ring = UInt64(queue.descriptors)
    let used = UInt64(queue.used)
    guard ring & (Self.pageSize - 1) == 0, used & (Self.pageSize - 1) == 0, used > ring else { throw .badArgument }
    if queues.indices.contains(index) {
      // The driver's memory for rings is such that it gets the same again.
      guard ring == queues[index].address, used == queues[index].completionAddress else { throw .badAddress }
      return
    }
    let usedSize = (6 + UInt64(queue.size) * 8 + Self.pageSize - 1) & ~(Self.pageSize - 1)
    queues.append(
      Queue(
        address: ring, completionAddress: used, memory: try linux.memory.slice(ring - linux.physical, used - ring),
        completions: try linux.memory.slice(used - linux.physical, usedSize)))
  }

  func takeConfigurationInterrupt() -> Bool {
    guard isProbed else { return false }
    let before = state
    if messages != nil {
      linux.handleInterrupt()
    } else {
      // The twin shares the line and has acknowledged the reason already, so the driver's handler would find none.
      linux.configurationChanged()
    }
    if registers.needsReset {
      LinuxContainerProgram.complain("the device asks for a reset")
      // Quiet from here on; set up again when the twin calls, so that it touches no ring meanwhile.
      stopDevice()
      return true
    }
    Device.configurationChanged(linux)
    return Device.read(linux, into: &state) && Device.differ(before, state)
  }

  private func stopDevice() {
    isDown = true
    linux.handOver(false)
    if !linux.suspend() { LinuxContainerProgram.complain("the driver does not let go of the device") }
  }

  func bringUpIfDown() { if isDown { _ = comeBack() } }

  func bringUp() -> Bool {
    if !isDown { stopDevice() }
    return comeBack()
  }

  private func comeBack() -> Bool {
    isDown = false
    if isProbed {
      if linux.resume(), handOver() { return true }
    } else {
      do throws(LoadFailure) { try probe() } catch {
        LinuxContainerProgram.report(error)
        return false
      }
      isProbed = true
      if handOver() { return true }
    }
    state.isLost = true
    LinuxContainerProgram.complain("the device did not come back")
    return false
  }

  func suspend() { if isProbed, !isDown { stopDevice() } }
  var remark: StaticString { Device.remark }

  func stop() {
    guard isProbed, !isDown else { return }
    stopDevice()
    LinuxContainerProgram.complain("the twin has ended; the device is stopped")
  }

  func signalTwin() { dataEvents?.signal(TwinEvent.control) }

  func perform(_ command: UInt64, _ argument: UInt64) -> Bool {
    guard isProbed, !state.isLost, Device.perform(linux, command, argument) else { return false }
    return Device.read(linux, into: &state)
  }
}
