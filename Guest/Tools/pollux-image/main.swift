// The build tool of the guest image: `archive OUT NAME=FILE…` packs the boot archive, `check` reads the disassembly of the
// kernel on standard input and fails on instructions that it must not contain; `check-service FILE` does so for a service for
// kernel space, whose bytes it checks too, and mends where they lie in distances of jumps.
import Glibc

func complain(_ message: String) {
  let line = message + "\n"
  _ = line.withCString { write(STDERR_FILENO, $0, strlen($0)) }
}

func fail(_ message: String) -> Never {
  complain("pollux-image: \(message)")
  exit(1)
}

func contents(of path: String) -> [UInt8] {
  guard let file = fopen(path, "rb") else { fail("\(path): \(String(cString: strerror(errno)))") }
  defer { fclose(file) }
  var bytes: [UInt8] = []
  var chunk = [UInt8](repeating: 0, count: 1 << 16)
  while true {
    let count = fread(&chunk, 1, chunk.count, file)
    if count == 0 { break }
    bytes.append(contentsOf: chunk[..<count])
  }
  return bytes
}

func save(_ bytes: [UInt8], to path: String) {
  guard let file = fopen(path, "r+b") ?? fopen(path, "wb") else { fail("\(path): \(String(cString: strerror(errno)))") }
  let written = bytes.withUnsafeBufferPointer { fwrite($0.baseAddress, 1, $0.count, file) }
  guard ftruncate(fileno(file), off_t(bytes.count)) == 0, fclose(file) == 0, written == bytes.count else {
    fail("\(path): \(String(cString: strerror(errno)))")
  }
}

let arguments = CommandLine.arguments.dropFirst()
switch arguments.first {
case "archive":
  guard let out = arguments.dropFirst().first else { fail("usage: archive OUT NAME=FILE…") }
  var archive = Archive()
  for pair in arguments.dropFirst(2) {
    guard let equals = pair.firstIndex(of: "=") else { fail("\(pair): NAME=FILE expected") }
    let name = String(pair[..<equals])
    guard name.utf8.count < 100 else { fail("\(name): a name has at most 99 bytes") }
    let bytes = contents(of: String(pair[pair.index(after: equals)...]))
    archive.append(name: name, contents: bytes, executable: bytes.starts(with: [0x7f, 0x45, 0x4c, 0x46]))
  }
  archive.finish()
  save(archive.bytes, to: out)
case "check":
  var check = InstructionCheck()
  while let line = readLine() { check.read(line) }
  let findings = check.findings
  for finding in findings { complain("kernel: \(finding)") }
  guard !check.addresses.isEmpty else { fail("no disassembly on standard input") }
  if !findings.isEmpty { fail("the kernel contains \(findings.count) instructions that it must not") }
case "check-service":
  guard let file = arguments.dropFirst().first else { fail("usage: check-service FILE <DISASSEMBLY") }
  var check = InstructionCheck(isService: true)
  while let line = readLine() { check.read(line) }
  guard !check.addresses.isEmpty else { fail("no disassembly on standard input") }
  var bytes = ByteCheck(contents(of: file))
  if !bytes.offsets.isEmpty {
    bytes.mend(check.addresses)
    save(bytes.file, to: file)
  }
  let findings = check.findings + bytes.findings
  for finding in findings { complain("\(file): \(finding)") }
  if !findings.isEmpty { fail("not fit for kernel space: \(findings.count) findings") }
default:
  fail("usage: pollux-image archive OUT NAME=FILE… | check <DISASSEMBLY | check-service FILE <DISASSEMBLY")
}
