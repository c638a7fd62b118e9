// Synchronous RPC by thread migration (HongMeng §4.1): a call runs the server's handler on the caller's own thread, with the caller's
// priority and for its account.

import CPollux

/// The client's way to a service. Several threads may call through one connection, if the service has stacks for them.
public struct Connection: Sendable {
  public let handle: Handle
  public init(_ handle: Handle) { self.handle = handle }

  /// A connection to the service that a program of the composition has published under its name.
  public static func open(_ name: Bytes, flags: ConnectionFlags = []) throws(SystemError) -> Connection {
    var message = Message(RegistryCall.open.rawValue)
    message.put(name, at: 1, words: 3)
    message[4] = flags.rawValue
    try Program.ask(&message)
    guard let handle = message.received else { throw .notFound }
    return Connection(handle)
  }

  /// Calls with the words and the handle of `message`, which then holds the reply's. At `deadline` (a time-stamp) the call ends with
  /// `timedOut`, and the server finishes without the caller.
  public func call(_ message: inout Message, until deadline: UInt64 = SystemCall.forever) throws(SystemError) {
    message.raw.target = handle.rawValue
    let number = deadline == SystemCall.forever ? SystemCall.rpcCall : .rpcCallTimed
    let result = pollux_rpc_message(number.rawValue, &message.raw, deadline)
    if result < 0 {
      message.raw.handle = 0
      throw SystemError(rawValue: result) ?? .badCall
    }
  }

  /// The short form: five words there, two back, all in registers.
  @inline(__always)
  public func call(
    _ word0: UInt64, _ word1: UInt64 = 0, _ word2: UInt64 = 0, _ word3: UInt64 = 0, _ word4: UInt64 = 0
  ) throws(SystemError) -> (UInt64, UInt64) {
    let reply = pollux_rpc_short(handle.rawValue, word0, word1, word2, word3, word4)
    if reply.status < 0 { throw SystemError(rawValue: reply.status) ?? .badCall }
    return (reply.word0, reply.word1)
  }
}

/// Pages of the caller that a call grants the server until it returns.
public struct Grant {
  let rawValue: UInt64

  /// `pages` (1…256) pages from the page-aligned `address`, all of one mapping of the caller.
  public init(address: UInt64, pages: UInt64, writable: Bool) {
    rawValue = 1 << 63 | address & 0x7fff_ffff_f000 | (writable ? 1 << 11 : 0) | (pages &- 1) & 0xff
  }
}

extension Message {
  /// Grants the server pages of the caller; takes the place of a passed handle.
  public mutating func grant(_ pages: Grant) { raw.handle = pages.rawValue }

  /// In a handler: the pages that the caller granted, valid until the handler returns; nil if it granted none.
  public var granted: UnsafeMutableRawBufferPointer? {
    guard raw.handle >> 63 != 0 else { return nil }
    // The kernel mapped them in this stack's window for the time of the call.
    let start = UnsafeMutableRawPointer(bitPattern: UInt(raw.handle & 0x7fff_ffff_f000))
    return UnsafeMutableRawBufferPointer(start: start, count: Int((raw.handle & 0xff) + 1) * 4096)
  }
  /// Whether the granted pages may be written.
  public var grantIsWritable: Bool { raw.handle >> 11 & 1 != 0 }
}

/// The server's side of a service.
public final class RPCService {
  public typealias Handler = (_ badge: UInt64, _ message: inout Message) -> Void

  /// With the rights to connect and to manage.
  public let handle: Handle

  private init(_ handle: Handle) { self.handle = handle }

  /// A service of this process with so many stacks of `stackSize` bytes; as many callers can be in it at once. `handler` gets the words
  /// and leaves its reply in the same message; a handle or grant that came is not sent back. With one stack, calls exclude each other, and
  /// the one inside runs at the priority of the most urgent that waits.
  public static func create(
    stacks: Int, stackSize: UInt64 = 32 << 10, handler: @escaping Handler
  ) throws(SystemError) -> RPCService {
    // Lives as long as the process, since a call may arrive at any time.
    let box = Unmanaged.passRetained(HandlerBox(handler))
    let context = UInt64(UInt(bitPattern: box.toOpaque()))
    return try make(entry: pollux_rpc_entry_address(), context: context, stacks, stackSize)
  }

  /// A service whose calls have five words there and two back, all in registers. `function` is called with the badge and the words.
  public static func createShort(
    stacks: Int, stackSize: UInt64 = 16 << 10, function: ShortHandler
  ) throws(SystemError) -> RPCService {
    let address = UInt64(UInt(bitPattern: unsafeBitCast(function, to: UnsafeRawPointer.self)))
    return try make(entry: pollux_rpc_entry_short_address(), context: address, stacks, stackSize)
  }
  public typealias ShortHandler =
    @convention(c) (
      _ badge: UInt64, _ word0: UInt64, _ word1: UInt64, _ word2: UInt64, _ word3: UInt64, _ word4: UInt64
    ) -> pollux_short_words

  private static func make(
    entry: UInt64, context: UInt64, _ stacks: Int, _ stackSize: UInt64
  ) throws(SystemError) -> RPCService {
    let service = RPCService(Handle(try invoke(.serviceCreate, 0, entry, context)))
    for _ in 0..<stacks {
      let stack = try MemoryObject.create(stackSize).map([.read, .write])
      // Granted pages appear here; nothing else is ever mapped in a reserved range.
      let window = Mapping.reserve(1 << 20)
      _ = try invoke(.serviceAddStack, service.handle.rawValue, stack.address + UInt64(stack.size), window)
    }
    return service
  }

  /// Tells the registry: clients find the service under this program's name.
  public func publish() throws(SystemError) {
    var message = Message(RegistryCall.publish.rawValue)
    message.pass(handle, [.connect, .grant])
    try Program.ask(&message)
  }

  /// A connection to this service, to be passed to a client; handlers get `badge`.
  public func connect(badge: UInt64, flags: ConnectionFlags = []) throws(SystemError) -> Connection {
    try Self.connect(handle, badge: badge, flags: flags)
  }

  /// As `connect`, for the holder of another process's service handle.
  public static func connect(
    _ service: Handle, badge: UInt64, flags: ConnectionFlags = []
  ) throws(SystemError) -> Connection {
    Connection(Handle(try invoke(.connectionCreate, service.rawValue, badge, flags.rawValue)))
  }

  public func query(_ query: ServiceQuery) -> UInt64 {
    do throws(SystemError) { return try invoke(.serviceQuery, handle.rawValue, query.rawValue) } catch { return 0 }
  }
}

private final class HandlerBox {
  let handler: RPCService.Handler
  init(_ handler: @escaping RPCService.Handler) { self.handler = handler }
}

@c(pollux_rpc_main)
public func rpcMain(_ context: UnsafeRawPointer, _ badge: UInt64, _ words: UnsafeMutablePointer<pollux_message>) {
  // `RPCService.create` made the context from a retained box; the words lie on this stack, written by the entry.
  let box = Unmanaged<HandlerBox>.fromOpaque(context).takeUnretainedValue()
  var message = Message()
  message.raw = words.pointee
  let arrived = message.raw.handle
  box.handler(badge, &message)
  if message.raw.handle == arrived { message.raw.handle = 0 }
  words.pointee = message.raw
}
