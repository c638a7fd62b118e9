// What a block device needs from the place where its data is kept.

import Glibc
import SystemPackage

/// What a request does.
public enum BlockOperation: UInt8, Sendable, CaseIterable {
  case read, write
  /// Everything that was completed before is on stable storage afterwards.
  case flush
  /// The range's contents are no longer needed.
  case discard
  /// The range reads as zeroes afterwards.
  case writeZeroes
}

/// One request. The memory behind `segments`, and the segment array itself, must stay valid and at their place until the
/// request's completion was reaped.
public struct BlockRequest: @unchecked Sendable {
  // @unchecked: the segments are handed over with the request, to whatever thread serves it.
  public var operation: BlockOperation
  /// Start in bytes.
  public var offset: UInt64 = 0
  /// Length in bytes; for reads and writes the sum of the segments.
  public var count: UInt64 = 0
  /// Host memory that a read fills or a write takes its data from.
  public var segments = UnsafeMutableBufferPointer<iovec>(start: nil, count: 0)
  /// The data must be on stable storage at completion (write-through).
  public var durable = false
  /// A write of zeroes may free the range.
  public var mayUnmap = false
  /// Comes back in the completion.
  public var tag: Int

  public init(_ operation: BlockOperation, tag: Int) {
    self.operation = operation
    self.tag = tag
  }
}

/// A finished request.
public struct BlockCompletion: Equatable, Sendable {
  public var tag: Int
  /// Nil when the request was done in full.
  public var error: Errno?
  public init(tag: Int, error: Errno? = nil) {
    self.tag = tag
    self.error = error
  }
}

/// What a back end says about itself.
public struct BlockGeometry: Equatable, Sendable {
  /// Capacity in bytes, a multiple of 512.
  public var byteCount: UInt64
  public var isReadOnly = false
  /// Bytes of the unit that the medium writes at once.
  public var physicalBlockSize: UInt32 = 512
  /// Bytes of the smallest range whose discard frees anything.
  public var discardGranularity: UInt32 = 512
  public init(byteCount: UInt64) { self.byteCount = byteCount }
}

/// Why storage could not be opened or changed.
public enum BlockStorageError: Error, Equatable, CustomStringConvertible {
  case cannotOpen(path: String, Errno)
  case notAFile(path: String)
  case inUse(path: String)
  case tooSmall(path: String, byteCount: UInt64)
  case cannotResize(String, Errno)
  case noRing(Errno)
  case noMemory(byteCount: UInt64)

  public var description: String {
    switch self {
    case .cannotOpen(let path, let error): "cannot open disk \(path): \(error)"
    case .notAFile(let path): "disk \(path) is neither a file nor a block device"
    case .inUse(let path): "disk \(path) is in use by another process"
    case .tooSmall(let path, let count): "disk \(path) has \(count) bytes, less than one sector of 512"
    case .cannotResize(let what, let error): "cannot resize \(what): \(error)"
    case .noRing(let error): "cannot set up io_uring: \(error)"
    case .noMemory(let count): "no memory for a disk of \(count) bytes"
    }
  }
}

/// Where a block device's data is kept. All functions belong to one thread, the device's.
///
/// A request may complete at any time after `submit`, and is found by `reap`; requests that are in flight together are
/// not ordered.
public protocol BlockBackend: AnyObject, Sendable {
  var geometry: BlockGeometry { get }
  /// Requests that may be in flight at the same time.
  var queueDepth: Int { get }
  /// Readable (poll) when completions may be there to reap, until `acknowledge`; nil when `commit` completes everything.
  var completionDescriptor: CInt? { get }
  /// Makes `completionDescriptor` unreadable until there are more completions. Reap afterwards.
  func acknowledge()
  /// Takes a request. The caller keeps no more than `queueDepth` in flight and the range inside the capacity.
  func submit(_ request: BlockRequest)
  /// Hands everything submitted to the host.
  func commit()
  /// Appends what has completed since.
  func reap(into completions: inout [BlockCompletion])
  /// Waits until there is something to reap. The caller makes sure that something is in flight.
  func wait()
  /// Changes the capacity.
  func resize(to byteCount: UInt64) throws(BlockStorageError)
}
