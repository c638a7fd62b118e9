// What a network device needs from the host's side of its cable.

import Glibc
import SystemPackage

/// What the receiver of packets can do itself, so that the sender need not.
public struct LinkOffloads: OptionSet, Sendable {
  public let rawValue: UInt32
  public init(rawValue: UInt32) { self.rawValue = rawValue }
  // The values are those of TUN_F_* (linux/if_tun.h).
  /// Packets whose checksum is not filled in.
  public static let checksum = LinkOffloads(rawValue: 1)
  /// TCP over IPv4 in segments larger than a packet.
  public static let segmentation4 = LinkOffloads(rawValue: 2)
  /// The same over IPv6.
  public static let segmentation6 = LinkOffloads(rawValue: 4)
  public static let all: LinkOffloads = [.checksum, .segmentation4, .segmentation6]
}

/// What became of a packet that was sent.
public enum SendResult: Sendable { case sent, dropped, full }

/// Why a link cannot be made.
public enum NetworkLinkError: Error, Equatable, CustomStringConvertible {
  case invalidName(String)
  case noDriver(Errno)
  case busy(interface: String)
  case notPermitted(interface: String)
  case notATap(interface: String)
  case interface(String, Errno)
  case cannotListen(path: String, Errno)
  case cannotConnect(path: String, Errno)
  case noSocket(Errno)

  public var description: String {
    switch self {
    case .invalidName(let name): "\"\(name)\" is no name for a network interface (1 to 15 bytes)"
    case .noDriver(let error): "cannot open /dev/net/tun: \(error)"
    case .busy(let name): "TAP interface \(name) is in use by another process"
    case .notPermitted(let name):
      "not permitted to use TAP interface \(name): needs CAP_NET_ADMIN, or an interface made for this user "
        + "(ip tuntap add \(name) mode tap user NAME)"
    case .notATap(let name): "network interface \(name) exists and is no TAP interface"
    case .interface(let name, let error): "TAP interface \(name): \(error)"
    case .cannotListen(let path, let error): "cannot listen on socket \(path): \(error)"
    case .cannotConnect(let path, let error): "cannot connect to socket \(path): \(error)"
    case .noSocket(let error): "cannot make a socket: \(error)"
    }
  }
}

/// The host's end of a network cable. Every packet begins with a 12-byte `virtio_net_hdr_v1`, little-endian (virtio 1.2
/// §5.1.6). All functions belong to one thread, the device's.
public protocol PacketLink: AnyObject, Sendable {
  /// Readable (poll) when a packet may be there, or when there is room again after `full`.
  var descriptor: CInt { get }
  /// What the other side accepts from us, and can be told to use towards us.
  var offloads: LinkOffloads { get }
  /// Tells the other side what it may leave to the receiver of what it sends us.
  func accept(_ offloads: LinkOffloads)
  /// Sends one packet. After `full` the caller tries again when `descriptor` is readable.
  func send(_ segments: UnsafeMutableBufferPointer<iovec>) -> SendResult
  /// Fetches the next packet into `buffer`; its length, or nil when there is none. A packet longer than the buffer is
  /// cut.
  func receive(into buffer: UnsafeMutableRawBufferPointer) -> Int?
}

/// Bytes of the header before each packet.
public let packetHeaderSize = 12
/// The largest packet: header, Ethernet header, and 64 KiB for segmentation offload (§5.1.6.3.1).
public let largestPacket = 12 + 14 + 65536
