// Whether a description makes sense as a whole, and whether this host can give what it asks for.

import Glibc

extension MachineConfiguration {
  /// The least RAM that a machine is given, in bytes.
  public static let minimumMemory: UInt64 = 8 << 20
  /// The most CPUs: 8-bit APIC IDs, less the broadcast address and the IOAPIC's.
  public static let maximumCPUs = 254

  /// Checks what one value alone cannot show. Needs nothing of the host.
  public func validate() throws(ConfigurationError) {
    guard memory >= Self.minimumMemory, memory % 4096 == 0 else {
      throw ConfigurationError(
        key: "memory", value: ByteSize.format(memory),
        expected: "must be at least \(ByteSize.format(Self.minimumMemory)) and a multiple of 4K")
    }
    guard cpus <= Self.maximumCPUs else {
      throw ConfigurationError(
        key: "cpus", value: "\(cpus)", expected: "at most \(Self.maximumCPUs) CPUs have an APIC ID",
        exitCode: .tooManyCPUs)
    }
    guard virtioSlots.count <= VirtioSlot.maximumCount else {
      throw ConfigurationError(
        key: disks.count >= nets.count ? "disk" : "net", value: "",
        expected:
          "\(virtioSlots.count) virtio devices are asked for, the machine has room for \(VirtioSlot.maximumCount)")
    }
    if waitForDebugger, gdb == nil {
      throw ConfigurationError(key: "wait-gdb", value: "on", expected: "needs gdb, the address to wait on")
    }
    if firmware, archive == nil, initrd != nil {
      throw ConfigurationError(
        key: "firmware", value: "on", expected: "the boot ROM enters PVH kernels only; it takes no Linux initrd")
    }
    if archive != nil, initrd != nil {
      throw ConfigurationError(
        key: "initrd", value: initrd ?? "", expected: "a guest has an archive or an initrd, not both")
    }
    for (index, disk) in disks.enumerated() { try disk.validate(key: "disk\(index)") }
    var names: Set<String> = []
    for (index, service) in services.enumerated() {
      guard names.insert(service.name).inserted else {
        throw ConfigurationError(
          key: "service\(index).name", value: service.name, expected: "another service has this name")
      }
      guard
        service.device.isEmpty
          || virtioSlots.contains(where: { service.device == $0.alias || service.device == $0.nodePath })
      else {
        let known = virtioSlots.map(\.alias).joined(separator: ", ")
        throw ConfigurationError(
          key: "service\(index).device", value: service.device,
          expected: "no such device; the machine has \(known.isEmpty ? "none" : known)")
      }
    }
  }

  /// Fills in what depends on other keys: interface addresses; a service's device becomes its
  /// alias where it was given by its path in the device tree.
  public mutating func resolveReferences() {
    for index in nets.indices where nets[index].mac == nil { nets[index].mac = MACAddress(machine: name, index: index) }
    let slots = virtioSlots
    for index in services.indices {
      if let slot = slots.first(where: { $0.nodePath == services[index].device }) {
        services[index].device = slot.alias
      }
    }
  }

  /// Checks memory against the host's.
  /// - Parameter hostMemory: the host's RAM in bytes.
  public func validate(hostMemory: UInt64) throws(ConfigurationError) {
    guard memory <= hostMemory else {
      throw ConfigurationError(
        key: "memory", value: ByteSize.format(memory), expected: "the host has \(hostMemory >> 20)M",
        exitCode: .notEnoughMemory)
    }
  }

  /// Checks what only the host knows: that it has the memory, and that the named files are there, readable, and, for
  /// disks, not too small. Devices and sockets are checked where they are opened.
  public func validateOnHost() throws(ConfigurationError) {
    let pages = sysconf(CInt(_SC_PHYS_PAGES))
    let pageSize = sysconf(CInt(_SC_PAGESIZE))
    if pages > 0, pageSize > 0 { try validate(hostMemory: UInt64(pages) * UInt64(pageSize)) }
    if let kernel { try Self.requireReadable("kernel", kernel) }
    if let archive { try Self.requireReadable("archive", archive) }
    if let initrd { try Self.requireReadable("initrd", initrd) }
    for (index, disk) in disks.enumerated() { try disk.validateOnHost(key: "disk\(index)") }
  }

