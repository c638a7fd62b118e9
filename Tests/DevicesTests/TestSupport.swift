import Glibc
import HostSystem
import SystemPackage

@testable import Devices

/// A directory that goes away with its contents (one level) when the test ends.
final class ScratchDirectory {
  let path: String
  init() {
    let template = strdup("/tmp/castor-devices-XXXXXX")
    path = template.flatMap { mkdtemp($0) }.map { String(cString: $0) } ?? "/tmp"
    free(template)
  }
  func file(_ name: String) -> String { "\(path)/\(name)" }
  deinit {
    if let directory = opendir(path) {
      while let entry = readdir(directory) {
        let name = withUnsafePointer(to: &entry.pointee.d_name) {
          $0.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
        }
        if name != ".", name != ".." { unlink(file(name)) }
      }
      closedir(directory)
    }
    rmdir(path)
  }
}

/// Runs the loop until `condition` holds; false when ten seconds did not suffice.
func poll(_ loop: EventLoop, until condition: () -> Bool) -> Bool {
  let deadline = monotonicNanoseconds() + 10_000_000_000
  while !condition() {
    if monotonicNanoseconds() > deadline { return false }
    loop.poll(timeoutMilliseconds: 5)
  }
  return true
}

/// Everything that can be read from a non-blocking descriptor now.
func readAvailable(_ descriptor: CInt, atMost limit: Int = 1 << 20) -> [UInt8] {
  [UInt8](unsafeUninitializedCapacity: limit) { buffer, count in
    count = max(0, read(descriptor, buffer.baseAddress, limit))
  }
}

func writeAll(_ descriptor: CInt, _ text: String) {
  let bytes = Array(text.utf8)
  _ = write(descriptor, bytes, bytes.count)
}

func readFile(_ path: String) -> [UInt8] {
  let descriptor = open(path, O_RDONLY)
  defer { close(descriptor) }
  return readAvailable(descriptor)
}

/// A pipe whose ends close with it.
final class TestPipe {
  let reading: CInt
  private(set) var writing: CInt
  init() {
    var ends: [CInt] = [-1, -1]
    pipe(&ends)
    (reading, writing) = (ends[0], ends[1])
    _ = fcntl(reading, F_SETFL, O_NONBLOCK)
  }
  func closeWriting() {
    if writing >= 0 { close(writing) }
    writing = -1
  }
  deinit {
    closeWriting()
    close(reading)
  }
}

/// A guest that reads everything it gets, by polling, as a driver without interrupts does.
extension WiredSerial {
  func becomeReady() {
    port.write(offset: 2, value: 0x01)
    port.write(offset: 4, value: 0x03)
  }
  func readInput() -> [UInt8] {
    var bytes: [UInt8] = []
    while status & 1 != 0 { bytes.append(port.read(offset: 0)) }
    return bytes
  }
}
