// The list syntax `name=value,name=value` of one disk, network interface or service; a comma inside a value is doubled.

/// One `name=value` of a list, in the order written.
public struct Field: Equatable, Sendable {
  public var name: String
  public var value: String
  public init(_ name: String, _ value: String) {
    self.name = name
    self.value = value
  }
}

/// Reads and writes lists of fields.
public enum FieldList {
  /// Splits at single commas; `,,` is a comma. An item without `=` gets the name `shorthand` when it comes first.
  static func parse(_ text: String, key: String, shorthand: String) throws(ConfigurationError) -> [Field] {
    var items: [String] = [""]
    var characters = text.unicodeScalars.makeIterator()
    var held = characters.next()
    while let scalar = held {
      held = characters.next()
      if scalar != "," {
        items[items.count - 1].unicodeScalars.append(scalar)
      } else if held == "," {
        items[items.count - 1].unicodeScalars.append(",")
        held = characters.next()
      } else {
        items.append("")
      }
    }
    var fields: [Field] = []
    for (index, item) in items.enumerated() {
      if let equals = item.firstIndex(of: "=") {
        fields.append(Field(String(item[..<equals]), String(item[item.index(after: equals)...])))
      } else if index == 0, !item.isEmpty {
        fields.append(Field(shorthand, item))
      } else {
        throw ConfigurationError(
          key: key, value: text, expected: "'\(item)' is not name=value (a comma inside a value is written ,,)")
      }
    }
    return fields
  }

  /// The inverse of `parse`.
  static func format(_ fields: [Field]) -> String {
    fields.map { field in
      "\(field.name)=" + field.value.unicodeScalars.map { $0 == "," ? ",," : String($0) }.joined()
    }.joined(separator: ",")
  }

  /// Finds the enum case of each field's name; unknown and repeated names are errors.
  static func resolve<Name: RawRepresentable<String> & CaseIterable & Hashable>(
    _ fields: [Field], key: String, as type: Name.Type = Name.self
  ) throws(ConfigurationError) -> [(Name, String)] {
    var result: [(Name, String)] = []
    var seen: Set<Name> = []
    for field in fields {
      guard let name = Name(rawValue: field.name) else {
        let known = Name.allCases.map(\.rawValue).joined(separator: ", ")
        throw ConfigurationError(
          key: "\(key).\(field.name)", value: "", expected: "unknown key; \(key) knows \(known)", exitCode: .unknownKey)
      }
      guard seen.insert(name).inserted else {
        throw ConfigurationError(key: "\(key).\(field.name)", value: field.value, expected: "given twice")
      }
      result.append((name, field.value))
    }
    return result
  }
}
