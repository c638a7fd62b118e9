// The thread that runs a device's queues: waits for doorbells and completions, polls a little before it sleeps, and
// shows finished batches to the driver.

import Glibc
import HostSystem
import Logging
import Synchronization
import SystemPackage

/// Pulses the device's interrupt line (an edge).
public protocol InterruptTrigger: Sendable {
  func trigger()
}

/// Routes the message interrupts of a device's queues.
public protocol MessageRouter: Sendable {
  /// Makes later triggers of `queue` send this MSI (Intel SDM vol. 3, §11.11), or none when not enabled.
  func setMessage(queue: Int, address: UInt64, data: UInt32, enabled: Bool)
  func trigger(queue: Int)
}

/// Device status bits (virtio 1.2 §2.1).
public enum DeviceStatus {
  public static let acknowledge: UInt32 = 1
  public static let driver: UInt32 = 2
  public static let driverOK: UInt32 = 4
  public static let featuresOK: UInt32 = 8
  public static let needsReset: UInt32 = 64
  public static let failed: UInt32 = 128
}

/// How a device's thread behaves.
public struct DeviceOptions: Sendable {
  /// How long at most the thread looks for new work after the last one before it sleeps, in ns; less where work is
  /// rarer than that. 0: not at all.
  public var longestPollNanoseconds: UInt64
  public init(longestPollNanoseconds: UInt64 = 200_000) { self.longestPollNanoseconds = longestPollNanoseconds }
}

/// A device's thread, its queues, and its interrupts.
public final class DeviceContext: @unchecked Sendable {
  // @unchecked: `queues` and the plain variables are touched only by the device's thread (before it starts: by the
  // maker); the rest is immutable, atomic, or behind a Mutex.

  /// The loop of the device's thread.
  public let loop: EventLoop
  /// One eventfd a queue; signalled by the driver's doorbell.
  public let queueEvents: [EventDescriptor]
  /// The device's queues. Device thread only.
  public let queues: [VirtioQueue]
  /// For what a guest can cause.
  public let log: LimitedLog

  let status = Atomic<UInt32>(0)
  let interruptStatus = Atomic<UInt32>(0)
  let enabledMessages = Atomic<UInt64>(0)
  private let line: any InterruptTrigger
  private let messages: any MessageRouter
  private let device: any VirtioDevice
  private var polling: AdaptivePolling
  /// When the thread had its last work, if it has been asleep since; else nil.
  private var asleepSince: UInt64?
  private var lastWork: UInt64 = 0

  private enum Life {
    case notStarted
    case running(HostThread)
    case ended
  }
  private let life = Mutex(Life.notStarted)
  private let thread = Atomic<UInt>(0)

  private var started = false
  private var paused = false
  private var failed = false
  private var inPass = false
  /// Bits of the queues that a fault keeps from being served.
  private var wedged: UInt64 = 0

  init(
    name: String, device: any VirtioDevice, line: any InterruptTrigger, messages: any MessageRouter,
    options: DeviceOptions
  ) throws(Errno) {
    self.device = device
    self.line = line
    self.messages = messages
    polling = AdaptivePolling(maximum: options.longestPollNanoseconds)
    log = LimitedLog(Logger(label: name))
    loop = try EventLoop()
    var events: [EventDescriptor] = []
    for _ in device.queueSizes { events.append(try EventDescriptor()) }
    queueEvents = events
    queues = device.queueSizes.indices.map { VirtioQueue(index: $0) }
    for (queue, event) in zip(queues, queueEvents) {
      try loop.add(event.fileDescriptor, for: .readable) { [unowned self] _ in
        queue.statistics.doorbells &+= event.drain()
        runPass()
      }
    }
    try device.attach(to: self)
    let thread = try HostThread(name: name) { [loop, self] in
      self.thread.store(UInt(pthread_self()), ordering: .releasing)
      loop.run()
    }
    life.withLock { $0 = .running(thread) }
  }

  // MARK: Calls from other threads

  /// Runs `work` on the device's thread and waits for it. After `end`, or on that thread itself, runs it at once.
  public func onDeviceThread(_ work: @escaping @Sendable () -> Void) {
    if thread.load(ordering: .acquiring) == UInt(pthread_self()) { return work() }
    // Held while waiting: the thread cannot be ended under a call that waits for it.
    life.withLock { life in
      guard case .running = life else { return work() }
      let done = Rendezvous()
      loop.perform {
        work()
        done.signal()
      }
      done.wait()
    }
  }

  /// Lets the device finish what it has begun and take nothing more, until `resume`.
  func pause() {
    onDeviceThread { [self] in
      guard !paused else { return }
      paused = true
      device.drain(nil)
      publishAll()
    }
  }

  func resume() {
    onDeviceThread { [self] in
      paused = false
      runPass()
    }
  }

  /// Drains the device and ends its thread.
  func end() {
    onDeviceThread { [self] in
      paused = true
      device.drain(nil)
      publishAll()
    }
    life.withLock { life in
      guard case .running(let thread) = life else { return }
      loop.stop()
      thread.join()
      life = .ended
    }
  }

  // MARK: Calls of the transport, each on the device's thread

  func start(features: UInt64) {
    started = true
    device.start(features: features)
    // It has failed while nobody could be told.
    if status.load(ordering: .acquiring) & DeviceStatus.needsReset != 0 { configurationChanged() }
    runPass()
  }

  func enable(_ index: Int, ring: SplitQueue) {
    queues[index].ring = ring
    runPass()
  }

  func disable(_ index: Int) {
    device.drain(queues[index])
    queues[index].ring = nil
  }

