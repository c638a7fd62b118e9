// The block device as file systems see it: bytes at offsets, over a session with the block driver.

import BlockClient
import FileInterface
import Pollux

/// A disk behind a block service. One request is in flight at a time.
final class DiskStore: BlockStore {
  private let device: BlockDevice
  private let endpoint: Endpoint
  /// A request's end is not known, or the driver has gone: nothing more is sent.
  private var failure: FileError?
  private static let regionSize = 256 << 10
  /// The longest data of one request.
  private let largest: Int

  init(_ endpoint: Endpoint) throws(BlockClientError) {
    self.endpoint = endpoint
    device = try BlockDevice(endpoint, entries: 4, regionSize: UInt64(Self.regionSize))
    let limit = min(device.geometry.maximumTransfer, UInt64(Self.regionSize))
    largest = max(512, Int(limit) & ~511)
  }

  deinit {
    device.close()
    endpoint.handle.close()
  }

  var byteCount: UInt64 { device.geometry.sectors * 512 }
  var isReadOnly: Bool { device.geometry.isReadOnly }

  private func perform(_ operation: BlockOperation, _ offset: UInt64, _ length: Int) throws(FileError) {
    if let failure { throw failure }
    let status: BlockStatus
    do throws(BlockClientError) {
      try device.submit(
        BlockRequest(operation: operation, sector: offset / 512, offset: 0, length: UInt32(length), tag: 0))
      status = try result()
    } catch {
      var reason = FileError.inputOutput
      if case .kernel(.peerClosed) = error { reason = .deviceGone }
      failure = reason
      throw reason
    }
    switch status {
    case .success: return
    case .readOnly: throw .readOnly
    case .deviceLost: throw .deviceGone
    default: throw .inputOutput
    }
  }

  /// Waits for the end of the request in flight.
  private func result() throws(BlockClientError) -> BlockStatus {
    while true {
      if let result = try device.nextResult() { return result.status }
      do throws(BlockClientError) { try device.advance(waitFor: 1) } catch {
        // The caller's process has ended meanwhile; the request must be seen to its end all the same.
        guard case .kernel(.cancelled) = error else { throw error }
      }
    }
  }

  private func checkRange(_ offset: UInt64, _ area: ByteArea) throws(FileError) {
    guard offset % 512 == 0, area.count % 512 == 0, offset <= byteCount, UInt64(area.count) <= byteCount - offset
    else { throw .inputOutput }
  }

  func read(_ offset: UInt64, into area: ByteArea) throws(FileError) {
    try checkRange(offset, area)
    let region = ByteArea(unsafeBase: device.region, count: Self.regionSize)
    var done = 0
    while done < area.count {
      let length = min(area.count - done, largest)
      try perform(.read, offset + UInt64(done), length)
      area.copy(region.slice(0, length), at: done)
      done += length
    }
  }

  func write(_ offset: UInt64, from area: ByteArea) throws(FileError) {
    try checkRange(offset, area)
    let region = ByteArea(unsafeBase: device.region, count: Self.regionSize)
    var done = 0
    while done < area.count {
      let length = min(area.count - done, largest)
      region.copy(area.slice(done, length))
      try perform(.write, offset + UInt64(done), length)
      done += length
    }
  }

  func flush() throws(FileError) {
    guard device.geometry.canFlush else { return }
    try perform(.flush, 0, 0)
  }
}
