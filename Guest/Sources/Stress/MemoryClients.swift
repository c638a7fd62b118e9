// Clients of the memory manager, of mapped files, of the file service and of address tokens, each at work until it is killed. A service's
// death is part of the game; a wrong byte ends the client with code 99, which the test reads as a failure.

import Files
import MemoryClient
import Pollux

enum WorkingClient {
  /// Works as `mode` says, for ever; returns where the mode is none of these.
  static func run(_ mode: Bytes) throws(SystemError) {
    var dice = Dice(Clock.now)
    do throws(SystemError) {
      try work(mode, &dice)
    } catch {
      // A service that is killed as it is met: the conductor starts this client again.
      if error == .peerClosed || error == .notFound { Kernel.exit(1) }
      throw error
    }
  }

  private static func work(_ mode: Bytes, _ dice: inout Dice) throws(SystemError) {
    if mode.equals("anonymous") { try anonymous(&dice) }
    if mode.equals("mapper") { try mapper(&dice) }
    if mode.equals("filer") { try filer(&dice) }
    if mode.equals("tokens") { try tokens() }
  }

  private static func fail(_ what: StaticString) -> Never {
    var line = Text("stress: FAILED: ")
    line.add(what)
    line.add("\n")
    line.print()
    Kernel.exit(99)
  }

  /// A page of memory that the manager serves. Where the manager has died this process ends here, too.
  private static func word(_ address: UInt64, _ page: UInt64) -> UnsafeMutablePointer<UInt64> {
    // The address is a mapping's, never 0.
    UnsafeMutablePointer(bitPattern: UInt(address + page * 4096)).unsafelyUnwrapped
  }

  /// Maps, fills, checks and unmaps.
  private static func anonymous(_ dice: inout Dice) throws(SystemError) -> Never {
    let manager = AnonymousMemory(try Services.open(Bytes("memory-manager")))
    _ = try manager.attach(budget: 64, isStrict: true)
    while true {
      let pages = 1 + dice.roll(48)
      let seed = dice.roll(1 << 40)
      do throws(SystemError) {
        let address = try manager.map(pages: pages)
        for page in 0..<pages {
          if word(address, page).pointee != 0 { fail("new memory is not zero") }
          word(address, page).pointee = seed &+ page
        }
        for page in 0..<pages where word(address, page).pointee != seed &+ page { fail("memory has changed") }
        try manager.unmap(address, pages: pages)
      } catch {
        // The manager has died; a new one does not know this process.
        Kernel.exit(1)
      }
    }
  }

  /// Writes a file and reads it through a mapping.
  private static func mapper(_ dice: inout Dice) throws(SystemError) -> Never {
    let arguments = CommandLine(Program.start.text("arguments") ?? Bytes(""))
    let parts = try FilesAndMemory(
      files: arguments.value("files") ?? Bytes("memory"), memory: arguments.value("memory") ?? Bytes("memory"))
    do throws(SystemError) {
      try parts.attach()
      let inode = try parts.create(0x7373_6572_7473)  // "stress"
      let pages: UInt64 = 6
      for page in 0..<pages { try parts.write(inode, page: page, value: page) }
      let address: UInt64 = 0x30_0000_0000
      try parts.map(inode, at: address, pages: pages)
      var last = [UInt64](repeating: 0, count: Int(pages))
      for page in 0..<pages { last[Int(page)] = page }
      while true {
        let page = dice.roll(pages)
        if word(address, page).pointee != last[Int(page)] { fail("a mapping does not show its file") }
        let value = dice.roll(1 << 40)
        try parts.write(inode, page: page, value: value)
        last[Int(page)] = value
      }
    } catch { Kernel.exit(1) }
  }

  /// Makes, writes, reads and removes files of its own.
  private static func filer(_ dice: inout Dice) throws(SystemError) -> Never {
    let files = try Files()
    let block = ByteBlock(count: 8192)
    let back = ByteBlock(count: 8192)
    let path = Bytes("/stress-file")
    while true {
      do throws(FileError) {
        let file = try files.open(path, [.read, .write, .create, .truncate])
        let count = 1 + Int(dice.roll(8192))
        let seed = UInt8(truncatingIfNeeded: dice.roll(256))
        for index in 0..<count { block.area.store(seed &+ UInt8(truncatingIfNeeded: index), at: index) }
        try files.write(file, 0, from: block.area.slice(0, count))
        guard try files.read(file, 0, into: back.area) == count else { fail("a file has another length") }
        for index in 0..<count where back.area.bytes.byte(index) != seed &+ UInt8(truncatingIfNeeded: index) {
          fail("a file has other contents")
        }
        if dice.roll(4) != 0 { try files.close(file) }
        try files.unlink(path)
        if dice.roll(16) == 0 { try files.sync() }
      } catch {
        // Unlinked files that it leaves open fill the disk in the end; the next of its kind finds them gone.
        if error == .noSpace || error == .tableFull { Kernel.exit(1) }
        // The service has died, and the file with it.
        guard error == .serviceGone || error == .notFound else { fail(error.name) }
        Clock.sleep(microseconds: 1000)
      }
    }
  }

  /// Has tokens of the conductor's ring and rings of its own, stores to them and gives them up.
  private static func tokens() throws(SystemError) -> Never {
    guard let own = Program.start.handle("process") else { throw .badHandle }
    while true {
      do throws(SystemError) {
        let conductor = try Services.open(Bytes("stress"))
        defer { conductor.handle.close() }
        for _ in 0..<20 {
          var message = Message()
          message[4] = StressProgram.tokenRequest
          message.pass(Handle(own), [.manage, .observe])
          try conductor.call(&message)
          guard message[1] != 0 else { throw .noMemory }
          let shared = Token(message[1])
          if shared.load(RingPage.tail) != StressProgram.ringMark { fail("a token shows another page") }
          let mine = try Token.create(.ring)
          let derived = Token(try mine.grant([.read]))
          mine.store(message[1], at: RingPage.entries)
          if derived.load(RingPage.entries) != message[1] { fail("a derived token shows another page") }
          mine.drop()
          shared.drop()
        }
      } catch { Clock.sleep(microseconds: 1000) }
    }
  }
}
