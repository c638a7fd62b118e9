// What a program was started with, and its way to other services: the registry, which init keeps.

import CPollux

/// Calls of the registry: word 0 of the message. Word 0 of the reply is 0 on success.
public enum RegistryCall: UInt64 {
  /// Name in words 1…3 → a handle to call that service.
  case connect = 0
  /// `SystemControl` in word 1, value in word 2.
  case control = 1
  /// Index in word 1 → name in words 1–2, program 3–4, mode 5–6, state in word 7 with the isolation class
  /// asked for (3: auto) from bit 8, the one in effect from bit 16 and its `IsolationMechanism` from bit 24.
  case service = 2
  /// Remark of the caller's service in words 1…7, shown by `services`.
  case remark = 3
  /// Index in word 1 → remark in words 1…7.
  case serviceRemark = 4
  /// Program in words 1–2, arguments in words 3…7: starts it; → index in word 1.
  case run = 5
  /// Index in word 1 → kills that service (for tests of what happens then).
  case kill = 6
  /// Passes a service handle: clients that ask for the caller's name from now on get connections to it.
  case publish = 7
  /// Name in words 1…3 → a connection to the service published under it. Word 4: `ConnectionFlags`.
  case open = 8
  /// Index in word 1: the device of that service's driver is suspended (word 2: 0) or resumed (1); `exists` if it is already, `wrongKind`
  /// if the service drives none.
  case power = 18
  /// Index in word 1 → starts that service again, which has ended.
  case restart = 15
  /// Name in words 1–2, `DeviceClass` in word 3, bytes in word 4: the caller drives this device from now on until it ends. If another's
  /// has the name, the letter or digit at its end counts on → the name that it got in words 1–2. Told again, it changes the bytes.
  case announce = 16
  /// Index in word 1 → the device's name in words 1–2, class in word 3 with its number in the order of announcements from bit 8, bytes
  /// in word 4, its service's name in words 5–7.
  case device = 17
}

/// What a device can do.
public enum DeviceClass: UInt64, Sendable {
  /// Its service has the block interface (docs/block-driver.md).
  case block = 1
  /// It takes text.
  case console = 2
  /// Its service has the network interface (docs/net-driver.md).
  case network = 3
  /// Its service gives random bytes (`EntropyCall`).
  case entropy = 4
}

/// What became of a service.
public enum ServiceState: UInt64 {
  case running = 0
  case exited = 1
  case faulted = 2
  case notStarted = 3
}

/// The running program.
public enum Program {
  /// How long a driver's device may take for a request, in ms: `timeout=` of the program's arguments, or `standard`. 0: any time.
  public static func requestTimeout(_ standard: UInt64) -> UInt64 {
    guard let arguments = start.text("arguments"), let text = CommandLine(arguments).value("timeout") else {
      return standard
    }
    return min(text.number ?? standard, 3_600_000)
  }

  /// Handles, numbers and texts that the parent gave.
  public static var start: StartBlock {
    guard let page = UnsafeRawPointer(bitPattern: UInt(pollux_start_block())) else { return StartBlock(Bytes("")) }
    // The parent mapped one page there for the life of the process.
    return StartBlock(Bytes(unsafeBase: page, count: 4096))
  }

  /// This process, with the right to observe it.
  public static var ownProcess: Handle? { start.handle("self").map { Handle($0) } }

  private static func registry(_ message: inout Message) throws(SystemError) {
    guard let handle = start.handle("registry") else { throw .notFound }
    try Endpoint(Handle(handle)).call(&message)
    if message[0] != 0 { throw SystemError(rawValue: Int64(bitPattern: message[0])) ?? .notFound }
  }

  /// The service called `name`.
  public static func connect(_ name: Bytes) throws(SystemError) -> Endpoint {
    var message = Message(RegistryCall.connect.rawValue)
    message.put(name, at: 1, words: 3)
    try registry(&message)
    guard let handle = message.received else { throw .notFound }
    return Endpoint(handle)
  }

  public static func control(_ operation: SystemControl, _ value: UInt64 = 0) throws(SystemError) {
    var message = Message(RegistryCall.control.rawValue, operation.rawValue, value)
    try registry(&message)
  }

  /// Sets the remark that `services` shows for this program, at most 56 bytes.
  public static func remark(_ text: Bytes) {
    var message = Message(RegistryCall.remark.rawValue)
    message.put(text, at: 1, words: 7)
    do throws(SystemError) { try registry(&message) } catch {}
  }

  /// Tells the registry of a device that this program drives, `size` bytes where it has an end; again when the size changes.
  public static func announce(_ name: Bytes, _ kind: DeviceClass, size: UInt64 = 0) {
    var message = Message(RegistryCall.announce.rawValue, 0, 0, kind.rawValue)
    message.put(name, at: 1, words: 2)
    message[4] = size
    do throws(SystemError) { try registry(&message) } catch {
      // The device works without a node in the tree of files.
    }
  }

  /// Asks the registry; the reply is in `message`.
  public static func ask(_ message: inout Message) throws(SystemError) { try registry(&message) }
}

extension IsolationMechanism {
  public var name: StaticString {
    switch self {
    case .best: "the best mechanism"
    case .userMode: "page tables in user mode"
    case .protectionKeys: "protection keys"
    case .pageTable: "page table in ring 0"
    case .none: "nothing (the kernel's domain)"
    }
  }
  /// For columns.
  public var shortName: StaticString {
    switch self {
    case .best: "best"
    case .userMode: "user"
    case .protectionKeys: "keys"
    case .pageTable: "table"
    case .none: "none"
    }
  }
}

extension SystemError {
  /// A word for messages.
  public var name: StaticString {
    switch self {
    case .badCall: "no such call"
    case .badHandle: "bad handle"
    case .wrongKind: "wrong kind of object"
    case .denied: "denied"
    case .badArgument: "bad argument"
    case .badAddress: "bad address"
    case .noMemory: "no memory"
    case .tableFull: "table full"
    case .peerClosed: "service is gone"
    case .timedOut: "timed out"
    case .notFound: "not found"
    case .exists: "exists already"
    case .unsupported: "unsupported"
    case .cancelled: "cancelled"
    case .exhausted: "all stacks in use"
    case .deadlock: "would deadlock"
    case .aborted: "given up by the service"
    }
  }
}
