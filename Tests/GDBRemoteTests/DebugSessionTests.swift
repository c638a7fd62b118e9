import Logging
import Synchronization
import Testing

@testable import GDBRemote

/// A debugger that talks to a session without a socket.
final class ScriptedDebugger {
  let target: MockTarget
  let session: DebugSession<MockTarget>
  private final class Stops: Sendable {
    let list = Mutex<[(RunToken, StopEvent)]>([])
  }
  private let stops = Stops()

  init(_ target: MockTarget = MockTarget()) {
    self.target = target
    session = DebugSession(target: target, logger: Logger(label: "test")) { [stops] token, event in
      stops.list.withLock { $0.append((token, event)) }
    }
  }

  /// Sends raw bytes and returns all that comes back, stops included.
  func exchange(_ bytes: [UInt8]) -> [UInt8] {
    session.receive(bytes)
    let arrived = stops.list.withLock { list in
      let arrived = list
      list = []
      return arrived
    }
    for (token, event) in arrived { session.targetStopped(token, event) }
    let output = session.output
    session.output = []
    return output
  }

  /// Sends a packet and returns the data of the packets that come back.
  func send(_ data: [UInt8]) -> [String] {
    var decoder = PacketDecoder()
    let events = exchange(PacketEncoder.encode(data)).compactMap { decoder.feed($0) }
    return events.compactMap { if case .packet(let data) = $0 { String(decoding: data, as: UTF8.self) } else { nil } }
  }

  func send(_ text: String) -> [String] { send(Array(text.utf8)) }
}

@Suite struct DebugSessionTests {
  let debugger = ScriptedDebugger()

  @Test func packetIsAcknowledgedUntilNoAckModeIsAsked() {
    #expect(debugger.exchange(PacketEncoder.encode("qC".utf8)) == Array("+$QC1#c5".utf8))
    #expect(debugger.exchange(PacketEncoder.encode("QStartNoAckMode".utf8)) == Array("+$OK#9a".utf8))
    #expect(debugger.exchange(PacketEncoder.encode("qC".utf8)) == Array("$QC1#c5".utf8))
  }

  @Test func damagedPacketIsAskedForAgainAndLastAnswerIsRepeatedOnRequest() {
    #expect(debugger.exchange(Array("$qC#00".utf8)) == Array("-".utf8))
    _ = debugger.send("qC")
    #expect(debugger.exchange(Array("-".utf8)) == Array("$QC1#c5".utf8))
  }

  @Test(arguments: ["vMustReplyEmpty", "qUnheardOf", "QNonStop:1", "!", "Z9,1000,1", "x", "vAttach;1", ""])
  func whatIsNotSupportedIsAnsweredEmpty(packet: String) {
    #expect(debugger.send(packet) == [""])
  }

  @Test(arguments: [
    "m", "m1000", "m1000,", "m,4", "m1000,80000000", "M1000,2:ab", "M1000,1:zz", "X1000,2:a", "p", "pff", "P10",
    "P10=12",
    "Gff", "Z0", "Z0,", "Z0,1000", "Z0,1000,1;X1,00", "vCont", "vCont;", "vCont;q", "vCont;c:", "vCont;r1000:1",
    "vCont;r2000,1000:1", "H", "Hg", "Hx1", "qXfer:features:read:target.xml:0", "qRcmd,abc", "C", "S",
  ])
  func malformedArgumentsAreRefusedWithAnError(packet: String) {
    #expect(debugger.send(packet) == ["E16"])
  }

