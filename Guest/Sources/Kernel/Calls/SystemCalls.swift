// Console, log, power, processors, time base and counters.
import CArch
import KernelCore
import PolluxABI

extension Call {
  private static let portion: UInt64 = 256

  func consoleWrite() throws(SystemError) -> Int64 {
    let bytes = try UserBytes(process, first, min(second, Call.portion))
    var done: UInt64 = 0
    while done < bytes.count {
      let (address, count) = try bytes.run(at: done, forWriting: false)
      // The FIFO takes 16 bytes whenever it is empty.
      guard SerialPort.canSend else { break }
      let part = min(count, 16)
      SerialPort.send(address, count: part)
      done += part
    }
    return Int64(done)
  }

  func consoleRead() throws(SystemError) -> Int64 {
    let bytes = try UserBytes(process, first, min(second, Call.portion))
    var done: UInt64 = 0
    while done < bytes.count {
      let address = try bytes.run(at: done, forWriting: true).address
      guard let byte = SerialPort.receive() else { break }
      store8(address, byte)
      done += 1
    }
    return Int64(done)
  }

  func logWrite() throws(SystemError) -> Int64 {
    let bytes = try UserBytes(process, first, min(second, Call.portion))
    var done: UInt64 = 0
    while done < bytes.count {
      let (address, count) = try bytes.run(at: done, forWriting: false)
      kernel.pointee.log.append(address, count: count)
      done += count
    }
    return Int64(done)
  }

  func logRead() throws(SystemError) -> Int64 {
    let (address, available) = kernel.pointee.log.run(at: first)
    let bytes = try UserBytes(process, second, min(third, 4096))
    let count = min(available, bytes.count)
    try bytes.write(address, count: count, at: 0)
    return Int64(count)
  }

  func systemControl() throws(SystemError) -> Int64 {
    try requireRoot(first)
    guard let operation = SystemControl(rawValue: second) else { throw .badArgument }
    switch operation {
    case .powerOff: PowerControl.powerOff()
    case .reboot: PowerControl.reboot()
    case .exit:
      guard third <= 255 else { throw .badArgument }
      PowerControl.exit(UInt8(third))
    case .powerButton: return Int64(PowerControl.takeButton())
    case .startProcessors: return Int64(Processors.start(wanted: third))
    case .calibrate:
      guard kernel.pointee.clock.slice == 0 else { throw .exists }
      let frequency = kernel.pointee.clock.calibrate(known: third)
      KernelInfoPage.set(KernelInfo.tscMultiplier, divide_scaled(Clock.localFrequency, frequency))
      KernelInfoPage.set(KernelInfo.tscFrequency, frequency)
      processor.pointee.timerStale = true
      return 0
    }
  }

  func systemQuery() throws(SystemError) -> Int64 {
    guard let query = SystemQuery(rawValue: first) else { throw .badArgument }
    switch query {
    case .memoryTotal: return Int64(kernel.pointee.frames.totalBytes)
    case .memoryFree: return Int64(kernel.pointee.frames.freeBytes)
    case .memoryKernel: return Int64((kernel.pointee.heap.frames + kernel.pointee.tableFrames) * 4096)
    case .logStart: return Int64(kernel.pointee.log.start)
    case .logEnd: return Int64(kernel.pointee.log.end)
    case .processorCount: return Int64(kernel.pointee.processorCount)
    case .contextSwitches: return Int64(sum { $0.pointee.contextSwitches })
    case .interrupts: return Int64(kernel.pointee.interrupts)
    case .systemCalls: return Int64(kernel.pointee.systemCalls)
    case .pageFaults: return Int64(kernel.pointee.pageFaults)
    case .idleTime: return Int64(sum { $0.pointee.idleTime })
    }
  }

  private func sum(_ value: (Reference<Processor>) -> UInt64) -> UInt64 {
    var total: UInt64 = 0
    for index in 0..<kernel.pointee.processorCount { total &+= value(Processor.at(index)) }
    return total
  }
}