  static func requireReadable(_ key: String, _ path: String) throws(ConfigurationError) {
    var status = stat()
    guard stat(path, &status) == 0 else { throw Self.fileError(key, path, errno) }
    guard status.st_mode & S_IFMT != S_IFDIR else {
      throw ConfigurationError(key: key, value: path, expected: "is a directory", exitCode: .missingInput)
    }
    guard access(path, R_OK) == 0 else { throw Self.fileError(key, path, errno) }
  }

  /// The error for a path that the host's kernel refused with `code`.
  public static func fileError(_ key: String, _ path: String, _ code: Int32) -> ConfigurationError {
    switch code {
    case ENOENT, ENOTDIR:
      ConfigurationError(key: key, value: path, expected: "no such file", exitCode: .missingInput)
    case EACCES, EPERM, EROFS:
      ConfigurationError(key: key, value: path, expected: "permission denied", exitCode: .permissionDenied)
    default:
      ConfigurationError(
        key: key, value: path, expected: String(cString: strerror(code)), exitCode: .inputOutputError)
    }
  }
}

extension DiskConfiguration {
  func validate(key: String) throws(ConfigurationError) {
    switch backend {
    case .file:
      if let size { try checkSize(size, key: "\(key).size", name: ByteSize.format(size)) }
    case .memory(let bytes):
      try checkSize(bytes, key: "\(key).memory", name: ByteSize.format(bytes))
    case .null(let bytes):
      try checkSize(bytes, key: "\(key).null", name: ByteSize.format(bytes))
    }
  }

  func checkSize(_ bytes: UInt64, key: String, name: String) throws(ConfigurationError) {
    guard bytes > 0 else {
      throw ConfigurationError(key: key, value: name, expected: "the disk has zero bytes", exitCode: .emptyDisk)
    }
    guard bytes >= UInt64(logicalBlockSize) else {
      throw ConfigurationError(
        key: key, value: name, expected: "the disk has \(bytes) bytes, less than one sector of \(logicalBlockSize)",
        exitCode: .diskTooSmall)
    }
  }

  func validateOnHost(key: String) throws(ConfigurationError) {
    guard case .file(let path) = backend else { return }
    var status = stat()
    guard stat(path, &status) == 0 else {
      if errno == ENOENT, size != nil { return }
      throw MachineConfiguration.fileError("\(key).path", path, errno)
    }
    let kind = status.st_mode & S_IFMT
    guard kind == S_IFREG || kind == S_IFBLK else {
      throw ConfigurationError(
        key: "\(key).path", value: path, expected: "is neither a regular file nor a block device")
    }
    guard access(path, readOnly ? R_OK : R_OK | W_OK) == 0 else {
      throw MachineConfiguration.fileError("\(key).path", path, errno)
    }
    if kind == S_IFREG { try checkSize(UInt64(status.st_size), key: "\(key).path", name: path) }
  }

  /// Creates the file of `size` bytes (sparse) where the disk has a size and its file does not exist yet.
  /// - Returns: whether a file was created.
  @discardableResult
  public func createIfMissing(key: String = "disk") throws(ConfigurationError) -> Bool {
    guard case .file(let path) = backend, let size else { return false }
    let descriptor = open(path, O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC, 0o644)
    guard descriptor >= 0 else {
      if errno == EEXIST { return false }
      let reason = String(cString: strerror(errno))
      throw ConfigurationError(
        key: "\(key).path", value: path, expected: "cannot be created: \(reason)", exitCode: .cannotCreate)
    }
    defer { close(descriptor) }
    guard let length = off_t(exactly: size), ftruncate(descriptor, length) == 0 else {
      unlink(path)
      throw ConfigurationError(
        key: "\(key).size", value: ByteSize.format(size), expected: "the file system refuses a file of this size",
        exitCode: .cannotCreate)
    }
    return true
  }
}
