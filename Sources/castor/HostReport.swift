// What this host offers to virtual machines, found by trying each thing, with the remedy for what is missing.

import CHostRing
import CLinux
import Foundation
import KVM

/// One fact about the host.
struct HostCheck: Codable {
  enum Status: String, Codable {
    /// There, or a figure for information.
    case ok
    /// Missing; machines run without it, slower or with fewer devices.
    case degraded
    /// Missing, and machines need it.
    case missing
  }
  var section: String
  var name: String
  var status: Status
  /// What was found.
  var detail: String
  /// What to do about it; nil where nothing needs doing.
  var remedy: String?
}

/// All checks, in the order in which they are shown.
struct HostReport: Codable {
  /// Version of this JSON form.
  var schema = 1
  /// Whether a machine can run at all.
  var usable: Bool { !checks.contains { $0.status == .missing } }
  var checks: [HostCheck] = []

  private enum CodingKeys: String, CodingKey { case schema, usable, checks }
  init() {}
  init(from decoder: any Decoder) throws {
    let values = try decoder.container(keyedBy: CodingKeys.self)
    schema = try values.decode(Int.self, forKey: .schema)
    checks = try values.decode([HostCheck].self, forKey: .checks)
  }
  func encode(to encoder: any Encoder) throws {
    var values = encoder.container(keyedBy: CodingKeys.self)
    try values.encode(schema, forKey: .schema)
    try values.encode(usable, forKey: .usable)
    try values.encode(checks, forKey: .checks)
  }

  /// Probes the host. Takes some milliseconds; leaves nothing behind.
  static func probe() -> HostReport {
    var report = HostReport()
    report.checkKVM()
    report.checkProcessor()
    report.checkMemory()
    report.checkStorage()
    report.checkNetwork()
    report.checkLimits()
    report.checkTools()
    return report
  }

  private mutating func add(
    _ section: String, _ name: String, _ status: HostCheck.Status, _ detail: String, _ remedy: String? = nil
  ) {
    checks.append(HostCheck(section: section, name: name, status: status, detail: detail, remedy: remedy))
  }

  private mutating func checkKVM() {
    let system: KVMSystem
    do {
      system = try KVMSystem()
    } catch {
      let remedy: String
      switch error {
      case .absent:
        remedy =
          "sudo modprobe kvm_intel (or kvm_amd); if that fails, enable virtualisation in the firmware, or nested "
          + "virtualisation where this is a virtual machine"
      case .notPermitted: remedy = "sudo usermod -aG kvm $USER, then log in again"
      case .notKVM, .version, .missingCapability, .request: remedy = "boot a kernel of version 5.15 or later"
      }
      add("KVM", "/dev/kvm", .missing, error.description, remedy)
      return
    }
    add("KVM", "/dev/kvm", .ok, "opens for reading and writing, API version \(KVM_API_VERSION)")
    do {
      switch try system.probeRingZero() {
      case .native:
        add("KVM", "guest ring 0", .ok, "hardware: a probe machine ran POPCNT in ring 0 on the processor")
      case .emulated:
        let module = access("/sys/module/kvm_pvm", F_OK) == 0 ? " (module kvm_pvm)" : ""
        add(
          "KVM", "guest ring 0", .degraded,
          "software: a probe machine's ring 0 is emulated, one instruction at a time\(module)",
          "use a host with VT-x or AMD-V, or nested virtualisation, for full speed; Pollux runs on either kind")
      }
    } catch {
      add(
        "KVM", "guest ring 0", .missing, "a probe machine does not run: \(error.description)",
        "look for KVM messages in dmesg")
    }
    for capability in Capability.reported {
      let present = system.value(of: capability) > 0
      let required = Capability.required.contains { $0.number == capability.number }
      add(
        "KVM", capability.name, present ? .ok : required ? .missing : .degraded, present ? "yes" : "no",
        present ? nil : "boot a newer kernel")
    }
    add("KVM", "vCPUs of one machine", .ok, "at most \(system.maximumCPUs)")
    add("KVM", "memory slots of one machine", .ok, "at most \(system.value(of: .memorySlots))")
  }

