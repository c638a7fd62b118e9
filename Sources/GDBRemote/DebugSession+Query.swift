// What a debugger can ask about the stub and the machine (GDB manual, "Remote Serial Protocol": General Query Packets;
// "Memory Map Format"; "Thread List Format").

extension DebugSession {
  /// Packets that begin with `q`.
  func query(_ reader: inout PacketReader) {
    if reader.take(prefix: "Supported") {
      announce(&reader)
    } else if reader.take(prefix: "Xfer:") {
      transfer(&reader)
    } else if reader.take(prefix: "Rcmd,") {
      monitor(&reader)
    } else if reader.take(prefix: "fThreadInfo") {
      send("m" + target.threads.map { Hexadecimal.text($0.rawValue) }.joined(separator: ","))
    } else if reader.take(prefix: "sThreadInfo") {
      send("l")
    } else if reader.take(prefix: "ThreadExtraInfo,") {
      guard case .one(let thread)? = reader.thread(), target.threads.contains(thread) else { return send(.noThread) }
      send(Hexadecimal.encode(target.describe(thread).utf8))
    } else if reader.take(prefix: "Attached") {
      // The machine was there before the debugger, so gdb's `quit` detaches instead of killing.
      send("1")
    } else if reader.take(prefix: "Symbol:") {
      send("OK")
    } else if reader.take("C"), reader.isAtEnd {
      send("QC" + Hexadecimal.text(generalThread.rawValue))
    } else {
      send("")
    }
  }

  private func announce(_ reader: inout PacketReader) {
    if reader.take(":") {
      while !reader.isAtEnd {
        let feature = reader.field(upTo: ";")
        if feature.elementsEqual("swbreak+".utf8) { clientKnowsSoftwareBreakpointStops = true }
        if feature.elementsEqual("hwbreak+".utf8) { clientKnowsHardwareBreakpointStops = true }
      }
    }
    send(
      "PacketSize=\(Hexadecimal.text(PacketDecoder.packetSize));QStartNoAckMode+;qXfer:features:read+;"
        + "qXfer:threads:read+;" + (target.memoryMap.isEmpty ? "" : "qXfer:memory-map:read+;")
        + "swbreak+;hwbreak+;vContSupported+")
  }

  /// `qXfer:object:read:annex:offset,length`.
  private func transfer(_ reader: inout PacketReader) {
    let object = String(decoding: reader.field(upTo: ":"), as: UTF8.self)
    guard reader.take(prefix: "read:") else { return send("") }
    let annex = String(decoding: reader.field(upTo: ":"), as: UTF8.self)
    guard let (offset, length) = reader.addressAndCount(), reader.isAtEnd else { return send(.invalid) }
    let document: String
    switch (object, annex) {
    case ("features", "target.xml"): document = TargetDescription.document(hasAVX: target.hasAVX)
    case ("features", _): return send("E00")
    case ("memory-map", ""): document = memoryMapDocument()
    case ("threads", ""): document = threadsDocument()
    default: return send("")
    }
    let bytes = Array(document.utf8)
    guard offset <= UInt64(bytes.count) else { return send(.invalid) }
    // Half the packet size, because escapes may double the data.
    let part = bytes[Int(offset)...].prefix(min(length, PacketDecoder.packetSize / 2 - 8))
    send([UInt8(ascii: part.endIndex == bytes.endIndex ? "l" : "m")] + part)
  }

  private func memoryMapDocument() -> String {
    let ranges = target.memoryMap.map { range in
      "<memory type=\"\(range.kind.rawValue)\" start=\"0x\(Hexadecimal.text(range.start))\""
        + " length=\"0x\(Hexadecimal.text(range.length))\"/>\n"
    }
    return "<?xml version=\"1.0\"?>\n<memory-map>\n\(ranges.joined())</memory-map>\n"
  }

  private func threadsDocument() -> String {
    let threads = target.threads.map { thread in
      "<thread id=\"\(Hexadecimal.text(thread.rawValue))\" core=\"\(thread.vCPU)\" name=\"vCPU \(thread.vCPU)\">"
        + "\(Self.escapedForXML(target.describe(thread)))</thread>\n"
    }
    return "<?xml version=\"1.0\"?>\n<threads>\n\(threads.joined())</threads>\n"
  }

  private static func escapedForXML(_ text: String) -> String {
    var escaped = ""
    for character in text {
      switch character {
      case "&": escaped += "&amp;"
      case "<": escaped += "&lt;"
      case ">": escaped += "&gt;"
      default: escaped.append(character)
      }
    }
    return escaped
  }

  /// `qRcmd,command`: gdb's `monitor`. Output goes in `O` packets, then `OK`; a refusal is output too, because gdb
  /// shows only a number for an error answer.
  private func monitor(_ reader: inout PacketReader) {
    guard let bytes = Hexadecimal.decode(reader.rest) else { return send(.invalid) }
    var text: String
    do throws(DebugTargetError) {
      text = try target.monitor(String(decoding: bytes, as: UTF8.self), thread: generalThread)
    } catch {
      text = "\(error)"
    }
    // The command may have changed anything.
    registerCache.removeAll()
    if !text.isEmpty, !text.hasSuffix("\n") { text += "\n" }
    var rest = Array(text.utf8)[...]
    while !rest.isEmpty {
      send([UInt8(ascii: "O")] + Hexadecimal.encode(rest.prefix(2000)))
      rest = rest.dropFirst(2000)
    }
    send("OK")
  }
}
