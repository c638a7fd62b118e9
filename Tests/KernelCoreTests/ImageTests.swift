import KernelCore
import PolluxABI
import Testing

struct ImageTests {
  /// An ELF program with one segment, whose header fields tests can spoil.
  private func program(_ change: (inout [UInt8]) -> Void = { _ in }) -> [UInt8] {
    var bytes = [UInt8](repeating: 0, count: 0x3000)
    func put(_ value: UInt64, _ size: Int, _ offset: Int) {
      for index in 0..<size { bytes[offset + index] = UInt8(truncatingIfNeeded: value >> UInt64(8 * index)) }
    }
    put(0x464c_457f, 4, 0)
    put(0x0102, 2, 4)
    put(2, 2, 16)
    put(62, 2, 18)
    put(0x40_0010, 8, 24)
    put(64, 8, 32)
    put(56, 2, 54)
    put(1, 2, 56)
    put(1, 4, 64)
    put(6, 4, 68)
    put(0x1000, 8, 72)
    put(0x40_0000, 8, 80)
    put(0x2000, 8, 96)
    put(0x5000, 8, 104)
    change(&bytes)
    return bytes
  }

  private func segment(_ bytes: [UInt8]) throws(SystemError) -> ProgramImage.Segment? {
    guard let image = ProgramImage(bytes.span.bytes) else { throw .notFound }
    return try image.segment(0)
  }

  @Test func aSegmentIsFoundWithItsRights() throws {
    let found = try #require(try segment(program()))
    #expect(found.address == 0x40_0000 && found.fileOffset == 0x1000)
    #expect(found.fileSize == 0x2000 && found.memorySize == 0x5000)
    #expect(found.protection == [.read, .write])
  }

  @Test(arguments: [0, 4, 5, 16, 18, 33, 36, 39, 54, 57])
  func aSpoiltHeaderIsNoProgram(offset: Int) {
    #expect(throws: SystemError.self) { try segment(program { $0[offset] ^= 0x81 }) }
  }

  @Test(arguments: [
    (82, 0xff), (80, 1), (87, 0x80), (72, 8), (99, 1), (103, 0x80), (111, 0xff), (68, 7), (96, 1),
    (79, 0x40),
  ])
  func aSegmentThatCannotBeMappedInPlaceIsRefused(offset: Int, value: Int) {
    if offset == 82 {
      // Above the user's part: slot 254.
      #expect(throws: SystemError.badArgument) { try segment(program { $0[85] = 0x7f }) }
    } else {
      #expect(throws: SystemError.badArgument) { try segment(program { $0[offset] = UInt8(value) }) }
    }
  }

  @Test func everyTruncationIsSafe() {
    let whole = program()
    for count in 0..<200 {
      let found = try? segment(Array(whole[..<count]))
      // The header table ends at 120; the contents lie behind every one of these ends.
      #expect(found == nil)
    }
  }

  private func find(_ name: StaticString, _ bytes: [UInt8]) -> (offset: Int, size: Int)? {
    BootArchive.find(name, in: bytes.span.bytes)
  }

  private func archive(_ entries: [(String, Int)]) -> [UInt8] {
    var bytes: [UInt8] = []
    for (name, size) in entries {
      var header = [UInt8](repeating: 0, count: 512)
      for (index, byte) in name.utf8.enumerated() { header[index] = byte }
      let octal = String(size, radix: 8)
      let digits = String(repeating: "0", count: 11 - octal.count) + octal
      for (index, byte) in digits.utf8.enumerated() { header[124 + index] = byte }
      bytes += header + [UInt8](repeating: 7, count: (size + 511) / 512 * 512)
    }
    return bytes + [UInt8](repeating: 0, count: 1024)
  }

  @Test func filesAreFoundByTheirWholeName() throws {
    let bytes = archive([("initial", 10), (".align", 2048), ("init", 700), ("other", 0)])
    let found = try #require(find("init", bytes))
    #expect(found.offset == 512 + 512 + 512 + 2048 + 512 && found.size == 700)
    #expect(find("other", bytes)?.size == 0)
    #expect(find("absent", bytes) == nil)
    #expect(find("ini", bytes) == nil)
  }

  @Test func aSizeBeyondTheArchiveEndsTheSearch() {
    var bytes = archive([("big", 10), ("init", 10)])
    for index in 124..<135 { bytes[index] = 0x37 }
    #expect(find("init", bytes) == nil)
  }
}
