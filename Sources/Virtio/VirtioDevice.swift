// What a device type has to provide so that the transport can show it to a driver.

import Synchronization
import SystemPackage

/// Feature bits that belong to the ring and the transport, not to a device type (virtio 1.2 §6).
public enum TransportFeature {
  public static let indirectDescriptors: UInt64 = 1 << 28
  public static let eventIndex: UInt64 = 1 << 29
  public static let version1: UInt64 = 1 << 32
  public static let ringReset: UInt64 = 1 << 40
  /// All that the split-ring MMIO transport offers.
  public static let all = indirectDescriptors | eventIndex | version1 | ringReset
}

/// A device type's configuration space (§2.5): bytes that the device writes and the driver reads, with a generation
/// that changes whenever they do. Any thread.
public final class ConfigurationSpace: Sendable {
  private struct State {
    var bytes: [UInt8]
    var generation: UInt32 = 0
  }
  private let state: Mutex<State>

  public init(count: Int) { state = Mutex(State(bytes: [UInt8](repeating: 0, count: count))) }

  /// Changes with every update (§4.2.2, ConfigGeneration).
  public var generation: UInt32 { state.withLock { $0.generation } }

  /// A little-endian value of 1, 2, 4 or 8 bytes; bytes beyond the space read as zero.
  public func read(at offset: Int, size: Int) -> UInt64 {
    state.withLock { state in
      var value: UInt64 = 0
      for position in 0..<max(0, min(size, 8)) {
        let (index, overflow) = offset.addingReportingOverflow(position)
        if !overflow, state.bytes.indices.contains(index) {
          value |= UInt64(state.bytes[index]) << UInt64(8 * position)
        }
      }
      return value
    }
  }

  /// Stores values, little-endian, each at its offset, as one change.
  public func update(_ fields: [(offset: Int, value: any FixedWidthInteger & Sendable)]) {
    state.withLock { state in
      for (offset, value) in fields {
        let bits = UInt64(truncatingIfNeeded: value)
        for position in 0..<value.bitWidth / 8 where state.bytes.indices.contains(offset + position) {
          state.bytes[offset + position] = UInt8(truncatingIfNeeded: bits >> UInt64(8 * position))
        }
      }
      state.generation &+= 1
    }
  }
}

/// A virtio device type.
///
/// The functions below `attach` run on the device's thread (`DeviceContext`), one at a time; what stands above it may
/// be asked by any thread.
public protocol VirtioDevice: AnyObject, Sendable {
  /// Device ID of §5.
  var deviceID: UInt32 { get }
  /// For each queue the largest size the driver may choose.
  var queueSizes: [UInt16] { get }
  /// Which of them carry the device's commands instead of data.
  var controlQueues: Range<Int> { get }
  /// Feature bits of the device type that are offered.
  var features: UInt64 { get }
  var configuration: ConfigurationSpace { get }
  /// A driver's write to the configuration space, already checked to lie in it. On the vCPU's thread.
  func writeConfiguration(at offset: Int, size: Int, value: UInt64)

  /// Called once, before the device's thread runs; here the device adds its descriptors to the context's loop.
  func attach(to context: DeviceContext) throws(Errno)
  /// The driver has set DRIVER_OK with these features.
  func start(features: UInt64)
  /// Takes what the queue has available and starts or finishes it.
  /// - Returns: whether anything was taken.
  func serve(_ queue: VirtioQueue) throws(QueueError) -> Bool
  /// Finishes what has completed since.
  /// - Returns: whether anything was.
  func poll() throws(QueueError) -> Bool
  /// Whether doorbells of this queue are of use now.
  func wantsDoorbell(_ queue: VirtioQueue) -> Bool
  /// Waits until no request of this queue (nil: of any) touches guest memory any more, and pushes the results.
  func drain(_ queue: VirtioQueue?)
  /// The driver has reset the device; nothing is in flight.
  func stop()
}

extension VirtioDevice {
  public var controlQueues: Range<Int> { 0..<0 }
}
