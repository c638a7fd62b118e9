// The state of a network device as its container tells the twin.
//
// Words of the reply: 0 status (0 working, 1 lost), 1 MAC address, 2 MTU and link state (`NetLink.flags`), 3 entries of the receive
// queue | of the transmit queue << 16, 4 negotiated features, 5 guest-physical address of the queue memory, 6 generation, 7
// guest-physical address of the completion memory.

import DriverContract

/// Queues of the device (virtio 1.2 §5.1.2).
public enum NetQueue {
  public static let receive = 0
  public static let transmit = 1
}

/// Commands of the class, for `ControlCall.perform`.
public enum NetCommand {
  /// Gives the interface the MAC address in the argument.
  public static let setAddress: UInt64 = 1
}

/// What the container tells the twin about the device.
public struct NetState: ContractState, Equatable, Sendable {
  public var isLost = true
  public var generation: UInt64 = 0
  public var link = NetLink()
  public var features: UInt64 = 0
  /// The receive queue's and the transmit queue's; of those in a reply only the queue asked for has addresses.
  public var queues = [ContractQueue(), ContractQueue()]

  public init() {}

  public func encode(queue: Int, _ put: (Int, UInt64) -> Void) {
    put(0, isLost ? 1 : 0)
    put(1, link.address)
    put(2, link.flags)
    put(3, UInt64(queues[0].size) | UInt64(queues[1].size) << 16)
    put(4, features)
    put(5, queues.indices.contains(queue) ? queues[queue].address : 0)
    put(6, generation)
    put(7, queues.indices.contains(queue) ? queues[queue].completionAddress : 0)
  }

  /// The state that the words of a reply concerning `queue` tell.
  public init(queue: Int, _ word: (Int) -> UInt64) {
    isLost = word(0) == 1
    link = NetLink(address: word(1))
    link.flags = word(2)
    queues[0].size = Int(word(3) & 0xffff)
    queues[1].size = Int(word(3) >> 16 & 0xffff)
    features = word(4)
    generation = word(6)
    if queues.indices.contains(queue) {
      queues[queue].address = word(5)
      queues[queue].completionAddress = word(7)
    }
  }
}
