// The software breakpoints that a debugger has set, and the trap instructions in guest memory that stand for them.

import GDBRemote
import GuestMemory

/// Breakpoints by address, and the bytes that their `int3` instructions replaced. A breakpoint whose address is not
/// mapped yet waits until `resolve` finds a place for it.
struct BreakpointTable {
  private static let trap: UInt8 = 0xcc

  private struct Site {
    var original: UInt8
    /// Breakpoints that share the place: several addresses may map to it.
    var users: Set<UInt64>
  }

  private let memory: GuestMemory
  /// Guest-virtual address → guest-physical place, nil while it waits.
  private var places: [UInt64: UInt64?] = [:]
  private var sites: [UInt64: Site] = [:]

  init(memory: GuestMemory) { self.memory = memory }

  /// Whether a breakpoint is set at this guest-virtual address, waiting or not.
  func contains(_ address: UInt64) -> Bool { places[address] != nil }

  /// Whether the byte at this guest-physical address is one of our trap instructions.
  func isTrap(at physical: GuestAddress) -> Bool { sites[physical.rawValue] != nil }

  /// Whether some breakpoints have no place yet.
  var hasWaiting: Bool { places.values.contains { $0 == nil } }

  /// Sets a breakpoint; `translate` says where its address lies now, or nil.
  mutating func insert(_ address: UInt64, translate: (UInt64) -> GuestAddress?) {
    guard !contains(address) else { return }
    places[address] = .some(nil)
    resolve(address, translate)
  }

  /// Tries again to place the breakpoints that wait.
  /// - Returns: whether any was placed.
  @discardableResult
  mutating func resolveWaiting(translate: (UInt64) -> GuestAddress?) -> Bool {
    let waiting = places.filter { $0.value == nil }.keys
    var any = false
    for address in waiting where resolve(address, translate) { any = true }
    return any
  }

  @discardableResult
  private mutating func resolve(_ address: UInt64, _ translate: (UInt64) -> GuestAddress?) -> Bool {
    guard let physical = translate(address), let original = try? memory.read(UInt8.self, at: physical) else {
      return false
    }
    if sites[physical.rawValue] == nil {
      guard (try? memory.write(Self.trap, at: physical)) != nil else { return false }
      sites[physical.rawValue] = Site(original: original, users: [])
    }
    sites[physical.rawValue]?.users.insert(address)
    places[address] = .some(physical.rawValue)
    return true
  }

  /// Takes a breakpoint away; nothing happens for one that is not set.
  mutating func remove(_ address: UInt64) {
    guard let place = places.removeValue(forKey: address), let physical = place else { return }
    sites[physical]?.users.remove(address)
    guard let site = sites[physical], site.users.isEmpty else { return }
    sites[physical] = nil
    // Memory that the guest has written since is the guest's.
    if (try? memory.read(UInt8.self, at: GuestAddress(physical))) == Self.trap {
      try? memory.write(site.original, at: GuestAddress(physical))
    }
  }

  mutating func removeAll() { for address in places.keys { remove(address) } }

  /// Bytes of one page as they would be without breakpoints.
  func read(at physical: GuestAddress, count: Int) throws(GuestMemoryError) -> [UInt8] {
    var bytes = try memory.readBytes(at: physical, count: count)
    for (place, site) in overlapping(physical, count) where bytes[place] == Self.trap { bytes[place] = site.original }
    return bytes
  }

  /// Writes bytes; where a breakpoint stands, its saved byte changes and the trap instruction stays.
  mutating func write(_ bytes: [UInt8], at physical: GuestAddress) throws(GuestMemoryError) {
    var written = bytes
    let places = overlapping(physical, bytes.count)
    for (place, _) in places { written[place] = Self.trap }
    try memory.write(bytes: written, at: physical)
    for (place, _) in places { sites[physical.rawValue + UInt64(place)]?.original = bytes[place] }
  }

  private func overlapping(_ physical: GuestAddress, _ count: Int) -> [(Int, Site)] {
    sites.compactMap { place, site in
      guard place >= physical.rawValue, place - physical.rawValue < UInt64(count) else { return nil }
      return (Int(place - physical.rawValue), site)
    }
  }
}