  @Test func qSupportedAnnouncesPacketSizeAndTransfers() throws {
    let answer = try #require(debugger.send("qSupported:swbreak+;hwbreak+;xmlRegisters=i386").first)
    let features = answer.split(separator: ";")
    for feature in [
      "PacketSize=4000", "QStartNoAckMode+", "qXfer:features:read+", "qXfer:memory-map:read+",
      "qXfer:threads:read+", "swbreak+", "hwbreak+", "vContSupported+",
    ] { #expect(features.contains(Substring(feature))) }
  }

  @Test func targetDescriptionArrivesWholeInPieces() {
    var document = ""
    while true {
      let part = debugger.send("qXfer:features:read:target.xml:\(String(document.utf8.count, radix: 16)),100")
      guard let text = part.first, let kind = text.first else { break }
      document += text.dropFirst()
      if kind == "l" { break }
    }
    #expect(document == TargetDescription.document(hasAVX: false))
    #expect(debugger.send("qXfer:features:read:other.xml:0,100") == ["E00"])
    #expect(debugger.send("qXfer:features:read:target.xml:ffffff,100") == ["E16"])
  }

  @Test func threadsAreListedInBothWaysWithEscapedText() throws {
    #expect(debugger.send("qfThreadInfo") == ["m1,2"])
    #expect(debugger.send("qsThreadInfo") == ["l"])
    let document = try #require(debugger.send("qXfer:threads:read::0,1000").first)
    #expect(document.contains("<thread id=\"2\" core=\"1\" name=\"vCPU 1\">ring 0 &lt;&amp; more&gt;</thread>"))
    #expect(debugger.send("T2") == ["OK"])
    #expect(debugger.send("T3") == ["E03"])
    #expect(
      debugger.send("qThreadExtraInfo,2") == [
        String(decoding: Hexadecimal.encode("ring 0 <& more>".utf8), as: UTF8.self)
      ])
  }

  @Test func memoryMapCoversWhatTheTargetSays() throws {
    let document = try #require(debugger.send("qXfer:memory-map:read::0,1000").first)
    #expect(document.contains("<memory type=\"ram\" start=\"0x0\" length=\"0x800000000000\"/>"))
  }

  @Test func registersAreReadAndWrittenPerThread() {
    #expect(debugger.send("p10") == ["0010000000000000"])
    #expect(debugger.send("Hg2") == ["OK"])
    #expect(debugger.send("p10") == ["0011000000000000"])
    #expect(debugger.send("P10=8877665544332211") == ["OK"])
    #expect(debugger.send("p10") == ["8877665544332211"])
    #expect(debugger.target.state.withLock { $0.registers[1][.rip] } == 0x1122_3344_5566_7788)
    #expect(debugger.send("Hg1") == ["OK"])
    #expect(debugger.send("p10") == ["0010000000000000"])
    #expect(debugger.send("Hg3") == ["E03"])
    // ymm0h, which this target lacks.
    #expect(debugger.send("p\(String(Register.ymm0h.rawValue, radix: 16))") == ["E16"])
  }

  @Test func allRegistersTravelInOnePacketBothWays() throws {
    let all = try #require(debugger.send("g").first)
    #expect(all.utf8.count == 2 * RegisterFile().bytes.count)
    let changed = "ef" + all.dropFirst(2)
    #expect(debugger.send("G\(changed)") == ["OK"])
    #expect(debugger.target.state.withLock { $0.registers[0][.rax] } == 0xef)
  }

  @Test func memoryIsReadAndWrittenInHexadecimalAndBinary() {
    #expect(debugger.send("m1080,2") == ["f490"])
    #expect(debugger.send("M1100,3:010203") == ["OK"])
    #expect(debugger.send(Array("X1103,4:".utf8) + [0x23, 0x24, 0x7d, 0x2a]) == ["OK"])
    #expect(debugger.send("m1100,7") == ["01020323247d2a"])
    #expect(debugger.send("X1103,0:") == ["OK"])
    #expect(debugger.send("m5000,4") == ["E0e"])
    #expect(debugger.send("M5000,1:00") == ["E0e"])
    // A read that leaves memory returns what there is.
    #expect(debugger.send("m1ffe,10") == ["9090"])
  }

  @Test func readOfMoreThanFitsIsCutToThePacketSize() throws {
    let answer = try #require(debugger.send("m1000,7fffffff").first)
    #expect(answer.utf8.count == 2 * 4096)
  }

