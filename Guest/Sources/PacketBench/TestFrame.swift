// Ethernet frames that tests and benchmarks send: numbered, and with contents that follow from the number.
//
//   0 destination, 6 source, 12 EtherType, 14 number (64 bits), 22 source once more, 28 … pattern
// A peer that swaps the addresses sends back what its sender can check.

/// A frame in memory of the caller's; numbers of the host's byte order but for the EtherType.
public enum TestFrame {
  /// Local experimental EtherType 1 (IEEE 802).
  public static let type: UInt16 = 0x88b5
  /// The shortest that carries all, and the shortest that Ethernet knows.
  public static let shortest = 60

  @inline(__always)
  private static func word(_ number: UInt64, _ index: Int) -> UInt64 {
    (number &+ UInt64(index)) &* 0x9e37_79b9_7f4a_7c15
  }

  /// Writes a MAC address, a number whose bits 40 to 47 are the first byte, to six bytes at `place`.
  public static func put(_ address: UInt64, _ place: UnsafeMutableRawPointer) {
    for index in 0..<6 {
      place.storeBytes(
        of: UInt8(truncatingIfNeeded: address >> UInt64(40 - 8 * index)), toByteOffset: index, as: UInt8.self)
    }
  }

  /// The MAC address in six bytes at `place`.
  public static func address(_ place: UnsafeRawPointer) -> UInt64 {
    var address: UInt64 = 0
    for index in 0..<6 { address = address << 8 | UInt64(place.load(fromByteOffset: index, as: UInt8.self)) }
    return address
  }

  /// Makes a frame of `length` bytes, at least `shortest`.
  public static func fill(
    _ frame: UnsafeMutableRawPointer, length: Int, number: UInt64, from source: UInt64, to destination: UInt64
  ) {
    stamp(frame, number: number, from: source, to: destination)
    var place = 28
    while place + 8 <= length {
      frame.storeBytes(of: word(number, place), toByteOffset: place, as: UInt64.self)
      place += 8
    }
    while place < length {
      frame.storeBytes(of: UInt8(truncatingIfNeeded: place), toByteOffset: place, as: UInt8.self)
      place += 1
    }
  }

  /// Writes addresses, type and number only; the rest stays as it is.
  public static func stamp(
    _ frame: UnsafeMutableRawPointer, number: UInt64, from source: UInt64, to destination: UInt64
  ) {
    put(destination, frame)
    put(source, frame + 6)
    frame.storeBytes(of: type.bigEndian, toByteOffset: 12, as: UInt16.self)
    frame.storeBytes(of: number, toByteOffset: 14, as: UInt64.self)
    put(source, frame + 22)
  }

  /// Whether the frame is one of these, by its type and length.
  public static func isOne(_ frame: UnsafeRawPointer, length: Int) -> Bool {
    length >= shortest && frame.loadUnaligned(fromByteOffset: 12, as: UInt16.self) == type.bigEndian
  }

  /// The number of a frame that is one of these.
  public static func number(_ frame: UnsafeRawPointer) -> UInt64 {
    frame.loadUnaligned(fromByteOffset: 14, as: UInt64.self)
  }

  /// Whether the frame of `length` bytes came back to where it was sent from, as it was sent.
  public static func isEcho(_ frame: UnsafeRawPointer, length: Int) -> Bool {
    address(frame) == address(frame + 22) && isIntact(frame, length: length)
  }

  /// Whether what follows the addresses is what `fill` writes there.
  public static func isIntact(_ frame: UnsafeRawPointer, length: Int) -> Bool {
    let number = number(frame)
    var place = 28
    while place + 8 <= length {
      if frame.loadUnaligned(fromByteOffset: place, as: UInt64.self) != word(number, place) { return false }
      place += 8
    }
    while place < length {
      if frame.load(fromByteOffset: place, as: UInt8.self) != UInt8(truncatingIfNeeded: place) { return false }
      place += 1
    }
    return true
  }
}
