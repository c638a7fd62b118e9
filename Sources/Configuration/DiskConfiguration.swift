// One virtio block device: what holds its data and how the guest sees it.

/// When the back end opens its file with O_DIRECT.
public enum DirectMode: String, CaseIterable, Sendable {
  /// Where the file system allows it.
  case auto
  /// Always; an error where the file system does not allow it.
  case on
  /// Never: through the host's page cache.
  case off
}

/// A virtio block device.
public struct DiskConfiguration: Equatable, Sendable {
  /// Where the data is.
  public enum Backend: Equatable, Sendable {
    /// A regular file or block device of the host.
    case file(path: String)
    /// Host memory of so many bytes, zero at the start, gone at the end.
    case memory(size: UInt64)
    /// Nowhere: requests complete at once, reads give zeros. Shows the cost of a request. Size in bytes.
    case null(size: UInt64)
  }

  /// The names of the fields, as in YAML and in `--disk`.
  public enum Name: String, CaseIterable, Sendable {
    case path, memory, null, size
    case readOnly = "read-only"
    case queues
    case queueSize = "queue-size"
    case direct
    case blockSize = "block-size"
    case serial, poll
  }

  public var backend: Backend
  /// Bytes; a file that does not exist is created with this size. Nil: the file must exist.
  public var size: UInt64?
  public var readOnly = false
  /// Request queues, 1–16 (virtio 1.2 §5.2.2).
  public var queues = 1
  /// Descriptors a queue, a power of two from 2 to 1024.
  public var queueSize = 256
  public var direct = DirectMode.auto
  /// Logical block size in bytes: 512 or 4096.
  public var logicalBlockSize = 512
  /// The device's identity string, at most 20 bytes (virtio 1.2 §5.2.6, VIRTIO_BLK_T_GET_ID).
  public var serial = ""
  /// How long at most the device's thread looks for requests and completions before it sleeps, in microseconds; less
  /// where they are rarer than that. 0: not at all. Nil: the machine's maker decides by how many processors the host has left.
  public var pollMicroseconds: Int?

  public init(backend: Backend) { self.backend = backend }

  /// Reads `path=/x,queues=4` or, short, `/x`.
  public init(list: String, key: String = "disk") throws(ConfigurationError) {
    try self.init(fields: FieldList.parse(list, key: key, shorthand: Name.path.rawValue), key: key)
  }

  /// Reads the fields of a list or of a YAML mapping. `key` names the disk in errors.
  public init(fields: [Field], key: String = "disk") throws(ConfigurationError) {
    var backends: [Backend] = []
    var disk = DiskConfiguration(backend: .null(size: 0))
    for (name, text) in try FieldList.resolve(fields, key: key, as: Name.self) {
      let full = "\(key).\(name.rawValue)"
      switch name {
      case .path: backends.append(.file(path: try Value.path(full, text)))
      case .memory: backends.append(.memory(size: try Value.size(full, text)))
      case .null: backends.append(.null(size: try Value.size(full, text)))
      case .size: disk.size = try Value.size(full, text)
      case .readOnly: disk.readOnly = try Value.flag(full, text)
      case .queues: disk.queues = try Value.number(full, text, in: 1...16)
      case .queueSize: disk.queueSize = try Self.queueSize(full, text)
      case .direct: disk.direct = try Value.choice(full, text)
      case .blockSize:
        disk.logicalBlockSize = try Value.number(full, text, in: 512...4096)
        guard disk.logicalBlockSize == 512 || disk.logicalBlockSize == 4096 else {
          throw ConfigurationError(key: full, value: text, expected: "must be 512 or 4096")
        }
      case .serial:
        guard text.utf8.count <= 20 else {
          throw ConfigurationError(key: full, value: text, expected: "has at most 20 bytes")
        }
        disk.serial = text
      case .poll: disk.pollMicroseconds = try Value.number(full, text, in: 0...1_000_000)
      }
    }
    guard backends.count == 1, let backend = backends.first else {
      throw ConfigurationError(
        key: key, value: FieldList.format(fields), expected: "needs exactly one of path, memory and null")
    }
    disk.backend = backend
    self = disk
  }

  static func queueSize(_ key: String, _ text: String) throws(ConfigurationError) -> Int {
    let size = try Value.number(key, text, in: 2...1024)
    guard size & (size - 1) == 0 else {
      throw ConfigurationError(key: key, value: text, expected: "must be a power of two from 2 to 1024")
    }
    return size
  }

  /// All fields; `init(fields:)` of them gives this value again.
  public var fields: [Field] {
    func field(_ name: Name, _ value: String) -> Field { Field(name.rawValue, value) }
    var fields: [Field] = []
    switch backend {
    case .file(let path): fields.append(field(.path, path))
    case .memory(let size): fields.append(field(.memory, "\(size)"))
    case .null(let size): fields.append(field(.null, "\(size)"))
    }
    if let size { fields.append(field(.size, "\(size)")) }
    fields.append(field(.readOnly, Value.word(readOnly)))
    fields.append(field(.queues, "\(queues)"))
    fields.append(field(.queueSize, "\(queueSize)"))
    fields.append(field(.direct, direct.rawValue))
    fields.append(field(.blockSize, "\(logicalBlockSize)"))
    fields.append(field(.serial, serial))
    if let pollMicroseconds { fields.append(field(.poll, "\(pollMicroseconds)")) }
    return fields
  }
}