  @Test func breakpointStopsWithItsKindOnlyForDebuggersThatKnowIt() throws {
    #expect(debugger.send("Z0,1010,1") == ["OK"])
    var stop = try #require(debugger.send("c").first)
    #expect(stop.hasPrefix("T05thread:1;06:"))
    #expect(stop.hasSuffix("10:1010000000000000;"))
    _ = debugger.send("qSupported:swbreak+;hwbreak+")
    #expect(debugger.send("z0,1010,1") == ["OK"])
    #expect(debugger.send("Z1,1020,1") == ["OK"])
    stop = try #require(debugger.send("vCont;c").first)
    #expect(stop.hasPrefix("T05thread:1;hwbreak:;"))
    #expect(debugger.send("Z0,1030,1") == ["OK"])
    stop = try #require(debugger.send("vCont;c").first)
    #expect(stop.hasPrefix("T05thread:1;swbreak:;"))
    // Watchpoints are what this target cannot do.
    #expect(debugger.send("Z2,1030,8") == [""])
  }

  @Test func vContGivesEachThreadItsFirstMatchingAction() {
    #expect(debugger.send("vCont?") == ["vCont;c;C;s;S;t;r"])
    #expect(debugger.send("vCont;s:2;c")[0].hasPrefix("T05thread:2;"))
    #expect(
      debugger.target.state.withLock { $0.lastActions } == [
        ThreadIdentifier(vCPU: 0): .continue, ThreadIdentifier(vCPU: 1): .step,
      ])
    _ = debugger.send("vCont;S05:1")
    #expect(debugger.target.state.withLock { $0.lastActions } == [ThreadIdentifier(vCPU: 0): .step])
    _ = debugger.send("vCont;t:2;r1000,1020:-1")
    #expect(
      debugger.target.state.withLock { $0.lastActions } == [ThreadIdentifier(vCPU: 0): .stepWhileIn(0x1000..<0x1020)])
    #expect(debugger.target.state.withLock { $0.registers[0][.rip] } == 0x1020)
    // Nobody runs: still stopped, and says so.
    #expect(debugger.send("vCont;t")[0].hasPrefix("T05"))
  }

  @Test func oldStepAndContinueTakeAnAddress() {
    #expect(debugger.send("s1040")[0].hasSuffix("10:4110000000000000;"))
    #expect(debugger.send("S05;1050")[0].hasSuffix("10:5110000000000000;"))
    #expect(debugger.send("Hc2") == ["OK"])
    #expect(debugger.send("s")[0].hasPrefix("T05thread:2;"))
    #expect(debugger.target.state.withLock { $0.lastActions.count } == 1)
  }

  @Test func interruptStopsARunningTarget() {
    #expect(debugger.send("c") == [])
    #expect(debugger.send("g") == ["E10"])
    let answer = String(decoding: debugger.exchange([3]), as: UTF8.self)
    #expect(answer.hasPrefix("$T02thread:1;"))
    // A second one finds it stopped and means nothing.
    #expect(debugger.exchange([3]) == [])
  }

  @Test func stopOfAnEarlierRunIsIgnored() {
    #expect(debugger.send("c") == [])
    debugger.session.targetStopped(RunToken(number: 77), StopEvent(thread: ThreadIdentifier(vCPU: 0), reason: .fault))
    #expect(debugger.session.output.isEmpty)
  }

  @Test func endOfTheMachineIsReportedWithItsCode() {
    debugger.target.state.withLock { $0.stopWithExitCode = 7 }
    #expect(debugger.send("c") == ["W07"])
    #expect(debugger.send("?") == ["W07"])
    #expect(debugger.send("g") == ["E03"])
    #expect(debugger.send("vCont;c") == ["E03"])
  }

  @Test func faultAndIllegalInstructionAreSignals() {
    debugger.target.state.withLock { $0.registers[0][.rip] = 0x9000 }
    #expect(debugger.send("vCont;s:1")[0].hasPrefix("T0bthread:1;"))
  }

  @Test func monitorOutputIsSplitAndErrorsAreText() {
    func monitor(_ text: String) -> [String] {
      debugger.send(Array("qRcmd,".utf8) + Hexadecimal.encode(text.utf8))
    }
    let long = monitor("long")
    #expect(long.last == "OK")
    #expect(long.dropLast().allSatisfy { $0.first == "O" })
    let text = long.dropLast().flatMap { Hexadecimal.decode($0.dropFirst().utf8) ?? [] }
    #expect(text.count == 10_001)
    #expect(monitor("silent") == ["OK"])
    let refused = monitor("nonsense")
    #expect(refused.count == 2)
    #expect(
      Hexadecimal.decode(refused[0].dropFirst().utf8).map { String(decoding: $0, as: UTF8.self) }
        == "unknown command 'nonsense'\n")
  }

  @Test func detachAnswersAndLetsGo() {
    _ = debugger.send("Z0,1010,1")
    #expect(debugger.send("D") == ["OK"])
    #expect(debugger.session.isOver)
    #expect(debugger.target.state.withLock { !$0.isAttached && $0.breakpoints.isEmpty })
    #expect(debugger.send("g") == [])
  }

  @Test func killEndsTheMachineWhileStoppedAndWhileRunning() {
    #expect(debugger.send("c") == [])
    #expect(debugger.send("k") == [])
    #expect(debugger.session.isOver)
    #expect(debugger.target.state.withLock { $0.wasKilled })
    let other = ScriptedDebugger()
    #expect(other.send("vKill;1") == ["OK"])
    #expect(other.target.state.withLock { $0.wasKilled })
  }

  @Test func lostConnectionDetachesOnce() {
    debugger.session.disconnected()
    #expect(debugger.target.state.withLock { !$0.isAttached })
  }
}

