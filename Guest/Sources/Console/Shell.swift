// The shell's loop and its commands.

import Files
import Pollux

struct Shell {
  private let files: FileCommands
  private var editor = LineEditor()

  init(archive: TapeArchive) { files = FileCommands(archive: archive) }

  mutating func run(input: Notification) {
    let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 256, alignment: 16)
    let prompt = Text("pollux> ")
    prompt.print()
    while true {
      let count = Console.read(into: buffer)
      if count <= 0 {
        // A lost interrupt would only delay input: look again after a while.
        _ = input.wait(until: Clock.now + Clock.ticks(microseconds: 500_000))
        continue
      }
      for index in 0..<min(count, buffer.count) {
        switch editor.feed(buffer[index]) {
        case .none: break
        case .interrupt:
          Console.write(editor.takeEcho())
          editor.begin()
          prompt.print()
        case .line:
          Console.write(editor.takeEcho())
          let line = editor.line
          editor.begin()
          perform(line)
          prompt.print()
        }
      }
      let echo = editor.takeEcho()
      if !echo.isEmpty { Console.write(echo) }
    }
  }

  private func perform(_ line: [UInt8]) {
    line.withUnsafeBytes { buffer in
      guard let base = buffer.baseAddress, buffer.count > 0 else { return }
      // The array lives as long as this call.
      let text = Bytes(unsafeBase: base, count: buffer.count)
      var words = Parts(of: text, separator: 0x20)
      guard let command = words.next() else { return }
      let argument = words.next() ?? Bytes("")
      let rest = argument.isEmpty ? Bytes("") : Self.rest(of: text, from: argument)
      do throws(FileError) {
        if try files.perform(command, rest) { return }
      } catch {
        Self.complain(command, error.name)
        return
      }
      do throws(SystemError) { try perform(command, argument, rest) } catch { Self.complain(command, error.name) }
    }
  }

  private static func complain(_ command: Bytes, _ reason: StaticString) {
    var message = Text()
    message.add(command)
    message.add(": ")
    message.add(reason)
    message.add("\n")
    message.print()
  }

  private static func rest(of line: Bytes, from part: Bytes) -> Bytes {
    line.suffix(from: part.unsafeBase - line.unsafeBase) ?? Bytes("")
  }

  private func perform(_ command: Bytes, _ argument: Bytes, _ rest: Bytes) throws(SystemError) {
    if command.equals("help") {
      help()
    } else if command.equals("ps") {
      Reports.processes()
    } else if command.equals("threads") {
      Reports.threads()
    } else if command.equals("services") {
      try Reports.services()
    } else if command.equals("mem") {
      Reports.memory()
    } else if command.equals("dmesg") {
      Reports.log()
    } else if command.equals("uptime") {
      Reports.uptime()
    } else if command.equals("echo") {
      var line = Text()
      line.add(rest)
      line.add("\n")
      line.print()
    } else if command.equals("bench") {
      try run(Bytes("bench-block"), rest.isEmpty ? Bytes("table=on sizes=4K,128K depths=8") : rest)
    } else if command.equals("memtest") {
      try run(Bytes("bench-block"), Bytes("selftest=on target=memdisk table=on"))
    } else if command.equals("run") {
      var tail = Parts(of: rest, separator: 0x20)
      guard let program = tail.next() else { throw .badArgument }
      let arguments = tail.next().map { Self.rest(of: rest, from: $0) }
      try run(program, arguments ?? Bytes(""))
    } else if command.equals("kill") {
      try kill(argument)
    } else if command.equals("restart") {
      try Services.restart(argument)
    } else if command.equals("suspend") {
      try Services.suspend(argument)
    } else if command.equals("resume") {
      try Services.suspend(argument, resume: true)
    } else if command.equals("attributes") {
      try attributes(argument, rest)
    } else if command.equals("halt") {
      Console.write("The system is going down.\n")
      files.settle()
      try Program.control(.powerOff)
    } else if command.equals("reboot") {
      files.settle()
      try Program.control(.reboot)
    } else {
      throw .notFound
    }
  }

  private func help() {
    Console.write(
      """
      help              this text
      ps, threads       processes, threads
      services          services of the composition, their modes and states
      mem, uptime       memory, time since boot
      dmesg             the kernel log
      bench [ARGUMENTS] a small block benchmark (`bench sizes=4096 depths=32`)
      memtest           self test of the memory disk
      run PROGRAM [ARGUMENTS]
      kill SERVICE      ends a service
      restart SERVICE   starts a service again that has ended
      suspend SERVICE   makes the device of a driver quiet; requests wait
      resume SERVICE    brings it back
      attributes SERVICE [PATH [VALUE]]
                        what Linux's sysfs would show of a driver's devices; sets one
      echo TEXT
      halt, reboot

      """)
    Console.write(FileCommands.help)
  }

  /// Lists a driver's attributes with their values, or reads or writes one.
  private func attributes(_ service: Bytes, _ rest: Bytes) throws(SystemError) {
    guard !service.isEmpty else { throw .badArgument }
    let attributes = try DeviceAttributes(of: service)
    defer { attributes.close() }
    var words = Parts(of: rest, separator: 0x20)
    _ = words.next()
    if let path = words.next() {
      if let value = words.next() {
        report(path, try attributes.write(path, Self.rest(of: rest, from: value)))
      } else {
        try show(attributes, path, named: false)
      }
      return
    }
    var index = 0
    while let found = try attributes.path(at: index) {
      // The next call takes the place of this one's answer.
      var path: [UInt8] = []
      for place in 0..<found.count { path.append(found.byte(place) ?? 0) }
      let failure = path.withUnsafeBytes { bytes -> SystemError? in
        guard let base = bytes.baseAddress else { return nil }
        do throws(SystemError) {
          try show(attributes, Bytes(unsafeBase: base, count: bytes.count), named: true)
          return nil
        } catch { return error }
      }
      if let failure { throw failure }
      index += 1
    }
  }

  private func show(_ attributes: DeviceAttributes, _ path: Bytes, named: Bool) throws(SystemError) {
    let answer = try attributes.read(path)
    guard let value = answer.value else { return report(path, answer.error) }
    var line = Text()
    if named {
      line.add(path)
      line.add("  ")
    }
    line.add(value)
    if value.byte(value.count - 1) != 0x0a { line.add("\n") }
    line.print()
  }

  /// Says what an error number of Linux means; nothing for 0.
  private func report(_ path: Bytes, _ error: Int64) {
    guard error != 0 else { return }
    var line = Text("attributes: ")
    line.add(path)
    switch error {
    case -2: line.add(": there is no such attribute\n")
    case -13: line.add(": not to be read or written so\n")
    case -16: line.add(": the driver would need the device's queue, which is its twin's\n")
    case -22: line.add(": this is no value for it\n")
    case AttributeCall.timedOut: line.add(": the driver does not answer\n")
    default:
      line.add(": error ")
      line.add(Int(error))
      line.add("\n")
    }
    line.print()
  }

  /// Starts a program and waits until it has ended.
  private func run(_ program: Bytes, _ arguments: Bytes) throws(SystemError) {
    guard program.count <= 16, arguments.count <= 40 else { throw .badArgument }
    var message = Message(RegistryCall.run.rawValue)
    message.put(program, at: 1, words: 2)
    message.put(arguments, at: 3, words: 5)
    try Program.ask(&message)
    let index = message[1]
    while true {
      message = Message(RegistryCall.service.rawValue, index)
      try Program.ask(&message)
      if message[7] & 0xff != ServiceState.running.rawValue { return }
      Clock.sleep(microseconds: 50_000)
    }
  }

  private func kill(_ name: Bytes) throws(SystemError) {
    var index: UInt64 = 0
    while true {
      var message = Message(RegistryCall.service.rawValue, index)
      try Program.ask(&message)
      let found = message.text(at: 1, words: 2)
      let matches = found.withUnsafeBytes { buffer in
        guard let base = buffer.baseAddress else { return false }
        return Bytes(unsafeBase: base, count: buffer.count).equals(name)
      }
      if matches, message[7] & 0xff == ServiceState.running.rawValue {
        message = Message(RegistryCall.kill.rawValue, index)
        try Program.ask(&message)
        return
      }
      index += 1
    }
  }
}
