// Modes twin and twin-poll with Linux's driver: the driver probes and configures the device, then the twin gets the rings that the driver made.
// The driver itself never submits a request.

import BlockInterface
import BlockServer
import CLinuxContainer
import Pollux

final class LinuxControl: ControlPlane {
  private let linux: Linux
  private let registers: VirtioRegisters
  private let messages: Handle?
  private let dataEvents: Notification?
  private var message: Interrupt?
  /// Has the modules loaded and the device probed.
  private let probe: () throws(LoadFailure) -> Void
  private var isProbed = false
  /// Not yet set up, or reset and not yet set up again.
  private var isDown = true

  private(set) var state = DeviceState()
  private(set) var queueMemory: MemoryObject?
  private(set) var completionMemory: MemoryObject?

  /// Data segments a request that the twin has room for, and what it wants a request to carry at least, in bytes.
  private static let mostSegments: UInt64 = 32
  private static let wantedTransfer: UInt64 = 1 << 20
  private static let pageSize = AddressSpace.pageSize

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

  var messageInterrupt: Handle? { message?.handle }

  /// Takes down what the driver has set up, for the twin.
  private func handOver() -> Bool {
    state.isLost = true
    guard let queue = linux.queue, linux.readGeometry(&state.geometry) else { return false }
    // A ring in which the driver has requests is the driver's.
    guard queue.submitted == 0, queue.available == queue.descriptors + UInt(queue.size) * 16 else { return false }
    do throws(SystemError) { try share(queue) } catch { return false }
    let segmentSize = UInt64(queue.segment_size)
    let segments = min(UInt64(queue.segments), (Self.wantedTransfer + segmentSize - 1) / segmentSize, Self.mostSegments)
    state.queueSize = Int(queue.size)
    state.dataSegments = Int(max(1, segments))
    state.segmentLimit = queue.segment_size
    state.features = UInt64(queue.features)
    state.geometry.maximumTransfer = segmentSize * UInt64(state.dataSegments)
    // Until now completions came by the line; the device forgets its message table at a reset.
    message?.handle.close()
    message = nil
    if let messages, let dataEvents {
      do throws(SystemError) {
        message = try Interrupt.message(
          table: messages, entry: 0, notification: dataEvents, bits: TwinEvent.device)
      } catch { return false }
    }
    state.isLost = false
    state.generation += 1
    return true
  }

  /// Makes objects of the pages with the rings: descriptor table and available ring in one, the used ring in another.
  private func share(_ queue: container_queue) throws(SystemError) {
    let ring = UInt64(queue.descriptors)
    let used = UInt64(queue.used)
    guard ring & (Self.pageSize - 1) == 0, used & (Self.pageSize - 1) == 0, used > ring else { throw .badArgument }
    if queueMemory != nil {
      // The driver's memory for rings is such that it gets the same again.
      guard ring == state.queueAddress, used == state.completionAddress else { throw .badAddress }
      return
    }
    let usedSize = (6 + UInt64(queue.size) * 8 + Self.pageSize - 1) & ~(Self.pageSize - 1)
    queueMemory = try linux.memory.slice(ring - linux.physical, used - ring)
    completionMemory = try linux.memory.slice(used - linux.physical, usedSize)
    state.queueAddress = ring
    state.completionAddress = used
  }

  func takeConfigurationInterrupt() -> Bool {
    guard isProbed else { return false }
    let before = state.geometry
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
    var geometry = before
    guard linux.readGeometry(&geometry) else { return false }
    geometry.maximumTransfer = before.maximumTransfer
    state.geometry = geometry
    return geometry != before
  }

  private func stopDevice() {
    isDown = true
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

  func stop() {
    guard isProbed else { return }
    stopDevice()
    LinuxContainerProgram.complain("the twin has ended; the device is stopped")
  }

  func signalTwin() { dataEvents?.signal(TwinEvent.control) }
}
