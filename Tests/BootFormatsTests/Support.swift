// Builders of boot-time formats for the tests.

import BootFormats

/// A byte buffer with a stable address for the length of a test.
final class Buffer {
  let base: UnsafeMutableRawPointer
  let count: Int
  init(_ contents: [UInt8]) {
    count = contents.count
    base = .allocate(byteCount: max(1, contents.count), alignment: 4096)
    base.copyMemory(from: contents, byteCount: contents.count)
  }
  deinit { base.deallocate() }
  var bytes: Bytes { Bytes(unsafeBase: base, count: count) }
}

func text(_ bytes: Bytes?) -> String? {
  guard let bytes else { return nil }
  return String(decoding: UnsafeRawBufferPointer(start: bytes.unsafeBase, count: bytes.count), as: UTF8.self)
}

func big(_ value: UInt32) -> [UInt8] { withUnsafeBytes(of: value.bigEndian) { Array($0) } }
func little<T: FixedWidthInteger>(_ value: T) -> [UInt8] { withUnsafeBytes(of: value.littleEndian) { Array($0) } }

/// A node for `flatten`.
indirect enum Tree {
  case node(String, [(String, [UInt8])], [Tree])
}

func string(_ value: String) -> [UInt8] { Array(value.utf8) + [0] }

/// A version 17 device tree blob.
func flatten(_ tree: Tree) -> [UInt8] {
  var structure: [UInt8] = []
  var strings: [UInt8] = []
  func pad() { while structure.count % 4 != 0 { structure.append(0) } }
  func emit(_ tree: Tree) {
    guard case .node(let name, let properties, let children) = tree else { return }
    structure += big(1) + string(name)
    pad()
    for (name, value) in properties {
      structure += big(3) + big(UInt32(value.count)) + big(UInt32(strings.count)) + value
      strings += string(name)
      pad()
    }
    structure += big(4)
    children.forEach(emit)
    structure += big(2)
  }
  emit(tree)
  structure += big(9)
  let structureOffset = 40 + 16
  let stringsOffset = structureOffset + structure.count
  let header = [
    0xd00d_feed, UInt32(stringsOffset + strings.count), UInt32(structureOffset), UInt32(stringsOffset), 40, 17, 16, 0,
    UInt32(strings.count), UInt32(structure.count),
  ]
  return header.flatMap(big) + [UInt8](repeating: 0, count: 16) + structure + strings
}

/// A ustar archive of the files given.
func archive(_ files: [(String, [UInt8])]) -> [UInt8] {
  var out: [UInt8] = []
  for (name, contents) in files {
    var header = [UInt8](repeating: 0, count: 512)
    header.replaceSubrange(0..<name.utf8.count, with: Array(name.utf8))
    let octal = String(contents.count, radix: 8)
    let field = Array((String(repeating: "0", count: 11 - octal.count) + octal).utf8)
    header.replaceSubrange(124..<135, with: field)
    header[156] = 0x30
    header.replaceSubrange(257..<262, with: Array("ustar".utf8))
    out += header + contents + [UInt8](repeating: 0, count: (512 - contents.count % 512) % 512)
  }
  return out + [UInt8](repeating: 0, count: 1024)
}

/// One program header for `executable`.
struct ProgramHeader {
  var flags: UInt32 = 5
  var offset: UInt64 = 0x1000
  var address: UInt64 = 0x40_0000
  var fileSize: UInt64 = 0x10
  var memorySize: UInt64 = 0x10
}

func executable(entry: UInt64 = 0x40_0000, machine: UInt16 = 62, _ headers: [ProgramHeader], size: Int = 0x3000)
  -> [UInt8]
{
  var out: [UInt8] = [0x7f, 0x45, 0x4c, 0x46, 2, 1, 1] + [UInt8](repeating: 0, count: 9)
  out +=
    little(UInt16(2)) + little(machine) + little(UInt32(1)) + little(entry) + little(UInt64(64)) + little(UInt64(0))
  out += little(UInt32(0)) + little(UInt16(64)) + little(UInt16(56)) + little(UInt16(headers.count))
  out += [UInt8](repeating: 0, count: 64 - out.count)
  for header in headers {
    out += little(UInt32(1)) + little(header.flags) + little(header.offset) + little(header.address)
    out += little(header.address) + little(header.fileSize) + little(header.memorySize) + little(UInt64(0x1000))
  }
  return out + [UInt8](repeating: 0x90, count: size - out.count)
}
