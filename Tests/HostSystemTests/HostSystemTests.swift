import Glibc
import Synchronization
import SystemPackage
import Testing

@testable import HostSystem

@Suite struct SystemCallTests {
  @Test func failureCarriesErrno() {
    #expect(throws: Errno.badFileDescriptor) { try systemCall { close(-1) } }
  }

  @Test func interruptedCallIsRetried() throws {
    var calls = 0
    let result = try systemCall { () -> CInt in
      calls += 1
      if calls < 3 {
        errno = EINTR
        return -1
      }
      return 7
    }
    #expect(result == 7 && calls == 3)
  }

  @Test func ownedDescriptorClosesItself() throws {
    var number: CInt = -1
    do {
      let descriptor = try OwnedDescriptor { dup(0) }
      number = descriptor.rawValue
      #expect(fcntl(number, F_GETFD) >= 0)
    }
    // Another test may have been given the number by now, so only a released one can be checked for certain.
    let kept = try OwnedDescriptor { dup(0) }.release()
    #expect(fcntl(kept, F_GETFD) >= 0)
    close(kept)
    #expect(number >= 0)
  }
}

@Suite struct EventTests {
  @Test func signalsAddUpUntilDrained() throws {
    let event = try EventDescriptor()
    #expect(event.drain() == 0)
    event.signal()
    event.signal()
    #expect(event.drain() == 2)
    #expect(event.drain() == 0)
  }

  @Test func handlerRunsOnTheLoopUntilItIsRemoved() throws {
    let loop = try EventLoop()
    let event = try EventDescriptor()
    let count = Mutex(0)
    try loop.add(event.fileDescriptor, for: .readable) { _ in
      event.drain()
      count.withLock { $0 += 1 }
    }
    event.signal()
    loop.poll(timeoutMilliseconds: 1000)
    loop.remove(event.fileDescriptor)
    event.signal()
    loop.poll(timeoutMilliseconds: 0)
    #expect(count.withLock { $0 } == 1)
  }

  @Test func workFromAnotherThreadRunsOnTheLoop() throws {
    let loop = try EventLoop()
    let order = Mutex<[Int]>([])
    let thread = try HostThread(name: "test") {
      for value in 0..<100 { loop.perform { order.withLock { $0.append(value) } } }
      loop.perform { loop.stop() }
    }
    loop.run()
    thread.join()
    #expect(order.withLock { $0 } == Array(0..<100))
  }
}

@Suite struct MonitorTests {
  @Test func waiterSeesTheChangeItWaitsFor() throws {
    let monitor = Monitor(0)
    let thread = try HostThread(name: "test") { for _ in 0..<1000 { monitor.update { $0 += 1 } } }
    let seen = monitor.wait(
      until: { $0 == 1000 },
      then: { state in
        state = -1
        return true
      })
    thread.join()
    #expect(seen && monitor.read { $0 } == -1)
  }

  @Test func waitEndsAtItsDeadline() {
    let monitor = Monitor(false)
    #expect(!monitor.wait(milliseconds: 20) { $0 })
  }
}
