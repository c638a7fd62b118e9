// One service of the guest's composition, as it goes into the device tree (docs/platform.md, "Device tree").

/// When the guest's init starts a service again that has ended.
public enum RestartPolicy: String, CaseIterable, Sendable {
  case off
  /// After a fault, a kill or an exit code other than 0.
  case onFailure = "on-failure"
  case always

  /// As the guest is told: empty for `off`.
  public var text: String { self == .off ? "" : rawValue }
}

/// A service that the guest's init starts.
public struct ServiceConfiguration: Equatable, Sendable {
  /// The names of the fields, as in YAML and in `--service`.
  public enum Name: String, CaseIterable, Sendable {
    case name, program, `class`, mode, arguments, device, restart
  }

  /// What `class` may be.
  public static let classes = ["ic0", "ic1", "ic2", "auto"]

  /// The service's name in the guest; unique.
  public var name: String
  /// The program's file in the boot archive.
  public var program: String
  /// The isolation class that is asked for; empty: `ic2`.
  public var isolationClass = ""
  /// How a driver is divided or completes requests (`solo`, `twin`, …); empty: the program's own choice.
  public var mode = ""
  /// The program's argument string.
  public var arguments = ""
  /// The device it drives: `disk0`, `net0`, `entropy`, or a device tree path. Empty: none.
  public var device = ""
  public var restart = RestartPolicy.off

  public init(name: String, program: String) {
    self.name = name
    self.program = program
  }

  /// Reads `name=shell,program=shell` or, short, `shell` for both.
  public init(list: String, key: String = "service") throws(ConfigurationError) {
    try self.init(fields: FieldList.parse(list, key: key, shorthand: Name.name.rawValue), key: key)
  }

  /// Reads the fields of a list or of a YAML mapping. `key` names the service in errors.
  public init(fields: [Field], key: String = "service") throws(ConfigurationError) {
    var service = ServiceConfiguration(name: "", program: "")
    for (name, text) in try FieldList.resolve(fields, key: key, as: Name.self) {
      let full = "\(key).\(name.rawValue)"
      guard !text.utf8.contains(0), text.utf8.count <= 1024 else {
        throw ConfigurationError(key: full, value: text, expected: "has at most 1024 bytes, none of them zero")
      }
      switch name {
      case .name: service.name = text
      case .program: service.program = text
      case .class:
        guard text.isEmpty || Self.classes.contains(text) else {
          throw ConfigurationError(
            key: full, value: text, expected: "is one of \(Self.classes.joined(separator: ", "))")
        }
        service.isolationClass = text
      case .mode: service.mode = text
      case .arguments: service.arguments = text
      case .device: service.device = text
      case .restart:
        guard let policy = text.isEmpty ? .off : RestartPolicy(rawValue: text) else {
          throw ConfigurationError(
            key: full, value: text,
            expected: "is one of \(RestartPolicy.allCases.map(\.rawValue).joined(separator: ", "))")
        }
        service.restart = policy
      }
    }
    if service.program.isEmpty { service.program = service.name }
    guard !service.name.isEmpty else {
      throw ConfigurationError(key: key, value: FieldList.format(fields), expected: "needs a name")
    }
    self = service
  }

  /// All fields; `init(fields:)` of them gives this value again.
  public var fields: [Field] {
    let values: [(Name, String)] = [
      (.name, name), (.program, program), (.class, isolationClass), (.mode, mode), (.arguments, arguments),
      (.device, device), (.restart, restart.text),
    ]
    return values.map { Field($0.0.rawValue, $0.1) }
  }
}
