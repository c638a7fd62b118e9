// The keys of a machine's description: one table for YAML, for flags, and for the arguments of castor-vmm.

/// A key of the description. The raw value is its name in YAML and, after `--`, on the command line.
public enum MachineKey: String, CaseIterable, Sendable {
  case name, memory, backing
  case hugePages = "huge-pages"
  case cpus, kernel, archive, initrd
  case commandLine = "command-line"
  case firmware, disk, net, entropy, serial, control, gdb
  case waitGDB = "wait-gdb"
  case service
  case noReboot = "no-reboot"
  case logLevel = "log-level"
  case timing
  case doorbellPages = "doorbell-pages"

  /// Whether the key may be given more than once, each time adding an item.
  public var isRepeatable: Bool { self == .disk || self == .net || self == .service }

  /// The name of the list in YAML: repeatable keys are plural there.
  public var yamlName: String {
    switch self {
    case .disk: "disks"
    case .net: "nets"
    case .service: "services"
    default: rawValue
    }
  }
}

extension MachineConfiguration {
  /// Sets the key, or adds an item to a repeatable one.
  public mutating func apply(_ key: MachineKey, _ text: String) throws(ConfigurationError) {
    let name = key.rawValue
    switch key {
    case .name:
      let allowed = text.utf8.allSatisfy {
        (0x61...0x7a).contains($0) || (0x41...0x5a).contains($0) || (0x30...0x39).contains($0)
          || $0 == 0x2d || $0 == 0x5f || $0 == 0x2e
      }
      guard allowed, (1...48).contains(text.utf8.count), !text.hasPrefix(".") else {
        throw ConfigurationError(key: name, value: text, expected: "has 1 to 48 of the characters A–Z a–z 0–9 - _ .")
      }
      self.name = text
    case .memory: memory = try Value.size(name, text)
    case .backing: backing = try Value.choice(name, text)
    case .hugePages: hugePages = try Value.flag(name, text)
    case .cpus:
      guard let count = Int(text), count >= 1 else {
        throw ConfigurationError(key: name, value: text, expected: "must be a whole number, at least 1")
      }
      cpus = count
    case .kernel: kernel = try Value.path(name, text)
    case .archive: archive = text == "none" ? nil : try Value.path(name, text)
    case .initrd: initrd = try Value.path(name, text)
    case .commandLine:
      guard text.utf8.count < 4096, !text.utf8.contains(0) else {
        throw ConfigurationError(key: name, value: text, expected: "has at most 4095 bytes, none of them zero")
      }
      commandLine = text
    case .firmware: firmware = try Value.flag(name, text)
    case .disk: disks.append(try DiskConfiguration(list: text, key: "disk\(disks.count)"))
    case .net: nets.append(try NetworkConfiguration(list: text, key: "net\(nets.count)"))
    case .entropy: entropy = try Value.flag(name, text)
    case .serial: serial = try SerialEndpoint(key: name, text)
    case .control: control = text == "none" ? nil : try Value.socketPath(name, text)
    case .gdb: gdb = text == "none" ? nil : try DebuggerEndpoint(key: name, text)
    case .waitGDB: waitForDebugger = try Value.flag(name, text)
    case .service: services.append(try ServiceConfiguration(list: text, key: "service\(services.count)"))
    case .noReboot: noReboot = try Value.flag(name, text)
    case .logLevel: logLevel = try Value.choice(name, text)
    case .timing: timing = try Value.flag(name, text)
    case .doorbellPages: doorbellPages = try Value.flag(name, text)
    }
  }

  /// Removes the items of a repeatable key.
  public mutating func removeAll(_ key: MachineKey) {
    switch key {
    case .disk: disks = []
    case .net: nets = []
    case .service: services = []
    default: break
    }
  }

  /// The description as `key=value` arguments of castor-vmm. `init(arguments:)` of them gives this value again.
  public var arguments: [String] {
    var list: [String] = []
    func add(_ key: MachineKey, _ value: String?) {
      if let value { list.append("\(key.rawValue)=\(value)") }
    }
    for key in MachineKey.allCases {
      switch key {
      case .name: add(key, name)
      case .memory: add(key, "\(memory)")
      case .backing: add(key, backing.rawValue)
      case .hugePages: add(key, Value.word(hugePages))
      case .cpus: add(key, "\(cpus)")
      case .kernel: add(key, kernel)
      case .archive: add(key, archive)
      case .initrd: add(key, initrd)
      case .commandLine: add(key, commandLine)
      case .firmware: add(key, Value.word(firmware))
      case .disk: for disk in disks { add(key, FieldList.format(disk.fields)) }
      case .net: for net in nets { add(key, FieldList.format(net.fields)) }
      case .entropy: add(key, Value.word(entropy))
      case .serial: add(key, serial.description)
      case .control: add(key, control)
      case .gdb: add(key, gdb?.description)
      case .waitGDB: add(key, Value.word(waitForDebugger))
      case .service: for service in services { add(key, FieldList.format(service.fields)) }
      case .noReboot: add(key, Value.word(noReboot))
      case .logLevel: add(key, logLevel.rawValue)
      case .timing: add(key, Value.word(timing))
      case .doorbellPages: add(key, Value.word(doorbellPages))
      }
    }
    return list
  }

  /// Reads the `key=value` arguments of castor-vmm (without the program's name). Absent keys keep their defaults.
  public init(arguments: [String]) throws(ConfigurationError) {
    self.init()
    var seen: Set<MachineKey> = []
    for argument in arguments {
      guard let equals = argument.firstIndex(of: "=") else {
        throw ConfigurationError(key: argument, value: "", expected: "is not key=value", exitCode: .usage)
      }
      let name = String(argument[..<equals])
      guard let key = MachineKey(rawValue: name) else {
        throw ConfigurationError(key: name, value: "", expected: "unknown key", exitCode: .usage)
      }
      let value = String(argument[argument.index(after: equals)...])
      guard seen.insert(key).inserted || key.isRepeatable else {
        throw ConfigurationError(key: name, value: value, expected: "given twice", exitCode: .usage)
      }
      try apply(key, value)
    }
  }
}

extension MachineConfiguration {
  /// Puts `folder` before every relative path, so that paths in a configuration file are relative to that file.
  public mutating func prefixRelativePaths(with folder: String) {
    guard folder != "." else { return }
    func prefixed(_ path: String) -> String { path.hasPrefix("/") ? path : "\(folder)/\(path)" }
    kernel = kernel.map(prefixed)
    archive = archive.map(prefixed)
    initrd = initrd.map(prefixed)
    control = control.map(prefixed)
    switch serial {
    case .file(let path): serial = .file(path: prefixed(path))
    case .unix(let path): serial = .unix(path: prefixed(path))
    case .stdio, .pty, .none: break
    }
    if case .unix(let path) = gdb { gdb = .unix(path: prefixed(path)) }
    for index in disks.indices {
      if case .file(let path) = disks[index].backend { disks[index].backend = .file(path: prefixed(path)) }
    }
    for index in nets.indices {
      switch nets[index].backend {
      case .listen(let path): nets[index].backend = .listen(path: prefixed(path))
      case .connect(let path): nets[index].backend = .connect(path: prefixed(path))
      case .tap: break
      }
    }
  }
}
