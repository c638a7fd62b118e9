// In which isolation class a service runs (HongMeng §4.2): what the composition asks for, what this machine can enforce, and what is
// sensible on it.

import Pollux

/// A class asked for, and what a service got.
struct Placement {
  /// 0, 1, 2, or 3 for `auto`.
  var asked: UInt64 = 2
  var mechanism = IsolationMechanism.userMode
  /// Why it is not the class asked for, or for `auto` not IC1; empty where it is.
  var reason: StaticString = ""

  var effective: UInt64 {
    switch mechanism {
    case .none: 0
    case .protectionKeys, .pageTable, .best: 1
    case .userMode: 2
    }
  }
  /// As the registry tells it (`RegistryCall.service`, from bit 8 on): asked, effective, mechanism, a byte each.
  var bits: UInt64 { asked | effective << 8 | mechanism.rawValue << 16 }
}

/// Places services.
final class Placer {
  private let machine: Machine
  /// What class IC1 is on this machine: the best that works, or what `pollux.isolation=` says.
  private let inKernelSpace: IsolationMechanism
  /// Whether ring 0 runs at the speed of ring 3, measured when it is first asked.
  private var kernelIsFast: Bool?

  /// On a software KVM ring 0 is emulated and thousands of times slower; elsewhere the ratio is near 1.
  private static let tolerableRatio: UInt64 = 16

  init(_ machine: Machine) {
    self.machine = machine
    let wanted = machine.commandLine.value("pollux.isolation") ?? Bytes("")
    inKernelSpace = wanted.equals("page-table") ? .pageTable : wanted.equals("keys") ? .protectionKeys : .best
  }

  /// Loads a program in the class `asked` (`ic0`, `ic1`, `ic2`, `auto`), or in IC2 where that cannot be, and says which.
  func load(_ program: Bytes, named name: Bytes, asked: Bytes) throws(LoadError) -> (Placement, LoadedProgram) {
    var placement = Placement()
    var mechanism = IsolationMechanism.userMode
    if asked.equals("ic0") {
      placement.asked = 0
      mechanism = .none
    } else if asked.equals("ic1") {
      placement.asked = 1
      mechanism = inKernelSpace
    } else if asked.equals("auto") {
      placement.asked = 3
      mechanism = isKernelFast() ? inKernelSpace : .userMode
    }
    if placement.asked == 3, mechanism == .userMode { placement.reason = "ring 0 is slow here" }
    if mechanism != .userMode {
      if let file = LoadedProgram.kernelImage(of: program, in: machine.archive) {
        do throws(LoadError) {
          let loaded = try LoadedProgram(
            kernelImage: file, named: name, mechanism: mechanism, root: machine.root)
          placement.mechanism = (try? loaded.process.domain(.mechanism)).flatMap(IsolationMechanism.init) ?? mechanism
          say(name, placement)
          return (placement, loaded)
        } catch { placement.reason = Self.reason(error) }
      } else {
        placement.reason = "no image of it for kernel space"
      }
    }
    let loaded = try LoadedProgram(program, named: name, from: machine.archive)
    if placement.asked != 2 { say(name, placement) }
    return (placement, loaded)
  }

  /// What kept a service out of kernel space.
  private static func reason(_ error: LoadError) -> StaticString {
    switch error {
    case .kernel(.tableFull): "all windows of kernel space are taken"
    case .kernel(.unsupported): "this machine cannot enforce it"
    case .kernel(.noMemory): "no memory for its domain"
    case .kernel: "the kernel refuses its domain"
    case .badImage: "its image for kernel space is damaged"
    case .noSuchProgram: "no image of it for kernel space"
    }
  }

  /// Tells the log (and the console, where it is not what was asked) the class in effect and its mechanism.
  private func say(_ name: Bytes, _ placement: Placement) {
    var line = Text("init: ")
    line.add(name)
    line.add(": isolation class ")
    if placement.asked == 3 {
      line.add("auto, so ")
    } else if placement.asked != placement.effective {
      line.add("ic")
      line.add(placement.asked)
      line.add(" asked for, ")
    }
    line.add("ic")
    line.add(placement.effective)
    line.add(" by ")
    line.add(placement.mechanism.name)
    if placement.reason.utf8CodeUnitCount > 0 {
      line.add(", since ")
      line.add(placement.reason)
    }
    line.add("\n")
    line.log()
    if placement.asked != placement.effective { line.print() }
  }

  private func isKernelFast() -> Bool {
    if let kernelIsFast { return kernelIsFast }
    let inRing3 = Clock.measureLoop()
    let inRing0 = (try? Process(Handle(0)).domain(.kernelLoop)) ?? .max
    let isFast = inRing0 / inRing3 < Self.tolerableRatio
    var line = Text("init: a loop of 1000 turns takes ")
    line.add(inRing0)
    line.add(" ticks in ring 0, ")
    line.add(inRing3)
    line.add(" in ring 3: class auto is ic")
    line.add(isFast ? 1 as UInt64 : 2)
    line.add("\n")
    line.log()
    kernelIsFast = isFast
    return isFast
  }
}