@Suite struct HostileDebuggerTests {
  /// Valid packets, to be damaged.
  static let seeds = [
    "qSupported:swbreak+", "g", "m1000,10", "M1000,2:abcd", "X1000,2:ab", "P10=0010000000000000", "p10", "Z0,1010,1",
    "z0,1010,1", "vCont;r1000,1010:1;c", "vCont;s:p1.1;c", "Hg1", "Hc-1", "T1", "qXfer:features:read:target.xml:0,ffb",
    "qXfer:threads:read::0,100", "qRcmd,68656c70", "qThreadExtraInfo,1", "c1000", "S05;1000", "?", "QStartNoAckMode",
    "vMustReplyEmpty",
  ].map { Array($0.utf8) }

  @Test(arguments: 0..<8 as Range<UInt64>) func damagedPacketsNeverTrapAndAlwaysGetOneAnswer(seed: UInt64) {
    var random = Generator(state: seed &* 0x9e37_79b9_7f4a_7c15 | 1)
    var debugger = ScriptedDebugger()
    for _ in 0..<1000 {
      var data = Self.seeds.randomElement(using: &random) ?? []
      for _ in 0..<Int.random(in: 0...4, using: &random) {
        let index = Int.random(in: 0...data.count, using: &random)
        switch Int.random(in: 0..<3, using: &random) {
        case 0: data.insert(UInt8.random(in: 0...255, using: &random), at: index)
        case 1: if index < data.count { data.remove(at: index) }
        default: if index < data.count { data[index] = UInt8.random(in: 0...255, using: &random) }
        }
      }
      let answers = debugger.send(data)
      if debugger.session.isOver {
        debugger = ScriptedDebugger()
      } else if answers.isEmpty {
        // Only a run without end has no answer; the interrupt ends it.
        #expect(!debugger.exchange([3]).isEmpty, "no answer to \(data)")
      }
    }
  }

  @Test func randomBytesNeverTrap() {
    var random = Generator(state: 42)
    for _ in 0..<200 {
      let debugger = ScriptedDebugger()
      for _ in 0..<20 {
        let bytes = (0..<200).map { _ in UInt8.random(in: 0...255, using: &random) }
        let output = debugger.exchange(bytes)
        #expect(output.count < 1 << 20)
      }
    }
  }

  @Test func requestsForRetransmissionDoNotGrowTheOutputWithoutBound() {
    let debugger = ScriptedDebugger()
    _ = debugger.send("qXfer:features:read:target.xml:0,3000")
    let output = debugger.exchange([UInt8](repeating: UInt8(ascii: "-"), count: 100_000))
    #expect(output.count < 6 * PacketDecoder.packetSize)
  }

  struct Generator: RandomNumberGenerator {
    var state: UInt64
    mutating func next() -> UInt64 {
      state ^= state << 13
      state ^= state >> 7
      state ^= state << 17
      return state
    }
  }
}
