// How a debugger lets the target run and learns why it stopped (GDB manual, "Remote Serial Protocol": the packets
// `vCont`, `c`, `s`, `C`, `S`, and Stop Reply Packets).

extension DebugSession {
  /// Packets that begin with `v`.
  func handleNamed(_ reader: inout PacketReader) {
    if reader.take(prefix: "Cont?") {
      send("vCont;c;C;s;S;t;r")
    } else if reader.take(prefix: "Cont") {
      resume(&reader)
    } else if reader.take(prefix: "Kill") {
      send("OK")
      kill()
    } else {
      // vMustReplyEmpty among them.
      send("")
    }
  }

  /// `vCont;action[:thread]…`: the first action that names a thread is the one that it gets.
  private func resume(_ reader: inout PacketReader) {
    var actions: [(action: ResumeAction, threads: ThreadSelection)] = []
    while reader.take(";") {
      guard let action = takeAction(&reader) else { return send(.invalid) }
      var selection = ThreadSelection.all
      if reader.take(":") {
        guard let named = reader.thread() else { return send(.invalid) }
        selection = named
      }
      actions.append((action, selection))
    }
    guard reader.isAtEnd, !actions.isEmpty else { return send(.invalid) }
    var plan: [ThreadIdentifier: ResumeAction] = [:]
    for thread in target.threads {
      let match = actions.first { item in
        switch item.threads {
        case .all: true
        case .any: thread == generalThread
        case .one(let named): named == thread
        }
      }
      if let match, match.action != .stay { plan[thread] = match.action }
    }
    start(plan)
  }

  private func takeAction(_ reader: inout PacketReader) -> ResumeAction? {
    switch reader.byte() {
    case UInt8(ascii: "c"): return .continue
    case UInt8(ascii: "s"): return .step
    // A machine has no signals to deliver: the number is read and dropped.
    case UInt8(ascii: "C"): return reader.number() == nil ? nil : .continue
    case UInt8(ascii: "S"): return reader.number() == nil ? nil : .step
    case UInt8(ascii: "t"): return .stay
    case UInt8(ascii: "r"):
      guard let start = reader.number(), reader.take(","), let end = reader.number(), start <= end else { return nil }
      return .stepWhileIn(start..<end)
    default: return nil
    }
  }

  /// `c [address]`, `C signal[;address]` and their stepping forms.
  func resumeOld(_ reader: inout PacketReader, _ action: ResumeAction, hasSignal: Bool) {
    if hasSignal {
      guard reader.number() != nil else { return send(.invalid) }
      guard reader.isAtEnd || reader.take(";") else { return send(.invalid) }
    }
    let chosen: ThreadIdentifier
    if case .one(let thread) = continueThread { chosen = thread } else { chosen = generalThread }
    if !reader.isAtEnd {
      guard let address = reader.number(), reader.isAtEnd else { return send(.invalid) }
      do throws(DebugTargetError) {
        var registers = try target.readRegisters(of: chosen)
        registers[.rip] = address
        try target.writeRegisters(registers, of: chosen)
      } catch {
        return send(error)
      }
    }
    var plan: [ThreadIdentifier: ResumeAction] = [chosen: action]
    if continueThread == .any || continueThread == .all {
      for thread in target.threads where thread != chosen { plan[thread] = .continue }
    }
    start(plan)
  }

  private func start(_ plan: [ThreadIdentifier: ResumeAction]) {
    guard !plan.isEmpty else {
      // Nobody may run, so the target is stopped already.
      if case .stopped(let event) = state { send(stopReply(event)) }
      return
    }
    resume(plan)
  }

  /// `T` with signal, reason, thread and the registers that gdb wants at every stop; `W` when the machine is gone.
  func stopReply(_ event: StopEvent) -> [UInt8] {
    let signal: String
    var reason = ""
    switch event.reason {
    case .exited(let code): return Array("W".utf8) + Hexadecimal.encode([code])
    case .interrupted: signal = "02"
    case .stepped: signal = "05"
    case .softwareBreakpoint:
      signal = "05"
      if clientKnowsSoftwareBreakpointStops { reason = "swbreak:;" }
    case .hardwareBreakpoint:
      signal = "05"
      if clientKnowsHardwareBreakpointStops { reason = "hwbreak:;" }
    case .watchpoint(let kind, let address):
      signal = "05"
      let name =
        switch kind {
        case .readWatch: "rwatch"
        case .accessWatch: "awatch"
        default: "watch"
        }
      reason = "\(name):\(Hexadecimal.text(address));"
    case .illegalInstruction: signal = "04"
    case .fault: signal = "0b"
    }
    var reply = Array("T\(signal)thread:\(Hexadecimal.text(event.thread.rawValue));\(reason)".utf8)
    if let registers = try? target.readRegisters(of: event.thread) {
      registerCache[event.thread] = registers
      for register in [Register.rbp, .rsp, .rip] {
        reply += Hexadecimal.encode([UInt8(register.rawValue)])
        reply.append(UInt8(ascii: ":"))
        reply += Hexadecimal.encode(registers.bytes(of: register))
        reply.append(UInt8(ascii: ";"))
      }
    }
    return reply
  }
}
