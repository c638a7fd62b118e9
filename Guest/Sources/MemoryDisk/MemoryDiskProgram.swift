// A disk in memory behind the block interface. Its arguments: `size=16M`.

import BlockInterface
import BlockServer
import Pollux

@main enum MemoryDiskProgram {
  static func main() {
    let start = Program.start
    do throws(SystemError) {
      guard let service = start.handle("service") else { throw .notFound }
      let arguments = CommandLine(start.text("arguments") ?? Bytes(""))
      let size = max(4096, min(arguments.value("size")?.size ?? (1 << 20), 1 << 30)) & ~4095
      let plane = try MemoryPlane(size: size)
      try BlockServer(
        plane: plane, endpoint: Handle(service), events: try Notification.create(), name: "memdisk0",
        timeout: 0
      )
      .run()
    } catch {
      var line = Text("memdisk: ")
      line.add(error.name)
      line.add("\n")
      line.print()
      Kernel.exit(1)
    }
  }
}

/// Requests are carried out as they are submitted.
final class MemoryPlane: BlockPlane {
  private let base: UnsafeMutableRawPointer
  let geometry: BlockGeometry

  init(size: UInt64) throws(SystemError) {
    base = try MemoryObject.create(size).map([.read, .write]).base
    var geometry = BlockGeometry(sectors: size / 512, blockSize: 512, maximumTransfer: size)
    geometry.canFlush = true
    geometry.canDiscard = true
    geometry.canWriteZeroes = true
    self.geometry = geometry
  }

  var mode: BlockMode { .memory }
  var mapsRegions: Bool { true }
  var pollTicks: UInt64 { 0 }
  var inFlight: Int { 0 }
  var doorbells: UInt64 { 0 }
  var interrupts: UInt64 { 0 }
  var resets: UInt64 { 0 }

  func submit(_ request: BlockRequest, region: BlockRegion, token: Int) -> PlaneSubmission {
    guard let data = region.base else { return .finished(.invalid) }
    let length = Int(request.length)
    // The server has checked the request against geometry and region, so both ranges lie inside.
    let place = base + Int(request.sector) * 512
    switch request.operation {
    case .read: (data + Int(request.offset)).copyMemory(from: place, byteCount: length)
    case .write: place.copyMemory(from: data + Int(request.offset), byteCount: length)
    case .discard, .writeZeroes: place.initializeMemory(as: UInt8.self, repeating: 0, count: length)
    case .flush: break
    }
    return .finished(.success)
  }

  func kick() {}
  var hasCompletions: Bool { false }
  func nextCompletion() -> PlaneCompletion? { nil }
  func armInterrupt(after count: Int) -> Bool { false }
  func disarmInterrupt() {}
  func handle(events: UInt64) {}
  func reset() {}
  func takeState() -> PlaneState { .working }
  var completionMemory: (memory: MemoryObject, queueSize: Int)? { nil }
}
