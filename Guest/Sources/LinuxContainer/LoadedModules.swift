// Linux's modules in this process: found in the boot archive, loaded below 2 GiB, resolved against each other and against Linux's side
// of the container, which is the first of them.

import BootFormats
import CLinuxContainer
import LinuxModules
import Pollux

/// Why the modules do not run.
enum LoadFailure: Error {
  case module(ModuleError)
  case kernel(SystemError)
  case noSuchModule(Name)
  /// `init_module` returned this error number.
  case refused(Name, Int32)
  /// Names that nobody provides, and the module that wants them.
  case missing(Name, [Name])
  /// A value that the module does not take for its parameter, and the error number.
  case parameter(Name, Name, Int32)
  /// Linux's side was built from another `container.h`.
  case otherInterface
}

struct LoadedModules {
  private struct Export {
    let name: Name
    let address: UInt64
  }

  /// Code of the modules' memory model reaches the lower 2 GiB; programs end far below this address, and their stacks lie above it.
  private static let start: UInt64 = 0x2000_0000
  private static let end: UInt64 = 0x6000_0000
  private static let folder: StaticString = "linux/"
  private static let runtime: StaticString = "container"

  private let archive: TapeArchive
  private var next = Self.start
  private var exports: [Export] = []
  private var loaded: [Name] = []
  /// The canary of the stack protector, on a page of its own that nobody writes any more.
  private let canary: UInt32
  /// Linux's side, as `container.h` describes it.
  private(set) var entries: UnsafePointer<container_entries>

  /// Where Linux's side itself is.
  private var ownPlacement: ModulePlacement?

  /// Words `MODULE.PARAMETER=VALUE`, as on Linux's command line.
  private let parameters: Bytes

  /// Loads Linux's side alone. Of `arguments`, the words `MODULE.PARAMETER=VALUE` are for the modules that come.
  init(_ archive: TapeArchive, arguments: Bytes) throws(LoadFailure) {
    self.archive = archive
    parameters = arguments
    do throws(SystemError) {
      let page = try MemoryObject.create(AddressSpace.pageSize)
      let mapping = try page.map([.read, .write])
      mapping.base.storeBytes(of: Clock.now &* 0x9e37_79b9_7f4a_7c15 & ~0xff, as: UInt64.self)
      mapping.unmap()
      try page.map(at: next, size: AddressSpace.pageSize, .read)
    } catch { throw .kernel(error) }
    canary = UInt32(next)
    next += 2 * AddressSpace.pageSize
    // Replaced below; the type has no other way to say "not yet".
    entries = UnsafePointer(UnsafeMutablePointer<container_entries>.allocate(capacity: 1))
    let placement = try load(Name(Self.runtime))
    guard let address = exports.first(where: { $0.name == Name("container_entries") })?.address,
      let table = UnsafePointer<container_entries>(bitPattern: UInt(address))
    else { throw .missing(placement.file.name, [Name("container_entries")]) }
    // It stays mapped as long as the process lives.
    guard table.pointee.size == UInt(MemoryLayout<container_entries>.size) else { throw .otherInterface }
    entries = table
    ownPlacement = placement
  }

  /// The address of something that a loaded module exports.
  func address(_ name: StaticString) throws(LoadFailure) -> UInt {
    let wanted = Name(name)
    guard let export = exports.first(where: { $0.name == wanted }) else { throw .missing(Name("container"), [wanted]) }
    return UInt(export.address)
  }

  private var vermagic: Bytes {
    guard let text = entries.pointee.vermagic else { return Bytes("") }
    var length = 0
    // A C string of Linux's side.
    while text[length] != 0 { length += 1 }
    return Bytes(unsafeBase: UnsafeRawPointer(text), count: length)
  }

