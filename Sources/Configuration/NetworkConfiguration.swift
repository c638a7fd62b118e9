// One virtio network interface: what it is connected to on the host.

/// A virtio network interface.
public struct NetworkConfiguration: Equatable, Sendable {
  /// The host side.
  public enum Backend: Equatable, Sendable {
    /// A TAP interface of the host by name; made when it does not exist and the process may.
    case tap(name: String)
    /// A Unix socket to which another machine's `connect` comes.
    case listen(path: String)
    /// A Unix socket on which another machine's `listen` waits.
    case connect(path: String)
  }

  /// The names of the fields, as in YAML and in `--net`.
  public enum Name: String, CaseIterable, Sendable {
    case tap, listen, connect, mac
    case queueSize = "queue-size"
  }

  public var backend: Backend
  /// Nil: derived from the machine's name and the interface's index when the configuration is resolved.
  public var mac: MACAddress?
  /// Descriptors a queue, a power of two from 2 to 1024.
  public var queueSize = 256

  public init(backend: Backend) { self.backend = backend }

  /// Reads `tap=tap0,mac=52:54:00:12:34:56` or, short, `tap0`.
  public init(list: String, key: String = "net") throws(ConfigurationError) {
    try self.init(fields: FieldList.parse(list, key: key, shorthand: Name.tap.rawValue), key: key)
  }

  /// Reads the fields of a list or of a YAML mapping. `key` names the interface in errors.
  public init(fields: [Field], key: String = "net") throws(ConfigurationError) {
    var backends: [Backend] = []
    var net = NetworkConfiguration(backend: .tap(name: ""))
    for (name, text) in try FieldList.resolve(fields, key: key, as: Name.self) {
      let full = "\(key).\(name.rawValue)"
      switch name {
      case .tap:
        guard (1...15).contains(text.utf8.count), !text.contains("/"), !text.contains(" ") else {
          throw ConfigurationError(key: full, value: text, expected: "an interface's name has 1 to 15 bytes")
        }
        backends.append(.tap(name: text))
      case .listen: backends.append(.listen(path: try Value.socketPath(full, text)))
      case .connect: backends.append(.connect(path: try Value.socketPath(full, text)))
      case .mac:
        guard let mac = MACAddress(text) else {
          throw ConfigurationError(
            key: full, value: text, expected: "must be a unicast address such as 52:54:00:12:34:56")
        }
        net.mac = mac
      case .queueSize: net.queueSize = try DiskConfiguration.queueSize(full, text)
      }
    }
    guard backends.count == 1, let backend = backends.first else {
      throw ConfigurationError(
        key: key, value: FieldList.format(fields), expected: "needs exactly one of tap, listen and connect")
    }
    net.backend = backend
    self = net
  }

  /// All fields; `init(fields:)` of them gives this value again.
  public var fields: [Field] {
    var fields: [Field] = []
    switch backend {
    case .tap(let name): fields.append(Field(Name.tap.rawValue, name))
    case .listen(let path): fields.append(Field(Name.listen.rawValue, path))
    case .connect(let path): fields.append(Field(Name.connect.rawValue, path))
    }
    if let mac { fields.append(Field(Name.mac.rawValue, mac.description)) }
    fields.append(Field(Name.queueSize.rawValue, "\(queueSize)"))
    return fields
  }
}
