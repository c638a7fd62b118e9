// A disk in a host file or on a host block device, through io_uring, past the page cache where the alignment allows.

import CLinux
import Glibc
import HostSystem
import SystemPackage

/// Keeps its data in a file.
///
/// Reads and writes whose range is aligned go by O_DIRECT, straight from and to the caller's memory, or through an
/// aligned bounce buffer when only the memory is not aligned; ranges that are not aligned go through the page cache,
/// which the host kernel keeps coherent with the direct path.
public final class FileBackend: BlockBackend, @unchecked Sendable {
  // @unchecked: used by one thread at a time, as the protocol says.

  /// What a request is doing at the moment.
  private enum Phase { case transfer, punchHole, zeroRange, transferZeroes, synchronize }

  /// A request in flight.
  private struct Flight {
    var request: BlockRequest
    var phase: Phase
    /// Bytes done, of `request.count`.
    var done: UInt64 = 0
    /// Bytes that the operation under way is to move.
    var underWay = 0
    var usesBounce = false
    /// Not direct although aligned, because the host refused.
    var forceBuffered = false
    /// Aligned buffer of `bounceSize` bytes, owned; nil as long as it is not needed.
    var bounce: UnsafeMutableRawPointer?
    /// What is left of the segments after a short transfer.
    var rest: [iovec] = []
  }

  public private(set) var geometry: BlockGeometry
  public let queueDepth = 256
  public var completionDescriptor: CInt? { completionEvent.fileDescriptor }
  /// Whether aligned requests bypass the page cache.
  public var isDirect: Bool { alignment > 0 }

  private static let bufferedFile: Int32 = 0
  private static let directFile: Int32 = 1
  private static let bounceSize = 1 << 20
  private static let maximumSegments = 1024

  private let path: String
  private let buffered: OwnedDescriptor
  private let direct: OwnedDescriptor?
  /// What O_DIRECT wants offsets, lengths and addresses to be multiples of; 0 without O_DIRECT.
  private let alignment: UInt64
  private let isBlockDevice: Bool
  private let ring: SubmissionRing
  private let completionEvent: EventDescriptor
  private var flights: [Flight?]
  private var free: [Int]
  private var finished: [BlockCompletion] = []
  /// At most one of the buffers that are not in use is kept.
  private var spareBounce: UnsafeMutableRawPointer?
  private var canPunch = true
  private var canZeroRange = true

  /// Opens a disk.
  /// - Parameters:
  ///   - direct: bypass the page cache if the file system can.
  ///   - lockPatienceMilliseconds: how long to wait for a file that another process has.
  public init(
    path: String, readOnly: Bool = false, direct wantsDirect: Bool = true, lockPatienceMilliseconds: Int = 1000
  ) throws(BlockStorageError) {
    self.path = path
    let flags = (readOnly ? O_RDONLY : O_RDWR) | O_CLOEXEC
    do throws(Errno) {
      buffered = try OwnedDescriptor { castor_open(path, flags | O_NONBLOCK, 0) }
    } catch {
      throw .cannotOpen(path: path, error)
    }
    var information = stat()
    guard fstat(buffered.rawValue, &information) == 0 else {
      throw .cannotOpen(path: path, Errno(rawValue: errno))
    }
    var byteCount: UInt64 = 0
    switch information.st_mode & S_IFMT {
    case S_IFREG:
      isBlockDevice = false
      byteCount = UInt64(max(0, information.st_size))
    case S_IFBLK:
      isBlockDevice = true
      byteCount = Self.blockDeviceSize(buffered.rawValue)
    default: throw .notAFile(path: path)
    }
    guard byteCount >= 512 else { throw .tooSmall(path: path, byteCount: byteCount) }
    // Two writers would corrupt each other's file systems; readers may share. The kernel keeps a ring's files, and with
    // them the lock, a moment longer than the process that had it, until its last I/O is over: wait for that.
    let lock = (readOnly ? LOCK_SH : LOCK_EX) | LOCK_NB
    var attempts = 1 + lockPatienceMilliseconds / 5
    while flock(buffered.rawValue, lock) != 0 {
      attempts -= 1
      guard attempts > 0 else { throw .inUse(path: path) }
      usleep(5000)
    }

    var descriptor: CInt = -1
    var found: UInt64 = 0
    if wantsDirect {
      // O_DIRECT, whose value the Swift importer does not see.
      descriptor = castor_open(path, flags | 0o40000, 0)
      if descriptor >= 0 { found = Self.directAlignment(descriptor) }
    }
    alignment = found
    direct = descriptor >= 0 ? OwnedDescriptor(owning: descriptor) : nil

    geometry = BlockGeometry(byteCount: byteCount / 512 * 512)
    geometry.isReadOnly = readOnly
    let blockSize = UInt32(clamping: information.st_blksize)
    geometry.physicalBlockSize = (512...65536).contains(blockSize) && blockSize.nonzeroBitCount == 1 ? blockSize : 4096
    geometry.discardGranularity = geometry.physicalBlockSize
    do throws(Errno) {
      completionEvent = try EventDescriptor()
      ring = try SubmissionRing(
        entries: queueDepth, files: [buffered.rawValue, found > 0 ? descriptor : buffered.rawValue],
        event: completionEvent.fileDescriptor)
    } catch {
      throw .noRing(error)
    }
    flights = Array(repeating: nil, count: queueDepth)
    free = Array((0..<queueDepth).reversed())
  }

