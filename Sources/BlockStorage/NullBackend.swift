// A disk that does nothing, at once: what is left of a request's time is the cost of virtio and of the guest.

/// Completes every request at once without touching its data: reads leave the guest's buffers as they are.
public final class NullBackend: BlockBackend, @unchecked Sendable {
  // @unchecked: used by one thread at a time, as the protocol says.
  public private(set) var geometry: BlockGeometry
  public let queueDepth = 1024
  public let completionDescriptor: CInt? = nil
  private var completions: [BlockCompletion] = []

  public init(byteCount: UInt64) { geometry = BlockGeometry(byteCount: byteCount / 512 * 512) }

  public func submit(_ request: BlockRequest) { completions.append(BlockCompletion(tag: request.tag)) }
  public func commit() {}
  public func reap(into target: inout [BlockCompletion]) {
    guard !completions.isEmpty else { return }
    target += completions
    completions.removeAll(keepingCapacity: true)
  }
  public func wait() {}
  public func acknowledge() {}
  public func resize(to byteCount: UInt64) throws(BlockStorageError) { geometry.byteCount = byteCount / 512 * 512 }
}
