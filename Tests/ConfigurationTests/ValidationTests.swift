// Bad descriptions: each names the culprit and has its exit code.

import Glibc
import Testing

@testable import Configuration

/// A folder that is gone at the end of the test.
final class TemporaryFolder {
  let path: String
  init() throws {
    var template = Array("/tmp/castor-test-XXXXXX".utf8CString)
    guard mkdtemp(&template) != nil else { throw TestFailure.noFolder(errno) }
    path = String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
  }
  deinit {
    guard let folder = opendir(path) else { return }
    while let entry = readdir(folder) {
      let name = withUnsafePointer(to: &entry.pointee.d_name) { pointer in
        // d_name is a NUL-terminated array inside the entry, which lives until the next readdir.
        pointer.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
      }
      unlink("\(path)/\(name)")
    }
    closedir(folder)
    rmdir(path)
  }
  func file(_ name: String, size: Int) throws -> String {
    let full = "\(path)/\(name)"
    let descriptor = open(full, O_CREAT | O_RDWR, 0o600)
    guard descriptor >= 0, ftruncate(descriptor, size) == 0 else { throw TestFailure.noFile(errno) }
    close(descriptor)
    return full
  }
}
enum TestFailure: Error {
  case noFolder(CInt)
  case noFile(CInt)
}

@Suite struct ValidationTests {
  static func error(_ change: (inout MachineConfiguration) throws -> Void) -> ConfigurationError? {
    var machine = MachineConfiguration()
    do {
      try change(&machine)
      try machine.validate()
      try machine.validate(hostMemory: 1 << 34)
      return nil
    } catch { return error as? ConfigurationError }
  }

  @Test func theDefaultMachineIsValid() { #expect(Self.error { _ in } == nil) }

  @Test(
    arguments: [
      ("memory", "4M", .invalidConfiguration), ("memory", "128M1", .invalidConfiguration),
      ("memory", "134217729", .invalidConfiguration), ("memory", "32G", .notEnoughMemory),
      ("cpus", "0", .invalidConfiguration), ("cpus", "x", .invalidConfiguration), ("cpus", "255", .tooManyCPUs),
      ("disk", "memory=0", .emptyDisk), ("disk", "memory=511", .diskTooSmall),
      ("disk", "null=4095,block-size=4096", .diskTooSmall), ("disk", "null=1M,block-size=1024", .invalidConfiguration),
      ("disk", "queues=2", .invalidConfiguration), ("disk", "path=/x,null=1M", .invalidConfiguration),
      ("disk", "/x,queues=17", .invalidConfiguration), ("disk", "/x,queue-size=100", .invalidConfiguration),
      ("disk", "/x,serial=123456789012345678901", .invalidConfiguration), ("disk", "/x,colour=red", .unknownKey),
      ("disk", "/x,queues=1,queues=1", .invalidConfiguration), ("disk", "", .invalidConfiguration),
      ("disk", "/x,direct=maybe", .invalidConfiguration), ("disk", "/x,size=0", .emptyDisk),
      ("net", "tap=", .invalidConfiguration), ("net", "tap=abcdefghijklmnop", .invalidConfiguration),
      ("net", "tap=t,mac=01:00:00:00:00:00", .invalidConfiguration),
      ("net", "mac=52:54:00:0:0:0", .invalidConfiguration),
      ("service", "program=x", .invalidConfiguration), ("service", "shell,device=disk0", .invalidConfiguration),
      ("service", "vfs,class=ic7", .invalidConfiguration), ("service", "vfs,restart=on", .invalidConfiguration),
      ("name", "a/b", .invalidConfiguration), ("name", "", .invalidConfiguration),
      ("wait-gdb", "on", .invalidConfiguration),
      ("backing", "file", .invalidConfiguration), ("log-level", "loud", .invalidConfiguration),
      ("huge-pages", "maybe", .invalidConfiguration), ("kernel", "", .invalidConfiguration),
    ] as [(String, String, ExitCode)])
  func badValuesAreNamed(_ key: String, _ value: String, _ code: ExitCode) throws {
    let machineKey = try #require(MachineKey(rawValue: key))
    let error = try #require(Self.error { try $0.apply(machineKey, value) })
    #expect(error.exitCode == code)
    #expect(error.key.hasPrefix(key))
    #expect(!error.description.contains("\n"))
  }

  @Test func seventeenDevicesAreTooMany() throws {
    let error = try #require(
      Self.error { $0.disks = Array(repeating: DiskConfiguration(backend: .null(size: 512)), count: 17) })
    #expect(error.key == "disk")
  }

