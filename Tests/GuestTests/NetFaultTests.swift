// Faults while packets flow: an exerciser in the guest sends numbered frames that a peer sends back, `castor ctl` breaks things, and afterwards
// every frame has come back as it was or counts as lost, and packets flow as before.

import Configuration
import Foundation
import Testing

/// Something that goes wrong with an interface, as words for `castor ctl`.
enum NetFault: String, CaseIterable, CustomTestStringConvertible, Sendable {
  case pulledCable, otherAddress, needsReset, spuriousInterrupts, wedgedTransmitQueue, wedgedReceiveQueue

  static let newAddress: UInt64 = 0x5254_00aa_bb01

  var testDescription: String { rawValue }
  var begin: [[String]] {
    switch self {
    case .pulledCable: [["link", "net0", "down"]]
    // Often, and every byte each time: a driver may read one while it changes.
    case .otherAddress:
      (0..<12).map { ["mac", "net0", $0 % 2 == 0 ? "02:ff:ff:55:44:ee" : "52:54:00:aa:bb:01"] }
    case .needsReset: [["inject", "net0", "needs-reset"]]
    case .spuriousInterrupts: (0..<6).map { ["inject", "net0", "spurious-interrupt", "\($0 % 2)"] }
    case .wedgedTransmitQueue: [["inject", "net0", "wedge", "1"]]
    case .wedgedReceiveQueue: [["inject", "net0", "wedge", "0"]]
    }
  }
  var end: [[String]] {
    switch self {
    case .pulledCable: [["link", "net0", "up"]]
    // Nobody notices that nothing comes: that could be the network.
    case .wedgedReceiveQueue: [["inject", "net0", "off"]]
    default: []
    }
  }
  /// How long it is there, in seconds. A wedged transmit queue ends by the driver's reset, after its limit.
  var duration: TimeInterval { self == .wedgedTransmitQueue ? 0.9 : 0.35 }
  /// Whether a frame may be lost.
  var loses: Bool { self != .spuriousInterrupts }
}

@Suite(
  .serialized,
  .enabled(
    if: Host.castor.isAvailable && LinuxDrivers.arePresent,
    "needs KVM, and Linux's modules by make drivers"))
struct NetFaultTests {
  /// The exerciser's report of a time window, or of all.
  private struct Counts {
    var sent = 0
    var received = 0
    var lost = 0
    var late = 0
    var twice = 0
    var wrong = 0
    var reconnections = 0
    var linkDown = 0
    var gap = 0
    var address = 0

    init(_ record: [String: Any]) {
      func number(_ key: String) -> Int { record[key] as? Int ?? -1 }
      sent = number("sent")
      received = number("received")
      lost = number("lost")
      late = number("late")
      twice = number("twice")
      wrong = number("wrong")
      reconnections = number("reconnections")
      linkDown = number("link_down")
      gap = number("gap_ns")
      address = number("address")
    }
  }

  private static func windows(_ run: GuestRun) -> [Counts] {
    run.records.filter { $0["report"] as? String == "exercise" }.map { Counts($0) }
  }

  private static func median(_ values: some Collection<Int>) -> Int {
    values.isEmpty ? 0 : values.sorted()[values.count / 2]
  }

  /// A guest that exercises its interface for `seconds`, and the peer at the other end of the cable.
  private func start(
    mode: String, seconds: Double, in folder: ScratchFolder, console: Bool = false
  ) throws -> (guest: GuestMachine, peer: EchoPeer, control: CastorControl) {
    let cable = "\(folder.path)/net"
    let control = CastorControl(socket: "\(folder.path)/control.sock")
    var description = GuestDescription()
    description.services =
      (console ? ["name=console,program=console"] : []) + [
        "name=net,program=linux-container,mode=\(mode),device=net0,restart=on-failure,arguments=timeout=300",
        "name=test,program=net-test,arguments=exercise=on milliseconds=\(Int(seconds * 1000)) exit=on",
      ]
    description.extra = ["net=listen=\(cable)", "control=\(control.socket)"]
    let guest = try description.start(on: .castor)
    let peer = try EchoPeer.castor(path: cable)
    #expect(guest.waitFor("\"report\":\"exercise\""), "\(guest.console)")
    return (guest, peer, control)
  }

