// The one error of this module: which key, which value, and what would have been allowed.

/// A configuration that cannot be used, with enough said to mend it.
public struct ConfigurationError: Error, Equatable, Sendable, CustomStringConvertible {
  /// The key as written in YAML and, with `--` before it, on the command line; `disk.queues` for an item of a list.
  public var key: String
  /// What was given.
  public var value: String
  /// What would have been allowed, or what is wrong; completes a sentence after a colon.
  public var expected: String
  /// The process's exit code for this error.
  public var exitCode: ExitCode
  /// `file:line` where the value stands, when it came from a file.
  public var location: String?

  public init(
    key: String, value: String, expected: String, exitCode: ExitCode = .invalidConfiguration, location: String? = nil
  ) {
    self.key = key
    self.value = value
    self.expected = expected
    self.exitCode = exitCode
    self.location = location
  }

  /// One line that names the culprit.
  public var description: String {
    let place = location.map { "\($0): " } ?? ""
    return value.isEmpty ? "\(place)\(key): \(expected)" : "\(place)\(key) '\(value)': \(expected)"
  }
}
