// System calls as typed Swift: the one place where programs enter the kernel.

import CPollux
@_exported import PolluxABI

/// Calls the kernel; negative results become the error they stand for.
@inline(__always)
func invoke(
  _ call: SystemCall, _ a: UInt64 = 0, _ b: UInt64 = 0, _ c: UInt64 = 0, _ d: UInt64 = 0, _ e: UInt64 = 0,
  _ f: UInt64 = 0
) throws(SystemError) -> UInt64 {
  let result = pollux_system_call(call.rawValue, a, b, c, d, e, f)
  if result < 0 { throw SystemError(rawValue: result) ?? .badCall }
  return UInt64(result)
}

/// Kernel facilities that belong to no object.
public enum Kernel {
  /// A word of the kernel-info page, by its byte offset (`KernelInfo`).
  public static func info(_ offset: UInt64) -> UInt64 {
    guard offset < AddressSpace.pageSize - 7,
      let word = UnsafePointer<UInt64>(bitPattern: UInt(ProgramSpace.kernelInfo + offset))
    else { return 0 }
    // The kernel maps this page in every address space (Layout.swift); the offset is inside it.
    return word.pointee
  }

  public static func query(_ query: SystemQuery) -> UInt64 {
    do throws(SystemError) { return try invoke(.systemQuery, query.rawValue) } catch { return 0 }
  }

  /// The cost of entering and leaving the kernel.
  public static func null() {
    do throws(SystemError) { _ = try invoke(.null) } catch {}
  }

  public static func control(_ root: Handle, _ operation: SystemControl, _ value: UInt64) throws(SystemError) -> UInt64
  {
    try invoke(.systemControl, root.rawValue, operation.rawValue, value)
  }

  /// Ends the calling process.
  public static func exit(_ code: UInt32) -> Never {
    do throws(SystemError) { _ = try invoke(.processExit, UInt64(code)) } catch {}
    while true {}
  }

  /// Reads the kernel log from `position` into `buffer`; bytes read.
  public static func readLog(at position: UInt64, into buffer: UnsafeMutableRawBufferPointer) -> Int {
    guard let base = buffer.baseAddress else { return 0 }
    do throws(SystemError) {
      return Int(try invoke(.logRead, position, UInt64(UInt(bitPattern: base)), UInt64(buffer.count)))
    } catch { return 0 }
  }

  /// Fills `records` with the processes from identifier `first` on; how many there were.
  public static func processes(from first: UInt32, into records: UnsafeMutableBufferPointer<ProcessInfo>) -> Int {
    guard let base = records.baseAddress else { return 0 }
    do throws(SystemError) {
      return Int(
        try invoke(.processList, UInt64(UInt(bitPattern: base)), UInt64(records.count), UInt64(first)))
    } catch { return 0 }
  }

  /// Fills `records` with the threads from identifier `first` on; how many there were.
  public static func threads(from first: UInt32, into records: UnsafeMutableBufferPointer<ThreadInfo>) -> Int {
    guard let base = records.baseAddress else { return 0 }
    do throws(SystemError) {
      return Int(try invoke(.threadList, UInt64(UInt(bitPattern: base)), UInt64(records.count), UInt64(first)))
    } catch { return 0 }
  }
}

/// Time as the time-stamp counter tells it.
public enum Clock {
  public static var now: UInt64 { pollux_time_stamp() }
  /// Ticks a second; never 0.
  public static var frequency: UInt64 {
    let known = Kernel.info(KernelInfo.tscFrequency)
    return known == 0 ? 1_000_000_000 : known
  }
  /// Ticks in so many microseconds.
  public static func ticks(microseconds: UInt64) -> UInt64 {
    frequency / 1_000_000 * microseconds + frequency % 1_000_000 * microseconds / 1_000_000
  }
  /// Nanoseconds that `ticks` take.
  public static func nanoseconds(_ ticks: UInt64) -> UInt64 {
    pollux_scale(ticks, 1_000_000_000, frequency)
  }
  public static func sleep(microseconds: UInt64) {
    do throws(SystemError) { _ = try invoke(.threadSleep, now + ticks(microseconds: microseconds)) } catch {}
  }
  /// Ticks that a loop of 1,000 turns takes here; the least of three runs, the first of which may be cold.
  public static func measureLoop() -> UInt64 {
    var least = UInt64.max
    for _ in 0..<3 {
      let start = now
      pollux_loop(1000)
      least = min(least, now &- start)
    }
    return max(least, 1)
  }
  /// Tells the processor that this is a waiting loop.
  @inline(__always)
  public static func pause() { pollux_pause() }
}

/// A 32-bit wide device register window, mapped into this process. Offsets are the driver's own constants.
public struct DeviceRegisters {
  private let base: UInt64
  /// Registers at the guest-virtual address `base`, which the caller has mapped from a device memory object.
  public init(unsafeBase base: UInt64) { self.base = base }
  @inline(__always)
  public func load(_ offset: UInt64) -> UInt32 { pollux_device_load(base + offset) }
  @inline(__always)
  public func load8(_ offset: UInt64) -> UInt8 { pollux_device_load8(base + offset) }
  @inline(__always)
  public func store(_ value: UInt32, at offset: UInt64) { pollux_device_store(base + offset, value) }
}

/// A word in memory that the kernel or another process reads and writes too.
public enum VolatileWord {
  /// `address` is aligned and mapped readable.
  public static func load(_ address: UnsafeRawPointer) -> UInt64 { pollux_word_load(UInt64(UInt(bitPattern: address))) }
  /// `address` is aligned and mapped writable.
  public static func store(_ value: UInt64, to address: UnsafeMutableRawPointer) {
    pollux_word_store(UInt64(UInt(bitPattern: address)), value)
  }
}
