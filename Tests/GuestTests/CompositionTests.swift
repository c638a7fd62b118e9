// Services die in each composition of file system and memory manager: what goes with them, what init starts again, and what clients see.

import Testing

/// File system and memory manager as one process or two (docs/composition.md).
enum Composed: String, CaseIterable, CustomTestStringConvertible, Sendable {
  case split, separate, shared
  var testDescription: String { rawValue }

  /// The services, which init starts again.
  var services: [String] {
    switch self {
    case .split: ["files", "memory"].map { "name=\($0),program=file-memory,mode=\($0),restart=on-failure" }
    default: ["name=memory,program=file-memory,mode=\(rawValue),restart=on-failure"]
    }
  }

  /// What clients are told of it.
  var arguments: String { self == .split ? "files=files memory=memory" : "memory=memory" }
}

@Suite(.serialized) struct CompositionTests {
  @Test(arguments: Host.available, Composed.allCases)
  func whatDiesWithAServiceIsStartedAgain(on host: Host, form: Composed) throws {
    for cpus in [1, 4] {
      var description = GuestDescription(memory: "128M", cpus: cpus)
      description.compose(
        form.services + [
          "name=child,program=composition-test,mode=child,arguments=\(form.arguments)",
          "name=test,program=composition-test,arguments=\(form.arguments)",
        ], on: host)
      let run = try description.start(on: host).finish(seconds: 60)
      #expect(run.lines.filter { $0.hasPrefix("FAILED") }.isEmpty, "\(run.console)")
      #expect(run.lines.contains("ok the test reached its end"), "\(run.console)\(run.errors)")
      #expect(run.exitCode == 0)
    }
  }
}
