// Reads kernel command-line arguments: `key=value` words and QEMU's `virtio_mmio.device=SIZE@ADDRESS:IRQ`.

/// A virtio-mmio device that the command line announces (virtio 1.2 §4.2.1, the Linux kernel parameter's form).
public struct AnnouncedDevice: Equatable, Sendable {
  /// Guest-physical address and size of the register window, in bytes.
  public let address: UInt64
  public let size: UInt64
  /// The interrupt as a GSI.
  public let interrupt: UInt32
}

/// The boot command line.
public struct CommandLine {
  private let bytes: Bytes

  public init(_ bytes: Bytes) { self.bytes = bytes.upToZero }

  /// Calls `body` with each word's key and value; a word without `=` has an empty value. A value in double quotes may
  /// hold spaces; the quotes are not part of it.
  public func forEachWord(_ body: (_ key: Bytes, _ value: Bytes) -> Void) {
    var position = 0
    while position < bytes.count {
      if isSpace(position) {
        position += 1
        continue
      }
      var end = position
      var quoted = false
      while end < bytes.count, quoted || !isSpace(end) {
        if bytes.byte(end) == 0x22 { quoted.toggle() }
        end += 1
      }
      if let word = bytes.slice(position, end - position) { split(word, body) }
      position = end
    }
  }

  private func isSpace(_ offset: Int) -> Bool {
    guard let character = bytes.byte(offset) else { return false }
    return character == 0x20 || character == 0x09 || character == 0x0a
  }

  private func split(_ word: Bytes, _ body: (_ key: Bytes, _ value: Bytes) -> Void) {
    guard let equals = word.firstIndex(of: 0x3d), let key = word.slice(0, equals),
      var value = word.suffix(from: equals + 1)
    else {
      body(word, Bytes(""))
      return
    }
    if value.count >= 2, value.byte(0) == 0x22, value.byte(value.count - 1) == 0x22,
      let inner = value.slice(1, value.count - 2)
    {
      value = inner
    }
    body(key, value)
  }

  /// The value of the last word with this key.
  public func value(_ key: StaticString) -> Bytes? {
    var found: Bytes?
    forEachWord { candidate, value in
      if candidate.equals(key) { found = value }
    }
    return found
  }

  /// Calls `body` for each well-formed `virtio_mmio.device=` argument.
  public func forEachDevice(_ body: (AnnouncedDevice) -> Void) {
    forEachWord { key, value in
      guard key.equals("virtio_mmio.device"), let device = Self.device(value) else { return }
      body(device)
    }
  }

  /// `SIZE@ADDRESS:IRQ[:ID]`, the size with an optional K or M.
  static func device(_ value: Bytes) -> AnnouncedDevice? {
    guard let at = value.firstIndex(of: 0x40), let size = value.slice(0, at)?.size,
      let rest = value.suffix(from: at + 1),
      let colon = rest.firstIndex(of: 0x3a), let address = rest.slice(0, colon)?.number,
      let tail = rest.suffix(from: colon + 1)
    else { return nil }
    let numberEnd = tail.firstIndex(of: 0x3a) ?? tail.count
    guard let interrupt = tail.slice(0, numberEnd)?.number, interrupt <= UInt64(UInt32.max), size > 0,
      address <= UInt64.max - size
    else { return nil }
    return AnnouncedDevice(address: address, size: size, interrupt: UInt32(interrupt))
  }
}