  @Test(arguments: LinuxDrivers.modes)
  func everyFrameComesBackOrIsMissed(mode: String) throws {
    try Recovery.expect(after: NetFault.allCases) { try exercise(mode, with: $0) }
  }

  /// Lets `faults` happen one after the other while frames go round; those after which the driver was never again as fast as before.
  private func exercise(_ mode: String, with faults: [NetFault]) throws -> [NetFault] {
    let folder = try ScratchFolder()
    let rest = 0.85
    // A command is a process of its own.
    let seconds = 2 + faults.reduce(0) { $0 + $1.duration + rest + 0.15 * Double($1.begin.count + $1.end.count) } + 2
    let (guest, peer, control) = try start(mode: mode, seconds: seconds, in: folder)
    defer { peer.close() }
    Thread.sleep(forTimeInterval: 1)
    var marks: [(fault: NetFault, window: Int)] = []
    for fault in faults {
      marks.append((fault, guest.console.components(separatedBy: "\"report\":\"exercise\"").count - 1))
      for words in fault.begin {
        let (code, _, errors) = try control(words)
        #expect(code == 0, "\(fault): \(errors)")
      }
      Thread.sleep(forTimeInterval: fault.duration)
      for words in fault.end { #expect(try control(words).code == 0, "\(fault)") }
      Thread.sleep(forTimeInterval: rest)
    }
    let run = guest.finish(seconds: seconds + 60)
    let windows = Self.windows(run)
    let total = Counts(try #require(run.records.first { $0["report"] as? String == "exercise-end" }, "\(run.console)"))
    #expect(total.wrong == 0 && total.reconnections == 0, "\(run.console)")
    #expect(total.sent == total.received + total.lost, "\(run.console)")
    #expect(run.exitCode == 0, "\(run.console)\(run.errors)")
    let before = Self.median(windows.prefix(marks.first?.window ?? 0).dropFirst().map(\.received))
    #expect(before > 0)
    var slow: [NetFault] = []
    var lines = [
      "virtio_net \(mode): \(before * 10) round trips/s before; fault, frames lost, late and twice, longest time without a frame, 95 % of the speed again after"
    ]
    for (index, mark) in marks.enumerated() {
      let end = index + 1 < marks.count ? marks[index + 1].window : windows.count
      let own = windows[min(mark.window, windows.count)..<min(max(mark.window, end), windows.count)]
      func sum(_ value: (Counts) -> Int) -> Int { own.reduce(0) { $0 + value($1) } }
      // On its way is no more than eight frames at a time, and every 50 ms they are given up; and each command may cost all of them.
      let most = mark.fault.loses ? 8 * (1 + mark.fault.begin.count + Int((mark.fault.duration + 0.3) / 0.05)) : 0
      #expect(sum(\.lost) <= most, "\(mark.fault)")
      // Only what a reset sends again comes twice.
      if mark.fault != .needsReset, mark.fault != .wedgedTransmitQueue { #expect(sum(\.twice) == 0, "\(mark.fault)") }
      switch mark.fault {
      case .pulledCable: #expect(sum(\.linkDown) > 0, "the driver knows of the cable")
      case .otherAddress:
        #expect(own.last?.address == Int(NetFault.newAddress), "the driver has the address that the device has")
      default: break
      }
      // An address stays what it is through all that comes after.
      if let change = marks.first(where: { $0.fault == .otherAddress }), mark.window > change.window {
        #expect(own.last?.address == Int(NetFault.newAddress), "\(mark.fault)")
      }
      let later = windows.dropFirst(min(mark.window + Int(mark.fault.duration * 10) + 1, windows.count)).map(\.received)
      let recovered = later.firstIndex { Recovery.isComplete($0, of: before) }
      let again = recovered.map { "\(($0 - later.startIndex) * 100) ms" } ?? "never"
      lines.append(
        "  \(mark.fault) \(sum(\.lost)) \(sum(\.late)) \(sum(\.twice)) \((own.map(\.gap).max() ?? 0) / 1_000_000) ms \(again)"
      )
      let longest = Int((mark.fault.duration + 0.7) * 1_000_000_000)
      #expect((own.map(\.gap).max() ?? 0) < longest, "\(mark.fault)")
      if !Recovery.isComplete(later.max() ?? 0, of: before) { slow.append(mark.fault) }
    }
    print(lines.joined(separator: "\n"))
    return slow
  }

  @Test(arguments: LinuxDrivers.modes) func packetsFlowOnAfterASuspension(mode: String) throws {
    try Recovery.expect { try suspendAndResume(mode) }
  }

  /// Whether the driver is as fast after a suspension as before.
  private func suspendAndResume(_ mode: String) throws -> Bool {
    let folder = try ScratchFolder()
    let (guest, peer, _) = try start(mode: mode, seconds: 4, in: folder, console: true)
    defer { peer.close() }
    Thread.sleep(forTimeInterval: 0.7)
    let count = guest.console.components(separatedBy: "\"report\":\"exercise\"").count - 1
    guest.type("suspend net\r")
    Thread.sleep(forTimeInterval: 0.8)
    guest.type("services\r")
    #expect(guest.waitFor("suspended"), "\(guest.console)")
    guest.type("resume net\r")
    let run = guest.finish(seconds: 60)
    let total = Counts(try #require(run.records.first { $0["report"] as? String == "exercise-end" }, "\(run.console)"))
    #expect(total.wrong == 0 && total.sent == total.received + total.lost && total.reconnections == 0, "\(run.console)")
    #expect((700_000_000...2_000_000_000).contains(total.gap), "\(run.console)")
    #expect(!run.console.contains("for too long"), "\(run.console)")
    #expect(run.exitCode == 0, "\(run.console)\(run.errors)")
    let windows = Self.windows(run)
    let before = Self.median(windows.prefix(count).dropFirst().map(\.received))
    let after = windows.dropLast().suffix(10).map(\.received).max() ?? 0
    print(
      "virtio_net \(mode), suspended for 800 ms: \(total.lost) lost, \(total.late) late, \(total.twice) twice, \(total.gap / 1_000_000) ms without one, then up to \(after * 100 / max(1, before)) %"
    )
    return Recovery.isComplete(after, of: before)
  }

  static let victims: [(mode: String, kill: [String])] = [
    ("solo", ["net"]), ("twin", ["net.container"]), ("twin", ["net"]), ("twin", ["net", "net.container"]),
  ]

  @Test(arguments: victims) func killedDriversAreStartedAgainAndPacketsFlowOn(
    victim: (mode: String, kill: [String])
  ) throws {
    try Recovery.expect { try exercise(victim.mode, killing: victim.kill) }
  }

  /// Kills parts of a driver while frames go round; whether it was as fast as before again.
  private func exercise(_ mode: String, killing kill: [String]) throws -> Bool {
    let folder = try ScratchFolder()
    let (guest, peer, _) = try start(mode: mode, seconds: 4, in: folder, console: true)
    defer { peer.close() }
    Thread.sleep(forTimeInterval: 0.7)
    for name in kill {
      guest.type("kill \(name)\r")
      #expect(guest.waitFor("init: \(name): started again"), "\(guest.console)")
    }
    let run = guest.finish(seconds: 60)
    let total = Counts(try #require(run.records.first { $0["report"] as? String == "exercise-end" }, "\(run.console)"))
    #expect(total.wrong == 0 && total.sent == total.received + total.lost, "\(run.console)")
    #expect(run.exitCode == 0, "\(run.console)\(run.errors)")
    // Who serves the client takes its frames with it, and it connects again; of the container it notices a pause only.
    let serverDies = kill.contains("net")
    #expect(serverDies ? total.reconnections > 0 : total.reconnections == 0, "\(run.console)")
    #expect(total.lost <= 8 * 12, "\(run.console)")
    let windows = Self.windows(run)
    let before = Self.median(windows.dropFirst().prefix(5).map(\.received))
    let after = windows.dropLast().suffix(10).map(\.received).max() ?? 0
    print(
      "virtio_net \(mode), kill \(kill.joined(separator: " and ")): \(total.lost) frames lost, \(total.gap / 1_000_000) ms without one, then up to \(after * 100 / max(1, before)) %"
    )
    return Recovery.isComplete(after, of: before)
  }
}
