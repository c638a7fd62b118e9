// A machine description in YAML: which keys there are, and at which line a wrong one stands.

import Configuration
import Foundation
import Yams

/// A configuration file.
struct ConfigurationFile {
  let path: String

  /// Reads the file into a description whose other keys have their defaults. Paths in the file are relative to it.
  func read() throws -> MachineConfiguration {
    let text: String
    do {
      text = try String(contentsOfFile: path, encoding: .utf8)
    } catch {
      if access(path, R_OK) != 0 { throw MachineConfiguration.fileError("configuration", path, errno) }
      throw ConfigurationError(key: "configuration", value: path, expected: "is not a file of UTF-8 text")
    }
    var machine = try Self.parse(text, path: path)
    machine.prefixRelativePaths(with: HostPaths.folder(of: path))
    return machine
  }

  /// Reads YAML text; `path` is for messages and gives the machine its name when the text gives none.
  static func parse(_ text: String, path: String) throws -> MachineConfiguration {
    let root: Node?
    do {
      root = try Yams.compose(yaml: text)
    } catch let error as YamlError {
      throw syntaxError(error, path: path)
    }
    var machine = MachineConfiguration()
    machine.name = defaultName(for: path)
    guard let root, root.tag != Tag(.null) else { return machine }
    guard case .mapping(let mapping) = root else {
      throw located(
        ConfigurationError(key: "configuration", value: "", expected: "must be a mapping of keys to values"), root, path
      )
    }
    for (keyNode, value) in mapping {
      let name = keyNode.scalar?.string ?? ""
      guard let key = MachineKey.allCases.first(where: { $0.yamlName == name }) else {
        let known = MachineKey.allCases.map(\.yamlName).joined(separator: ", ")
        throw located(
          ConfigurationError(
            key: name, value: "", expected: "unknown key; known keys are \(known)", exitCode: .unknownKey),
          keyNode, path)
      }
      try apply(key, value, to: &machine, path: path)
    }
    return machine
  }

  /// Sets one key from its node.
  private static func apply(_ key: MachineKey, _ node: Node, to machine: inout MachineConfiguration, path: String)
    throws
  {
    guard key.isRepeatable else {
      guard let scalar = node.scalar else {
        throw located(
          ConfigurationError(key: key.yamlName, value: "", expected: "must be a single value"), node, path)
      }
      if let error = failure(of: { () throws(ConfigurationError) in try machine.apply(key, scalar.string) }) {
        throw located(error, node, path)
      }
      return
    }
    guard let sequence = node.sequence else {
      throw located(ConfigurationError(key: key.yamlName, value: "", expected: "must be a list"), node, path)
    }
    for (index, item) in sequence.enumerated() {
      if let scalar = item.scalar {
        if let error = failure(of: { () throws(ConfigurationError) in try machine.apply(key, scalar.string) }) {
          throw located(error, item, path)
        }
      } else {
        try append(key, item, name: "\(key.rawValue)\(index)", to: &machine, path: path)
      }
    }
  }

  /// Adds an item that is written as a mapping; `name` is the item's in messages.
  private static func append(
    _ key: MachineKey, _ item: Node, name: String, to machine: inout MachineConfiguration, path: String
  ) throws {
    guard let mapping = item.mapping else {
      throw located(ConfigurationError(key: name, value: "", expected: "must be a mapping"), item, path)
    }
    var fields: [Field] = []
    for (fieldKey, value) in mapping {
      guard let fieldName = fieldKey.scalar?.string, let scalar = value.scalar else {
        throw located(
          ConfigurationError(key: name, value: "", expected: "every value must be a single value"), fieldKey, path)
      }
      fields.append(Field(fieldName, scalar.string))
    }
    let error = failure { () throws(ConfigurationError) in
      switch key {
      case .disk: machine.disks.append(try DiskConfiguration(fields: fields, key: name))
      case .net: machine.nets.append(try NetworkConfiguration(fields: fields, key: name))
      default: machine.services.append(try ServiceConfiguration(fields: fields, key: name))
      }
    }
    guard let error else { return }
    // The error names the field; point at its line.
    let culprit = mapping.first { "\(name).\($0.key.scalar?.string ?? "")" == error.key }
    throw located(error, culprit?.key ?? item, path)
  }

  /// What `body` threw, or nil.
  private static func failure(of body: () throws(ConfigurationError) -> Void) -> ConfigurationError? {
    do {
      try body()
      return nil
    } catch { return error }
  }

  private static func located(_ error: ConfigurationError, _ node: Node, _ path: String) -> ConfigurationError {
    var error = error
    if let mark = node.mark { error.location = "\(path):\(mark.line)" }
    return error
  }

  private static func syntaxError(_ error: YamlError, path: String) -> ConfigurationError {
    var line: Int?
    var problem = "not valid YAML"
    switch error {
    case .scanner(_, let text, let mark, _), .parser(_, let text, let mark, _), .composer(_, let text, let mark, _):
      line = mark.line
      problem = "not valid YAML: \(text)"
    case .duplicatedKeysInMapping(let duplicates, let context):
      line = context.mark.line
      problem = "a key is given twice: \(duplicates.map { "\($0)" }.joined(separator: ", "))"
    case .reader(let text, _, _, _): problem = "not valid YAML: \(text)"
    default: break
    }
    return ConfigurationError(
      key: "configuration", value: path, expected: problem, location: line.map { "\(path):\($0)" } ?? path)
  }

  /// `configs/demo.yaml` gives "demo".
  static func defaultName(for path: String) -> String {
    let base = path.split(separator: "/").last.map(String.init) ?? "castor"
    let stem =
      base.hasSuffix(".yaml") ? String(base.dropLast(5)) : base.hasSuffix(".yml") ? String(base.dropLast(4)) : base
    var probe = MachineConfiguration()
    do { try probe.apply(.name, stem) } catch { return "castor" }
    return stem
  }
}
