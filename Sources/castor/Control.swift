// `castor ctl`: one request to a running machine, and its reply for people and for programs.

import ArgumentParser
import Configuration
import Foundation

struct Control: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "ctl",
    abstract: "Control a running machine.",
    discussion: """
      MACHINE is a name (castor run --name, the configuration file's) or the path of a control socket. \
      castor ctl --list shows the machines that run.

      Commands:
      \(ControlRequest.summary)

      docs/control.md describes the socket's protocol.
      """)

  @Flag(help: "List this user's running machines.")
  var list = false
  @Flag(help: "Print the result as one line of JSON.")
  var json = false
  @Argument(help: "Name or control socket of the machine.", completion: .custom { _, _, _ in Self.runningMachines() })
  var machine: String?
  @Argument(
    help: "Command and its operands.",
    completion: .list(["status", "pause", "resume", "resize-disk", "link", "mac", "inject", "stats", "stop"]))
  var command: [String] = []

  func run() throws {
    try reportingFailures {
      if list {
        for name in Self.runningMachines() { print(name) }
        return
      }
      guard let machine else {
        throw ConfigurationError(
          key: "machine", value: "", expected: "is missing; castor ctl --list shows those that run", exitCode: .usage)
      }
      let request = try ControlRequest(words: command)
      let client = try ControlClient(path: Self.path(of: machine))
      let reply = try client.request(request.members)
      if json {
        let data = try JSONSerialization.data(withJSONObject: reply, options: [.sortedKeys, .withoutEscapingSlashes])
        print(String(decoding: data, as: UTF8.self))
      } else {
        let text = ReplyText.lines(of: reply).joined(separator: "\n")
        if !text.isEmpty { print(text) }
      }
    }
  }

  /// A word with a slash is a path, another one a name.
  static func path(of machine: String) -> String {
    machine.contains("/") ? machine : HostPaths.controlSocket(name: machine)
  }

  /// Names of this user's machines whose control socket answers.
  static func runningMachines() -> [String] {
    let files = (try? FileManager.default.contentsOfDirectory(atPath: HostPaths.controlFolder)) ?? []
    return files.filter { $0.hasSuffix(".sock") }.map { String($0.dropLast(5)) }.sorted().filter { name in
      guard let descriptor = try? ControlSocket.connect(to: HostPaths.controlSocket(name: name)) else { return false }
      close(descriptor)
      return true
    }
  }
}

/// A JSON reply as indented lines.
enum ReplyText {
  /// One line for each member, nested ones indented below their name.
  static func lines(of result: [String: Any]) -> [String] { lines(result, indentation: "") }

  private static func lines(_ value: Any, indentation: String) -> [String] {
    let deeper = indentation + "  "
    switch value {
    case let object as [String: Any]:
      // Histograms are for programs (`--json`).
      return object.keys.filter { $0 != "buckets" }.sorted().flatMap { key -> [String] in
        guard let member = object[key] else { return [] }
        if let text = scalar(member) { return ["\(indentation)\(key): \(text)"] }
        return ["\(indentation)\(key):"] + lines(member, indentation: deeper)
      }
    case let list as [Any]:
      return list.flatMap { item -> [String] in
        if let text = scalar(item) { return ["\(indentation)- \(text)"] }
        var nested = lines(item, indentation: deeper)
        if let first = nested.first { nested[0] = "\(indentation)- \(first.dropFirst(deeper.count))" }
        return nested
      }
    default: return ["\(indentation)\(scalar(value) ?? "")"]
    }
  }

  /// The text of a value that is neither object nor list; a list of plain values stays on one line.
  private static func scalar(_ value: Any) -> String? {
    switch value {
    case let text as String: return text
    case let number as NSNumber:
      // A JSON true is an NSNumber too; its C type tells them apart.
      return String(cString: number.objCType) == "c" ? (number.boolValue ? "yes" : "no") : "\(number)"
    case is NSNull: return "none"
    case let list as [Any]:
      let texts = list.compactMap { $0 is [Any] || $0 is [String: Any] ? nil : scalar($0) }
      return texts.count == list.count ? texts.joined(separator: " ") : nil
    default: return nil
    }
  }
}
