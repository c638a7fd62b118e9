// What SIGTERM, SIGINT and SIGHUP do to the machine (docs/platform.md, "Power-off from the host").

import Devices
import Glibc
import SystemPackage

/// The machine's response to termination signals; belongs to the main thread.
final class Termination {
  let stop: GracefulStop
  private let signals: TerminationSignals

  /// From here on the first signal presses the power button and the second ends the machine.
  init(of machine: Machine) throws(Errno) {
    let log = machine.log
    let ended = LastSignal()
    stop = try GracefulStop(button: machine.powerButton, loop: machine.loop) { [unowned machine] reason in
      switch reason {
      case .insisted: log.notice("ended on request")
      case .ignored: log.notice("ended: the guest did not react to the power button")
      case .unfinished: log.notice("ended: the guest acknowledged the power button and did not power off")
      }
      machine.end(.ended(ended.number == SIGINT ? .interrupted : .terminated))
    }
    signals = try TerminationSignals(loop: machine.loop) { [stop] number in
      ended.number = number
      stop.request()
    }
  }

  private final class LastSignal { var number: CInt? }
}
