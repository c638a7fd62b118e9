// YAML descriptions: what is read, and how a mistake is pointed at.

import ArgumentParser
import Configuration
import Foundation
import Testing

@testable import castor

@Suite struct ConfigurationFileTests {
  @Test func aFullFileIsRead() throws {
    let machine = try ConfigurationFile.parse(
      """
      memory: 256M
      cpus: 2
      huge-pages: no
      command-line: a=1 b="x, y"
      disks:
        - path: disk.img
          size: 1G
          queues: 4
        - memory=64M,read-only=on
      nets:
        - tap: tap0
      entropy: on
      services:
        - name: block
          program: block-container
          mode: twin
          arguments: a, b, c
          device: disk0
        - shell
      """, path: "/x/demo.yaml")
    #expect(machine.name == "demo")
    #expect(machine.memory == 256 << 20)
    #expect(machine.cpus == 2)
    #expect(!machine.hugePages)
    #expect(machine.commandLine == "a=1 b=\"x, y\"")
    #expect(machine.disks.count == 2)
    #expect(machine.disks[0].backend == .file(path: "disk.img"))
    #expect(machine.disks[0].size == 1 << 30)
    #expect(machine.disks[0].queues == 4)
    #expect(machine.disks[1].backend == .memory(size: 64 << 20))
    #expect(machine.disks[1].readOnly)
    #expect(machine.nets == [NetworkConfiguration(backend: .tap(name: "tap0"))])
    #expect(machine.entropy)
    #expect(machine.services.map(\.name) == ["block", "shell"])
    #expect(machine.services[0].arguments == "a, b, c")
    try machine.validate()
  }

  @Test(arguments: [
    ("memory: 1M\ncolour: red\n", 2, "colour", Configuration.ExitCode.unknownKey),
    ("disks:\n  - path: x\n    queues: 99\n", 3, "disk0.queues", .invalidConfiguration),
    ("disks:\n  - path: x\n    qeues: 9\n", 3, "disk0.qeues", .unknownKey),
    ("disks:\n  - path: x\n  - queues: 2\n", 3, "disk1", .invalidConfiguration),
    ("disks: x\n", 1, "disks", .invalidConfiguration),
    ("cpus: [1, 2]\n", 1, "cpus", .invalidConfiguration),
    ("\n\nmemory: lots\n", 3, "memory", .invalidConfiguration),
    ("- a\n- b\n", 1, "configuration", .invalidConfiguration),
    ("a: b: c\n", 1, "configuration", .invalidConfiguration),
    ("cpus: 1\ncpus: 2\n", 1, "configuration", .invalidConfiguration),
    ("nets:\n  - tap: [a]\n", 2, "net0", .invalidConfiguration),
    ("disk:\n  - path: x\n", 1, "disk", .unknownKey),
  ])
  func mistakesAreLocated(_ text: String, _ line: Int, _ key: String, _ code: Configuration.ExitCode) throws {
    let error = try #require(throws: ConfigurationError.self) { try ConfigurationFile.parse(text, path: "m.yaml") }
    #expect(error.location == "m.yaml:\(line)")
    #expect(error.key == key)
    #expect(error.exitCode == code)
    #expect(!error.description.contains("\n"))
  }

  @Test(arguments: ["", "# nothing\n", "---\n"])
  func anEmptyFileIsTheDefaultMachine(_ text: String) throws {
    var expected = MachineConfiguration()
    expected.name = "empty"
    #expect(try ConfigurationFile.parse(text, path: "empty.yaml") == expected)
  }

  @Test func everyKeyIsAFlag() throws {
    let help = Run.helpMessage()
    for key in MachineKey.allCases { #expect(help.contains("--\(key.rawValue)"), "\(key.rawValue)") }
  }

  @Test func flagsReachTheKeyOfTheirName() throws {
    // Each flag alone, with a value that differs from the default, changes exactly its own key.
    let values: [MachineKey: String] = [
      .name: "n", .memory: "64M", .backing: "memfd", .cpus: "3", .kernel: "k", .archive: "a", .initrd: "i",
      .commandLine: "c", .disk: "null=1M", .net: "tap=t", .serial: "pty", .control: "/c", .gdb: "1", .service: "s",
      .logLevel: "debug",
    ]
    for key in MachineKey.allCases {
      let flag = [.hugePages, .doorbellPages].contains(key) ? "--no-\(key.rawValue)" : "--\(key.rawValue)"
      let options = try MachineOptions.parse([flag] + (values[key].map { [$0] } ?? []))
      #expect(options.settings.map(\.0) == [key])
      var machine = MachineConfiguration()
      for (key, value) in options.settings { try machine.apply(key, value) }
      let changed = Set(machine.arguments).subtracting(MachineConfiguration().arguments)
      #expect(changed.count == 1 && changed.first?.hasPrefix("\(key.rawValue)=") == true, "\(key.rawValue): \(changed)")
    }
  }

  @Test func flagsWinOverTheFileAndReplaceItsLists() throws {
    let folder = FileManager.default.temporaryDirectory.appending(path: "castor-\(UUID().uuidString)")
    try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
    defer { try? FileManager.default.removeItem(at: folder) }
    let file = folder.appending(path: "m.yaml")
    try "memory: 64M\ncpus: 2\nkernel: sub/k.elf\ndisks: [null=1M, null=2M]\ncontrol: none\n"
      .write(to: file, atomically: true, encoding: .utf8)
    let options = try MachineOptions.parse([file.path(), "--memory", "32M", "--disk", "null=4M", "--control", "none"])
    let machine = try options.resolve()
    #expect(machine.memory == 32 << 20)
    #expect(machine.cpus == 2)
    #expect(machine.kernel == "\(folder.path())/sub/k.elf")
    #expect(machine.disks.map(\.backend) == [.null(size: 4 << 20)])
    #expect(machine.control == nil)
  }

  @Test(arguments: [ENOENT, EACCES, EIO])
  func aHostWithoutKVMIsToldWhatToDo(_ code: Int32) {
    let message = HostKVM.message(path: "/dev/kvm", code: code)
    #expect(message.contains("/dev/kvm"))
    #expect(!message.contains("\n"))
    #expect(throws: CommandFailure.self) { try HostKVM.requireUsable(path: "/nonexistent/kvm") }
    // A device that opens and is something else, as in a container that was given a wrong one.
    let failure = #expect(throws: CommandFailure.self) { try HostKVM.requireUsable(path: "/dev/null") }
    #expect(failure?.exitCode == .noKVM && failure?.message.contains("/dev/null is not KVM's device") == true)
  }
}

@Suite struct ExampleConfigurationTests {
  static let folder = URL(filePath: #filePath).deletingLastPathComponent().appending(path: "../../configs")
  static var files: [String] {
    ((try? FileManager.default.contentsOfDirectory(atPath: folder.path())) ?? []).filter { $0.hasSuffix(".yaml") }
  }

  @Test func theReadMeHasTheExitCodes() throws {
    let text = try String(contentsOf: Self.folder.appending(path: "../README.md"), encoding: .utf8)
    for line in Castor.exitCodeTable.split(separator: "\n") { #expect(text.contains(line), "\(line)") }
  }

  @Test func thereIsADemo() { #expect(Self.files.contains("demo.yaml")) }

  @Test(arguments: files)
  func everyExampleIsValid(_ name: String) throws {
    var machine = try ConfigurationFile(path: Self.folder.appending(path: name).path()).read()
    try machine.validate()
    machine.resolveReferences()
    #expect(try MachineConfiguration(arguments: machine.arguments) == machine)
    #expect(machine.name == String(name.dropLast(5)))
  }
}
