// How a debugger reads and changes what is stopped: registers, memory, breakpoints, and which thread is meant
// (GDB manual, "Remote Serial Protocol", Packets).

extension DebugSession {
  // MARK: Registers

  /// The registers of the general thread; answers the packet itself when there are none.
  func currentRegisters() -> RegisterFile? {
    if let known = registerCache[generalThread] { return known }
    do throws(DebugTargetError) {
      let registers = try target.readRegisters(of: generalThread)
      registerCache[generalThread] = registers
      return registers
    } catch {
      send(error)
      return nil
    }
  }

  private func replaceRegisters(_ registers: RegisterFile) {
    do throws(DebugTargetError) {
      try target.writeRegisters(registers, of: generalThread)
      // Read them again next time: the target may keep some bits as they are.
      registerCache[generalThread] = nil
      send("OK")
    } catch {
      send(error)
    }
  }

  func readAllRegisters() {
    guard let registers = currentRegisters() else { return }
    send(Hexadecimal.encode(registers.bytes))
  }

  func writeAllRegisters(_ reader: inout PacketReader) {
    guard var registers = currentRegisters() else { return }
    guard let bytes = Hexadecimal.decode(reader.rest), registers.setAllBytes(to: bytes) else { return send(.invalid) }
    replaceRegisters(registers)
  }

  func readRegister(_ reader: inout PacketReader) {
    guard let register = takeRegister(&reader), reader.isAtEnd else { return send(.invalid) }
    guard let registers = currentRegisters() else { return }
    guard registers.contains(register) else { return send(.invalid) }
    send(Hexadecimal.encode(registers.bytes(of: register)))
  }

  func writeRegister(_ reader: inout PacketReader) {
    guard let register = takeRegister(&reader), reader.take("=") else { return send(.invalid) }
    guard var registers = currentRegisters() else { return }
    guard let bytes = Hexadecimal.decode(reader.rest), registers.setBytes(of: register, to: bytes) else {
      return send(.invalid)
    }
    replaceRegisters(registers)
  }

  private func takeRegister(_ reader: inout PacketReader) -> Register? {
    guard let number = reader.number(), number < UInt64(Register.allCases.count) else { return nil }
    return Register(rawValue: Int(number))
  }

  // MARK: Memory

  func readMemory(_ reader: inout PacketReader) {
    guard let (address, count) = reader.addressAndCount(), reader.isAtEnd else { return send(.invalid) }
    guard count > 0 else { return send("") }
    do throws(DebugTargetError) {
      // Two digits a byte, and room for the frame of the packet.
      let bytes = try target.readMemory(
        at: address, count: min(count, PacketDecoder.packetSize / 2 - 4), thread: generalThread)
      send(bytes.isEmpty ? Array("E0e".utf8) : Hexadecimal.encode(bytes))
    } catch {
      send(error)
    }
  }

  func writeMemory(_ reader: inout PacketReader, binary: Bool) {
    guard let (address, count) = reader.addressAndCount(), reader.take(":") else { return send(.invalid) }
    guard let bytes = binary ? Array(reader.rest) : Hexadecimal.decode(reader.rest), bytes.count == count else {
      return send(.invalid)
    }
    // gdb probes for the packet with no bytes at all.
    guard count > 0 else { return send("OK") }
    do throws(DebugTargetError) {
      try target.writeMemory(bytes, at: address, thread: generalThread)
      send("OK")
    } catch {
      send(error)
    }
  }

  // MARK: Breakpoints

  func changeBreakpoint(_ reader: inout PacketReader, insert: Bool) {
    guard let digit = reader.byte(), digit >= UInt8(ascii: "0"),
      let kind = BreakpointKind(rawValue: digit - UInt8(ascii: "0"))
    else { return send("") }
    guard reader.take(","), let (address, length) = reader.addressAndCount() else { return send(.invalid) }
    // Conditions and commands, which would follow here, are not announced in qSupported.
    guard reader.isAtEnd, length <= 4096 else { return send(.invalid) }
    let breakpoint = Breakpoint(kind: kind, address: address, length: length)
    do throws(DebugTargetError) {
      if insert {
        try target.insert(breakpoint, thread: generalThread)
      } else {
        try target.remove(breakpoint, thread: generalThread)
      }
      send("OK")
    } catch {
      send(error)
    }
  }

  // MARK: Threads

  func selectThread(_ reader: inout PacketReader) {
    guard let operation = reader.byte(), let selection = reader.thread(), reader.isAtEnd else { return send(.invalid) }
    if case .one(let thread) = selection, !target.threads.contains(thread) { return send(.noThread) }
    switch operation {
    case UInt8(ascii: "g"):
      if case .one(let thread) = selection { generalThread = thread }
      send("OK")
    case UInt8(ascii: "c"):
      continueThread = selection
      send("OK")
    default: send(.invalid)
    }
  }

  func isAlive(_ reader: inout PacketReader) {
    guard case .one(let thread)? = reader.thread(), target.threads.contains(thread) else { return send(.noThread) }
    send("OK")
  }
}
