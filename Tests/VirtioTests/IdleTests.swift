// A device with nothing to do sleeps, whatever state its driver left it in.

import BlockStorage
import Glibc
import GuestMemory
import NetworkLink
import Synchronization
import Testing

@testable import Virtio

extension TestMachine {
  /// Processor time of the device's thread, in ns.
  private var deviceTime: UInt64 {
    let result = Mutex<UInt64>(0)
    transport.context.onDeviceThread {
      var time = timespec()
      clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time)
      let value = UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec)
      result.withLock { $0 = value }
    }
    return result.withLock { $0 }
  }

  /// Whether the device's thread sleeps: less than a tenth of a processor in 200 ms.
  func sleeps() -> Bool {
    usleep(5000)
    let before = deviceTime
    usleep(200_000)
    return deviceTime - before < 20_000_000
  }
}

@Suite struct IdleTests {
  @Test func idleBlockDeviceSleeps() throws {
    let driver = try BlockDriver(NullBackend(byteCount: 1 << 20))
    #expect(try driver.perform(4).status == 0)
    #expect(driver.machine.sleeps())
  }

  @Test func brokenDeviceSleepsAlthoughRequestsWereInFlight() throws {
    let backend = try ManualBackend(automatic: false)
    let driver = try BlockDriver(backend)
    for _ in 0..<2 { _ = try driver.add(0, readCount: 512) }
    try driver.machine.kick()
    #expect(eventually { backend.state.withLock { $0.pending.count } == 2 })
    driver.device.inject(.needsReset)
    backend.complete()
    backend.complete()
    #expect(driver.machine.sleeps())
    try driver.machine.initialize()
    #expect(try driver.machine.drivers[0].takeUsed() == nil)
  }

  @Test func blockDeviceWhoseBackEndIsFullSleeps() throws {
    let backend = try ManualBackend(automatic: false)
    let driver = try BlockDriver(backend)
    for _ in 0..<12 { _ = try driver.add(0, readCount: 512, indirect: true) }
    try driver.machine.kick()
    #expect(driver.machine.sleeps())
    for _ in 0..<12 {
      #expect(eventually { backend.state.withLock { !$0.pending.isEmpty } })
      backend.complete()
      #expect(try driver.machine.used() != nil)
    }
  }

  enum NetworkState: CaseIterable { case noDriver, starved, paused, linkDown, peerGone }

  @Test(arguments: NetworkState.allCases) func networkDeviceWithWaitingFramesSleeps(state: NetworkState) throws {
    let (near, far) = try SocketLink.pair()
    var peer: SocketLink? = far
    let driver = try NetworkDriver(near)
    switch state {
    case .noDriver: driver.machine.write(Register.status, 0)
    case .paused:
      try driver.giveBuffers(4, of: 2048)
      driver.machine.transport.pause()
    case .linkDown: driver.device.setLink(up: false)
    case .starved: break
    case .peerGone: peer = nil
    }
    var frame = [UInt8](repeating: 0, count: 100)
    for _ in 0..<3 {
      frame.withUnsafeMutableBytes { bytes in
        var segment = iovec(iov_base: bytes.baseAddress, iov_len: bytes.count)
        withUnsafeMutablePointer(to: &segment) {
          if let peer { #expect(peer.send(UnsafeMutableBufferPointer(start: $0, count: 1)) == .sent) }
        }
      }
    }
    #expect(driver.machine.sleeps())
    // And it still wakes: frames that waited arrive when the obstacle is gone.
    switch state {
    case .paused:
      driver.machine.transport.resume()
      #expect(try driver.received() != nil)
    case .starved:
      try driver.giveBuffers(4, of: 2048)
      #expect(try driver.received() != nil)
    case .noDriver:
      try driver.machine.initialize(size: 64)
      try driver.giveBuffers(4, of: 2048)
      #expect(try driver.received() != nil)
    case .linkDown, .peerGone: break
    }
  }

  @Test func fileIsFreeForTheNextMachineAfterShutdown() throws {
    let path = "/var/tmp/castor-reopen-\(getpid())-\(UInt32.random(in: 0 ... .max))"
    let descriptor = open(path, O_CREAT | O_RDWR, 0o600)
    ftruncate(descriptor, 1 << 20)
    close(descriptor)
    defer { unlink(path) }
    for _ in 0..<5 {
      let driver = try BlockDriver(try FileBackend(path: path))
      #expect(try driver.perform(0, readCount: 512).status == 0)
      driver.machine.transport.shutdown()
    }
  }
}
