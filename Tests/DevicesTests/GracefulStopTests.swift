import Glibc
import HostSystem
import Testing

@testable import Devices

@Suite struct GracefulStopTests {
  let loop: EventLoop
  let button = PowerButton {}
  let box = ReasonBox()
  final class ReasonBox { var reasons: [GracefulStop.Reason] = [] }

  init() throws { loop = try EventLoop() }

  private func makeStop(acknowledge: UInt64, powerOff: UInt64) throws -> GracefulStop {
    try GracefulStop(
      button: button, loop: loop,
      patience: .init(acknowledgeMilliseconds: acknowledge, powerOffMilliseconds: powerOff)
    ) { [box] in box.reasons.append($0) }
  }

  @Test func firstRequestPressesTheButtonAndTheSecondEnds() throws {
    let stop = try makeStop(acknowledge: 60_000, powerOff: 60_000)
    stop.request()
    #expect(button.read() == 1)
    loop.poll(timeoutMilliseconds: 1)
    #expect(box.reasons.isEmpty)
    stop.request()
    stop.request()
    #expect(box.reasons == [.insisted])
  }

  @Test func guestThatIgnoresTheButtonIsEnded() throws {
    let stop = try makeStop(acknowledge: 20, powerOff: 60_000)
    stop.request()
    #expect(poll(loop) { !box.reasons.isEmpty })
    #expect(box.reasons == [.ignored])
  }

  @Test func guestThatAcknowledgesGetsMoreTimeButNotForEver() throws {
    let stop = try makeStop(acknowledge: 20, powerOff: 60)
    let begin = monotonicNanoseconds()
    stop.request()
    button.write(value: 1)
    #expect(poll(loop) { !box.reasons.isEmpty })
    #expect(box.reasons == [.unfinished])
    #expect(monotonicNanoseconds() - begin >= 80_000_000)
  }
}