  func reset() {
    device.drain(nil)
    device.stop()
    for queue in queues { queue.ring = nil }
    started = false
    failed = false
    wedged = 0
    // Here, between what else the device's thread does: a failure that comes later is one of the device after the reset, and is seen
    // both in the status and in what is not served.
    interruptStatus.store(0, ordering: .releasing)
    status.store(0, ordering: .releasing)
  }

  // MARK: Notifications to the driver

  /// Tells the driver that the configuration space changed. Any thread.
  public func configurationChanged() {
    guard status.load(ordering: .acquiring) & DeviceStatus.driverOK != 0 else { return }
    interruptStatus.bitwiseOr(2, ordering: .acquiringAndReleasing)
    line.trigger()
  }

  /// Stops serving queues until the driver resets the device, and tells it so (§2.1.2). Any thread.
  public func needsReset(_ reason: String) {
    let old = status.bitwiseOr(DeviceStatus.needsReset, ordering: .acquiringAndReleasing).oldValue
    guard old & DeviceStatus.needsReset == 0 else { return }
    log.write(.warning, "device needs reset: \(reason)")
    configurationChanged()
    loop.perform { [self] in
      guard status.load(ordering: .acquiring) & DeviceStatus.needsReset != 0 else { return }
      failed = true
      // What is in flight is finished, so that its completions do not keep waking the loop; nobody is told.
      device.drain(nil)
    }
  }

  /// Interrupts for a queue although nothing was used, as a fault to test drivers with. Any thread.
  public func spuriousInterrupt(queue: Int) {
    guard queues.indices.contains(queue), status.load(ordering: .acquiring) & DeviceStatus.driverOK != 0 else { return }
    interrupt(queue)
  }

  /// Serves a queue no more and shows nothing that was completed in it, as a fault to test drivers with; nil: serves all again. A reset
  /// of the device ends it too. Any thread.
  public func wedge(queue: Int?) {
    onDeviceThread { [self] in
      if let queue {
        if queues.indices.contains(queue) { wedged |= 1 << UInt64(queue) }
      } else if wedged != 0 {
        wedged = 0
        guard isServing else { return }
        publishAll()
        runPass()
      }
    }
  }

  private func isWedged(_ queue: VirtioQueue) -> Bool { wedged >> UInt64(queue.index) & 1 != 0 }

  private func interrupt(_ queue: Int) {
    if enabledMessages.load(ordering: .acquiring) & (1 << UInt64(queue)) != 0 {
      messages.trigger(queue: queue)
    } else {
      interruptStatus.bitwiseOr(1, ordering: .acquiringAndReleasing)
      line.trigger()
    }
  }

  /// Shows the driver what was completed since the last time, and interrupts where it wants that. Device thread only.
  func publishAll() {
    for queue in queues {
      guard let ring = queue.ring, !isWedged(queue) else { continue }
      switch ring.publish() {
      case .nothingPublished: continue
      case .suppressed: queue.statistics.interruptsSuppressed &+= 1
      case .needed:
        queue.statistics.interrupts &+= 1
        interrupt(queue.index)
      }
      queue.statistics.batches &+= 1
    }
  }

  // MARK: The pass

  /// How long one pass may keep the loop from its other descriptors, in ns.
  private static let longestPass: UInt64 = 1_000_000

  /// Whether `runPass` does anything: a driver is there, and the device neither paused nor broken. Device thread only.
  public var isServing: Bool { started && !paused && !failed }

  /// Serves all queues and completions until there is nothing left and the polling time is over. Device thread only;
  /// devices call it when one of their descriptors is ready.
  public func runPass() {
    // `inPass`: a device may cause a pass from within one, which then has nothing to add.
    guard started, !paused, !failed, !inPass else { return }
    inPass = true
    defer { inPass = false }
    do throws(QueueError) {
      let begin = monotonicNanoseconds()
      while true {
        for queue in queues { queue.ring?.suppressDoorbells() }
        while true {
          if try iterate() {
            if let since = asleepSince { polling.woken(after: begin &- since) }
            asleepSince = nil
            lastWork = monotonicNanoseconds()
            if lastWork &- begin > Self.longestPass { return loop.perform { [self] in runPass() } }
            continue
          }
          // A wake-up that brought nothing is no reason to look further.
          guard asleepSince == nil, polling.span > 0 else { break }
          let now = monotonicNanoseconds()
          guard now &- lastWork < polling.span else { break }
          if now &- begin > Self.longestPass { return loop.perform { [self] in runPass() } }
        }
        var missed = false
        for queue in queues {
          guard let ring = queue.ring, device.wantsDoorbell(queue) else { continue }
          if ring.requestDoorbell() { missed = true }
        }
        guard missed, try iterate() else {
          if asleepSince == nil { asleepSince = lastWork }
          return
        }
        lastWork = monotonicNanoseconds()
      }
    } catch {
      failed = true
      needsReset(error.description)
    }
  }

  /// One look at every queue and at the completions.
  private func iterate() throws(QueueError) -> Bool {
    var progress = false
    for queue in queues {
      guard let ring = queue.ring, ring.hasAvailable, !isWedged(queue) else { continue }
      if try device.serve(queue) { progress = true }
    }
    if try device.poll() { progress = true }
    if progress { publishAll() }
    return progress
  }
}

/// Lets one thread wait for another once.
private final class Rendezvous: @unchecked Sendable {
  // @unchecked: a POSIX semaphore is made to be shared between threads; its address is stable.
  private let semaphore = UnsafeMutablePointer<sem_t>.allocate(capacity: 1)
  init() { sem_init(semaphore, 0, 0) }
  deinit {
    sem_destroy(semaphore)
    semaphore.deallocate()
  }
  func signal() { sem_post(semaphore) }
  func wait() { while sem_wait(semaphore) != 0 && errno == EINTR {} }
}
