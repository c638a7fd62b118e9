// What stands behind the nodes in /dev: the devices that drivers have announced to init, and two of the file service's own.

import BlockClient
import FileInterface
import Pollux

/// Asks init which devices there are, and opens them by their drivers' services.
final class MachineDevices: DeviceSource {
  /// The disk whose file system is mounted, and the name of its service.
  private let mounted: (store: DiskStore, service: [UInt8])?
  /// Numbers of this service's own devices; the registry counts upwards from 1.
  private static let (null, zero) = (UInt64.max, UInt64.max - 1)

  init(mounted: (store: DiskStore, service: [UInt8])?) { self.mounted = mounted }

  func device(_ index: Int) throws(FileError) -> DeviceDescription? {
    if index == 0 {
      return DeviceDescription(name: Bytes("null").array, kind: .characterDevice, serial: Self.null)
    }
    if index == 1 {
      return DeviceDescription(name: Bytes("zero").array, kind: .characterDevice, serial: Self.zero)
    }
    var message = Message(RegistryCall.device.rawValue, UInt64(index - 2))
    do throws(SystemError) { try Program.ask(&message) } catch {
      if error == .notFound { return nil }
      throw .inputOutput
    }
    let service = message.text(at: 5, words: 3)
    let driverClass = message[3] & 0xff
    let permissions: UInt16
    switch DeviceClass(rawValue: driverClass) {
    case .block: permissions = isMounted(service) ? 0o444 : 0o666
    case .console: permissions = 0o666
    case .entropy: permissions = 0o444
    case .network, nil: permissions = 0
    }
    return DeviceDescription(
      name: message.text(at: 1, words: 2),
      kind: driverClass == DeviceClass.block.rawValue ? .blockDevice : .characterDevice, size: message[4],
      serial: message[3] >> 8, service: service, driverClass: driverClass, permissions: permissions)
  }

  private func isMounted(_ service: [UInt8]) -> Bool { mounted.map { $0.service == service } ?? false }

  func open(_ device: DeviceDescription) throws(FileError) -> any DeviceNode {
    if device.serial == Self.null { return NullDevice(givesZeros: false) }
    if device.serial == Self.zero { return NullDevice(givesZeros: true) }
    switch DeviceClass(rawValue: device.driverClass) {
    case .console: return ConsoleDevice()
    case .entropy: return EntropyDevice(try connect(device))
    // Packets are no bytes of a file: an interface is used by its service.
    case .network, nil: throw .unsupported
    case .block: break
    }
    if let mounted, isMounted(device.service) { return DiskDevice(mounted.store, isMounted: true) }
    let endpoint = try connect(device)
    do throws(BlockClientError) { return DiskDevice(try DiskStore(endpoint), isMounted: false) } catch {
      endpoint.handle.close()
      throw .deviceGone
    }
  }

  /// The way to the device's driver.
  private func connect(_ device: DeviceDescription) throws(FileError) -> Endpoint {
    let name = ByteBlock(count: device.service.count)
    for index in device.service.indices { name.area.store(device.service[index], at: index) }
    do throws(SystemError) { return try Program.connect(name.area.bytes) } catch { throw .deviceGone }
  }
}

/// Takes everything; gives nothing, or zeros.
final class NullDevice: DeviceNode {
  private let givesZeros: Bool
  init(givesZeros: Bool) { self.givesZeros = givesZeros }
  func read(_ offset: UInt64, into area: ByteArea) throws(FileError) -> Int {
    guard givesZeros else { return 0 }
    area.fill()
    return area.count
  }
  func write(_ offset: UInt64, from area: ByteArea) throws(FileError) -> Int { area.count }
  func flush() throws(FileError) {}
}

