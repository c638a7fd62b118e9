// Module files in memory, compiled objects, and real modules where they were fetched.

import BootFormats
import Foundation
import LinuxModuleBuilder
import Testing

@testable import LinuxModules

/// Bytes that are never freed, because `Bytes` does not own them.
struct FileMemory {
  let bytes: Bytes

  init(_ contents: some Collection<UInt8>) {
    let storage = UnsafeMutableRawBufferPointer.allocate(byteCount: max(1, contents.count), alignment: 16)
    storage.copyBytes(from: contents)
    bytes = Bytes(unsafeBase: storage.baseAddress!, count: contents.count)
  }
}

extension Name {
  init(_ text: String) { self.init(FileMemory(Array(text.utf8)).bytes) }
  var text: String { String(decoding: bytes, as: UTF8.self) }
}
extension Bytes {
  var text: String { Name(self).text }
}
extension ModuleError {
  var text: String { String(decoding: line, as: UTF8.self) }
}

/// Reads `file`, which the caller keeps.
func module(_ file: FileMemory, _ fileName: StaticString = "test.ko") throws(ModuleError) -> ModuleFile {
  try ModuleFile(file.bytes, fileName: Bytes(fileName))
}

/// The module's memory after it was loaded.
func loaded(
  _ file: ModuleFile, base: UInt64, processorBase: UInt64? = nil, _ resolve: (Bytes) -> UInt64? = { _ in nil }
) throws(ModuleError) -> [UInt8] {
  let layout = try ModuleLayout(file)
  let memory = UnsafeMutableRawBufferPointer.allocate(byteCount: Int(layout.size), alignment: 4096)
  defer { memory.deallocate() }
  try ModulePlacement(file, layout: layout, base: base, processorBase: processorBase).load(into: memory, resolve)
  return Array(memory)
}

struct SplitMix: RandomNumberGenerator {
  var state: UInt64
  mutating func next() -> UInt64 {
    state &+= 0x9e37_79b9_7f4a_7c15
    var z = state
    z = (z ^ (z >> 30)) &* 0xbf58_476d_1ce4_e5b9
    z = (z ^ (z >> 27)) &* 0x94d0_49bb_1331_11eb
    return z ^ (z >> 31)
  }
}

/// Programs of the toolchain.
enum Tool {
  static func has(_ name: String) -> Bool {
    (ProcessInfo.processInfo.environment["PATH"] ?? "").split(separator: ":")
      .contains { access("\($0)/\(name)", X_OK) == 0 }
  }

  static func run(_ arguments: [String]) throws {
    let process = Process()
    process.executableURL = URL(filePath: "/usr/bin/env")
    process.arguments = arguments
    try process.run()
    process.waitUntilExit()
    try #require(process.terminationStatus == 0, "\(arguments)")
  }
}

/// A folder that is removed at the end.
final class Scratch {
  let url = FileManager.default.temporaryDirectory.appending(path: "linux-modules-\(UUID().uuidString)")
  init() throws { try FileManager.default.createDirectory(at: url, withIntermediateDirectories: true) }
  deinit { try? FileManager.default.removeItem(at: url) }
  func path(_ name: String) -> String { url.appending(path: name).path() }
  func read(_ name: String) throws -> [UInt8] { Array(try Data(contentsOf: url.appending(path: name))) }
}

/// Debian's modules, where Tests/linux/fetch-modules.sh has been run.
enum RealModules {
  static let folder = URL(filePath: #filePath).deletingLastPathComponent().appending(path: "../../.build/linux-modules")
    .standardizedFileURL

  /// Paths of all modules, sorted.
  static let paths: [String] = {
    guard let walk = FileManager.default.enumerator(at: folder, includingPropertiesForKeys: nil) else { return [] }
    return walk.compactMap { ($0 as? URL)?.path() }.filter { $0.hasSuffix(".ko") || $0.hasSuffix(".ko.xz") }.sorted()
  }()

  static let reason: Comment = "needs Debian's modules: run Tests/linux/fetch-modules.sh"

  static func path(_ name: String) throws -> String {
    try #require(paths.first { $0.contains("/\(name).ko") })
  }

  /// A module's bytes, unpacked.
  static func contents(_ path: String) throws -> [UInt8] {
    guard path.hasSuffix(".xz") else { return Array(try Data(contentsOf: URL(filePath: path))) }
    let stream = try #require(popen("xz -dc '\(path)'", "re"))
    var contents: [UInt8] = []
    var buffer = [UInt8](repeating: 0, count: 1 << 16)
    while case let count = fread(&buffer, 1, buffer.count, stream), count > 0 { contents += buffer[..<count] }
    try #require(pclose(stream) == 0, "\(path)")
    return contents
  }
}

/// The linker as the judge: links the object with every loaded section where the layout puts it, and imports at
/// `imports`, and returns the sections' bytes as the linker leaves them.
func linked(
  _ path: String, _ placement: ModulePlacement, imports: [String: UInt64], in scratch: Scratch
) throws -> [(name: String, offset: Int, bytes: [UInt8])] {
  let file = placement.file
  var script = "SECTIONS {\n"
  var wanted: [(name: String, offset: Int)] = []
  // The linker places contents in the file in the script's order, which must be that of the addresses.
  let placed = file.sections.indices.compactMap { index in
    placement.layout.offsets[index].map { (section: file.sections[index], offset: $0) }
  }
  for (section, offset) in placed.sorted(by: { $0.offset < $1.offset }) {
    let name = section.name.text
    script += "  \"\(name)\" \(placement.base + offset) : { KEEP(*(\"\(name)\")) }\n"
    // The linker leaves out the input's build identification.
    if !section.isZero, section.size > 0, name != ".note.gnu.build-id" { wanted.append((name, Int(offset))) }
  }
  script += "/DISCARD/ : { *(.modinfo) *(__versions) }\n}\n"
  try Data(script.utf8).write(to: scratch.url.appending(path: "script.ld"))
  try Tool.run(
    ["ld.lld", "-O0", "-static", "-e", "0", "--unresolved-symbols=ignore-all", "-z", "norelro"]
      + imports.map { "--defsym=\($0.key)=\($0.value)" }
      + ["-T", scratch.path("script.ld"), "-o", scratch.path("linked"), path])
  // The result is an executable; its section table has the same form.
  let result = try scratch.read("linked")
  func number<T: FixedWidthInteger>(_ offset: Int, _ type: T.Type) -> T {
    result.withUnsafeBytes { T(littleEndian: $0.loadUnaligned(fromByteOffset: offset, as: T.self)) }
  }
  let table = Int(number(40, UInt64.self))
  return try wanted.map { name, offset in
    for index in 0..<Int(number(60, UInt16.self)) {
      let header = table + index * 64
      guard number(header + 16, UInt64.self) == placement.base + UInt64(offset), number(header + 4, UInt32.self) != 8,
        number(header + 32, UInt64.self) > 0
      else { continue }
      let start = Int(number(header + 24, UInt64.self))
      return (name, offset, Array(result[start..<start + Int(number(header + 32, UInt64.self))]))
    }
    throw MissingSection(name: name)
  }
}
struct MissingSection: Error { var name: String }
