// Connects the UART to the host end that the configuration names.

import Devices
import Glibc

extension Machine {
  /// Copies what waits in the UART to standard output.
  func attachSerial() {
    serial.connect(
      onOutput: { [self] in
        loop.perform { [self] in drainSerial() }
      }, onInputRoom: {})
  }

  func drainSerial() {
    withUnsafeTemporaryAllocation(byteCount: 4096, alignment: 1) { buffer in
      while true {
        let count = serial.takeOutput(into: buffer)
        if count == 0 { return }
        var offset = 0
        while offset < count {
          let written = write(1, buffer.baseAddress! + offset, count - offset)
          if written <= 0 { return }
          offset += written
        }
      }
    }
  }
}