  deinit {
    // The ring must not write into memory that is gone.
    while free.count < queueDepth {
      wait()
      var ignored: [BlockCompletion] = []
      reap(into: &ignored)
    }
    spareBounce?.deallocate()
  }

  private static func blockDeviceSize(_ descriptor: CInt) -> UInt64 {
    var count: UInt64 = 0
    let getSize: UInt = 0x8008_1272  // BLKGETSIZE64
    return castor_ioctl_pointer(descriptor, getSize, &count) == 0 ? count : 0
  }

  /// The smallest of the usual alignments with which a direct read succeeds; 0 when none does.
  private static func directAlignment(_ descriptor: CInt) -> UInt64 {
    let buffer = UnsafeMutableRawPointer.allocate(byteCount: 8192, alignment: 4096)
    defer { buffer.deallocate() }
    for candidate in [512, 4096] where pread(descriptor, buffer, candidate, 0) >= 0 {
      // The address as well: read to one that is aligned to no more than the candidate.
      if pread(descriptor, buffer + candidate % 4096, candidate, 0) >= 0 { return UInt64(candidate) }
    }
    return 0
  }

  // MARK: BlockBackend

  public func submit(_ request: BlockRequest) {
    guard let slot = free.popLast() else {
      finished.append(BlockCompletion(tag: request.tag, error: .resourceTemporarilyUnavailable))
      return
    }
    let phase: Phase =
      switch request.operation {
      case .read, .write: .transfer
      case .flush: .synchronize
      case .discard: .punchHole
      case .writeZeroes: request.mayUnmap && canPunch ? .punchHole : canZeroRange ? .zeroRange : .transferZeroes
      }
    flights[slot] = Flight(request: request, phase: phase)
    issue(slot)
  }

  public func commit() {
    guard needsSubmit else { return }
    needsSubmit = false
    ring.submit()
  }

  public func acknowledge() { completionEvent.drain() }

  public func wait() {
    guard finished.isEmpty else { return }
    ring.submitAndWait()
  }

  public func reap(into completions: inout [BlockCompletion]) {
    let reaped = ring.reap { data, result in advance(Int(data), result) }
    // What went on to its next step waits in the submission queue.
    if reaped > 0 { commit() }
    guard !finished.isEmpty else { return }
    completions += finished
    finished.removeAll(keepingCapacity: true)
  }
  private var needsSubmit = false

