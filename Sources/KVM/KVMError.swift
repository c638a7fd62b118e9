// What can go wrong with KVM, in words a person can act on.

import SystemPackage

/// A request that the host's KVM refused.
public enum KVMError: Error, CustomStringConvertible {
  /// `/dev/kvm` is absent: no KVM in this kernel or no virtualisation on this machine.
  case absent
  /// `/dev/kvm` exists but may not be opened.
  case notPermitted
  /// `/dev/kvm` opens and does not answer as KVM.
  case notKVM
  /// The kernel speaks another KVM API version than 12.
  case version(Int32)
  /// A capability that Castor needs is missing.
  case missingCapability(String)
  /// An ioctl failed.
  case request(String, Errno)

  public var description: String {
    switch self {
    case .absent:
      "/dev/kvm does not exist: load the kvm module, or enable (nested) virtualisation for this machine"
    case .notPermitted:
      "/dev/kvm may not be opened: join the group that owns it (often 'kvm') or run as root"
    case .notKVM: "/dev/kvm is not KVM's device: it does not answer KVM_GET_API_VERSION"
    case .version(let version): "the host's KVM API is version \(version), Castor needs 12"
    case .missingCapability(let name): "the host's KVM lacks \(name)"
    case .request(let name, let code): "\(name) failed: \(code)"
    }
  }
}
