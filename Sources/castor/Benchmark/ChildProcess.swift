// A machine as a child process: its console as a pipe, and an end in every case.

import Foundation

/// A child with pipes on its standard streams. It is killed when this object goes away.
final class ChildProcess {
  private let identifier: pid_t
  private let input: CInt
  private let output: CInt
  private let errors: CInt
  private var status: CInt?
  /// What the child wrote to standard error, up to 64 KiB.
  private(set) var errorText: [UInt8] = []

  /// Starts a program in a process group of its own, so that Ctrl-C on the terminal reaches this process alone.
  init(_ path: String, _ arguments: [String]) throws {
    var pipes: [CInt] = []
    for _ in 0..<3 {
      var pair: [CInt] = [-1, -1]
      guard pipe(&pair) == 0 else {
        let reason = String(cString: strerror(errno))
        for descriptor in pipes { close(descriptor) }
        throw CommandFailure(message: "no pipe can be made: \(reason)", exitCode: .operatingSystemError)
      }
      for descriptor in pair { _ = fcntl(descriptor, F_SETFD, FD_CLOEXEC) }
      pipes += pair
    }
    var actions = posix_spawn_file_actions_t()
    posix_spawn_file_actions_init(&actions)
    defer { posix_spawn_file_actions_destroy(&actions) }
    posix_spawn_file_actions_adddup2(&actions, pipes[0], 0)
    posix_spawn_file_actions_adddup2(&actions, pipes[3], 1)
    posix_spawn_file_actions_adddup2(&actions, pipes[5], 2)
    var attributes = posix_spawnattr_t()
    posix_spawnattr_init(&attributes)
    defer { posix_spawnattr_destroy(&attributes) }
    posix_spawnattr_setflags(&attributes, Int16(POSIX_SPAWN_SETPGROUP))
    var pointers = ([path] + arguments).map { strdup($0) }
    defer { for pointer in pointers { free(pointer) } }
    pointers.append(nil)
    var identifier: pid_t = 0
    let result = posix_spawnp(&identifier, path, &actions, &attributes, pointers, environ)
    for index in [0, 3, 5] { close(pipes[index]) }
    guard result == 0 else {
      for index in [1, 2, 4] { close(pipes[index]) }
      throw CommandFailure(
        message: "'\(path)' cannot be started: \(String(cString: strerror(result)))",
        exitCode: result == ENOENT ? .missingInput : .operatingSystemError)
    }
    self.identifier = identifier
    input = pipes[1]
    output = pipes[2]
    errors = pipes[4]
  }

  deinit {
    kill()
    close(input)
    close(output)
    close(errors)
  }

  /// Waits at most `milliseconds` for console output. Empty: nothing came. Nil: the child closed its output.
  func read(milliseconds: CInt) -> [UInt8]? {
    var descriptors = [
      pollfd(fd: output, events: Int16(POLLIN), revents: 0), pollfd(fd: errors, events: Int16(POLLIN), revents: 0),
    ]
    guard poll(&descriptors, 2, milliseconds) > 0 else { return [] }
    if descriptors[1].revents != 0 { drainErrors() }
    guard descriptors[0].revents != 0 else {
      // A closed standard error is always ready: do not spin on it.
      if descriptors[1].revents & Int16(POLLHUP) != 0 { usleep(1000) }
      return []
    }
    return Self.read(output)
  }

  private func drainErrors() {
    if let bytes = Self.read(errors) { errorText = (errorText + bytes).suffix(1 << 16) }
  }

  /// Nil at the end of the stream.
  private static func read(_ descriptor: CInt) -> [UInt8]? {
    var bytes = [UInt8](repeating: 0, count: 1 << 16)
    let count = Glibc.read(descriptor, &bytes, bytes.count)
    if count < 0 { return errno == EINTR || errno == EAGAIN ? [] : nil }
    return count == 0 ? nil : Array(bytes[..<count])
  }

  /// Waits at most `milliseconds` for the child's end. Nil: it still runs. Else its exit code, or 128 and the signal.
  func wait(milliseconds: Int) -> CInt? {
    let deadline = HostBaseline.now() + UInt64(milliseconds) * 1_000_000
    while status == nil {
      var raw: CInt = 0
      let result = waitpid(identifier, &raw, WNOHANG)
      if result == identifier {
        status = raw & 0x7f == 0 ? (raw >> 8) & 0xff : 128 + (raw & 0x7f)
      } else if result < 0, errno != EINTR {
        status = 0
      } else if HostBaseline.now() >= deadline {
        return nil
      } else {
        usleep(2000)
      }
    }
    drainAfterEnd()
    return status
  }

  private func drainAfterEnd() {
    var ready = pollfd(fd: errors, events: Int16(POLLIN), revents: 0)
    while poll(&ready, 1, 0) > 0, ready.revents & Int16(POLLIN) != 0 { drainErrors() }
  }

  /// Ends the child now, if it still runs, and what it started in its process group.
  func kill() {
    guard status == nil, wait(milliseconds: 0) == nil else { return }
    Glibc.kill(-identifier, SIGKILL)
    _ = wait(milliseconds: 5000)
  }
}