  /// Loads a module with all that it depends on, and runs their initialisation in that order.
  mutating func insert(_ name: Name) throws(LoadFailure) {
    var wanted = [name]
    var files: [ModuleFile] = []
    while let module = wanted.popLast() {
      if loaded.contains(module) || files.contains(where: { $0.name == module }) { continue }
      let file = try read(module)
      wanted.append(contentsOf: file.information.dependencies)
      files.append(file)
    }
    let present = loaded
    let order: [Int]
    do throws(ModuleError) {
      order = try ModuleOrder.order(
        files.map { file in
          ModuleOrder.Entry(
            name: file.name, dependencies: file.information.dependencies.filter { !present.contains($0) })
        })
    } catch { throw .module(error) }
    for index in order {
      let file = files[index]
      do throws(ModuleError) { try file.checkVersion(wanted: vermagic) } catch {
        throw .module(error)
      }
      let placement = try load(file.name)
      loaded.append(file.name)
      try announce(placement)
      try setParameters(placement)
      let initialiser: UInt64?
      do throws(ModuleError) { initialiser = try placement.address(named: "init_module") } catch {
        throw .module(error)
      }
      guard let initialiser else { continue }
      let result = container_call_initialiser(UInt(initialiser))
      if result < 0 { throw .refused(file.name, result) }
    }
  }

  /// Has Linux's side know its own tables of exceptions; after it has been started.
  func announceSelf() throws(LoadFailure) {
    if let ownPlacement { try announce(ownPlacement) }
  }

  /// Tells Linux's side where a module lies, and what exceptions in it mean.
  private func announce(_ placement: ModulePlacement) throws(LoadFailure) {
    func section(_ name: StaticString) -> (UInt, UInt) {
      guard let range = placement.range(ofSection: name) else { return (0, 0) }
      return (UInt(placement.base + range.offset), UInt(range.size))
    }
    var module = container_module()
    module.base = UInt(placement.base)
    module.size = UInt(placement.layout.size)
    (module.bugs, module.bugs_size) = section("__bug_table")
    (module.exceptions, module.exceptions_size) = section("__ex_table")
    withUnsafeMutableBytes(of: &module.name) { name in
      let bytes = placement.file.name.bytes
      for (index, byte) in bytes.prefix(name.count - 1).enumerated() { name[index] = byte }
    }
    let result = withUnsafePointer(to: module) { entries.pointee.module_loaded($0) }
    if result < 0 { throw .refused(placement.file.name, result) }
  }

  /// Gives the module the values that are meant for it. One that it does not know is said and passed over, as in Linux.
  private func setParameters(_ placement: ModulePlacement) throws(LoadFailure) {
    let module = placement.file.name
    let table = placement.range(ofSection: "__param") ?? (offset: 0, size: 0)
    var failure: LoadFailure?
    let entries = entries
    CommandLine(parameters).forEachWord { key, value in
      guard failure == nil, let point = key.firstIndex(of: 0x2e), let owner = key.slice(0, point),
        ModuleFile.moduleName(owner) == module, let name = key.suffix(from: point + 1)
      else { return }
      let result = Self.terminated(name) { name in
        Self.terminated(value) { value in
          entries.pointee.parameter(UInt(placement.base + table.offset), UInt(table.size), name, value)
        }
      }
      if result == -Self.noSuchEntry {
        var line = Text("linux-container: ")
        line.add(module.bytes)
        line.add(" has no parameter ")
        line.add(name)
        line.add("\n")
        line.print()
        line.log()
      } else if result != 0 {
        failure = .parameter(module, Name(name), result)
      }
    }
    if let failure { throw failure }
  }

  private static var noSuchEntry: Int32 { 2 }

  /// Calls `body` with a copy of the text that ends with a zero byte.
  private static func terminated(_ text: Bytes, _ body: (UnsafePointer<CChar>) -> Int32) -> Int32 {
    var copy: [CChar] = []
    for index in 0..<text.count { copy.append(CChar(bitPattern: text.byte(index) ?? 0)) }
    copy.append(0)
    return copy.withUnsafeBufferPointer { buffer in
      guard let start = buffer.baseAddress else { return 0 }
      return body(start)
    }
  }