  private mutating func checkProcessor() {
    var flags: Set<Substring> = []
    var model = "unknown"
    for line in Self.text("/proc/cpuinfo").split(separator: "\n") {
      let parts = line.split(separator: ":", maxSplits: 1)
      guard parts.count == 2 else { continue }
      let name = parts[0].trimmingCharacters(in: .whitespaces)
      if name == "model name" { model = parts[1].trimmingCharacters(in: .whitespaces) }
      if name == "flags" {
        flags = Set(parts[1].split(separator: " "))
        break
      }
    }
    add("processor", "model", .ok, "\(model), \(sysconf(CInt(_SC_NPROCESSORS_ONLN))) online")
    let extensions = ["vmx", "svm"].filter { flags.contains(Substring($0)) }
    add(
      "processor", "virtualisation flags", .ok,
      extensions.isEmpty ? "none of vmx and svm is visible" : extensions.joined(separator: ", "))
    let steady = flags.contains("constant_tsc") && flags.contains("nonstop_tsc")
    add(
      "processor", "time-stamp counter", steady ? .ok : .degraded,
      steady ? "constant and never stops" : "changes its rate or stops in idle states",
      steady ? nil : "measurements by the guest's TSC are not reliable here; use a newer processor")
  }

  private mutating func checkMemory() {
    var total: UInt64 = 0
    var available: UInt64 = 0
    for line in Self.text("/proc/meminfo").split(separator: "\n") {
      let parts = line.split { $0 == " " || $0 == ":" }
      guard parts.count >= 2, let kilobytes = UInt64(parts[1]) else { continue }
      if parts[0] == "MemTotal" { total = kilobytes }
      if parts[0] == "MemAvailable" { available = kilobytes }
    }
    add("memory", "host memory", .ok, "\(total >> 10) MiB, \(available >> 10) MiB of it available")
    let setting = Self.text("/sys/kernel/mm/transparent_hugepage/enabled")
    if setting.contains("[always]") || setting.contains("[madvise]") {
      add("memory", "transparent huge pages", .ok, setting.contains("[always]") ? "always" : "on request (madvise)")
    } else {
      add(
        "memory", "transparent huge pages", .degraded, setting.isEmpty ? "not in this kernel" : "never",
        setting.isEmpty
          ? "boot a kernel with CONFIG_TRANSPARENT_HUGEPAGE"
          : "echo madvise | sudo tee /sys/kernel/mm/transparent_hugepage/enabled")
    }
    let descriptor = castor_memfd_create("castor-doctor", UInt32(MFD_CLOEXEC))
    if descriptor >= 0 { close(descriptor) }
    add(
      "memory", "memfd", descriptor >= 0 ? .ok : .degraded, descriptor >= 0 ? "yes" : "no",
      descriptor >= 0 ? nil : "--backing memfd does not work here; leave it at anonymous")
  }

  private mutating func checkStorage() {
    var error: CInt = 0
    if let ring = castor_host_ring_create(8, &error) {
      castor_host_ring_destroy(ring)
      add("storage", "io_uring", .ok, "yes")
    } else {
      let disabled = Self.text("/proc/sys/kernel/io_uring_disabled").trimmingCharacters(in: .whitespacesAndNewlines)
      add(
        "storage", "io_uring", .missing, "refused: \(String(cString: strerror(error)))",
        disabled == "1" || disabled == "2"
          ? "sudo sysctl kernel.io_uring_disabled=0"
          : "boot a kernel of version 5.11 or later; in a container, let its seccomp filter pass io_uring_setup")
    }
    // O_TMPFILE is __O_TMPFILE | O_DIRECTORY (open(2)); the macro is not visible to Swift.
    let temporaryFile: CInt = 0o20_000_000 | O_DIRECTORY
    let direct: CInt = 0o40000
    let descriptor = castor_open(".", O_RDWR | O_CLOEXEC | temporaryFile | direct, 0o600)
    let code = errno
    if descriptor >= 0 { close(descriptor) }
    if descriptor >= 0 || code == EINVAL || code == EOPNOTSUPP {
      add(
        "storage", "O_DIRECT in this folder", descriptor >= 0 ? .ok : .degraded, descriptor >= 0 ? "yes" : "no",
        descriptor >= 0 ? nil : "disks here go through the page cache; put disk files on ext4, XFS or btrfs")
    } else {
      add("storage", "O_DIRECT in this folder", .ok, "not tried: \(String(cString: strerror(code)))")
    }
  }

