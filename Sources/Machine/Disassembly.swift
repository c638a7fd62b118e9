// Instruction bytes as words, where the host has GNU objdump; without it, nobody misses more than comfort.

import CLinux
import Glibc
import HostSystem

/// Disassembles 64-bit code that lies at `address`; empty when the host has no objdump or it does not answer in two
/// seconds. At most three instructions.
func disassemble(_ bytes: [UInt8], at address: UInt64) -> [String] {
  guard !bytes.isEmpty, let (code, output) = makeFiles(bytes) else { return [] }
  defer {
    close(code)
    close(output)
  }
  // Descriptors 3 and 4 of the child; objdump wants a file by name.
  let words = [
    "objdump", "-D", "-b", "binary", "-m", "i386:x86-64", "--no-show-raw-insn",
    "--adjust-vma=0x\(String(address, radix: 16))", "/proc/self/fd/3",
  ]
  var actions = posix_spawn_file_actions_t()
  posix_spawn_file_actions_init(&actions)
  defer { posix_spawn_file_actions_destroy(&actions) }
  posix_spawn_file_actions_adddup2(&actions, code, 3)
  posix_spawn_file_actions_adddup2(&actions, output, 1)
  posix_spawn_file_actions_addopen(&actions, 2, "/dev/null", O_WRONLY, 0)
  posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0)
  var arguments = words.map { strdup($0) }
  arguments.append(nil)
  defer { for argument in arguments { free(argument) } }
  var child = pid_t()
  guard posix_spawnp(&child, "objdump", &actions, nil, arguments, environ) == 0 else { return [] }
  let deadline = monotonicNanoseconds() + 2_000_000_000
  var status: CInt = 0
  while waitpid(child, &status, WNOHANG) == 0 {
    guard monotonicNanoseconds() < deadline else {
      kill(child, SIGKILL)
      waitpid(child, &status, 0)
      return []
    }
    usleep(2000)
  }
  return instructions(in: readAll(output))
}

/// Two anonymous files, for the code and for objdump's output, at descriptors that `dup2` in the child does not disturb.
private func makeFiles(_ bytes: [UInt8]) -> (code: CInt, output: CInt)? {
  let code = highDescriptor("castor-code")
  let output = highDescriptor("castor-text")
  guard code >= 0, output >= 0, write(code, bytes, bytes.count) == bytes.count else {
    if code >= 0 { close(code) }
    if output >= 0 { close(output) }
    return nil
  }
  return (code, output)
}

private func highDescriptor(_ name: String) -> CInt {
  let low = castor_memfd_create(name, UInt32(MFD_CLOEXEC))
  guard low >= 0 else { return -1 }
  defer { close(low) }
  return fcntl(low, F_DUPFD_CLOEXEC, 10)
}

private func readAll(_ descriptor: CInt) -> String {
  var bytes = [UInt8](repeating: 0, count: 8192)
  let count = pread(descriptor, &bytes, bytes.count, 0)
  return String(decoding: bytes.prefix(max(0, count)), as: UTF8.self)
}

/// The lines of objdump's output that are instructions: "  address:", a tab, the instruction.
func instructions(in text: String) -> [String] {
  let lines = text.split(separator: "\n").filter { $0.hasPrefix(" ") && $0.contains(":\t") }
  return lines.prefix(3).map { line in
    let parts = line.drop { $0 == " " }.split(separator: "\t", maxSplits: 1)
    let instruction = parts.count == 2 ? parts[1] : ""
    return "\(parts.first ?? "") \(instruction.split(separator: " ").joined(separator: " "))"
  }
}
