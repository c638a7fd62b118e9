// Text without the Unicode tables: lines are built as bytes and written to the console or the log whole.

@_exported import BootFormats

/// A line under construction.
public struct Text {
  public private(set) var bytes: [UInt8] = []
  public init() { bytes.reserveCapacity(120) }
  public init(_ text: StaticString) {
    self.init()
    add(text)
  }

  public mutating func add(_ text: StaticString) { add(Bytes(text)) }
  public mutating func add(_ text: Bytes) {
    var index = 0
    while let byte = text.byte(index) {
      bytes.append(byte)
      index += 1
    }
  }
  public mutating func add(_ text: [UInt8]) { bytes.append(contentsOf: text) }
  public mutating func add(byte: UInt8) { bytes.append(byte) }

  /// A decimal number.
  public mutating func add(_ value: UInt64) {
    if value >= 10 { add(value / 10) }
    bytes.append(0x30 + UInt8(value % 10))
  }
  public mutating func add(_ value: Int) {
    if value < 0 { bytes.append(0x2d) }
    add(value.magnitude)
  }
  public mutating func add(_ value: UInt) { add(UInt64(value)) }
  public mutating func add(_ value: UInt32) { add(UInt64(value)) }

  /// A hexadecimal number with `0x`.
  public mutating func add(hexadecimal value: UInt64) {
    add("0x")
    var shift: UInt64 = 64
    var started = false
    while shift > 0 {
      shift -= 4
      let digit = UInt8(truncatingIfNeeded: value >> shift) & 15
      if digit != 0 || started || shift == 0 {
        started = true
        bytes.append(digit < 10 ? 0x30 + digit : 0x61 + digit - 10)
      }
    }
  }

  /// `thousandths` / 1000, with three decimals.
  public mutating func add(thousandths: UInt64) {
    add(thousandths / 1000)
    bytes.append(0x2e)
    let rest = thousandths % 1000
    bytes.append(0x30 + UInt8(rest / 100))
    bytes.append(0x30 + UInt8(rest / 10 % 10))
    bytes.append(0x30 + UInt8(rest % 10))
  }

  /// Appends spaces until the line is `column` characters long.
  public mutating func pad(to column: Int) {
    while bytes.count < column { bytes.append(0x20) }
  }

  public mutating func clear() { bytes.removeAll(keepingCapacity: true) }

  /// Writes the line to the console.
  public func print() { Console.write(bytes) }

  /// Appends the line to the kernel log.
  public func log() {
    bytes.withUnsafeBytes { buffer in
      guard let base = buffer.baseAddress else { return }
      do throws(SystemError) {
        _ = try invoke(.logWrite, UInt64(UInt(bitPattern: base)), UInt64(buffer.count))
      } catch {}
    }
  }
}

/// The machine's console.
public enum Console {
  /// Writes all of `bytes`, waiting while the serial port is full.
  public static func write(_ bytes: [UInt8]) {
    bytes.withUnsafeBytes { write($0) }
  }
  public static func write(_ text: StaticString) {
    write(UnsafeRawBufferPointer(start: text.utf8Start, count: text.utf8CodeUnitCount))
  }
  public static func write(_ buffer: UnsafeRawBufferPointer) {
    guard let base = buffer.baseAddress else { return }
    var done = 0
    while done < buffer.count {
      let address = UInt64(UInt(bitPattern: base + done))
      do throws(SystemError) {
        let taken = try invoke(.consoleWrite, address, UInt64(min(256, buffer.count - done)))
        done += Int(taken)
        if taken == 0 { Clock.sleep(microseconds: 200) }
      } catch { return }
    }
  }
  /// Reads what has arrived; never waits.
  public static func read(into buffer: UnsafeMutableRawBufferPointer) -> Int {
    guard let base = buffer.baseAddress else { return 0 }
    do throws(SystemError) {
      return Int(try invoke(.consoleRead, UInt64(UInt(bitPattern: base)), UInt64(buffer.count)))
    } catch { return 0 }
  }
}
