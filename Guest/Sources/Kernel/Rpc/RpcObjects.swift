// What a call by thread migration needs (HongMeng §4.1, Fig. 3): services, their stacks, and the connections through which clients
// call them. Whatever can be known before a call is computed when the connection is made.
import CArch
import KernelCore
import PolluxABI

/// A server's entry point with its pool of stacks. The first word is known to entry.S.
struct Service {
  /// 1 while threads wait for a stack, else 0; read without a lock, so set before stacks are looked for.
  var waiters: UInt64 = 0
  /// Handles, connections, and calls in progress.
  var references: UInt32
  /// Its process has ended.
  var isClosed = false
  /// Mark of the last search that came here (`StackWaits`).
  var mark: UInt32 = 0
  var searchNext: Reference<Service>?
  /// The server's domain; the service holds a count on it.
  var process: Reference<Process>
  /// Guest-virtual address at which calls arrive, and a word that they find in RAX.
  var entry: UInt64
  var context: UInt64
  /// All its stacks, and those that are neither bound nor in use.
  var activations: Reference<Activation>?
  var free: Reference<Activation>?
  var connections = Queue<ConnectionLinks>()
  /// Threads that wait for a stack.
  var waiting = Queue<ReadyLinks>()
  var link = Link<Service>()
}

/// A client's way into a service. The first words are known to entry.S.
struct Connection {
  /// Address of the activation whose stack the next call uses; 0: none, or the service is gone. Exchanged without a lock.
  var stack: UInt64 = 0
  var process: Reference<Process>
  var entry: UInt64
  var badge: UInt64
  var context: UInt64
  var service: Reference<Service>
  /// Handles, and threads that wait for a stack to call with.
  var references: UInt32
  /// What a call does when all stacks are in use: fail with `exhausted` instead of waiting.
  var refuses: Bool
  var link = Link<Connection>()
}

/// One server stack, and while a call uses it, where that call returns to. The first words are known to entry.S.
struct Activation {
  /// Guest-virtual address of the stack's end.
  var stack: UInt64
  /// The caller's registers; the other registers carry the message or are lost.
  var rip: UInt64 = 0
  var rsp: UInt64 = 0
  var rflags: UInt64 = 0
  /// The domain that called; nil where nobody waits for the result any more.
  var caller: Reference<Process>?
  /// The call that this one was made in.
  var previous: Reference<Activation>?
  /// The thread that is in the call, here or in a call further on; nil: not in use.
  var thread: Reference<Thread>?
  /// Through which it was called, or to which it is bound.
  var connection: Reference<Connection>?
  /// Why the return must take the slow path.
  var attention = Attention()
  var service: Reference<Service>
  /// Next of the service's stacks, and of its free ones.
  var next: Reference<Activation>?
  var nextFree: Reference<Activation>?
  /// A thread kept ready to go on in the server when the call's deadline passes.
  var spare: Reference<Thread>?
  /// Where granted pages appear in the server, in pages; 0: nowhere.
  var window: UInt64 = 0
  /// The memory object whose pages the window shows now, and how many.
  var granted: Reference<MemoryObject>?
  var grantedPages: UInt64 = 0
}

/// What a return has to look after.
struct Attention: OptionSet {
  let rawValue: UInt64
  /// The caller's domain has ended, or it has stopped waiting.
  static let callerGone = Attention(rawValue: 1)
  /// The call has a deadline, so a spare thread.
  static let timed = Attention(rawValue: 2)
  /// Pages of the caller are mapped in the server.
  static let window = Attention(rawValue: 4)
  /// The connection's last handle is gone.
  static let connectionClosed = Attention(rawValue: 8)
}

enum ConnectionLinks: LinkField {
  static func link(_ node: Reference<Connection>) -> Link<Connection> { node.pointee.link }
  static func setNext(_ node: Reference<Connection>, _ next: Reference<Connection>?) { node.pointee.link.next = next }
  static func setPrevious(_ node: Reference<Connection>, _ previous: Reference<Connection>?) {
    node.pointee.link.previous = previous
  }
}

enum ServiceLinks: LinkField {
  static func link(_ node: Reference<Service>) -> Link<Service> { node.pointee.link }
  static func setNext(_ node: Reference<Service>, _ next: Reference<Service>?) { node.pointee.link.next = next }
  static func setPrevious(_ node: Reference<Service>, _ previous: Reference<Service>?) {
    node.pointee.link.previous = previous
  }
}

extension Reference<Connection> {
  /// Takes the bound stack, or puts another in its place, against calls on other processors.
  func exchangeStack(_ activation: Reference<Activation>?) -> Reference<Activation>? {
    Reference<Activation>(address: exchange64(address, activation?.address ?? 0))
  }
}
