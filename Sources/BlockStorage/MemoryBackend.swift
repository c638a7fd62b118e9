// A disk in host memory that is gone with the process.

import Glibc
import SystemPackage

/// Keeps its data in anonymous memory; pages never written, or discarded, take none.
public final class MemoryBackend: BlockBackend, @unchecked Sendable {
  // @unchecked: used by one thread at a time, as the protocol says.
  public private(set) var geometry: BlockGeometry
  public let queueDepth = 1024
  public let completionDescriptor: CInt? = nil
  private var completions: [BlockCompletion] = []
  private var bytes: UnsafeMutableRawPointer

  public init(byteCount: UInt64, readOnly: Bool = false) throws(BlockStorageError) {
    geometry = BlockGeometry(byteCount: byteCount / 512 * 512)
    geometry.isReadOnly = readOnly
    geometry.discardGranularity = 4096
    bytes = try Self.map(geometry.byteCount)
  }

  deinit { munmap(bytes, Int(geometry.byteCount)) }

  private static func map(_ byteCount: UInt64) throws(BlockStorageError) -> UnsafeMutableRawPointer {
    guard let count = Int(exactly: byteCount), count > 0,
      let area = mmap(nil, count, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0),
      area != MAP_FAILED
    else { throw .noMemory(byteCount: byteCount) }
    return area
  }

  public func submit(_ request: BlockRequest) {
    completions.append(BlockCompletion(tag: request.tag, error: perform(request)))
  }

  private func perform(_ request: BlockRequest) -> Errno? {
    guard request.count <= geometry.byteCount, request.offset <= geometry.byteCount - request.count else {
      return .invalidArgument
    }
    // Safe: offset + count lies inside the mapping, and the segments are never walked beyond `count`.
    var position = bytes + Int(request.offset)
    var left = Int(request.count)
    switch request.operation {
    case .flush: break
    case .read, .write:
      for segment in request.segments {
        let step = min(segment.iov_len, left)
        guard let base = segment.iov_base, step > 0 else { continue }
        if request.operation == .read { memcpy(base, position, step) } else { memcpy(position, base, step) }
        position += step
        left -= step
      }
    case .discard, .writeZeroes:
      // Whole pages are given back to the host, which makes them zero; the ends are cleared.
      let page = 4096
      let head = min(left, (page - Int(request.offset) % page) % page)
      memset(position, 0, head)
      let whole = (left - head) / page * page
      if whole > 0 { madvise(position + head, whole, CInt(MADV_DONTNEED)) }
      memset(position + head + whole, 0, left - head - whole)
    }
    return nil
  }

  public func commit() {}
  public func reap(into target: inout [BlockCompletion]) {
    guard !completions.isEmpty else { return }
    target += completions
    completions.removeAll(keepingCapacity: true)
  }
  public func wait() {}
  public func acknowledge() {}

  public func resize(to byteCount: UInt64) throws(BlockStorageError) {
    let newCount = byteCount / 512 * 512
    let area = try Self.map(newCount)
    memcpy(area, bytes, Int(min(newCount, geometry.byteCount)))
    munmap(bytes, Int(geometry.byteCount))
    bytes = area
    geometry.byteCount = newCount
  }
}
