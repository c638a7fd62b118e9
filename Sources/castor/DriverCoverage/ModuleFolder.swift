// Reads all Linux modules below a folder: one version of one kernel, compressed by xz or not.

import BootFormats
import Configuration
import Foundation
import LinuxModules

/// What coverage needs of one module.
struct ModuleSummary: Equatable {
  struct Symbol: Equatable {
    var name: String
    /// The checksum of its type, where the file has it.
    var checksum: UInt32?
  }
  var name: String
  /// Kernel and options that it was built for.
  var magic: String
  /// Imports that must be there; weak ones are left out.
  var imports: [Symbol]
  var exports: [Symbol]
  /// Of the container's own object: the functions that make-drivers.sh made of its list of stubs, each marked by a symbol `stub.NAME`.
  var stubs: Set<String> = []
}

/// The modules below a folder.
struct ModuleFolder {
  var magic: String
  /// Ordered by name.
  var modules: [ModuleSummary]

  /// A module that is larger than this when it is unpacked is refused, in bytes.
  static let largestModule = 256 << 20

  /// Reads and checks every file whose name ends in `.ko` or `.ko.xz`.
  static func read(_ folder: String) throws -> ModuleFolder {
    func refusal(_ reason: String, _ code: Configuration.ExitCode) -> ConfigurationError {
      ConfigurationError(key: "--modules", value: folder, expected: reason, exitCode: code)
    }
    let names: [String]
    do {
      names = try FileManager.default.subpathsOfDirectory(atPath: folder)
    } catch {
      guard access(folder, R_OK | X_OK) != 0 else { throw refusal("is not a folder", .missingInput) }
      guard errno == ENOENT else { throw MachineConfiguration.fileError("--modules", folder, errno) }
      throw refusal("no such folder; Tests/linux/fetch-modules.sh fetches Debian's modules", .missingInput)
    }
    var modules: [ModuleSummary] = []
    for name in names.sorted() where name.hasSuffix(".ko") || name.hasSuffix(".ko.xz") {
      let path = "\(folder)/\(name)"
      do {
        modules.append(try summary(of: try contents(path), fileName: name))
      } catch let error as ModuleError {
        throw CommandFailure(
          message: "'\(path)': \(String(decoding: error.line, as: UTF8.self))", exitCode: .invalidModule)
      }
    }
    guard let first = modules.first else { throw refusal("has no .ko or .ko.xz below it", .missingInput) }
    if let other = modules.first(where: { $0.magic != first.magic }) {
      throw refusal(
        "has modules of more than one kernel: \(first.name) is for \"\(first.magic)\", \(other.name) for \"\(other.magic)\"",
        .invalidModule)
    }
    modules.sort { $0.name < $1.name }
    for (one, other) in zip(modules, modules.dropFirst()) where one.name == other.name {
      throw refusal("has two modules \(one.name)", .invalidModule)
    }
    return ModuleFolder(magic: first.magic, modules: modules)
  }

  /// A module's bytes, unpacked.
  private static func contents(_ path: String) throws -> Data {
    guard path.hasSuffix(".xz") else {
      guard access(path, R_OK) == 0 else { throw MachineConfiguration.fileError("module", path, errno) }
      guard let data = try? Data(contentsOf: URL(filePath: path)) else {
        throw ConfigurationError(key: "module", value: path, expected: "cannot be read", exitCode: .inputOutputError)
      }
      return data
    }
    let unpacker = try ChildProcess("xz", ["--decompress", "--stdout", "--", path])
    var data = Data()
    while let bytes = unpacker.read(milliseconds: 1000) {
      data.append(contentsOf: bytes)
      guard data.count <= largestModule else {
        throw CommandFailure(message: "'\(path)': larger than 256 MiB when unpacked", exitCode: .invalidModule)
      }
    }
    let code = unpacker.wait(milliseconds: 10_000)
    guard code == 0 else {
      let reason =
        String(decoding: unpacker.errorText, as: UTF8.self).split(separator: "\n").last ?? "ended with an error"
      throw CommandFailure(message: "'\(path)': \(reason)", exitCode: .invalidModule)
    }
    return data
  }

  /// Reads one module.
  static func summary(of contents: Data, fileName: String) throws(ModuleError) -> ModuleSummary {
    let memory = FileCopy(contents)
    let name = FileCopy(Data(fileName.utf8))
    return try withExtendedLifetime((memory, name)) { () throws(ModuleError) in
      try summary(of: try ModuleFile(memory.bytes, fileName: name.bytes))
    }
  }

  private static func summary(of file: ModuleFile) throws(ModuleError) -> ModuleSummary {
    var checksums: [String: UInt32] = [:]
    try file.forEachVersion { checksums[text($0)] = $1 }
    var imports: [ModuleSummary.Symbol] = []
    file.forEachImport { symbol in
      if !symbol.isWeak { imports.append(.init(name: text(symbol.name), checksum: checksums[text(symbol.name)])) }
    }
    var exports: [ModuleSummary.Symbol] = []
    try file.forEachExport { exports.append(.init(name: text($0.name), checksum: $0.checksum)) }
    var stubs: Set<String> = []
    for index in 0..<file.symbolCount {
      let name = text(try file.symbol(index).name)
      if name.hasPrefix("stub.") { stubs.insert(String(name.dropFirst("stub.".count))) }
    }
    return ModuleSummary(
      name: String(decoding: file.name.bytes, as: UTF8.self),
      magic: file.information.value(of: "vermagic").map { text($0).trimmingCharacters(in: .whitespaces) } ?? "",
      imports: imports, exports: exports, stubs: stubs)
  }

  private static func text(_ bytes: Bytes) -> String { String(decoding: Name(bytes).bytes, as: UTF8.self) }
}

/// Bytes at a place that does not move while this object lives.
private final class FileCopy {
  private let storage: UnsafeMutableRawBufferPointer
  let bytes: Bytes

  init(_ contents: Data) {
    storage = .allocate(byteCount: max(1, contents.count), alignment: 16)
    storage.copyBytes(from: contents)
    // Never empty by the line above, so there is a first address.
    bytes = Bytes(unsafeBase: storage.baseAddress!, count: contents.count)
  }

  deinit { storage.deallocate() }
}