  public func resize(to byteCount: UInt64) throws(BlockStorageError) {
    if isBlockDevice {
      geometry.byteCount = min(byteCount, Self.blockDeviceSize(buffered.rawValue)) / 512 * 512
      return
    }
    guard let count = off_t(exactly: byteCount / 512 * 512), count >= 512 else {
      throw .cannotResize(path, .invalidArgument)
    }
    guard ftruncate(buffered.rawValue, count) == 0 else { throw .cannotResize(path, Errno(rawValue: errno)) }
    geometry.byteCount = UInt64(count)
  }

  // MARK: The steps of a request

  private func finish(_ slot: Int, _ error: Errno?) {
    guard let flight = flights[slot] else { return }
    if let bounce = flight.bounce {
      if spareBounce == nil { spareBounce = bounce } else { bounce.deallocate() }
    }
    flights[slot] = nil
    free.append(slot)
    finished.append(BlockCompletion(tag: flight.request.tag, error: error))
  }

  /// Prepares a flight's next step.
  private func issue(_ slot: Int) {
    guard var flight = flights[slot] else { return }
    let request = flight.request
    let offset = request.offset + flight.done
    let left = request.count - flight.done
    var file = Self.bufferedFile
    let operation: SubmissionRing.Operation
    switch flight.phase {
    case .synchronize: operation = .synchronizeData
    case .punchHole: operation = .punchHole(offset: offset, count: left)
    case .zeroRange: operation = .zeroRange(offset: offset, count: left)
    case .transfer, .transferZeroes:
      let rangeIsAligned = alignment > 0 && (offset | left) % alignment == 0 && !flight.forceBuffered
      file = rangeIsAligned ? Self.directFile : Self.bufferedFile
      var segments = request.segments
      if flight.phase == .transfer, flight.done > 0 {
        flight.rest = Self.rest(of: request.segments, after: flight.done)
        // The array stays at its place on the heap while the kernel reads it: `flights` keeps it, and it is not changed
        // before the completion.
        segments = flight.rest.withUnsafeMutableBufferPointer { $0 }
      }
      flight.usesBounce = flight.phase == .transferZeroes || rangeIsAligned && !Self.isAligned(segments, alignment)
      if flight.usesBounce {
        let count = Int(min(left, UInt64(Self.bounceSize)))
        let bounce = flight.bounce ?? takeBounce()
        flight.bounce = bounce
        flight.underWay = count
        if flight.phase == .transferZeroes {
          memset(bounce, 0, count)
        } else if request.operation == .write {
          Self.copy(request.segments, from: flight.done, count: count, bounce: bounce, toBounce: true)
        }
        operation =
          request.operation == .read
          ? .read(bounce, count: count, offset: offset)
          : .write(bounce, count: count, offset: offset, durable: request.durable)
      } else {
        flight.underWay = Int(left)
        operation = Self.transfer(request, segments, offset: offset)
      }
    }
    flights[slot] = flight
    // Never refused: a flight has one entry at most, and there are as many entries as flights.
    guard ring.prepare(operation, file: file, data: UInt64(slot)) else {
      return finish(slot, .resourceTemporarilyUnavailable)
    }
    needsSubmit = true
  }

  /// The host call for what is left of a read or write. One segment is cheaper as a plain call; more segments than one
  /// call takes become a short transfer, which is continued.
  private static func transfer(
    _ request: BlockRequest, _ segments: UnsafeMutableBufferPointer<iovec>, offset: UInt64
  ) -> SubmissionRing.Operation {
    let isRead = request.operation == .read
    if segments.count == 1, segments[0].iov_len <= Int(Int32.max) {
      return isRead
        ? .read(segments[0].iov_base, count: segments[0].iov_len, offset: offset)
        : .write(segments[0].iov_base, count: segments[0].iov_len, offset: offset, durable: request.durable)
    }
    let some = UnsafeMutableBufferPointer(rebasing: segments.prefix(maximumSegments))
    return isRead
      ? .readSegments(some, offset: offset) : .writeSegments(some, offset: offset, durable: request.durable)
  }

