// What the control plane needs to know of a class of Linux's devices; block and network are two.

import BlockInterface
import CLinuxContainer
import DriverContract
import NetInterface
import Pollux

protocol LinuxDevice {
  associatedtype State: ContractState
  static var initialState: State { get }
  /// What `services` shows of the container beside a twin.
  static var remark: StaticString { get }
  /// Queues that the twin gets, the device's first ones.
  static var queueCount: Int { get }
  /// Takes the queues that the driver made into the state.
  static func note(_ queues: [container_queue], in state: inout State)
  /// Reads what the driver knows of its device. False: no driver has one.
  static func read(_ linux: Linux, into state: inout State) -> Bool
  /// Whether the twin has to know of the difference.
  static func differ(_ one: State, _ other: State) -> Bool
  /// The device's configuration has changed, and its driver has been told.
  static func configurationChanged(_ linux: Linux)
  static func perform(_ linux: Linux, _ command: UInt64, _ argument: UInt64) -> Bool
}

/// A disk.
enum LinuxDisk: LinuxDevice {
  /// Data segments a request that the twin has room for, and what it wants a request to carry at least, in bytes.
  private static let mostSegments: UInt64 = 32
  private static let wantedTransfer: UInt64 = 1 << 20

  static var initialState: DeviceState { DeviceState() }
  static var remark: StaticString { "control plane: Linux's virtio_blk" }
  static var queueCount: Int { 1 }

  static func note(_ queues: [container_queue], in state: inout DeviceState) {
    let queue = queues[0]
    let segmentSize = UInt64(queue.segment_size)
    let segments = min(UInt64(queue.segments), (wantedTransfer + segmentSize - 1) / segmentSize, mostSegments)
    state.queueSize = Int(queue.size)
    state.queueAddress = UInt64(queue.descriptors)
    state.completionAddress = UInt64(queue.used)
    state.dataSegments = Int(max(1, segments))
    state.segmentLimit = queue.segment_size
    state.features = UInt64(queue.features)
    state.geometry.maximumTransfer = segmentSize * UInt64(state.dataSegments)
  }

  static func read(_ linux: Linux, into state: inout DeviceState) -> Bool {
    let transfer = state.geometry.maximumTransfer
    guard linux.readGeometry(&state.geometry) else { return false }
    // What the twin's requests carry depends on the queue.
    if state.queueSize > 0 { state.geometry.maximumTransfer = transfer }
    return true
  }

  static func differ(_ one: DeviceState, _ other: DeviceState) -> Bool { one.geometry != other.geometry }
  static func configurationChanged(_ linux: Linux) {}
  static func perform(_ linux: Linux, _ command: UInt64, _ argument: UInt64) -> Bool { false }
}

/// A network interface.
enum LinuxInterface: LinuxDevice {
  static var initialState: NetState { NetState() }
  static var remark: StaticString { "control plane: Linux's virtio_net" }
  static var queueCount: Int { 2 }

  static func note(_ queues: [container_queue], in state: inout NetState) {
    for index in queues.indices {
      state.queues[index].size = Int(queues[index].size)
      state.queues[index].address = UInt64(queues[index].descriptors)
      state.queues[index].completionAddress = UInt64(queues[index].used)
    }
    state.features = UInt64(queues[0].features)
  }

  static func read(_ linux: Linux, into state: inout NetState) -> Bool {
    guard let link = linux.link else { return false }
    state.link = link
    return true
  }

  static func differ(_ one: NetState, _ other: NetState) -> Bool { one.link != other.link }
  static func configurationChanged(_ linux: Linux) { linux.followAddress() }

  static func perform(_ linux: Linux, _ command: UInt64, _ argument: UInt64) -> Bool {
    command == NetCommand.setAddress && linux.setAddress(argument)
  }
}
