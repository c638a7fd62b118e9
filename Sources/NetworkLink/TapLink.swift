// A cable to the host kernel: a TAP interface (Documentation/networking/tuntap.rst of Linux).

import CLinux
import Glibc
import HostSystem
import SystemPackage

/// A TAP interface with virtio headers. It goes when this object goes, unless it was made persistent before.
public final class TapLink: PacketLink, @unchecked Sendable {
  // @unchecked: immutable but for the kernel's object behind the descriptor.
  public let name: String
  public let offloads: LinkOffloads
  public var descriptor: CInt { file.rawValue }
  private let file: OwnedDescriptor

  // ioctl numbers, which are macros with arguments (linux/if_tun.h).
  private static let setInterface: UInt = 0x4004_54ca
  private static let setOffload: UInt = 0x4004_54d0
  private static let setHeaderSize: UInt = 0x4004_54d8
  private static let setLittleEndian: UInt = 0x4004_54dc

  /// Attaches to the interface `name`, or makes it.
  public init(name: String) throws(NetworkLinkError) {
    let bytes = Array(name.utf8)
    guard (1...15).contains(bytes.count), !bytes.contains(0), !bytes.contains(UInt8(ascii: "/")) else {
      throw .invalidName(name)
    }
    do throws(Errno) {
      file = try OwnedDescriptor { castor_open("/dev/net/tun", O_RDWR | O_CLOEXEC | O_NONBLOCK, 0) }
    } catch {
      if error == .permissionDenied || error == .notPermitted { throw .notPermitted(interface: name) }
      throw .noDriver(error)
    }
    self.name = name
    // struct ifreq: 16 bytes of name, then the flags: IFF_TAP, IFF_NO_PI, IFF_VNET_HDR.
    var request = bytes + [UInt8](repeating: 0, count: 40 - bytes.count)
    let flags: UInt16 = 0x0002 | 0x1000 | 0x4000
    request[16] = UInt8(truncatingIfNeeded: flags)
    request[17] = UInt8(truncatingIfNeeded: flags >> 8)
    let descriptor = file.rawValue
    if castor_ioctl_pointer(descriptor, Self.setInterface, &request) < 0 {
      switch Errno(rawValue: errno) {
      case .resourceBusy: throw .busy(interface: name)
      case .notPermitted, .permissionDenied: throw .notPermitted(interface: name)
      case .invalidArgument: throw .notATap(interface: name)
      case let error: throw .interface(name, error)
      }
    }
    var headerSize = CInt(packetHeaderSize)
    var one: CInt = 1
    guard castor_ioctl_pointer(descriptor, Self.setHeaderSize, &headerSize) == 0,
      castor_ioctl_pointer(descriptor, Self.setLittleEndian, &one) == 0
    else { throw .interface(name, Errno(rawValue: errno)) }
    let all = LinkOffloads.all.rawValue
    offloads = castor_ioctl_value(descriptor, Self.setOffload, UInt(all)) == 0 ? .all : []
    accept([])
  }

  public func accept(_ offloads: LinkOffloads) {
    // Segmentation without checksums makes no sense, and the kernel refuses it.
    let usable = offloads.contains(.checksum) ? offloads.intersection(self.offloads) : []
    _ = castor_ioctl_value(file.rawValue, Self.setOffload, UInt(usable.rawValue))
  }

  public func send(_ segments: UnsafeMutableBufferPointer<iovec>) -> SendResult {
    while true {
      if writev(file.rawValue, segments.baseAddress, CInt(clamping: segments.count)) >= 0 { return .sent }
      // An interface that is down, a header that the kernel finds senseless, a full queue: the packet is lost, as on a
      // cable.
      guard errno == EINTR else { return .dropped }
    }
  }

  public func receive(into buffer: UnsafeMutableRawBufferPointer) -> Int? {
    while true {
      let count = read(file.rawValue, buffer.baseAddress, buffer.count)
      if count > 0 { return count }
      guard count < 0, errno == EINTR else { return nil }
    }
  }
}
