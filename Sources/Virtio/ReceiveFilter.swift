// Which received frames a driver wants (virtio 1.2 §5.1.6.5.1, §5.1.6.5.2).

/// The receive filter that a driver sets through the control queue.
struct ReceiveFilter: Equatable {
  var promiscuous = true
  var allMulticast = false
  var allUnicast = false
  var noMulticast = false
  var noUnicast = false
  var noBroadcast = false
  /// Addresses as numbers, first byte first.
  var unicast: Set<UInt64> = []
  var multicast: Set<UInt64> = []
  /// The device's own address.
  var address: UInt64

  init(address: UInt64) { self.address = address }

  /// Whether a frame to this destination is to be delivered.
  func admits(_ destination: UInt64) -> Bool {
    if promiscuous { return true }
    if destination == 0xffff_ffff_ffff { return !noBroadcast }
    // The first byte's lowest bit marks a group address.
    if destination >> 40 & 1 != 0 { return !noMulticast && (allMulticast || multicast.contains(destination)) }
    return !noUnicast && (allUnicast || destination == address || unicast.contains(destination))
  }

  /// The number of an address whose six bytes are given.
  static func number(_ bytes: some Sequence<UInt8>) -> UInt64 { bytes.prefix(6).reduce(0) { $0 << 8 | UInt64($1) } }
}
