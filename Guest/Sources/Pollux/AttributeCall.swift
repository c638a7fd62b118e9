// Attributes of a driver's devices: what the words of a call by thread migration to a driver container mean.

/// Word 0 of the call. Two pages are granted, writable: the path, ended by a zero byte, lies at the beginning of the first, the value fills the
/// second. The reply's word 0 is the value's length, or a negative error number of Linux.
public enum AttributeCall: UInt64, Sendable {
  /// The path of the attribute whose number is word 1, as a value; error 2 (no such entry) behind the last.
  case name = 0
  case read = 1
  /// Word 1 is the new value's length.
  case write = 2

  public static let pages: UInt64 = 2
  /// Bytes of a path with the zero byte at its end, at most.
  public static let longestPath = 256
  /// No such call, or not the pages that it needs.
  public static let malformed: Int64 = -22
  /// The device does not answer at the moment.
  public static let timedOut: Int64 = -110
}

/// A client's way to the attributes of a driver.
public struct DeviceAttributes {
  private let connection: Connection
  private let memory: MemoryObject
  private let mapping: Mapping

  /// Those of the service's driver, or of its container where it has a twin. A driver that has just been started is waited for a moment;
  /// `notFound`: it has none.
  public init(of service: Bytes) throws(SystemError) {
    connection = try Self.connect(to: service)
    memory = try MemoryObject.create(AttributeCall.pages * AddressSpace.pageSize)
    mapping = try memory.map([.read, .write])
  }

  /// A connection for calls of `AttributeCall`, as `init` makes it.
  public static func connect(to service: Bytes) throws(SystemError) -> Connection {
    var container = Text()
    container.add(service)
    container.add(".container")
    for _ in 0..<20 {
      do throws(SystemError) { return try Connection.open(service) } catch {
        let opened = container.bytes.withUnsafeBytes { name in
          name.baseAddress.flatMap { try? Connection.open(Bytes(unsafeBase: $0, count: name.count)) }
        }
        if let opened { return opened }
        guard error == .notFound else { throw error }
      }
      Clock.sleep(microseconds: 50_000)
    }
    throw .notFound
  }

  private func call(_ call: AttributeCall, _ number: UInt64) throws(SystemError) -> Int64 {
    var message = Message(call.rawValue, number)
    message.grant(Grant(address: mapping.address, pages: AttributeCall.pages, writable: true))
    try connection.call(&message)
    return Int64(bitPattern: message[0])
  }

  private var value: UnsafeMutableRawPointer { mapping.base + Int(AddressSpace.pageSize) }

  private func text(_ length: Int64) -> Bytes? {
    guard length >= 0, length <= Int64(AddressSpace.pageSize) else { return nil }
    // Mapped as long as this value lives, and as long as that.
    return Bytes(unsafeBase: UnsafeRawPointer(value), count: Int(length))
  }

  private func put(path: Bytes) throws(SystemError) {
    guard path.count < AttributeCall.longestPath else { throw .badArgument }
    mapping.base.copyMemory(from: path.unsafeBase, byteCount: path.count)
    mapping.base.storeBytes(of: 0, toByteOffset: path.count, as: UInt8.self)
  }

  /// The path of an attribute; nil: there are no more. Valid until the next call.
  public func path(at index: Int) throws(SystemError) -> Bytes? { text(try call(.name, UInt64(index))) }

  /// The value, valid until the next call, or a negative error number.
  public func read(_ path: Bytes) throws(SystemError) -> (value: Bytes?, error: Int64) {
    try put(path: path)
    let length = try call(.read, 0)
    return (text(length), min(length, 0))
  }

  /// 0, or a negative error number.
  public func write(_ path: Bytes, _ new: Bytes) throws(SystemError) -> Int64 {
    try put(path: path)
    guard new.count <= AddressSpace.pageSize else { throw .badArgument }
    value.copyMemory(from: new.unsafeBase, byteCount: new.count)
    return min(try call(.write, UInt64(new.count)), 0)
  }

  public func close() {
    mapping.unmap()
    memory.handle.close()
    connection.handle.close()
  }
}
