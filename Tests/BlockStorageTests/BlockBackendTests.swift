import BlockStorage
import Glibc
import SystemPackage
import Testing

/// A pseudo-random generator with a seed, so that a failing case can be run again.
struct SeededGenerator: RandomNumberGenerator {
  var state: UInt64
  mutating func next() -> UInt64 {
    state &+= 0x9e37_79b9_7f4a_7c15
    var z = state
    z = (z ^ (z >> 30)) &* 0xbf58_476d_1ce4_e5b9
    z = (z ^ (z >> 27)) &* 0x94d0_49bb_1331_11eb
    return z ^ (z >> 31)
  }
}

/// A file of a given size that is gone at the end of the test.
final class TemporaryFile {
  let path: String

  init(byteCount: Int, directory: String = "/var/tmp") throws {
    var template = Array("\(directory)/castor-test-XXXXXX".utf8CString)
    let descriptor = mkstemp(&template)
    try #require(descriptor >= 0)
    path = template.withUnsafeBufferPointer { String(cString: $0.baseAddress!) }
    ftruncate(descriptor, byteCount)
    close(descriptor)
  }

  deinit { unlink(path) }

  var bytes: [UInt8] {
    let descriptor = open(path, O_RDONLY)
    defer { close(descriptor) }
    var information = stat()
    fstat(descriptor, &information)
    var result = [UInt8](repeating: 0, count: Int(information.st_size))
    var done = 0
    while done < result.count {
      let count = result.withUnsafeMutableBytes { pread(descriptor, $0.baseAddress! + done, $0.count - done, done) }
      guard count > 0 else { break }
      done += count
    }
    return result
  }
}

/// Page-aligned memory for segments, and the segments.
final class Buffers {
  let memory: UnsafeMutableRawPointer
  let segments: UnsafeMutableBufferPointer<iovec>

  /// Segments of the given lengths, each `skew` bytes beyond a page boundary.
  init(lengths: [Int], skew: Int) {
    let stride = (lengths.max() ?? 0) + 8192 & ~4095
    memory = .allocate(byteCount: stride * lengths.count, alignment: 4096)
    segments = .allocate(capacity: lengths.count)
    for (index, length) in lengths.enumerated() {
      segments[index] = iovec(iov_base: memory + index * stride + skew, iov_len: length)
    }
  }
  deinit {
    memory.deallocate()
    segments.deallocate()
  }
  var contents: [UInt8] { segments.flatMap { UnsafeRawBufferPointer(start: $0.iov_base, count: $0.iov_len) } }
  func fill(_ bytes: [UInt8]) {
    var position = 0
    for segment in segments {
      bytes.withUnsafeBytes { _ = memcpy(segment.iov_base, $0.baseAddress! + position, segment.iov_len) }
      position += segment.iov_len
    }
  }
}

extension BlockBackend {
  /// Does one request and waits for it.
  func perform(
    _ operation: BlockOperation, offset: Int = 0, count: Int? = nil, buffers: Buffers? = nil, durable: Bool = false,
    mayUnmap: Bool = false
  ) -> Errno? {
    var request = BlockRequest(operation, tag: 77)
    request.offset = UInt64(bitPattern: Int64(offset))
    if let buffers { request.segments = buffers.segments }
    request.count = UInt64(count ?? buffers?.segments.reduce(0) { $0 + $1.iov_len } ?? 0)
    request.durable = durable
    request.mayUnmap = mayUnmap
    submit(request)
    commit()
    var completions: [BlockCompletion] = []
    while completions.isEmpty {
      wait()
      reap(into: &completions)
    }
    #expect(completions.map(\.tag) == [77])
    return completions[0].error
  }
}

@Suite struct BlockBackendTests {
  enum Kind: String, CaseIterable { case memory, direct, buffered, directOnTmpfs }

  /// Runs `body` with a back end of the kind.
  private func withBackend(_ kind: Kind, byteCount: Int, _ body: (any BlockBackend, TemporaryFile?) throws -> Void)
    throws
  {
    switch kind {
    case .memory: try body(MemoryBackend(byteCount: UInt64(byteCount)), nil)
    case .direct, .buffered:
      let file = try TemporaryFile(byteCount: byteCount)
      try body(FileBackend(path: file.path, direct: kind == .direct), file)
    case .directOnTmpfs:
      let file = try TemporaryFile(byteCount: byteCount, directory: "/dev/shm")
      try body(FileBackend(path: file.path, direct: true), file)
    }
  }

