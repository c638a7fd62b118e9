// What the network server needs of whatever moves the packets.

import NetInterface
import Pollux

/// A packet buffer in the client's memory as a plane sees it; checked by the server.
public struct PacketBuffer {
  /// Guest-physical address of the header.
  public let physical: UInt64
  /// Guest-virtual address in this process, if the plane asked for it.
  public let base: UnsafeMutableRawPointer?
  /// Bytes, header included.
  public let length: UInt32
}

/// What happened to the device.
public enum NetPlaneState {
  case working
  /// The device was set up anew: give it again what it had. Told once.
  case restarted
  /// It is gone for good.
  case lost
}

/// The part that moves packets: the twin's, or the solo driver's.
public protocol NetPlane: AnyObject {
  var link: NetLink { get }
  var mode: NetMode { get }
  /// Whether the client's packet memory is to be mapped into this process.
  var mapsRegion: Bool { get }
  /// How long to look for packets before going to sleep, in ticks; 0: never.
  var pollTicks: UInt64 { get }
  var doorbells: UInt64 { get }
  var interrupts: UInt64 { get }
  var resets: UInt64 { get }
  /// Packets that found no buffer, as far as the plane sees them.
  var withoutBuffer: UInt64 { get }
  /// Somebody wants the device quiet: nothing is asked of it until `takeState` says that it was set up anew.
  var isSuspended: Bool { get }

  /// Sends the packet; false: no room now. `token` comes back by `nextSent`.
  func transmit(_ buffer: PacketBuffer, token: Int) -> Bool
  /// Gives a buffer for a packet to come; false: no room now.
  func post(_ buffer: PacketBuffer, token: Int) -> Bool
  /// Lets the device see what it was given.
  func kick()
  func nextSent() -> Int?
  func nextReceived() -> (token: Int, length: UInt32)?
  /// Whether one of them would find something; cheap.
  var hasCompletions: Bool { get }
  /// Asks for an interrupt after so many received or sent packets more; 0: not for these. True: there already.
  func armInterrupts(received: Int, sent: Int) -> Bool
  func disarmInterrupts()
  /// Bits of the notification arrived.
  func handle(events: UInt64)
  /// The device does not answer: has it reset and set up anew. What came of it `takeState` tells.
  func reset()
  /// Takes what happened to the device since the last call.
  func takeState() -> NetPlaneState
  /// Has the device let go of every buffer, for their memory is given away. Nothing of them completes afterwards.
  func recall()
  /// Gives the interface another MAC address. False: the device did not take it.
  func setAddress(_ address: UInt64) -> Bool
}

extension NetPlane {
  /// A twin waits in a call of its container.
  public var isSuspended: Bool { false }
}
