// What the block server needs of whatever moves the data.

import BlockInterface
import Pollux

/// A client's data memory as a plane sees it.
public struct BlockRegion {
  /// Guest-physical address of the first byte.
  public let physical: UInt64
  /// Length in bytes.
  public let size: UInt64
  /// Guest-virtual address in this process, if the plane asked for it.
  public let base: UnsafeMutableRawPointer?
}

/// What became of a submission.
public enum PlaneSubmission {
  case accepted
  /// Accepted into this slot of a device queue that clients may watch, when completions up to `usedIndex` were taken.
  case acceptedInSlot(Int, usedIndex: UInt16)
  /// No room now; there will be after a completion.
  case full
  /// Over already, or refused.
  case finished(BlockStatus)
}

/// A finished request; `token` is what `submit` was given.
public struct PlaneCompletion {
  public let token: Int
  public let status: BlockStatus
  public init(token: Int, status: BlockStatus) {
    self.token = token
    self.status = status
  }
}

/// What happened to the device, as far as requests in flight are concerned.
public enum PlaneState {
  case working
  /// The device was set up anew: submit again what was in flight. Told once.
  case restarted
  /// It is gone for good.
  case lost
}

/// The part that moves data: the twin's, the solo driver's or the memory disk's.
public protocol BlockPlane: AnyObject {
  var geometry: BlockGeometry { get }
  var mode: BlockMode { get }
  /// Whether clients' regions are to be mapped into this process.
  var mapsRegions: Bool { get }
  /// How long to look for completions before going to sleep, in ticks; 0: never.
  var pollTicks: UInt64 { get }
  var inFlight: Int { get }
  var doorbells: UInt64 { get }
  var interrupts: UInt64 { get }
  var resets: UInt64 { get }
  /// Somebody wants the device quiet: nothing is asked of it until `takeState` says that it was set up anew.
  var isSuspended: Bool { get }

  func submit(_ request: BlockRequest, region: BlockRegion, token: Int) -> PlaneSubmission
  /// Lets the device see what was submitted.
  func kick()
  /// Whether `nextCompletion` would find something; cheap.
  var hasCompletions: Bool { get }
  func nextCompletion() -> PlaneCompletion?
  /// Asks for an interrupt after `count` more completions; true: there already.
  func armInterrupt(after count: Int) -> Bool
  func disarmInterrupt()
  /// Bits of the notification arrived.
  func handle(events: UInt64)
  /// The device does not answer: has it reset and set up anew. What came of it `takeState` tells.
  func reset()
  /// `hide` makes clients look at `completionMemory` no more for what is in flight. A plane that has such memory calls it before the
  /// device's rings may be set up anew, and afterwards still gives the completions that are in them: a client may have seen those.
  func beforeReset(_ hide: @escaping () -> Void)
  /// Takes what happened to the device since the last call.
  func takeState() -> PlaneState
  /// The device's used ring and status bytes, to be shown to clients read-only, and the size of the queue; nil where
  /// completions need the driver's own work.
  var completionMemory: (memory: MemoryObject, queueSize: Int)? { get }
}

extension BlockPlane {
  /// A twin waits in a call of its container, and a disk in memory is never suspended.
  public var isSuspended: Bool { false }
  public func beforeReset(_ hide: @escaping () -> Void) {}
}
