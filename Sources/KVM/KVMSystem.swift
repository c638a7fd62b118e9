// /dev/kvm itself: version, capabilities, and the making of virtual machines.

import CLinux
import Glibc
import HostSystem
import SystemPackage

/// One ioctl with an integer argument, named for its error.
@discardableResult
func request(_ name: String, _ descriptor: CInt, _ code: UInt, value: UInt = 0) throws(KVMError) -> CInt {
  do { return try systemCall { castor_ioctl_value(descriptor, code, value) } } catch { throw .request(name, error) }
}

/// One ioctl that reads or writes a structure.
@discardableResult
func request(_ name: String, _ descriptor: CInt, _ code: UInt, pointer: UnsafeMutableRawPointer) throws(KVMError)
  -> CInt
{
  do { return try systemCall { castor_ioctl_pointer(descriptor, code, pointer) } } catch { throw .request(name, error) }
}

/// A KVM capability by its number in linux/kvm.h.
public struct Capability: Sendable {
  public let name: String
  public let number: CInt
  public init(_ name: String, _ number: CInt) {
    self.name = name
    self.number = number
  }

  public static let syncRegisters = Capability("KVM_CAP_SYNC_REGS", KVM_CAP_SYNC_REGS)
  public static let immediateExit = Capability("KVM_CAP_IMMEDIATE_EXIT", KVM_CAP_IMMEDIATE_EXIT)
  public static let irqfd = Capability("KVM_CAP_IRQFD", KVM_CAP_IRQFD)
  public static let ioeventfd = Capability("KVM_CAP_IOEVENTFD", KVM_CAP_IOEVENTFD)
  public static let ioeventfdAnyLength = Capability("KVM_CAP_IOEVENTFD_ANY_LENGTH", KVM_CAP_IOEVENTFD_ANY_LENGTH)
  public static let irqRouting = Capability("KVM_CAP_IRQ_ROUTING", KVM_CAP_IRQ_ROUTING)
  public static let signalMSI = Capability("KVM_CAP_SIGNAL_MSI", KVM_CAP_SIGNAL_MSI)
  public static let tscDeadline = Capability("KVM_CAP_TSC_DEADLINE_TIMER", KVM_CAP_TSC_DEADLINE_TIMER)
  public static let clock = Capability("KVM_CAP_ADJUST_CLOCK", KVM_CAP_ADJUST_CLOCK)
  public static let pit = Capability("KVM_CAP_PIT2", KVM_CAP_PIT2)
  public static let guestDebug = Capability("KVM_CAP_SET_GUEST_DEBUG", KVM_CAP_SET_GUEST_DEBUG)
  public static let readOnlyMemory = Capability("KVM_CAP_READONLY_MEM", KVM_CAP_READONLY_MEM)
  public static let emulationFailure = Capability(
    "KVM_CAP_EXIT_ON_EMULATION_FAILURE", KVM_CAP_EXIT_ON_EMULATION_FAILURE)
  public static let maximumCPUs = Capability("KVM_CAP_MAX_VCPUS", KVM_CAP_MAX_VCPUS)
  public static let memorySlots = Capability("KVM_CAP_NR_MEMSLOTS", KVM_CAP_NR_MEMSLOTS)

  /// What a machine cannot run without.
  public static let required: [Capability] = [.syncRegisters, .immediateExit, .irqfd, .ioeventfd, .irqRouting]
  /// What doctor reports.
  public static let reported: [Capability] =
    required + [
      .ioeventfdAnyLength, .signalMSI, .tscDeadline, .clock, .pit, .guestDebug, .readOnlyMemory, .emulationFailure,
    ]
}

/// The open `/dev/kvm`.
public final class KVMSystem: Sendable {
  let descriptor: OwnedDescriptor

  /// Opens `/dev/kvm` and checks API version and required capabilities.
  public init(path: String = "/dev/kvm") throws(KVMError) {
    do { descriptor = try OwnedDescriptor { castor_open(path, O_RDWR | O_CLOEXEC, 0) } } catch {
      switch error {
      case .permissionDenied, .notPermitted: throw .notPermitted
      default: throw .absent
      }
    }
    let version: CInt
    do { version = try request("KVM_GET_API_VERSION", descriptor.rawValue, castor_KVM_GET_API_VERSION) } catch {
      throw .notKVM
    }
    guard version == KVM_API_VERSION else { throw .version(version) }
    for capability in Capability.required where value(of: capability) == 0 {
      throw .missingCapability(capability.name)
    }
  }

  /// A capability's value; 0 where it is absent.
  public func value(of capability: Capability) -> Int {
    Int(max(0, castor_ioctl_value(descriptor.rawValue, castor_KVM_CHECK_EXTENSION, UInt(capability.number))))
  }

  /// How many vCPUs one machine may have.
  public var maximumCPUs: Int { max(1, value(of: .maximumCPUs)) }

  /// The CPUID table that the host can give a guest (KVM_GET_SUPPORTED_CPUID).
  public func supportedCPUID() throws(KVMError) -> [kvm_cpuid_entry2] {
    let capacity = 256
    let header = MemoryLayout<kvm_cpuid2>.stride
    let bytes = header + capacity * MemoryLayout<kvm_cpuid_entry2>.stride
    // The buffer holds the header and `capacity` entries, which is what nent promises the kernel.
    let buffer = UnsafeMutableRawPointer.allocate(byteCount: bytes, alignment: 8)
    defer { buffer.deallocate() }
    buffer.initializeMemory(as: UInt8.self, repeating: 0, count: bytes)
    let table = buffer.bindMemory(to: kvm_cpuid2.self, capacity: 1)
    table.pointee.nent = UInt32(capacity)
    try request("KVM_GET_SUPPORTED_CPUID", descriptor.rawValue, castor_KVM_GET_SUPPORTED_CPUID, pointer: buffer)
    return Array(
      UnsafeBufferPointer(start: castor_cpuid_entries(table), count: min(capacity, Int(table.pointee.nent))))
  }
}
