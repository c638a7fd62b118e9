// Devices as files: what stands behind a node of /dev.

/// What stands behind a device node that is open. Used by one thread at a time.
public protocol DeviceNode: AnyObject {
  /// Bytes read into the start of `area`; 0 at the end.
  func read(_ offset: UInt64, into area: ByteArea) throws(FileError) -> Int
  /// Bytes taken from the start of `area`.
  func write(_ offset: UInt64, from area: ByteArea) throws(FileError) -> Int
  /// What was written before is on stable storage when this returns.
  func flush() throws(FileError)
}

/// A device that is there.
public struct DeviceDescription {
  public var name: [UInt8]
  public var kind: FileKind
  /// Bytes, where it has an end.
  public var size: UInt64
  /// Differs from that of every other device, also of one of the same name that came before.
  public var serial: UInt64
  /// The service that drives it; empty for one of the file service's own.
  public var service: [UInt8]
  /// What its driver can be asked, by the source's own numbers.
  public var driverClass: UInt64
  /// The lower twelve bits of the mode.
  public var permissions: UInt16

  public init(
    name: [UInt8], kind: FileKind, size: UInt64 = 0, serial: UInt64, service: [UInt8] = [], driverClass: UInt64 = 0,
    permissions: UInt16 = 0o666
  ) {
    self.name = name
    self.kind = kind
    self.size = size
    self.serial = serial
    self.service = service
    self.driverClass = driverClass
    self.permissions = permissions
  }
}

/// Who knows which devices there are, and the way to them.
public protocol DeviceSource: AnyObject {
  /// The device at `index`; nil behind the last.
  func device(_ index: Int) throws(FileError) -> DeviceDescription?
  /// Opens a device that `device` has told of.
  func open(_ device: DeviceDescription) throws(FileError) -> any DeviceNode
}