  @Test(arguments: Kind.allCases, [0, 8, 512])
  func randomRequestsAgreeWithAnArray(kind: Kind, skew: Int) throws {
    let byteCount = 4 << 20
    var random = SeededGenerator(state: UInt64(skew + 1))
    try withBackend(kind, byteCount: byteCount) { backend, file in
      #expect(backend.geometry.byteCount == UInt64(byteCount))
      var model = [UInt8](repeating: 0, count: byteCount)
      for round in 0..<60 {
        // Lengths up to 3 MiB, so that bounced requests take several steps.
        let large = random.next() % 16 == 0
        let lengths = (0..<1 + random.next() % 5).map { _ in 512 * (1 + Int(random.next() % (large ? 1200 : 24))) }
        let total = lengths.reduce(0, +)
        let offset = 512 * Int(random.next() % UInt64((byteCount - total) / 512 + 1))
        let range = offset..<offset + total
        let durable = random.next() % 8 == 0
        switch random.next() % 8 {
        case 0..<3:
          let buffers = Buffers(lengths: lengths, skew: skew)
          let seed = UInt8(truncatingIfNeeded: random.next())
          let bytes = (0..<total).map { UInt8(truncatingIfNeeded: $0 &* 31 &+ $0 >> 9) &+ seed }
          buffers.fill(bytes)
          #expect(backend.perform(.write, offset: offset, buffers: buffers, durable: durable) == nil)
          model.replaceSubrange(range, with: bytes)
        case 3..<6:
          let buffers = Buffers(lengths: lengths, skew: skew)
          #expect(backend.perform(.read, offset: offset, buffers: buffers) == nil)
          if buffers.contents != Array(model[range]) { Issue.record("round \(round): read \(range) differs") }
        case 6:
          let mayUnmap = random.next() % 2 == 0
          #expect(
            backend.perform(.writeZeroes, offset: offset, count: total, durable: durable, mayUnmap: mayUnmap) == nil)
          model.replaceSubrange(range, with: repeatElement(0, count: total))
        default:
          #expect(backend.perform(.flush) == nil)
        }
      }
      if let file, file.bytes != model { Issue.record("the file differs") }
    }
  }

  @Test(arguments: Kind.allCases) func discardedRangeReadsAsZeroes(kind: Kind) throws {
    // Not promised by virtio, but true of these back ends, and it shows that discard reaches the right range.
    try withBackend(kind, byteCount: 1 << 20) { backend, _ in
      let buffers = Buffers(lengths: [65536], skew: 0)
      buffers.fill([UInt8](repeating: 0xaa, count: 65536))
      #expect(backend.perform(.write, offset: 8192, buffers: buffers) == nil)
      #expect(backend.perform(.discard, offset: 16384, count: 8192) == nil)
      #expect(backend.perform(.read, offset: 8192, buffers: buffers) == nil)
      let contents = buffers.contents
      #expect(contents[..<8192].allSatisfy { $0 == 0xaa })
      #expect(contents[8192..<16384].allSatisfy { $0 == 0 })
      #expect(contents[16384...].allSatisfy { $0 == 0xaa })
    }
  }

  @Test func manySegmentsGoThroughInSteps() throws {
    let file = try TemporaryFile(byteCount: 1 << 20)
    let backend = try FileBackend(path: file.path)
    // More than one vectored call takes.
    let buffers = Buffers(lengths: Array(repeating: 512, count: 1500), skew: 0)
    let bytes = (0..<1500 * 512).map { UInt8(truncatingIfNeeded: $0 / 512) }
    buffers.fill(bytes)
    #expect(backend.perform(.write, buffers: buffers) == nil)
    #expect(Array(file.bytes[..<bytes.count]) == bytes)
    buffers.fill([UInt8](repeating: 0, count: bytes.count))
    #expect(backend.perform(.read, buffers: buffers) == nil)
    #expect(buffers.contents == bytes)
  }

  @Test func fullQueueCompletesEveryTagOnce() throws {
    let file = try TemporaryFile(byteCount: 4 << 20)
    let backend = try FileBackend(path: file.path)
    let buffers = Buffers(lengths: Array(repeating: 4096, count: backend.queueDepth), skew: 0)
    for tag in 0..<backend.queueDepth {
      var request = BlockRequest(tag % 3 == 0 ? .write : .read, tag: tag)
      request.offset = UInt64(tag * 4096)
      request.count = 4096
      request.segments = UnsafeMutableBufferPointer(rebasing: buffers.segments[tag...tag])
      backend.submit(request)
    }
    backend.commit()
    var completions: [BlockCompletion] = []
    while completions.count < backend.queueDepth {
      backend.wait()
      backend.reap(into: &completions)
    }
    #expect(completions.map(\.tag).sorted() == Array(0..<backend.queueDepth))
    #expect(completions.allSatisfy { $0.error == nil })
  }

  @Test(arguments: [true, false]) func fileThatBecameShorterGivesAnErrorForWhatIsGone(direct: Bool) throws {
    let file = try TemporaryFile(byteCount: 1 << 20)
    let backend = try FileBackend(path: file.path, direct: direct)
    truncate(file.path, 8192)
    let buffers = Buffers(lengths: [4096, 4096], skew: 0)
    #expect(backend.perform(.read, offset: 0, buffers: buffers) == nil)
    #expect(backend.perform(.read, offset: 4096, buffers: buffers) == .ioError)
    #expect(backend.perform(.read, offset: 65536, buffers: buffers) == .ioError)
  }

  @Test func writeToAFileOpenedReadOnlyFails() throws {
    let file = try TemporaryFile(byteCount: 1 << 20)
    let backend = try FileBackend(path: file.path, readOnly: true)
    #expect(backend.geometry.isReadOnly)
    let buffers = Buffers(lengths: [4096], skew: 0)
    #expect(backend.perform(.read, buffers: buffers) == nil)
    #expect(backend.perform(.write, buffers: buffers) == .badFileDescriptor)
  }

  @Test func characterDevicesAndDirectoriesAreNoDisks() throws {
    #expect(throws: BlockStorageError.notAFile(path: "/dev/full")) { try FileBackend(path: "/dev/full") }
    #expect(throws: BlockStorageError.notAFile(path: "/tmp")) { try FileBackend(path: "/tmp", readOnly: true) }
  }

  @Test func openingNamesTheCulprit() throws {
    #expect(throws: BlockStorageError.cannotOpen(path: "/nonexistent/disk", .noSuchFileOrDirectory)) {
      try FileBackend(path: "/nonexistent/disk")
    }
    let small = try TemporaryFile(byteCount: 511)
    #expect(throws: BlockStorageError.tooSmall(path: small.path, byteCount: 511)) { try FileBackend(path: small.path) }
    let file = try TemporaryFile(byteCount: 4096)
    let first = try FileBackend(path: file.path)
    #expect(throws: BlockStorageError.inUse(path: file.path)) {
      try FileBackend(path: file.path, lockPatienceMilliseconds: 20)
    }
    #expect(throws: BlockStorageError.inUse(path: file.path)) {
      try FileBackend(path: file.path, readOnly: true, lockPatienceMilliseconds: 0)
    }
    _ = first.geometry
  }

  @Test func readersShareAFile() throws {
    let file = try TemporaryFile(byteCount: 4096)
    let (first, second) = (
      try FileBackend(path: file.path, readOnly: true), try FileBackend(path: file.path, readOnly: true)
    )
    #expect(first.geometry == second.geometry)
  }

  @Test(arguments: Kind.allCases) func resizedBackendKeepsItsData(kind: Kind) throws {
    try withBackend(kind, byteCount: 1 << 20) { backend, _ in
      let buffers = Buffers(lengths: [4096], skew: 0)
      buffers.fill([UInt8](repeating: 0x5c, count: 4096))
      #expect(backend.perform(.write, offset: 65536, buffers: buffers) == nil)
      try backend.resize(to: 2 << 20 + 100)
      #expect(backend.geometry.byteCount == 2 << 20)
      #expect(backend.perform(.write, offset: (2 << 20) - 4096, buffers: buffers) == nil)
      buffers.fill([UInt8](repeating: 0, count: 4096))
      #expect(backend.perform(.read, offset: 65536, buffers: buffers) == nil)
      #expect(buffers.contents.allSatisfy { $0 == 0x5c })
    }
  }

  @Test func memoryBackendRefusesRangesBeyondItsEnd() throws {
    let backend = try MemoryBackend(byteCount: 8192)
    let buffers = Buffers(lengths: [4096], skew: 0)
    #expect(backend.perform(.read, offset: 4608, buffers: buffers) == .invalidArgument)
    #expect(backend.perform(.discard, offset: -512, count: 1024) == .invalidArgument)
  }
}
