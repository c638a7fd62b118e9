// The argument list of castor-vmm: what is written is read back.

import Testing

@testable import Configuration

@Suite struct RoundTripTests {
  /// A machine in which no key has its default, with commas and equals signs where they hurt.
  static func fullMachine() throws -> MachineConfiguration {
    var machine = MachineConfiguration()
    machine.name = "full-1"
    machine.memory = 3 << 30
    machine.backing = .memfd
    machine.hugePages = false
    machine.cpus = 4
    machine.kernel = "/tmp/with space/kernel=1,2.elf"
    machine.archive = "/tmp/archive.tar"
    machine.initrd = "/tmp/initrd"
    machine.commandLine = "console=ttyS0 a=b,c,,d \"quoted\""
    machine.firmware = true
    var file = DiskConfiguration(backend: .file(path: "/tmp/a,b,,c=d.img"))
    file.size = 1 << 40
    file.readOnly = true
    file.queues = 16
    file.queueSize = 1024
    file.direct = .on
    file.logicalBlockSize = 4096
    file.serial = "serial,with=comma"
    file.pollMicroseconds = 50
    machine.disks = [
      file, DiskConfiguration(backend: .memory(size: 1 << 20)), DiskConfiguration(backend: .null(size: 1 << 30)),
    ]
    var tap = NetworkConfiguration(backend: .tap(name: "tap0"))
    tap.mac = MACAddress("52:54:00:ab:cd:ef")
    tap.queueSize = 64
    machine.nets = [
      tap, NetworkConfiguration(backend: .listen(path: "/tmp/x,y")), NetworkConfiguration(backend: .connect(path: "z")),
    ]
    machine.entropy = true
    machine.serial = .unix(path: "/tmp/serial.sock")
    machine.control = "/tmp/control.sock"
    machine.gdb = .tcp(host: "::1", port: 1234)
    machine.waitForDebugger = true
    var service = ServiceConfiguration(name: "bench", program: "bench-block")
    service.isolationClass = "ic1"
    service.mode = "twin"
    service.arguments = "sizes=4096,8192 depths=1,32"
    service.device = "disk0"
    service.restart = .onFailure
    machine.services = [service, ServiceConfiguration(name: "shell", program: "shell")]
    machine.noReboot = true
    machine.logLevel = .trace
    machine.timing = true
    machine.doorbellPages = false
    return machine
  }

  @Test func everyKeyRoundTrips() throws {
    let machine = try Self.fullMachine()
    let decoded = try MachineConfiguration(arguments: machine.arguments)
    #expect(decoded == machine)
  }

  @Test func defaultsRoundTrip() throws {
    #expect(try MachineConfiguration(arguments: MachineConfiguration().arguments) == MachineConfiguration())
  }

  @Test func everyKeyIsWrittenByAFullMachine() throws {
    let written = Set(try Self.fullMachine().arguments.map { String($0.prefix { $0 != "=" }) })
    #expect(written == Set(MachineKey.allCases.map(\.rawValue)))
  }

  @Test func fullMachineDiffersFromTheDefaultInEveryKey() throws {
    // Guards the test above: a key left at its default would round-trip even when it is not decoded.
    let defaults = Set(MachineConfiguration().arguments)
    for argument in try Self.fullMachine().arguments { #expect(!defaults.contains(argument), "\(argument)") }
  }

  @Test(arguments: ["", "a", ",", ",,", "a,b", "=", "a=,b", ",a", "a,", "ü,ö", "👩‍🚀,"])
  func valuesWithCommasRoundTripInLists(_ value: String) throws {
    let fields = [Field("name", "x"), Field("arguments", value), Field("mode", value)]
    #expect(try FieldList.parse(FieldList.format(fields), key: "service", shorthand: "name") == fields)
  }

  @Test func shorthandNamesTheFirstField() throws {
    let disk = try DiskConfiguration(list: "/tmp/disk.img,queues=2,read-only=on")
    #expect(disk.backend == .file(path: "/tmp/disk.img"))
    #expect(disk.queues == 2)
    #expect(disk.readOnly)
    #expect(try NetworkConfiguration(list: "tap3").backend == .tap(name: "tap3"))
    #expect(try ServiceConfiguration(list: "shell").program == "shell")
  }

  @Test(arguments: ["memory", "nonsense=1", "memory=1M memory=2M", "=", ""])
  func badArgumentsAreUsageErrors(_ text: String) {
    let arguments = text.isEmpty ? [""] : text.split(separator: " ").map(String.init)
    let error = #expect(throws: ConfigurationError.self) { try MachineConfiguration(arguments: arguments) }
    #expect(error?.exitCode == .usage)
  }
}
