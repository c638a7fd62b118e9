// A program with nothing but a console, for the tests of its terminal: a "guest" that answers each byte that it gets
// with the byte's number in hexadecimal, and ends the process in the ways in which processes end.

import Devices
import Glibc
import HostSystem

/// Answers what the serial port received; some bytes end the process.
func serve(_ serial: Serial16550, _ loop: EventLoop) {
  while serial.read(offset: 5) & 1 != 0 {
    let byte = serial.read(offset: 0)
    for character in ((byte < 16 ? "0" : "") + String(byte, radix: 16) + "\n").utf8 {
      serial.write(offset: 0, value: character)
    }
    switch byte {
    case UInt8(ascii: "a"): abort()
    case UInt8(ascii: "e"): exit(7)
    case UInt8(ascii: "f"):
      // A fault on a thread which blocks most signals.
      _ = try? HostThread(name: "fault") {
        kill(getpid(), 0)
        trap()
      }
    case UInt8(ascii: "q"): loop.stop()
    default: break
    }
  }
}

/// An invalid instruction, as a failed precondition of Swift is one.
func trap() { _ = [UInt8]()[Int(getpid())] }

let loop = try EventLoop()
let pending = try EventDescriptor()
let serial = Serial16550 { pending.signal() }
try loop.add(pending.fileDescriptor, for: .readable) { _ in
  pending.drain()
  serve(serial, loop)
}
let console = try SerialBackend(.standardStreams, serial: serial, loop: loop) { event in
  if event == .quitRequested { loop.stop() }
}
serial.write(offset: 2, value: 0x01)
serial.write(offset: 4, value: 0x0b)
serial.write(offset: 1, value: 0x01)
for character in "ready\n".utf8 { serial.write(offset: 0, value: character) }
loop.run()
console.close()
