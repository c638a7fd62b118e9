// Services of the composition by name, for programs that watch, end or start them, and for clients of services that are just starting.

/// Services as the registry knows them.
public enum Services {
  /// A connection to the service published under `name`, for which it waits while it is being started; `peerClosed` or `notFound` when
  /// `patience` microseconds are over.
  public static func open(
    _ name: Bytes, patience: UInt64 = 3_000_000, flags: ConnectionFlags = []
  ) throws(SystemError) -> Connection {
    let end = Clock.now + Clock.ticks(microseconds: patience)
    while true {
      do throws(SystemError) { return try Connection.open(name, flags: flags) } catch {
        guard error == .notFound || error == .peerClosed, Clock.now < end else { throw error }
        Clock.sleep(microseconds: 1000)
      }
    }
  }

  /// The first service of that name: its index in start order, and what became of it. `notFound` without one.
  public static func find(_ name: Bytes) throws(SystemError) -> (index: UInt64, state: ServiceState) {
    var index: UInt64 = 0
    while true {
      var message = Message(RegistryCall.service.rawValue, index)
      try Program.ask(&message)
      let text = message.text(at: 1, words: 2)
      if text.count == name.count, text.indices.allSatisfy({ text[$0] == name.byte($0) }) {
        return (index, ServiceState(rawValue: message[7] & 0xff) ?? .notStarted)
      }
      index += 1
    }
  }

  public static func state(_ name: Bytes) throws(SystemError) -> ServiceState { try find(name).state }

  /// Whether it gets there within `patience` microseconds.
  public static func becomes(
    _ wanted: ServiceState, _ name: Bytes, patience: UInt64 = 3_000_000
  ) throws(SystemError) -> Bool {
    let end = Clock.now + Clock.ticks(microseconds: patience)
    while try state(name) != wanted {
      guard Clock.now < end else { return false }
      Clock.sleep(microseconds: 1000)
    }
    return true
  }

  /// Ends a running service; `notFound` if it does not run.
  public static func kill(_ name: Bytes) throws(SystemError) {
    var message = Message(RegistryCall.kill.rawValue, try find(name).index)
    try Program.ask(&message)
  }

  /// Has the device of a driver made quiet and held so, or brought back; its clients' requests wait meanwhile.
  public static func suspend(_ name: Bytes, resume: Bool = false) throws(SystemError) {
    var message = Message(RegistryCall.power.rawValue, try find(name).index, resume ? 1 : 0)
    try Program.ask(&message)
  }

  /// Starts a service again that has ended; `exists` if it runs.
  public static func restart(_ name: Bytes) throws(SystemError) {
    var message = Message(RegistryCall.restart.rawValue, try find(name).index)
    try Program.ask(&message)
  }
}
