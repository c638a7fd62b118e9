// Bad input, end to end: `castor run` ends with one line that names the culprit and the exit code of that case.

import CLinux
import Configuration
import Foundation
import Testing

/// The built `castor`, run to its end.
struct CastorRun {
  let exitCode: Int32
  let output: String
  let errors: String

  static let folder = HostPaths.folder(of: HostPaths.executable ?? CommandLine.arguments[0])
  static let hasKVM = access("/dev/kvm", R_OK | W_OK) == 0
  static let hasQEMU = (ProcessInfo.processInfo.environment["PATH"] ?? "").split(separator: ":")
    .contains { access("\($0)/qemu-system-x86_64", X_OK) == 0 }

  /// Runs castor in a folder, with standard output in a file or where `output` says; kills it after `seconds`.
  init(_ arguments: [String], in folder: TestFolder, seconds: Double = 60, output device: String? = nil) throws {
    let process = Process()
    process.executableURL = URL(filePath: "\(Self.folder)/castor")
    process.arguments = arguments
    process.currentDirectoryURL = folder.url
    process.standardInput = FileHandle.nullDevice
    // Files rather than pipes: nothing blocks however much is written.
    let paths = ["output-\(UUID().uuidString)", "errors-\(UUID().uuidString)"].map { folder.url.appending(path: $0) }
    for path in paths { try Data().write(to: path) }
    process.standardOutput = try FileHandle(forWritingTo: device.map { URL(filePath: $0) } ?? paths[0])
    process.standardError = try FileHandle(forWritingTo: paths[1])
    let ended = DispatchSemaphore(value: 0)
    process.terminationHandler = { _ in ended.signal() }
    try process.run()
    if ended.wait(timeout: .now() + seconds) == .timedOut {
      kill(process.processIdentifier, SIGKILL)
      ended.wait()
    }
    exitCode =
      process.terminationReason == .uncaughtSignal ? 128 + process.terminationStatus : process.terminationStatus
    output = String(decoding: try Data(contentsOf: paths[0]), as: UTF8.self)
    errors = String(decoding: try Data(contentsOf: paths[1]), as: UTF8.self)
  }
}

/// A small PVH kernel: one segment of code, the note that names its entry, and perhaps a segment somewhere else.
enum TestKernel {
  static func elf(extraSegmentAt address: UInt64? = nil) -> Data {
    func bytes<T: FixedWidthInteger>(_ value: T) -> [UInt8] { withUnsafeBytes(of: value.littleEndian) { Array($0) } }
    let entry: UInt64 = 0x10_0000
    var segments: [(type: UInt32, offset: UInt64, address: UInt64, count: UInt64)] = [
      (1, 0x1000, entry, 0x10), (4, 0x800, 0, 20),
    ]
    if let address { segments.append((1, 0x1000, address, 0x10)) }
    var file: [UInt8] = [0x7f, 0x45, 0x4c, 0x46, 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0]
    file += bytes(UInt16(2)) + bytes(UInt16(62)) + bytes(UInt32(1)) + bytes(entry) + bytes(UInt64(64))
    file += bytes(UInt64(0)) + bytes(UInt32(0)) + bytes(UInt16(64)) + bytes(UInt16(56))
    file += bytes(UInt16(segments.count)) + bytes(UInt16(0)) + bytes(UInt16(0)) + bytes(UInt16(0))
    for segment in segments {
      file += bytes(segment.type) + bytes(UInt32(5)) + bytes(segment.offset) + bytes(segment.address)
      file += bytes(segment.address) + bytes(segment.count) + bytes(segment.count) + bytes(UInt64(0x1000))
    }
    file += [UInt8](repeating: 0, count: 0x800 - file.count)
    // XEN_ELFNOTE_PHYS32_ENTRY: name "Xen", type 18.
    file += bytes(UInt32(4)) + bytes(UInt32(4)) + bytes(UInt32(18)) + Array("Xen\0".utf8) + bytes(UInt32(entry))
    file += [UInt8](repeating: 0, count: 0x1000 - file.count)
    return Data(file + [UInt8](repeating: 0xf4, count: 0x10))
  }
}

@Suite struct BadInputTests {
  /// Makes the files, runs castor, and checks the code and the line.
  static func check(
    _ arguments: [String], _ code: Configuration.ExitCode, names culprit: String,
    files: [String: Data] = ["kernel.elf": TestKernel.elf()], prepare: (TestFolder) throws -> Void = { _ in }
  ) throws {
    let folder = try TestFolder()
    for (name, data) in files { try data.write(to: folder.url.appending(path: name)) }
    try prepare(folder)
    let run = try CastorRun(arguments, in: folder)
    #expect(run.exitCode == code.rawValue, "\(run.errors)")
    #expect(run.errors.contains(culprit), "\(run.errors)")
    #expect(run.errors.split(separator: "\n").count == 1, "\(run.errors)")
    #expect(run.errors.hasPrefix("castor: "), "\(run.errors)")
  }

  @Test(arguments: [
    ["bogus"], ["run", "--bogus"], ["run", "--cpus"], ["bench", "nothing"], ["fdt", "--x"],
    ["run", "one.yaml", "two.yaml"],
  ])
  func argumentsThatAreNotUnderstood(_ arguments: [String]) throws {
    try Self.check(arguments, .usage, names: "see 'castor")
  }

  @Test(arguments: ["0", "9"])
  func processorsThatPolluxHasNot(_ count: String) throws {
    try Self.check(
      ["bench", "block", "--machine", "qemu", "--cpus", count], .invalidConfiguration, names: "--cpus '\(count)'")
  }

  static let machine = ["run", "--kernel", "kernel.elf", "--control", "none"]

