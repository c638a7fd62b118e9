// How often each kind of exit happened, per vCPU, for `castor ctl stats` and the benchmarks.

import KVM
import Synchronization

/// The kinds of exit that are counted apart.
public enum ExitKind: Int, CaseIterable, Sendable {
  case portRead, portWrite, mmioRead, mmioWrite, interrupted, debug, internalError, other

  /// The name in reports.
  public var name: String {
    switch self {
    case .portRead: "port-read"
    case .portWrite: "port-write"
    case .mmioRead: "mmio-read"
    case .mmioWrite: "mmio-write"
    case .interrupted: "interrupted"
    case .debug: "debug"
    case .internalError: "internal-error"
    case .other: "other"
    }
  }

  init(_ exit: Exit) {
    switch exit {
    case .io(_, _, _, let isWrite): self = isWrite ? .portWrite : .portRead
    case .mmio(_, _, let isWrite): self = isWrite ? .mmioWrite : .mmioRead
    case .interrupted: self = .interrupted
    case .debug: self = .debug
    case .internalError: self = .internalError
    default: self = .other
    }
  }
}

/// One vCPU's exit counters: written by its thread, read by any.
public final class ExitStatistics: Sendable {
  private let portReads = Atomic<UInt64>(0)
  private let portWrites = Atomic<UInt64>(0)
  private let mmioReads = Atomic<UInt64>(0)
  private let mmioWrites = Atomic<UInt64>(0)
  private let interruptions = Atomic<UInt64>(0)
  private let debugs = Atomic<UInt64>(0)
  private let internalErrors = Atomic<UInt64>(0)
  private let others = Atomic<UInt64>(0)

  func count(_ exit: Exit) {
    switch ExitKind(exit) {
    case .portRead: portReads.wrappingAdd(1, ordering: .relaxed)
    case .portWrite: portWrites.wrappingAdd(1, ordering: .relaxed)
    case .mmioRead: mmioReads.wrappingAdd(1, ordering: .relaxed)
    case .mmioWrite: mmioWrites.wrappingAdd(1, ordering: .relaxed)
    case .interrupted: interruptions.wrappingAdd(1, ordering: .relaxed)
    case .debug: debugs.wrappingAdd(1, ordering: .relaxed)
    case .internalError: internalErrors.wrappingAdd(1, ordering: .relaxed)
    case .other: others.wrappingAdd(1, ordering: .relaxed)
    }
  }

  /// The counter of one kind.
  public func value(of kind: ExitKind) -> UInt64 {
    switch kind {
    case .portRead: portReads.load(ordering: .relaxed)
    case .portWrite: portWrites.load(ordering: .relaxed)
    case .mmioRead: mmioReads.load(ordering: .relaxed)
    case .mmioWrite: mmioWrites.load(ordering: .relaxed)
    case .interrupted: interruptions.load(ordering: .relaxed)
    case .debug: debugs.load(ordering: .relaxed)
    case .internalError: internalErrors.load(ordering: .relaxed)
    case .other: others.load(ordering: .relaxed)
    }
  }
}
