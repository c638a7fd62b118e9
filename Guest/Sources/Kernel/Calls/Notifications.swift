// Notifications: signal, wait, poll; and interrupts, which are notifications signalled by devices.
import CArch
import KernelCore
import PolluxABI

extension Reference<Notification> {
  /// Adds bits; wakes a waiter, or a receiver of the endpoint it is bound to, which takes them all.
  func signal(_ bits: UInt64) {
    let all = take() | bits
    if all == 0 { return }
    if let waiter = pointee.waiting.popFirst() {
      waiter.pointee.frame.rax = all
      Scheduler.ready(waiter)
    } else if let endpoint = pointee.endpoint, let receiver = endpoint.pointee.waiting.popFirst() {
      Message.notify(receiver, bits: all)
      Scheduler.ready(receiver)
    } else if pointee.page == 0 {
      pointee.bits = all
    } else {
      or64(pointee.page + NotificationPage.bits, all)
    }
  }

  /// Takes the bits, those on the page too, if it has one.
  @inline(__always) func take() -> UInt64 {
    let bits = pointee.bits
    pointee.bits = 0
    if pointee.page == 0 { return bits }
    return bits | exchange64(pointee.page + NotificationPage.bits, 0) & .max >> 1
  }
}

extension Reference<Interrupt> {
  func setMask(_ masked: Bool) {
    if pointee.isMessage {
      store32(pointee.entry + 12, masked ? 0 : 1)
    } else {
      LineController.setMask(
        pin: pointee.pin, vector: pointee.vector, level: pointee.isLevel, activeLow: pointee.isActiveLow, masked: masked
      )
    }
  }

  /// The device interrupted.
  @inline(__always) func deliver() {
    if pointee.isLevel { setMask(true) }
    LocalController.endOfInterrupt()
    pointee.notification.signal(pointee.bits)
  }
}

extension Call {
  private static let allBits: UInt64 = .max >> 1

  @inline(__always) private func checked(_ bits: UInt64) throws(SystemError) -> UInt64 {
    guard bits != 0, bits <= Call.allBits else { throw .badArgument }
    return bits
  }

  @inline(__always) func notificationSignal() throws(SystemError) -> Int64 {
    let notification: Reference<Notification> = try object(first, .notification, .signal)
    notification.signal(try checked(second))
    return 0
  }

  @inline(__always) func notificationPoll() throws(SystemError) -> Int64 {
    let notification: Reference<Notification> = try object(first, .notification, .wait)
    return Int64(notification.take())
  }

  @inline(__always) func notificationWait() throws(SystemError) -> Int64? {
    let notification: Reference<Notification> = try object(first, .notification, .wait)
    return wait(on: notification, deadline: second)
  }

  @inline(__always) func wait(on notification: Reference<Notification>, deadline: UInt64) -> Int64? {
    let bits = notification.take()
    if bits != 0 { return Int64(bits) }
    thread.pointee.state = .waiting
    thread.pointee.waitsFor = notification.address
    notification.pointee.waiting.append(thread)
    Scheduler.startTimer(thread, deadline: deadline, on: processor)
    processor.pointee.needsSchedule = true
    return nil
  }

  // MARK: Interrupts

  private func freeVector() throws(SystemError) -> UInt8 {
    for _ in Vector.devices {
      let candidate = kernel.pointee.nextVector
      kernel.pointee.nextVector = candidate < Vector.devices.upperBound ? candidate + 1 : Vector.devices.lowerBound
      if Vector.devices.contains(candidate), kernel.pointee.vectors[candidate] == nil {
        return UInt8(truncatingIfNeeded: candidate)
      }
    }
    throw .tableFull
  }

  func interruptCreateLine() throws(SystemError) -> Int64 {
    try requireRoot(first)
    let pin = second
    guard pin < LineController.pins else { throw .badArgument }
    let flags = InterruptFlags(rawValue: third)
    let notification: Reference<Notification> = try object(fourth, .notification, .signal)
    let bits = try checked(fifth)
    for vector in Vector.devices {
      if let other = kernel.pointee.vectors[vector], !other.pointee.isMessage, other.pointee.pin == UInt8(pin) {
        throw .exists
      }
    }
    let interrupt = try makeInterrupt(notification, bits)
    interrupt.pointee.pin = UInt8(pin)
    interrupt.pointee.isLevel = flags.contains(.level)
    interrupt.pointee.isActiveLow = flags.contains(.low)
    LineController.route(
      pin: UInt8(pin), vector: interrupt.pointee.vector, level: interrupt.pointee.isLevel,
      activeLow: interrupt.pointee.isActiveLow, to: Processor.at(0).pointee.identifier)
    return try install(interrupt.address, .interrupt)
  }

  func interruptCreateMessage() throws(SystemError) -> Int64 {
    let table: Reference<MemoryObject> = try object(first, .memory, .write)
    guard table.pointee.flags.contains(.messageTable) else { throw .wrongKind }
    guard second < table.pointee.size / 16 else { throw .badArgument }
    let notification: Reference<Notification> = try object(third, .notification, .signal)
    let bits = try checked(fourth)
    let entry = DirectMemory.address(table.pointee.physical + second * 16)
    let interrupt = try makeInterrupt(notification, bits)
    interrupt.pointee.isMessage = true
    interrupt.pointee.entry = entry
    interrupt.pointee.table = table
    table.pointee.references += 1
    // docs/platform.md, message table; address and data as in SDM vol. 3, 11.11.
    store32(entry, 0xfee0_0000 | Processor.at(0).pointee.identifier << 12)
    store32(entry + 4, 0)
    store32(entry + 8, UInt32(interrupt.pointee.vector))
    store32(entry + 12, 1)
    return try install(interrupt.address, .interrupt)
  }

  private func makeInterrupt(
    _ notification: Reference<Notification>, _ bits: UInt64
  ) throws(SystemError) -> Reference<Interrupt> {
    let vector = try freeVector()
    let interrupt = try kernel.pointee.heap.make(
      Interrupt(
        references: 1, vector: vector, pin: 0, isLevel: false, isActiveLow: false, isMessage: false, entry: 0,
        table: nil, notification: notification, bits: bits))
    notification.pointee.references += 1
    kernel.pointee.vectors[Int(vector)] = interrupt
    return interrupt
  }

  @inline(__always) func interruptAcknowledge() throws(SystemError) -> Int64 {
    let interrupt: Reference<Interrupt> = try object(first, .interrupt, .manage)
    if interrupt.pointee.isLevel { interrupt.setMask(false) }
    return 0
  }

  func interruptMask() throws(SystemError) -> Int64 {
    let interrupt: Reference<Interrupt> = try object(first, .interrupt, .manage)
    interrupt.setMask(second != 0)
    return 0
  }
}
