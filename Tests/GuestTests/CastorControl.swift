// `castor ctl` as tests use it.

import Configuration
import Foundation
import Testing

/// A machine's control socket.
struct CastorControl {
  let socket: String

  /// Runs `castor ctl --json`; its exit code, the reply, and what it said on standard error.
  @discardableResult
  func callAsFunction(_ words: [String]) throws -> (code: Int32, reply: [String: Any], errors: String) {
    let folder = HostPaths.folder(of: try #require(HostPaths.executable))
    let process = Process()
    process.executableURL = URL(fileURLWithPath: "\(folder)/castor")
    process.arguments = ["ctl", "--json", socket] + words
    let output = Pipe()
    let errors = Pipe()
    process.standardOutput = output
    process.standardError = errors
    try process.run()
    let data = output.fileHandleForReading.readDataToEndOfFile()
    let message = errors.fileHandleForReading.readDataToEndOfFile()
    process.waitUntilExit()
    let reply = (try? JSONSerialization.jsonObject(with: data)) as? [String: Any] ?? [:]
    return (
      process.terminationStatus, reply["result"] as? [String: Any] ?? reply, String(decoding: message, as: UTF8.self)
    )
  }
}
