// The words of `castor ctl` as requests of the control protocol (docs/control.md).

import Configuration
import Foundation

/// One request, as the members of its JSON object.
struct ControlRequest {
  var members: [String: Any]

  /// The commands with their operands, for the help.
  static let summary = """
    status                               what the machine is and does
    pause | resume                       stop and continue its vCPUs
    resize-disk DISK SIZE                change a disk's capacity
    link NET up|down                     plug or unplug a network interface
    mac NET ADDRESS                      give a network interface another address
    inject DISK fail-next COUNT          the next requests fail with an I/O error
    inject DISK fail-sectors FIRST-LAST  requests that touch these sectors fail
    inject DISK fail-rate RATE           this part of all requests fails, 0 to 1
    inject DISK delay TIME               hold completions back: 500us, 20ms, 1s
    inject DEVICE spurious-interrupt [Q] an interrupt without a completion
    inject DEVICE wedge [Q]              a queue is not served until a reset or off
    inject DEVICE needs-reset            the device breaks
    inject DEVICE off                    no faults from now on
    stats                                counters of exits, queues and latencies
    stop [force]                         ask the guest to power off; end it at once
    """

  /// Reads the words after the machine's name.
  init(words: [String]) throws {
    guard let command = words.first else {
      throw Self.usage("command", "", "is missing; castor ctl --help lists the commands")
    }
    var operands = words.dropFirst()
    func next(_ what: String) throws -> String {
      guard let word = operands.popFirst() else { throw Self.usage(command, "", "needs \(what)") }
      return word
    }
    members = ["command": command]
    switch command {
    case "status", "pause", "resume", "stats": break
    case "stop":
      if let word = operands.popFirst() {
        guard word == "force" else { throw Self.usage(command, word, "takes no word but force") }
        members["force"] = true
      }
    case "resize-disk":
      members["device"] = try next("a disk, such as disk0")
      let text = try next("a size, such as 2G")
      guard let bytes = ByteSize.parse(text), bytes > 0, bytes % 512 == 0 else {
        throw Self.usage(command, text, "must be a size in whole sectors, such as 2G")
      }
      members["bytes"] = bytes
    case "link":
      members["device"] = try next("an interface, such as net0")
      let text = try next("up or down")
      guard text == "up" || text == "down" else { throw Self.usage(command, text, "must be up or down") }
      members["up"] = text == "up"
    case "mac":
      members["device"] = try next("an interface, such as net0")
      let text = try next("an address, such as 52:54:00:12:34:56")
      guard let address = MACAddress(text) else {
        throw Self.usage(command, text, "must be a unicast MAC address, such as 52:54:00:12:34:56")
      }
      members["address"] = address.description
    case "inject":
      members["device"] = try next("a device, such as disk0")
      let fault = try next("a fault")
      members["fault"] = fault
      try Self.readFault(fault, into: &members) { operands.popFirst() }
    default: throw Self.usage("command", command, "unknown; castor ctl --help lists the commands")
    }
    if let extra = operands.first { throw Self.usage(command, extra, "takes no such word") }
  }

  private static func readFault(_ fault: String, into members: inout [String: Any], next: () -> String?) throws {
    switch fault {
    case "fail-next":
      let text = next() ?? ""
      guard let count = Int(text), count > 0 else { throw usage(fault, text, "needs a count, at least 1") }
      members["count"] = count
    case "fail-sectors":
      let text = next() ?? ""
      let ends = text.split(separator: "-", omittingEmptySubsequences: false).map { UInt64($0) }
      guard ends.count == 2, let first = ends[0], let last = ends[1], first <= last, last < 1 << 55 else {
        throw usage(fault, text, "needs a range of sectors, such as 100-199")
      }
      members["first"] = first
      members["count"] = last - first + 1
    case "fail-rate":
      let text = next() ?? ""
      guard let rate = Double(text), (0...1).contains(rate) else {
        throw usage(fault, text, "needs a number from 0 to 1")
      }
      members["rate"] = rate
    case "delay":
      let text = next() ?? ""
      guard let microseconds = self.microseconds(text) else {
        throw usage(fault, text, "needs a time: 500us, 20ms, 1s")
      }
      members["microseconds"] = microseconds
    case "spurious-interrupt", "wedge":
      guard let text = next() else {
        members["queue"] = 0
        return
      }
      guard let queue = Int(text), queue >= 0 else { throw usage(fault, text, "needs the number of a queue") }
      members["queue"] = queue
    case "needs-reset", "off": break
    default: throw usage("inject", fault, "unknown fault; castor ctl --help lists them")
    }
  }

  /// "500us", "20ms", "1s" in microseconds, up to a minute.
  static func microseconds(_ text: String) -> Int? {
    for (suffix, factor) in [("us", 1), ("ms", 1000), ("s", 1_000_000)] where text.hasSuffix(suffix) {
      guard let number = Int(text.dropLast(suffix.count)), number >= 0, number <= 60_000_000 / factor else {
        return nil
      }
      return number * factor
    }
    return nil
  }

  private static func usage(_ key: String, _ value: String, _ expected: String) -> ConfigurationError {
    ConfigurationError(key: key, value: value, expected: expected, exitCode: .usage)
  }
}
