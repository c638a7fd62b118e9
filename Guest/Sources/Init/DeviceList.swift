// The devices that drivers have announced: a name for each, for as long as its driver runs.

import Pollux

/// A device and its driver.
struct DriverDevice {
  let name: [UInt8]
  /// The name that the driver asked for.
  let wanted: [UInt8]
  let kind: DeviceClass
  /// Bytes, where it has an end.
  var size: UInt64
  /// Index of the driver's service.
  let service: Int
  let serial: UInt64
}

/// All devices. Drivers are not trusted: names are checked, and nobody gets more than `maximumOfService`.
struct DeviceList {
  private(set) var devices: [DriverDevice] = []
  private var nextSerial: UInt64 = 1
  static let maximumOfService = 8

  /// Letters, digits, `-` and `_`, at most 16.
  private static func isName(_ name: [UInt8]) -> Bool {
    guard name.count > 0, name.count <= 16 else { return false }
    for byte in name {
      let lower = byte | 0x20
      guard (lower >= 0x61 && lower <= 0x7a) || (byte >= 0x30 && byte <= 0x39) || byte == 0x2d || byte == 0x5f else {
        return false
      }
    }
    return true
  }

  /// Takes up a device of `service`, or the new size of one that it has announced; the name that it has.
  mutating func announce(
    _ wanted: [UInt8], _ kind: DeviceClass, size: UInt64, by service: Int
  ) throws(SystemError) -> [UInt8] {
    guard Self.isName(wanted) else { throw .badArgument }
    if let known = devices.firstIndex(where: { $0.service == service && $0.wanted == wanted && $0.kind == kind }) {
      devices[known].size = size
      return devices[known].name
    }
    guard devices.count(where: { $0.service == service }) < Self.maximumOfService else { throw .tableFull }
    var name = wanted
    while devices.contains(where: { $0.name == name }) {
      let last = name[name.count - 1]
      guard (last >= 0x61 && last < 0x7a) || (last >= 0x30 && last < 0x39) else { throw .exists }
      name[name.count - 1] = last + 1
    }
    devices.append(
      DriverDevice(name: name, wanted: wanted, kind: kind, size: size, service: service, serial: nextSerial))
    nextSerial += 1
    return name
  }

  /// The service has ended.
  mutating func remove(of service: Int) { devices.removeAll { $0.service == service } }
}