  /// Takes note of a step's result, and starts the next step or finishes the request.
  private func advance(_ slot: Int, _ result: Int32) {
    guard flights.indices.contains(slot), var flight = flights[slot] else { return }
    if result < 0 {
      let error = Errno(rawValue: -result)
      switch (flight.phase, error) {
      case (_, .interrupted), (_, .resourceTemporarilyUnavailable): break
      case (.transfer, .invalidArgument), (.transferZeroes, .invalidArgument):
        // Some file systems refuse direct access for reasons of their own.
        guard alignment > 0, !flight.forceBuffered else { return finish(slot, error) }
        flight.forceBuffered = true
      case (.punchHole, .notSupported), (.punchHole, .noFunction):
        canPunch = false
        // A discard is advice; zeroes are not.
        guard flight.request.operation == .writeZeroes else { return finish(slot, nil) }
        flight.phase = canZeroRange ? .zeroRange : .transferZeroes
      case (.zeroRange, .notSupported), (.zeroRange, .noFunction):
        canZeroRange = false
        flight.phase = .transferZeroes
      default: return finish(slot, error)
      }
      flights[slot] = flight
      return issue(slot)
    }
    switch flight.phase {
    case .synchronize: return finish(slot, nil)
    case .punchHole, .zeroRange:
      guard flight.request.durable else { return finish(slot, nil) }
      flight.phase = .synchronize
    case .transfer, .transferZeroes:
      let moved = min(Int(result), flight.underWay)
      // Nothing moved before the end: the file is shorter than the disk.
      guard moved > 0 || flight.request.count == flight.done else { return finish(slot, .ioError) }
      if flight.usesBounce, flight.request.operation == .read, let bounce = flight.bounce {
        Self.copy(flight.request.segments, from: flight.done, count: moved, bounce: bounce, toBounce: false)
      }
      flight.done += UInt64(moved)
      if flight.done == flight.request.count { return finish(slot, nil) }
    }
    flights[slot] = flight
    issue(slot)
  }

  // MARK: Segments

  private func takeBounce() -> UnsafeMutableRawPointer {
    if let spare = spareBounce {
      spareBounce = nil
      return spare
    }
    return .allocate(byteCount: Self.bounceSize, alignment: 4096)
  }

  private static func isAligned(_ segments: some Sequence<iovec>, _ alignment: UInt64) -> Bool {
    var bits: UInt = 0
    for segment in segments { bits |= UInt(bitPattern: segment.iov_base) | UInt(segment.iov_len) }
    return alignment > 0 && UInt64(bits) % alignment == 0
  }

  /// The segments without their first `count` bytes.
  private static func rest(of segments: UnsafeMutableBufferPointer<iovec>, after count: UInt64) -> [iovec] {
    var skip = Int(count)
    var result: [iovec] = []
    for segment in segments {
      if skip >= segment.iov_len {
        skip -= segment.iov_len
      } else {
        result.append(iovec(iov_base: segment.iov_base.map { $0 + skip }, iov_len: segment.iov_len - skip))
        skip = 0
      }
    }
    return result
  }

  /// Copies `count` bytes between the segments, from position `start` on, and a bounce buffer of that size.
  private static func copy(
    _ segments: UnsafeMutableBufferPointer<iovec>, from start: UInt64, count: Int, bounce: UnsafeMutableRawPointer,
    toBounce: Bool
  ) {
    var skip = Int(start)
    var position = 0
    for segment in segments where position < count {
      if skip >= segment.iov_len {
        skip -= segment.iov_len
        continue
      }
      let step = min(segment.iov_len - skip, count - position)
      // Safe: `step` stays inside the segment and, as position + step <= count, inside the bounce buffer.
      if let base = segment.iov_base {
        if toBounce {
          memcpy(bounce + position, base + skip, step)
        } else {
          memcpy(base + skip, bounce + position, step)
        }
      }
      position += step
      skip = 0
    }
  }
}