  @Test func missingKernel() throws {
    try Self.check(["run", "--kernel", "nothing.elf"], .missingInput, names: "nothing.elf")
  }

  @Test func zeroSizeDisk() throws {
    try Self.check(Self.machine + ["--disk", "empty.img"], .emptyDisk, names: "empty.img") { folder in
      try Data().write(to: folder.url.appending(path: "empty.img"))
    }
  }

  @Test func diskSmallerThanASector() throws {
    try Self.check(Self.machine + ["--disk", "small.img"], .diskTooSmall, names: "small.img") { folder in
      try Data(count: 511).write(to: folder.url.appending(path: "small.img"))
    }
  }

  @Test(.enabled(if: getuid() != 0, "root may read every file"))
  func unreadableFile() throws {
    try Self.check(Self.machine + ["--disk", "secret.img"], .permissionDenied, names: "secret.img") { folder in
      try Data(count: 4096).write(to: folder.url.appending(path: "secret.img"))
      try FileManager.default.setAttributes([.posixPermissions: 0], ofItemAtPath: folder.path("secret.img"))
    }
  }

  @Test func unknownYAMLKey() throws {
    try Self.check(["run", "m.yaml"], .unknownKey, names: "m.yaml:2: colour") { folder in
      try Data("cpus: 1\ncolour: red\n".utf8).write(to: folder.url.appending(path: "m.yaml"))
    }
  }

  @Test func malformedYAML() throws {
    try Self.check(["run", "m.yaml"], .invalidConfiguration, names: "m.yaml:2") { folder in
      try Data("cpus: [1\n".utf8).write(to: folder.url.appending(path: "m.yaml"))
    }
  }

  @Test func memoryLargerThanTheHost() throws {
    try Self.check(Self.machine + ["--memory", "64T"], .notEnoughMemory, names: "64T")
  }

  @Test func tooManyCPUs() throws {
    try Self.check(Self.machine + ["--cpus", "255"], .tooManyCPUs, names: "255")
  }

  @Test func aDiskFileThatCannotBeCreated() throws {
    guard CastorRun.hasKVM else { return }
    try Self.check(Self.machine + ["--disk", "path=nowhere/new.img,size=1M"], .cannotCreate, names: "nowhere/new.img")
  }

  @Test(.enabled(if: CastorRun.hasKVM))
  func truncatedKernel() throws {
    try Self.check(
      Self.machine, .invalidKernel, names: "kernel.elf", files: ["kernel.elf": TestKernel.elf().prefix(0x1008)])
  }

  @Test(.enabled(if: CastorRun.hasKVM), arguments: [0xd000_0000, 0xbfff_fff8, 0x7_0000_0000] as [UInt64])
  func kernelOutsideMemory(_ address: UInt64) throws {
    try Self.check(
      Self.machine, .kernelOutsideMemory, names: "kernel.elf",
      files: ["kernel.elf": TestKernel.elf(extraSegmentAt: address)])
  }

  /// A listening TCP socket on loopback, on a port that was free.
  private static func withBusyPort(_ body: (UInt16) throws -> Void) throws {
    let listener = socket(AF_INET, CInt(SOCK_STREAM.rawValue), 0)
    defer { close(listener) }
    var address = sockaddr_in()
    address.sin_family = sa_family_t(AF_INET)
    address.sin_addr.s_addr = UInt32(0x7f00_0001).bigEndian
    var length = socklen_t(MemoryLayout<sockaddr_in>.size)
    // sockaddr_in begins with the family, as sockaddr does; `length` says how large it is.
    let result = withUnsafeMutablePointer(to: &address) { pointer in
      pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { general in
        bind(listener, general, length) == 0 && listen(listener, 1) == 0 && getsockname(listener, general, &length) == 0
      }
    }
    try #require(result)
    try body(UInt16(bigEndian: address.sin_port))
  }

  @Test(.enabled(if: CastorRun.hasKVM))
  func portInUse() throws {
    try Self.withBusyPort { port in
      try Self.check(
        Self.machine + ["--gdb", "\(port)", "--serial", "none"], .addressInUse, names: "127.0.0.1:\(port)")
    }
  }

  @Test(.enabled(if: CastorRun.hasKVM))
  func controlSocketInUse() throws {
    let folder = try TestFolder()
    let monitor = try FakeMonitor(path: folder.path("s"), reply: "")
    try Self.check(
      ["run", "--kernel", "kernel.elf", "--serial", "none", "--control", monitor.path], .addressInUse,
      names: monitor.path)
  }

  @Test(.enabled(if: CastorRun.hasKVM && getuid() == 0 && access("/dev/net/tun", R_OK | W_OK) == 0))
  func busyTAP() throws {
    let descriptor = castor_open("/dev/net/tun", O_RDWR | O_CLOEXEC, 0)
    defer { close(descriptor) }
    let name = "castor\(getpid() % 100_000)"
    // struct ifreq: 16 bytes of name, then IFF_TAP | IFF_NO_PI | IFF_VNET_HDR; TUNSETIFF is _IOW('T', 202, int).
    var request = [UInt8](repeating: 0, count: 40)
    request.replaceSubrange(0..<name.utf8.count, with: Array(name.utf8))
    request.replaceSubrange(16..<18, with: [0x02, 0x50])
    try #require(request.withUnsafeMutableBytes { castor_ioctl_pointer(descriptor, 0x4004_54ca, $0.baseAddress) } == 0)
    try Self.check(Self.machine + ["--serial", "none", "--net", name], .tapBusy, names: name)
  }

  @Test(.enabled(if: !CastorRun.hasKVM, "this host has KVM"))
  func aHostWithoutKVM() throws { try Self.check(Self.machine, .noKVM, names: "/dev/kvm") }
}
