import CLinux
import Glibc
import HostSystem
import SystemPackage
import Testing

@testable import Devices

/// The probe program on a pseudo-terminal of its own, as if a person had started it there.
final class TerminalSession {
  let controller: CInt
  let process: pid_t
  private(set) var screen: [UInt8] = []
  private var status: CInt?

  init() throws {
    let controller = castor_open("/dev/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC | O_NONBLOCK, 0)
    var number: UInt32 = 0
    var locked: CInt = 0
    try systemCall { castor_ioctl_pointer(controller, castor_TIOCGPTN, &number) }
    try systemCall { castor_ioctl_pointer(controller, castor_TIOCSPTLCK, &locked) }
    self.controller = controller

    var actions = posix_spawn_file_actions_t()
    posix_spawn_file_actions_init(&actions)
    defer { posix_spawn_file_actions_destroy(&actions) }
    // The leader of a new session gets the first terminal that it opens as its controlling terminal.
    posix_spawn_file_actions_addopen(&actions, 0, "/dev/pts/\(number)", O_RDWR, 0)
    posix_spawn_file_actions_adddup2(&actions, 0, 1)
    posix_spawn_file_actions_adddup2(&actions, 0, 2)
    var attributes = posix_spawnattr_t()
    posix_spawnattr_init(&attributes)
    defer { posix_spawnattr_destroy(&attributes) }
    // POSIX_SPAWN_SETSID and POSIX_SPAWN_SETSIGMASK: the threads that run tests block signals.
    posix_spawnattr_setflags(&attributes, 0x80 | 0x08)
    var nothing = sigset_t()
    sigemptyset(&nothing)
    posix_spawnattr_setsigmask(&attributes, &nothing)
    let path = try #require(Self.probePath)
    var arguments = [strdup(path), nil]
    defer { free(arguments[0]) }
    var environment = [strdup("SWIFT_BACKTRACE=enable=no"), nil]
    defer { free(environment[0]) }
    var child = pid_t()
    let result = posix_spawn(&child, path, &actions, &attributes, &arguments, &environment)
    guard result == 0 else { throw Errno(rawValue: result) }
    process = child
  }

  deinit {
    if status == nil {
      kill(process, SIGKILL)
      waitpid(process, nil, 0)
    }
    close(controller)
  }

  /// Beside the test's own executable.
  private static var probePath: String? {
    var buffer = [UInt8](repeating: 0, count: 4096)
    let count = readlink("/proc/self/exe", &buffer, buffer.count)
    guard count > 0 else { return nil }
    let path = String(decoding: buffer[..<count], as: UTF8.self)
    let folder = path.split(separator: "/").dropLast().joined(separator: "/")
    return "/\(folder)/console-probe"
  }

  func type(_ text: String) { writeAll(controller, text) }

  /// Waits until the screen shows `text` (after what was waited for before).
  func shows(_ text: String) -> Bool {
    let wanted = Array(text.utf8)
    return wait {
      screen += readAvailable(controller, atMost: 4096)
      guard screen.count >= wanted.count,
        let place = (0...screen.count - wanted.count).first(where: { Array(screen[$0..<$0 + wanted.count]) == wanted })
      else { return false }
      screen.removeFirst(place + wanted.count)
      return true
    }
  }

  /// The terminal's mode: whether it echoes, edits lines and makes signals.
  var isRaw: Bool {
    var mode = termios()
    tcgetattr(controller, &mode)
    return mode.c_lflag & tcflag_t(ECHO | ICANON | ISIG) == 0
  }

  var isAsBefore: Bool {
    var mode = termios()
    tcgetattr(controller, &mode)
    let all = tcflag_t(ECHO | ICANON | ISIG)
    return mode.c_lflag & all == all && mode.c_iflag & tcflag_t(ICRNL) != 0
  }

  /// The mode that a shell sets while a program is stopped.
  func makeCooked() {
    var mode = termios()
    tcgetattr(controller, &mode)
    mode.c_lflag |= tcflag_t(ECHO | ICANON | ISIG)
    mode.c_iflag |= tcflag_t(ICRNL)
    tcsetattr(controller, TCSANOW, &mode)
  }

  func wait(_ condition: () -> Bool) -> Bool {
    let deadline = monotonicNanoseconds() + 20_000_000_000
    while !condition() {
      if monotonicNanoseconds() > deadline { return false }
      usleep(2000)
    }
    return true
  }

  /// Waits for the end of the process; its wait status.
  func end() -> CInt? {
    var value: CInt = 0
    guard wait({ waitpid(process, &value, WNOHANG) == process }) else { return nil }
    status = value
    return value
  }

  func becomesStopped() -> Bool {
    var value: CInt = 0
    return wait { waitpid(process, &value, WNOHANG | WUNTRACED) == process && value & 0xff == 0x7f }
  }
}

@Suite struct TerminalTests {
  @Test func keysReachTheGuestUnchangedAndEscapesDoNot() throws {
    let session = try TerminalSession()
    #expect(session.shows("ready\r\n"), "output processing is on: a bare line feed begins a line")
    #expect(session.isRaw)
    session.type("\u{3}")
    #expect(session.shows("03\r\n"))
    session.type("\u{1a}\r\u{11}\u{7f}")
    #expect(session.shows("1a\r\n0d\r\n11\r\n7f\r\n"))
    session.type("\u{1}\u{1}")
    #expect(session.shows("01"))
    session.type("\u{1}h")
    #expect(session.shows("Ctrl-A x"))
    session.type("\u{1}x")
    #expect(session.end() == 0)
    #expect(session.isAsBefore)
  }

  /// How the process ends, and what it leaves as wait status.
  static let ends: [(String, CInt?)] = [
    ("q", 0), ("e", 7 << 8), ("a", SIGABRT), ("f", SIGILL),
  ]

  @Test(arguments: ends)
  func terminalIsRestoredHoweverTheProcessEnds(key: String, status: CInt?) throws {
    let session = try TerminalSession()
    #expect(session.shows("ready"))
    #expect(session.isRaw)
    session.type(key)
    // Bit 7 says whether there is a core file.
    #expect(session.end().map { $0 & ~0x80 } == status)
    #expect(session.isAsBefore)
  }

  @Test(arguments: [SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGSEGV, SIGBUS])
  func terminalIsRestoredWhenASignalEndsTheProcess(number: CInt) throws {
    let session = try TerminalSession()
    #expect(session.shows("ready"))
    #expect(session.isRaw)
    kill(session.process, number)
    #expect(session.end().map { $0 & 0x7f } == number)
    #expect(session.isAsBefore)
  }

  @Test func terminalIsRawAgainAfterAStop() throws {
    let session = try TerminalSession()
    #expect(session.shows("ready"))
    kill(session.process, SIGSTOP)
    #expect(session.becomesStopped())
    session.makeCooked()
    #expect(!session.isRaw)
    kill(session.process, SIGCONT)
    #expect(session.wait { session.isRaw })
    session.type("k")
    #expect(session.shows("6b"))
    // An orphaned process group is not stopped by SIGTSTP; the terminal must not stay in the shell's mode then.
    kill(session.process, SIGTSTP)
    session.type("m")
    #expect(session.shows("6d"))
    #expect(session.isRaw)
    session.type("\u{1}x")
    #expect(session.end() == 0)
    #expect(session.isAsBefore)
  }
}