  /// `virtio_rng` may lie in the archive as virtio-rng.
  private func read(_ name: Name) throws(LoadFailure) -> ModuleFile {
    var found: TapeArchive.File?
    archive.forEachFile { file in
      guard file.name.starts(with: Bytes(Self.folder)), let base = file.name.suffix(from: Bytes(Self.folder).count),
        ModuleFile.moduleName(base) == name
      else { return true }
      found = file
      return false
    }
    guard let found else { throw .noSuchModule(name) }
    do throws(ModuleError) { return try ModuleFile(found.contents, fileName: found.name) } catch {
      throw .module(error)
    }
  }

  /// Loads one module at the next free address, and makes its exports known.
  @discardableResult
  private mutating func load(_ name: Name) throws(LoadFailure) -> ModulePlacement {
    let file = try read(name)
    let known = exports
    func resolve(_ symbol: Bytes) -> UInt64? {
      let wanted = Name(symbol)
      return known.first { $0.name == wanted }?.address
    }
    let placement: ModulePlacement
    do throws(ModuleError) {
      let layout = try ModuleLayout(file)
      // There is one processor, and GS begins at 0: the template is its copy.
      placement = try ModulePlacement(
        file, layout: layout, base: next, processorBase: layout.templateOffset.map { next + $0 })
    } catch { throw .module(error) }
    let missing = placement.missingImports(resolve)
    guard missing.isEmpty else { throw .missing(file.name, missing) }
    guard placement.layout.size <= Self.end - next else { throw .kernel(.noMemory) }
    try place(placement, resolve)
    next += (placement.layout.size + 0xffff) & ~0xffff
    do throws(ModuleError) { try note(placement) } catch { throw .module(error) }
    return placement
  }

  /// Fills memory with the module and maps it where it runs, each part with the protection it needs and no other.
  private func place(_ placement: ModulePlacement, _ resolve: (Bytes) -> UInt64?) throws(LoadFailure) {
    let layout = placement.layout
    guard layout.size > 0 else { return }
    let memory: MemoryObject
    let window: Mapping
    do throws(SystemError) {
      memory = try MemoryObject.create(layout.size)
      window = try memory.map([.read, .write])
    } catch { throw .kernel(error) }
    // As long as the layout says.
    let image = UnsafeMutableRawBufferPointer(start: window.base, count: Int(layout.size))
    do throws(ModuleError) { try placement.load(into: image, resolve) } catch { throw .module(error) }
    for part in layout.parts where part.kind == .text || part.kind == .initText {
      // The part lies inside the module's memory by its layout.
      let code = UnsafeMutableRawBufferPointer(start: window.base + Int(part.offset), count: Int(part.size))
      _ = StackProtector.redirect(code, to: canary)
    }
    window.unmap()
    do throws(SystemError) {
      for part in layout.parts {
        let protection: Protection
        switch part.kind {
        case .text, .initText: protection = [.read, .execute]
        case .readOnly, .initReadOnly: protection = .read
        case .readOnlyAfterInit, .writable, .processorTemplate, .initWritable: protection = [.read, .write]
        }
        try memory.map(at: placement.base + part.offset, offset: part.offset, size: part.size, protection)
      }
      memory.handle.close()
    } catch { throw .kernel(error) }
  }

  /// Enters the addresses of what the module exports.
  private mutating func note(_ placement: ModulePlacement) throws(ModuleError) {
    var names: [Name] = []
    try placement.file.forEachExport { names.append(Name($0.name)) }
    for index in 0..<placement.file.symbolCount {
      let symbol = try placement.file.symbol(index)
      guard !symbol.isLocal, symbol.place != .undefined, names.contains(Name(symbol.name)) else { continue }
      let address = try placement.address(of: symbol) { _ in nil }
      exports.append(Export(name: Name(symbol.name), address: address))
    }
  }
}
