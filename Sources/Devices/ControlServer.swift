// Serves the control socket: JSON lines in, one JSON line out for each, several clients at a time (docs/control.md).

import CLinux
import Glibc
import HostSystem
import SystemPackage

/// Listens at a path of the file system and hands commands to a target, all on one event loop's thread.
///
/// Clients are trusted to be the user (the socket's mode is 0600) but not to be correct: lines are bounded, a client
/// that does not read its replies is not read from, and nothing that arrives can stop the machine but the command to.
public final class ControlServer {
  /// The longest request, in bytes.
  public static let maximumLine = 64 << 10
  static let maximumClients = 16
  /// Replies that may wait for a client before its requests wait too.
  private static let maximumBacklog = 256 << 10

  private final class Client {
    let descriptor: CInt
    var input: [UInt8] = []
    var output: [UInt8] = []
    /// The line that is arriving is too long; it is skipped to its end.
    var skipping = false
    var sendsNoMore = false
    init(_ descriptor: CInt) { self.descriptor = descriptor }
  }

  private let listener: UnixListener
  private let loop: EventLoop
  private unowned let target: any ControlTarget
  private var clients: [CInt: Client] = [:]

  /// Listens at `path`. Call before the loop runs, or on its thread.
  /// - Parameter target: must outlive the server.
  public init(path: String, loop: EventLoop, target: any ControlTarget) throws(SocketPathError) {
    self.loop = loop
    self.target = target
    listener = try UnixListener(path: path)
    do {
      try loop.add(listener.fileDescriptor, for: .readable) { [unowned self] _ in welcome() }
    } catch { throw .cannotListen(path: path, error) }
  }

  /// Sends what waits as far as clients take it at once, disconnects them and removes the socket's file with the server.
  public func close() {
    loop.remove(listener.fileDescriptor)
    for client in Array(clients.values) {
      _ = flush(client)
      drop(client)
    }
  }

  deinit { for client in clients.values { Glibc.close(client.descriptor) } }

  private func welcome() {
    guard let descriptor = listener.accept() else { return }
    guard clients.count < Self.maximumClients else {
      let reply = ControlRequest.reply(id: .null, .failure(ControlError("too many clients")))
      send(descriptor, reply, reply.count, CInt(MSG_NOSIGNAL))
      Glibc.close(descriptor)
      return
    }
    let client = Client(descriptor)
    do {
      try loop.add(descriptor, for: .readable) { [unowned self] readiness in serve(client, readiness) }
      clients[descriptor] = client
    } catch { Glibc.close(descriptor) }
  }

  private func serve(_ client: Client, _ readiness: Readiness) {
    guard clients[client.descriptor] === client else { return }
    if readiness.contains(.readable), !client.sendsNoMore { receive(client) }
    if !readiness.intersection(.hangUp).isEmpty, !readiness.contains(.readable) { return drop(client) }
    answerLines(of: client)
    guard flush(client) else { return drop(client) }
    answerLines(of: client)
    if client.sendsNoMore, client.output.isEmpty { return drop(client) }
    var interest: Readiness = []
    if !client.sendsNoMore, client.output.count < Self.maximumBacklog { interest.insert(.readable) }
    if !client.output.isEmpty { interest.insert(.writable) }
    do { try loop.modify(client.descriptor, for: interest) } catch { drop(client) }
  }

  private func receive(_ client: Client) {
    withUnsafeTemporaryAllocation(byteCount: 8192, alignment: 1) { buffer in
      do {
        let count = try systemCall { read(client.descriptor, buffer.baseAddress, buffer.count) }
        if count == 0 {
          client.sendsNoMore = true
          // The last line may lack its end.
          client.input.append(0x0a)
        }
        client.input += buffer[..<count]
      } catch .wouldBlock {
      } catch { client.sendsNoMore = true }
    }
  }

  /// Answers every complete line, as long as the client's replies do not pile up.
  private func answerLines(of client: Client) {
    var start = 0
    while client.output.count < Self.maximumBacklog,
      let end = client.input[start...].firstIndex(of: 0x0a)
    {
      let line = Array(client.input[start..<end])
      start = end + 1
      if client.skipping || line.count > Self.maximumLine {
        client.skipping = false
        answer(client, to: .null, .failure(ControlError("a request has at most \(Self.maximumLine) bytes")))
      } else if !line.allSatisfy({ $0 == 0x20 || $0 == 0x09 || $0 == 0x0d }) {
        let request = ControlRequest(parsing: line)
        answer(client, to: request.id, carryOut(request.command))
      }
    }
    client.input.removeFirst(start)
    if client.input.count > Self.maximumLine, client.input.firstIndex(of: 0x0a) == nil {
      client.skipping = true
      client.input = []
    }
  }

  private func carryOut(_ command: Result<ControlCommand, ControlError>) -> Result<JSONValue, ControlError> {
    Result { () throws(ControlError) in try target.perform(try command.get()) }
  }

  private func answer(_ client: Client, to id: JSONValue, _ result: Result<JSONValue, ControlError>) {
    client.output += ControlRequest.reply(id: id, result)
  }

  /// Sends what waits; false when the client is gone.
  private func flush(_ client: Client) -> Bool {
    var sent = 0
    defer { client.output.removeFirst(sent) }
    while sent < client.output.count {
      do {
        sent += try client.output.withUnsafeBytes { bytes throws(Errno) in
          // In bounds: `sent` is less than the count.
          let rest = UnsafeRawBufferPointer(rebasing: bytes[sent...])
          return try systemCall { send(client.descriptor, rest.baseAddress, rest.count, CInt(MSG_NOSIGNAL)) }
        }
      } catch {
        return (error as? Errno) == .wouldBlock
      }
    }
    return true
  }

  private func drop(_ client: Client) {
    guard clients.removeValue(forKey: client.descriptor) != nil else { return }
    loop.remove(client.descriptor)
    Glibc.close(client.descriptor)
  }
}