  private mutating func checkNetwork() {
    let descriptor = castor_open("/dev/net/tun", O_RDWR | O_CLOEXEC, 0)
    guard descriptor >= 0 else {
      add(
        "network", "TAP", .degraded, "/dev/net/tun: \(String(cString: strerror(errno)))",
        errno == ENOENT ? "sudo modprobe tun" : "run as a user who may open /dev/net/tun, or use --net listen=/connect="
      )
      return
    }
    defer { close(descriptor) }
    // struct ifreq is 40 bytes here: 16 of name, then the flags; IFF_TAP | IFF_NO_PI | IFF_VNET_HDR (linux/if_tun.h).
    var request = [UInt8](repeating: 0, count: 40)
    let flags: UInt16 = 0x0002 | 0x1000 | 0x4000
    request[16] = UInt8(truncatingIfNeeded: flags)
    request[17] = UInt8(truncatingIfNeeded: flags >> 8)
    // TUNSETIFF = _IOW('T', 202, int); a TAP that is not persistent goes away with its descriptor.
    let result = request.withUnsafeMutableBytes { castor_ioctl_pointer(descriptor, 0x4004_54ca, $0.baseAddress) }
    if result == 0 {
      add("network", "TAP", .ok, "an interface with vnet header can be made")
    } else {
      add(
        "network", "TAP", .degraded, "an interface cannot be made: \(String(cString: strerror(errno)))",
        "make one for this user: sudo ip tuntap add castor0 mode tap user $USER vnet_hdr")
    }
  }

  private mutating func checkLimits() {
    var limit = rlimit()
    if getrlimit(CInt(RLIMIT_NOFILE.rawValue), &limit) == 0 {
      let enough = limit.rlim_cur >= 256
      add(
        "limits", "open files", enough ? .ok : .degraded, "\(limit.rlim_cur)",
        enough ? nil : "ulimit -n 1024: a machine with many queues needs a descriptor or two for each")
    }
    if getrlimit(CInt(__RLIMIT_MEMLOCK.rawValue), &limit) == 0 {
      add(
        "limits", "locked memory", .ok,
        limit.rlim_cur == rlim_t.max
          ? "unlimited" : "\(limit.rlim_cur >> 10) KiB (charged for io_uring before Linux 5.12)")
    }
    if getrlimit(CInt(RLIMIT_AS.rawValue), &limit) == 0 {
      let unlimited = limit.rlim_cur == rlim_t.max
      add(
        "limits", "address space", unlimited ? .ok : .degraded,
        unlimited ? "unlimited" : "\(limit.rlim_cur >> 20) MiB",
        unlimited ? nil : "ulimit -v unlimited: guest memory is mapped in full")
    }
  }

  private mutating func checkTools() {
    for (tool, use, package) in [
      ("gdb", "debugging the guest", "gdb"), ("dtc", "checking device trees", "device-tree-compiler"),
      ("qemu-system-x86_64", "the guest's tests without KVM", "qemu-system-x86"),
    ] {
      let folders = (ProcessInfo.processInfo.environment["PATH"] ?? "").split(separator: ":")
      let found = folders.map { folder in "\(folder)/\(tool)" }.first { (path: String) in access(path, X_OK) == 0 }
      add(
        "tools", tool, found == nil ? .degraded : .ok, found ?? "not found (\(use))",
        found == nil ? "sudo apt-get install \(package)" : nil)
    }
  }

  private static func text(_ path: String) -> String {
    FileManager.default.contents(atPath: path).map { String(decoding: $0, as: UTF8.self) } ?? ""
  }
}
