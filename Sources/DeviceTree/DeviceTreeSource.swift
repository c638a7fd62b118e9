// A device tree as source text, the language of dtc (Devicetree Specification v0.4, chapter 6).

extension DeviceTreeNode {
  /// This node, the root, as a source file that dtc compiles to an equal tree.
  public var sourceText: String {
    var text = "/dts-v1/;\n\n"
    append(to: &text, indentation: "")
    return text
  }

  private func append(to text: inout String, indentation: String) {
    text += "\(indentation)\(name.isEmpty ? "/" : name) {\n"
    let inner = indentation + "\t"
    for property in properties {
      text += inner + property.name
      if !property.value.isEmpty { text += " = " + Self.valueText(property.value) }
      text += ";\n"
    }
    for (index, child) in children.enumerated() {
      if index > 0 || !properties.isEmpty { text += "\n" }
      child.append(to: &text, indentation: inner)
    }
    text += "\(indentation)};\n"
  }

  /// The format has no types, so a value that could be text is shown as text, else as cells, else as bytes.
  static func valueText(_ value: [UInt8]) -> String {
    if isText(value) {
      return value.dropLast().split(separator: 0, omittingEmptySubsequences: false)
        .map { "\"\(escaped($0))\"" }.joined(separator: ", ")
    }
    if value.count % 4 == 0 {
      let cells = stride(from: 0, to: value.count, by: 4).map { start in
        "0x" + String(value[start..<(start + 4)].reduce(UInt32(0)) { $0 << 8 | UInt32($1) }, radix: 16)
      }
      return "<\(cells.joined(separator: " "))>"
    }
    return "[" + value.map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined(separator: " ") + "]"
  }

  /// Printable strings, each NUL-terminated and, unless it is the only one, not empty.
  private static func isText(_ value: [UInt8]) -> Bool {
    guard value.last == 0 else { return false }
    if value.count == 1 { return true }
    let strings = value.dropLast().split(separator: 0, omittingEmptySubsequences: false)
    return strings.allSatisfy { text in !text.isEmpty && text.allSatisfy { (0x20...0x7e).contains($0) } }
  }

  private static func escaped(_ bytes: ArraySlice<UInt8>) -> String {
    var text = ""
    for byte in bytes {
      if byte == UInt8(ascii: "\"") || byte == UInt8(ascii: "\\") { text += "\\" }
      text.unicodeScalars.append(Unicode.Scalar(byte))
    }
    return text
  }
}
