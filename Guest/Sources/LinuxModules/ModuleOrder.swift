// In which order modules are loaded: what a module depends on comes before it.

/// Modules ordered by what they depend on.
public enum ModuleOrder {
  /// One module: its name and those that must be loaded before it, with `_` for `-`.
  public struct Entry: Sendable {
    public let name: Name
    public let dependencies: [Name]

    public init(name: Name, dependencies: [Name]) {
      self.name = name
      self.dependencies = dependencies
    }

    public init(_ file: ModuleFile) {
      name = file.name
      dependencies = file.information.dependencies
    }
  }

  /// The indices of `modules` in the order of loading; modules that do not depend on each other keep their order.
  public static func order(_ modules: [Entry]) throws(ModuleError) -> [Int] {
    let byName = modules.indices.sorted { modules[$0].name < modules[$1].name }
    for (first, second) in zip(byName, byName.dropFirst()) where modules[first].name == modules[second].name {
      throw ModuleError(.duplicateModule, module: modules[first].name)
    }
    func index(of name: Name) -> Int? {
      var low = 0
      var high = byName.count
      while low < high {
        let middle = (low + high) / 2
        if modules[byName[middle]].name < name { low = middle + 1 } else { high = middle }
      }
      return low < byName.count && modules[byName[low]].name == name ? byName[low] : nil
    }

    enum State { case new, open, done }
    var states = [State](repeating: .new, count: modules.count)
    var order: [Int] = []
    // Depth first without recursion: the depth is the file's to choose.
    var path: [(module: Int, next: Int)] = []
    for root in modules.indices where states[root] == .new {
      states[root] = .open
      path.append((root, 0))
      while let (module, next) = path.last {
        guard next < modules[module].dependencies.count else {
          states[module] = .done
          order.append(module)
          path.removeLast()
          continue
        }
        path[path.count - 1].next += 1
        let wanted = modules[module].dependencies[next]
        guard let found = index(of: wanted) else {
          throw ModuleError(.missingDependency(wanted), module: modules[module].name)
        }
        switch states[found] {
        case .done: break
        case .new:
          states[found] = .open
          path.append((found, 0))
        case .open:
          // The cycle begins where the path met this module first.
          var names: [Name] = []
          for step in path where !names.isEmpty || step.module == found { names.append(modules[step.module].name) }
          names.append(modules[found].name)
          throw ModuleError(.dependencyCycle(names), module: modules[found].name)
        }
      }
    }
    return order
  }
}