  @Test func aServiceNameIsUnique() throws {
    let shell = ServiceConfiguration(name: "shell", program: "shell")
    let error = try #require(Self.error { $0.services = [shell, shell] })
    #expect(error.key == "service1.name")
  }

  @Test func missingAndUnreadableFilesAreNamed() throws {
    let folder = try TemporaryFolder()
    var machine = MachineConfiguration()
    machine.kernel = "\(folder.path)/nothing.elf"
    var error = #expect(throws: ConfigurationError.self) { try machine.validateOnHost() }
    #expect(error?.exitCode == .missingInput)
    #expect(error?.value == machine.kernel)
    machine.kernel = folder.path
    error = #expect(throws: ConfigurationError.self) { try machine.validateOnHost() }
    #expect(error?.exitCode == .missingInput)
    #expect(MachineConfiguration.fileError("kernel", "/x", EACCES).exitCode == .permissionDenied)
  }

  @Test(arguments: [(0, .emptyDisk), (511, .diskTooSmall), (512, nil)] as [(Int, ExitCode?)])
  func diskFilesHaveAtLeastOneSector(_ size: Int, _ code: ExitCode?) throws {
    let folder = try TemporaryFolder()
    let disk = DiskConfiguration(backend: .file(path: try folder.file("disk.img", size: size)))
    var thrown: ConfigurationError?
    do { try disk.validateOnHost(key: "disk0") } catch { thrown = error }
    #expect(thrown?.exitCode == code)
  }

  @Test func aDiskWithASizeIsCreatedOnce() throws {
    let folder = try TemporaryFolder()
    var disk = DiskConfiguration(backend: .file(path: "\(folder.path)/new.img"))
    #expect(throws: ConfigurationError.self) { try disk.validateOnHost(key: "disk0") }
    disk.size = 1 << 20
    try disk.validateOnHost(key: "disk0")
    #expect(try disk.createIfMissing())
    #expect(try !disk.createIfMissing())
    var status = stat()
    #expect(stat("\(folder.path)/new.img", &status) == 0 && status.st_size == 1 << 20)
  }

  @Test func slotsFollowThePlatformPage() throws {
    var machine = MachineConfiguration()
    machine.disks = [DiskConfiguration(backend: .null(size: 512)), DiskConfiguration(backend: .null(size: 512))]
    machine.nets = [NetworkConfiguration(backend: .tap(name: "t"))]
    machine.entropy = true
    let slots = machine.virtioSlots
    #expect(slots.map(\.alias) == ["disk0", "disk1", "net0", "entropy"])
    #expect(slots.map(\.address) == [0xd000_0000, 0xd004_0000, 0xd008_0000, 0xd00c_0000])
    #expect(slots.map(\.gsi) == [5, 6, 7, 8])
    machine.services = [
      try ServiceConfiguration(list: "block,device=/virtio@d0040000"), try ServiceConfiguration(list: "n,device=net0"),
    ]
    try machine.validate()
    machine.resolveReferences()
    #expect(machine.services.map(\.device) == ["disk1", "net0"])
    #expect(machine.nets[0].mac != nil)
    try machine.validate()
  }

  @Test func theGuestIsFoundInTheFirstFolderThatHasAKernel() throws {
    let folder = try TemporaryFolder()
    #expect(throws: ConfigurationError.self) {
      try HostPaths.findGuest(executable: "\(folder.path)/castor", environment: nil)
    }
    let kernel = try folder.file("kernel.elf", size: 1)
    var found = try HostPaths.findGuest(executable: "\(folder.path)/castor", environment: nil)
    #expect(found == (kernel, nil))
    let archive = try folder.file("archive.tar", size: 1)
    found = try HostPaths.findGuest(executable: nil, environment: folder.path)
    #expect(found == (kernel, archive))
    #expect(throws: ConfigurationError.self) {
      try HostPaths.findGuest(executable: "\(folder.path)/castor", environment: "/nonexistent")
    }
  }

  @Test func exitCodesAreDistinctAndFitAProcess() {
    #expect(ExitCode.allCases.allSatisfy { (0...255).contains($0.rawValue) })
    #expect(Set(ExitCode.allCases.map(\.rawValue)).count == ExitCode.allCases.count)
  }
}
