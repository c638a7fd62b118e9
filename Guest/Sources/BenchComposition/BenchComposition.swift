// What composing file system and memory manager costs and saves (HongMeng §4.3, Table 3): page fault of a file mapping, tmpfs write,
// memory footprint. The composition decides whether the services `files` and `memory` are one process or two; this client sees no
// difference but its own configuration: `files=NAME memory=NAME` among its arguments.

import BenchReport
import MemoryClient
import Pollux

@main enum BenchComposition {
  private static let pages: UInt64 = 256
  private static let mappingAddress: UInt64 = 0x30_0000_0000
  private static let chunk: UInt64 = 64 << 10

  static func main() {
    var bench = Bench("composition")
    do throws(SystemError) {
      let files = try Services.open(MeasureOptions.value("files", in: bench.arguments) ?? Bytes("memory"))
      let memory = try Services.open(MeasureOptions.value("memory", in: bench.arguments) ?? Bytes("memory"))
      try measure(&bench, files, memory)
    } catch { bench.fail("a service or the kernel refuses", error) }
    bench.finish()
  }

  private static func call(_ service: Connection, _ message: inout Message) throws(SystemError) {
    try service.call(&message)
    if message[0] != 0 { throw .badArgument }
  }

  private static func measure(_ bench: inout Bench, _ files: Connection, _ memory: Connection) throws(SystemError) {
    let shared = try MemoryObject.create(chunk)
    let buffer = try shared.map([.read, .write])
    var message = Message(FileMemoryCall.attachBuffer.rawValue, chunk)
    message.pass(shared.handle, [.read, .write, .grant])
    try call(files, &message)
    guard let own = Program.start.handle("process") else { throw .badHandle }
    message = Message(FileMemoryCall.attachProcess.rawValue)
    message.pass(Handle(own), [.manage, .observe, .grant])
    try call(memory, &message)

    // The file's contents: every word says where it lies.
    message = Message(FileMemoryCall.create.rawValue, 0x656c_6966)  // "file"
    try call(files, &message)
    let inode = message[1]
    func write(at offset: UInt64) throws(SystemError) {
      var message = Message(FileMemoryCall.write.rawValue, inode, offset, chunk)
      try call(files, &message)
    }
    let words = buffer.base.assumingMemoryBound(to: UInt64.self)
    var offset: UInt64 = 0
    while offset < pages * 4096 {
      // The buffer is `chunk` bytes of this process's own.
      for word in 0..<Int(chunk / 8) { words[word] = offset + UInt64(word) * 8 }
      try write(at: offset)
      offset += chunk
    }

    func map() throws(SystemError) {
      var message = Message(FileMemoryCall.map.rawValue, inode, mappingAddress, pages)
      try call(memory, &message)
    }
    func drop() throws(SystemError) {
      var message = Message(FileMemoryCall.dropMappings.rawValue)
      try call(memory, &message)
    }
    /// Touches every page once; the ticks, or nil if a page shows something else than the file.
    func touch() -> UInt64? {
      guard let base = UnsafePointer<UInt64>(bitPattern: UInt(mappingAddress)) else { return nil }
      let start = Clock.now
      var sound = true
      for page in 0..<Int(pages) where base[page * 512] != UInt64(page) * 4096 { sound = false }
      return sound ? Clock.now &- start : nil
    }
    var failure: SystemError?
    var isWrong = false
    bench.measure("page-fault", operations: Int(pages)) {
      do throws(SystemError) {
        try drop()
        try map()
      } catch {
        failure = error
        return nil
      }
      let ticks = touch()
      if ticks == nil { isWrong = true }
      return ticks
    }
    if let failure { throw failure }
    if isWrong { bench.fail("a mapped page does not show the file") }

    message = Message(FileMemoryCall.usage.rawValue)
    try call(memory, &message)
    var used = message[1] + message[2]
    let cached = message[2]
    message = Message(FileMemoryCall.usage.rawValue)
    try call(files, &message)
    // In one process both calls tell the same.
    if message[2] != cached || message[1] == 0 || used == cached { used = message[1] + cached }
    bench.add("footprint", .bytes, used * 4096, remark: "pages of the file and of the page cache")

    // Written while mapped: the mapping must show it.
    for word in 0..<Int(chunk / 8) { words[word] = UInt64(word) * 8 }
    var samples: [UInt64] = []
    for _ in 0..<bench.options.batches {
      let start = Clock.now
      var offset: UInt64 = 0
      while offset < pages * 4096 {
        try write(at: offset)
        offset += chunk
      }
      samples.append(Clock.now &- start)
    }
    bench.add("tmpfs-write", bytes: pages * 4096, ticks: samples)
    if let base = UnsafePointer<UInt64>(bitPattern: UInt(mappingAddress)), base[16 * 512] != 0 {
      bench.fail("a mapping does not show what was written")
    }
    try drop()
  }
}
