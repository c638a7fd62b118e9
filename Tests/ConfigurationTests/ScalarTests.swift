// Sizes, addresses, endpoints: what is accepted and what is not.

import Testing

@testable import Configuration

@Suite struct ScalarTests {
  @Test(
    arguments: [
      ("0", 0), ("512", 512), ("4096B", 4096), ("1K", 1024), ("512M", 512 << 20), ("2GiB", 2 << 30), ("64 KiB", 65536),
      ("3t", 3 << 40), ("18446744073709551615", UInt64.max), ("16777215TiB", 16_777_215 << 40),
    ] as [(String, UInt64)])
  func sizesAreRead(_ text: String, _ bytes: UInt64) { #expect(ByteSize.parse(text) == bytes) }

  @Test(arguments: [
    "", "M", "-1", "+1", "1.5G", "1MB", "1 M iB", "1P", "0x10", "18446744073709551616", "16777216T", "1KK", "٣M", " 1",
  ])
  func otherSizesAreRefused(_ text: String) { #expect(ByteSize.parse(text) == nil) }

  @Test(arguments: [1, 1000, 1024, 1 << 20, (1 << 30) + 1024, 5 << 40, 0, UInt64.max] as [UInt64])
  func formattedSizesAreReadBack(_ bytes: UInt64) { #expect(ByteSize.parse(ByteSize.format(bytes)) == bytes) }

  @Test func macAddressesRoundTrip() {
    #expect(MACAddress("52:54:00:0a:0B:ff")?.description == "52:54:00:0a:0b:ff")
    for bad in ["", "52:54:00:0a:0b", "52:54:00:0a:0b:0c:0d", "5254000a0b0c", "53:54:00:00:00:00", "g2:54:00:0a:0b:0c"]
    {
      #expect(MACAddress(bad) == nil, "\(bad)")
    }
  }

  @Test func derivedMACAddressesAreLocalStableAndDifferent() {
    let first = MACAddress(machine: "a", index: 0)
    #expect(first == MACAddress(machine: "a", index: 0))
    #expect(MACAddress(first.description) == first)
    #expect(first.bytes[0] & 3 == 2)
    #expect(Set([first, MACAddress(machine: "a", index: 1), MACAddress(machine: "b", index: 0)]).count == 3)
  }

  @Test(arguments: ["stdio", "none", "pty", "file:/tmp/x:y", "unix:/tmp/s.sock"])
  func serialEndpointsRoundTrip(_ text: String) throws {
    #expect(try SerialEndpoint(key: "serial", text).description == text)
  }

  @Test(arguments: ["", "tty", "file:", "unix:", "unix:/" + String(repeating: "x", count: 107)])
  func otherSerialEndpointsAreRefused(_ text: String) {
    #expect(throws: ConfigurationError.self) { try SerialEndpoint(key: "serial", text) }
  }

  @Test(arguments: [
    ("1234", "127.0.0.1:1234"), (":1234", "127.0.0.1:1234"), ("localhost:1", "127.0.0.1:1"),
    ("0.0.0.0:65535", "0.0.0.0:65535"), ("[::1]:2", "[::1]:2"), ("unix:/tmp/g", "unix:/tmp/g"),
  ])
  func debuggerEndpointsAreRead(_ text: String, _ canonical: String) throws {
    let endpoint = try DebuggerEndpoint(key: "gdb", text)
    #expect(endpoint.description == canonical)
    #expect(try DebuggerEndpoint(key: "gdb", endpoint.description) == endpoint)
  }

  @Test(arguments: ["", "0", "65536", "host:1", "1.2.3:4", "unix:", "1.2.3.400:1"])
  func otherDebuggerEndpointsAreRefused(_ text: String) {
    #expect(throws: ConfigurationError.self) { try DebuggerEndpoint(key: "gdb", text) }
  }
}
