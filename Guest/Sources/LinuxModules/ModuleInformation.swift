// What a module says of itself in `.modinfo`: entries `key=value`, each ended by a zero byte (linux/moduleparam.h).

import BootFormats

/// The entries of a module's section `.modinfo`; they borrow the module's file.
public struct ModuleInformation {
  private let contents: Bytes

  init(_ contents: Bytes) { self.contents = contents }

  /// Calls `body` with the value of every entry of that key (`alias`, `parm`, `parmtype`, …), in the order of the file.
  public func forEach(_ key: StaticString, _ body: (Bytes) -> Void) {
    let key = Bytes(key)
    var entries = Parts(of: contents, separator: 0)
    while let entry = entries.next() {
      guard entry.starts(with: key), entry.byte(key.count) == 0x3d, let value = entry.suffix(from: key.count + 1)
      else { continue }
      body(value)
    }
  }

  /// The value of the first entry of that key, or nil: `name`, `vermagic`, `license`, `description`, …
  public func value(of key: StaticString) -> Bytes? {
    var first: Bytes?
    forEach(key) { if first == nil { first = $0 } }
    return first
  }

  /// The modules that must be loaded first, as `depends` names them, with `_` for `-`.
  public var dependencies: [Name] {
    var names: [Name] = []
    forEach("depends") { value in
      var parts = Parts(of: value, separator: 0x2c)
      while let part = parts.next() { names.append(Name(part).normalised) }
    }
    return names
  }

  /// The module's parameters: name, and type where the module gives one (`uint`, `bool`, `charp`, …).
  public var parameters: [(name: Name, type: Name)] {
    var parameters: [(name: Name, type: Name)] = []
    forEach("parmtype") { value in
      guard let colon = value.firstIndex(of: 0x3a), let name = value.slice(0, colon),
        let type = value.suffix(from: colon + 1)
      else { return }
      parameters.append((Name(name), Name(type)))
    }
    return parameters
  }
}

extension ModuleFile {
  /// Refuses a module that was built for another kernel than the one that is wanted: `vermagic` must be the same to the
  /// last character, because the structures that module and kernel share depend on all of it.
  public func checkVersion(wanted: Bytes) throws(ModuleError) {
    let found = information.value(of: "vermagic") ?? Bytes("")
    guard found.equals(wanted) else {
      throw ModuleError(.otherKernel(found: Name(found), wanted: Name(wanted)), module: name)
    }
  }
}
