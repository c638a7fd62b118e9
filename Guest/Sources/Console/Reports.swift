// What the shell prints about the state of the system.

import Pollux

enum Reports {
  static func processes() {
    let records = UnsafeMutableBufferPointer<ProcessInfo>.allocate(capacity: 64)
    defer { records.deallocate() }
    records.initialize(repeating: ProcessInfo())
    Console.write("  PID  THR  HND       MEM   TIME/ms  STATE     NAME\n")
    let count = Kernel.processes(from: 0, into: records)
    for index in 0..<min(count, records.count) {
      let record = records[index]
      var line = Text()
      right(&line, UInt64(record.identifier), 5)
      right(&line, UInt64(record.threads), 10)
      right(&line, UInt64(record.handles), 15)
      right(&line, record.memory >> 10, 24)
      line.add("K")
      right(&line, Clock.nanoseconds(record.processorTime) / 1_000_000, 35)
      line.add("  ")
      let status = ProcessStatus(rawValue: record.status)
      line.add(!status.hasEnded ? "running" : status.didFault ? "faulted" : "ended")
      line.pad(to: 47)
      for word in [record.name.0, record.name.1, record.name.2, record.name.3] {
        for byte in 0..<8 {
          let character = UInt8(truncatingIfNeeded: word >> UInt64(byte * 8))
          if character != 0 { line.add(byte: character) }
        }
      }
      line.add("\n")
      line.print()
    }
  }

  static func threads() {
    let records = UnsafeMutableBufferPointer<ThreadInfo>.allocate(capacity: 64)
    defer { records.deallocate() }
    records.initialize(repeating: ThreadInfo())
    Console.write("  TID  PID   IN  PRI  CPU  SWITCHES   TIME/ms  STATE\n")
    let count = Kernel.threads(from: 0, into: records)
    for index in 0..<min(count, records.count) {
      let record = records[index]
      var line = Text()
      right(&line, UInt64(record.identifier), 5)
      right(&line, UInt64(record.process), 10)
      right(&line, UInt64(record.domain), 15)
      right(&line, UInt64(record.priority), 20)
      right(&line, UInt64(record.processor), 25)
      right(&line, record.switches, 35)
      right(&line, Clock.nanoseconds(record.processorTime) / 1_000_000, 45)
      line.add("  ")
      line.add(stateName(record.state))
      line.add("\n")
      line.print()
    }
  }

  private static func stateName(_ state: UInt8) -> StaticString {
    switch ThreadState(rawValue: state) {
    case .ready: "ready"
    case .running: "running"
    case .waiting: "waiting"
    case .sleeping: "sleeping"
    case .calling: "calling"
    case .awaitingReply: "awaiting reply"
    case .receiving: "receiving"
    case .ended: "ended"
    case .awaitingStack: "awaiting stack"
    case .spare, nil: "unknown"
    }
  }

  static func services() throws(SystemError) {
    Console.write("NAME             PROGRAM          CLASS           MODE        STATE    REMARK\n")
    var index: UInt64 = 0
    while true {
      var message = Message(RegistryCall.service.rawValue, index)
      do throws(SystemError) { try Program.ask(&message) } catch {
        if error == .notFound { return }
        throw error
      }
      var line = Text()
      line.add(message.text(at: 1, words: 2))
      line.pad(to: 17)
      line.add(message.text(at: 3, words: 2))
      line.pad(to: 34)
      // The class in effect, after the one asked for where they differ.
      let asked = message[7] >> 8 & 0xff
      let effective = message[7] >> 16 & 0xff
      if asked == 3 {
        line.add("auto")
      } else {
        line.add("ic")
        line.add(asked)
      }
      if asked != effective {
        line.add(">ic")
        line.add(effective)
      }
      line.add(" ")
      line.add((IsolationMechanism(rawValue: message[7] >> 24 & 0xff) ?? .best).shortName)
      line.pad(to: 50)
      line.add(message.text(at: 5, words: 2))
      line.pad(to: 62)
      switch ServiceState(rawValue: message[7] & 0xff) {
      case .running: line.add("running")
      case .exited: line.add("ended")
      case .faulted: line.add("died")
      default: line.add("absent")
      }
      line.pad(to: 71)
      message = Message(RegistryCall.serviceRemark.rawValue, index)
      try Program.ask(&message)
      line.add(message.text(at: 1, words: 7))
      line.add("\n")
      line.print()
      index += 1
    }
  }

  static func memory() {
    var line = Text()
    for (name, query) in [
      ("total ", SystemQuery.memoryTotal), ("free  ", .memoryFree), ("kernel", .memoryKernel),
    ] as [(StaticString, SystemQuery)] {
      line.clear()
      line.add(name)
      right(&line, Kernel.query(query) >> 10, 20)
      line.add(" KiB\n")
      line.print()
    }
  }

  static func uptime() {
    let ticks = Clock.now &- Kernel.info(KernelInfo.tscBase)
    var line = Text("up ")
    line.add(thousandths: Clock.nanoseconds(ticks) / 1_000_000)
    line.add(" s, ")
    line.add(Kernel.info(KernelInfo.processorCount))
    line.add(" processor(s), ")
    line.add(Kernel.query(.contextSwitches))
    line.add(" context switches, ")
    line.add(Kernel.query(.interrupts))
    line.add(" interrupts, ")
    line.add(Kernel.query(.systemCalls))
    line.add(" system calls\n")
    line.print()
  }

  static func log() {
    let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 256, alignment: 16)
    defer { buffer.deallocate() }
    var position = Kernel.query(.logStart)
    let end = Kernel.query(.logEnd)
    while position < end {
      let count = Kernel.readLog(at: position, into: buffer)
      guard count > 0, count <= buffer.count else { return }
      Console.write(UnsafeRawBufferPointer(start: buffer.baseAddress, count: count))
      position += UInt64(count)
    }
  }

  /// Appends `value` so that it ends in `column`.
  static func right(_ line: inout Text, _ value: UInt64, _ column: Int) {
    var digits = 1
    var rest = value
    while rest >= 10 {
      rest /= 10
      digits += 1
    }
    line.pad(to: column - digits)
    line.add(value)
  }
}
