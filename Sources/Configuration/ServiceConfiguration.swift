// One service of the guest's composition, as it goes into the device tree (docs/platform.md, "Device tree").

/// A service that the guest's init starts.
public struct ServiceConfiguration: Equatable, Sendable {
  /// The names of the fields, as in YAML and in `--service`.
  public enum Name: String, CaseIterable, Sendable {
    case name, program, `class`, mode, arguments, device
  }

  /// The service's name in the guest; unique.
  public var name: String
  /// The program's file in the boot archive.
  public var program: String
  /// The isolation class that is asked for; empty: the program's own choice.
  public var isolationClass = ""
  /// How a driver is divided or completes requests (`solo`, `twin`, …); empty: the program's own choice.
  public var mode = ""
  /// The program's argument string.
  public var arguments = ""
  /// The device it drives: `disk0`, `net0`, `entropy`, or a device tree path. Empty: none.
  public var device = ""

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
      case .class: service.isolationClass = text
      case .mode: service.mode = text
      case .arguments: service.arguments = text
      case .device: service.device = text
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
      (.device, device),
    ]
    return values.map { Field($0.0.rawValue, $0.1) }
  }
}