/// The serial console's output. Its input belongs to the shell.
final class ConsoleDevice: DeviceNode {
  func read(_ offset: UInt64, into area: ByteArea) throws(FileError) -> Int { throw .unsupported }
  func write(_ offset: UInt64, from area: ByteArea) throws(FileError) -> Int {
    // The server is one monitor: nobody may hold it longer than a page takes.
    let count = min(area.count, 4096)
    Console.write(UnsafeRawBufferPointer(start: area.unsafeBase, count: count))
    return count
  }
  func flush() throws(FileError) {}
}

/// Random bytes, by the driver of an entropy device.
final class EntropyDevice: DeviceNode {
  private let endpoint: Endpoint
  /// The server is one monitor: a longer read gets less than it asked for.
  private static let largestRead = 16 * EntropyCall.largest

  init(_ endpoint: Endpoint) { self.endpoint = endpoint }
  deinit { endpoint.handle.close() }

  func read(_ offset: UInt64, into area: ByteArea) throws(FileError) -> Int {
    let wanted = min(area.count, Self.largestRead)
    var done = 0
    while done < wanted {
      let part = min(wanted - done, EntropyCall.largest)
      var message = Message(EntropyCall.read.rawValue, UInt64(part))
      do throws(SystemError) { try endpoint.call(&message) } catch {
        if done > 0 { break }
        throw error == .cancelled ? .inputOutput : .deviceGone
      }
      let count = Int(min(message[1], UInt64(part)))
      guard message[0] == EntropyReply.done.rawValue, count > 0 else {
        if done > 0 { break }
        throw .inputOutput
      }
      for index in 0..<count {
        area.store(UInt8(truncatingIfNeeded: message[2 + index / 8] >> UInt64(index % 8 * 8)), at: done + index)
      }
      done += count
    }
    return done
  }

  func write(_ offset: UInt64, from area: ByteArea) throws(FileError) -> Int { throw .unsupported }
  func flush() throws(FileError) {}
}

/// A disk's bytes. Those of the mounted disk can be read only: what its file system holds in memory would not know of a write.
final class DiskDevice: DeviceNode {
  private let store: DiskStore
  private let isMounted: Bool
  private var isChanged = false
  private let sectors = ByteBlock(count: 4096)

  init(_ store: DiskStore, isMounted: Bool) {
    self.store = store
    self.isMounted = isMounted
  }

  /// Calls `body` with whole sectors for each part of `count` bytes at `offset`: where they begin on the disk, their memory, and which
  /// bytes of them belong to the part that starts at the last number.
  private func eachPart(
    _ offset: UInt64, _ count: Int, _ body: (UInt64, ByteArea, Range<Int>, Int) throws(FileError) -> Void
  ) throws(FileError) -> Int {
    guard offset < store.byteCount else { return 0 }
    let total = Int(min(UInt64(count), store.byteCount - offset))
    var done = 0
    while done < total {
      let position = offset + UInt64(done)
      let start = position & ~511
      let within = Int(position - start)
      let part = min(sectors.area.count - within, total - done)
      try body(start, sectors.area.slice(0, (within + part + 511) & ~511), within..<within + part, done)
      done += part
    }
    return total
  }

  func read(_ offset: UInt64, into area: ByteArea) throws(FileError) -> Int {
    try eachPart(offset, area.count) { start, sectors, bytes, done throws(FileError) in
      try store.read(start, into: sectors)
      area.copy(sectors.slice(bytes.lowerBound, bytes.count), at: done)
    }
  }

  func write(_ offset: UInt64, from area: ByteArea) throws(FileError) -> Int {
    guard !isMounted, !store.isReadOnly else { throw .readOnly }
    if area.count > 0, offset >= store.byteCount { throw .noSpace }
    isChanged = true
    return try eachPart(offset, area.count) { start, sectors, bytes, done throws(FileError) in
      if bytes.count < sectors.count { try store.read(start, into: sectors) }
      sectors.copy(area.slice(done, bytes.count), at: bytes.lowerBound)
      try store.write(start, from: sectors)
    }
  }

  func flush() throws(FileError) {
    guard isChanged else { return }
    try store.flush()
    isChanged = false
  }
}
