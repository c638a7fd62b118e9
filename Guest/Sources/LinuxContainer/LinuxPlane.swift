// Mode solo with Linux's driver: requests go through the container's block layer into virtio_blk's queue_rq, completions come back by
// its interrupt handler. The data is not copied: the driver gets its guest-physical address.

import BlockInterface
import BlockServer
import CLinuxContainer
import DriverContract
import Pollux

final class LinuxPlane: BlockPlane {
  private let linux: Linux
  private let registers: VirtioRegisters
  static let remark: StaticString = "solo: Linux's virtio_blk"
  private(set) var isSuspended = false
  private var news = PlaneState.working
  private var kicks = 0
  /// Taken from Linux's side to know whether there is one.
  private var ahead: PlaneCompletion?
  private(set) var inFlight = 0
  private(set) var doorbells: UInt64 = 0
  private var geometryNow = BlockGeometry(sectors: 0, blockSize: 512, maximumTransfer: 0)

  /// Nil: no driver brought a disk.
  init?(_ linux: Linux, _ registers: VirtioRegisters) {
    self.linux = linux
    self.registers = registers
    guard linux.readGeometry(&geometryNow) else { return nil }
  }

  var geometry: BlockGeometry { geometryNow }
  var mode: BlockMode { .solo }
  var mapsRegions: Bool { false }
  var pollTicks: UInt64 { 0 }
  var interrupts: UInt64 { linux.interrupts }
  private(set) var resets: UInt64 = 0

  func submit(_ request: BlockRequest, region: BlockRegion, token: Int) -> PlaneSubmission {
    if isSuspended { return .full }
    let operation: container_operation
    switch request.operation {
    case .read: operation = CONTAINER_READ
    case .write: operation = CONTAINER_WRITE
    case .flush: operation = CONTAINER_FLUSH
    case .discard: operation = CONTAINER_DISCARD
    case .writeZeroes: operation = CONTAINER_WRITE_ZEROES
    }
    // The server has checked that the request's data lies in the region.
    switch linux.submit(
      token, operation, sector: request.sector, physical: region.physical + request.offset, length: request.length)
    {
    case CONTAINER_ACCEPTED:
      inFlight += 1
      kicks += 1
      return .accepted
    case CONTAINER_FULL: return .full
    default: return .finished(.inputOutputError)
    }
  }

  func kick() {
    guard kicks > 0 else { return }
    kicks = 0
    doorbells += 1
    linux.commit()
  }

  var hasCompletions: Bool {
    if ahead == nil { ahead = take() }
    return ahead != nil
  }

  func nextCompletion() -> PlaneCompletion? {
    if let completion = ahead {
      ahead = nil
      return completion
    }
    return take()
  }

  private func take() -> PlaneCompletion? {
    guard let (token, status) = linux.nextCompletion() else { return nil }
    inFlight -= 1
    let result: BlockStatus =
      status == CONTAINER_SUCCESS ? .success : status == CONTAINER_UNSUPPORTED ? .unsupported : .inputOutputError
    return PlaneCompletion(token: token, status: result)
  }

  /// The driver keeps its interrupt armed itself.
  func armInterrupt(after count: Int) -> Bool { hasCompletions }
  func disarmInterrupt() {}

  func handle(events: UInt64) {
    if events & ContainerEvent.suspend != 0, !isSuspended { suspend() }
    if events & ContainerEvent.resume != 0, isSuspended { resume() }
    guard events & ContainerEvent.device != 0, !isSuspended else { return }
    linux.handleInterrupt()
    if registers.needsReset {
      LinuxContainerProgram.complain("the device asks for a reset")
      restart()
    }
    _ = linux.readGeometry(&geometryNow)
  }

  /// Linux's driver does not look at what the device asks for; suspending and resuming it is what resets the device.
  private func restart() {
    resets += 1
    forget()
    guard linux.suspend(), linux.resume() else {
      LinuxContainerProgram.complain("the device did not come back")
      news = .lost
      return
    }
    news = .restarted
  }

  func reset() { if !isSuspended { restart() } }

  private func suspend() {
    forget()
    isSuspended = true
    guard linux.suspend() else { return LinuxContainerProgram.complain("the driver does not let go of the device") }
    Program.remark(Bytes("suspended"))
  }

  /// What was in flight is submitted again.
  private func resume() {
    isSuspended = false
    resets += 1
    Program.remark(Bytes(Self.remark))
    news = linux.resume() ? .restarted : .lost
    _ = linux.readGeometry(&geometryNow)
  }

  private func forget() {
    inFlight = 0
    kicks = 0
    ahead = nil
  }

  func takeState() -> PlaneState {
    let taken = news
    if case .restarted = taken { news = .working }
    return taken
  }
  var completionMemory: (memory: MemoryObject, queueSize: Int)? { nil }
}
