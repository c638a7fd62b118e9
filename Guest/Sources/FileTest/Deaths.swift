// The file service is killed while clients use it, and clients are killed while the service works for them.

import Files
import Pollux

extension Tester {
  /// Rounds of each kind.
  private static let rounds: UInt64 = 6

  func deaths() throws(FileError) {
    do throws(SystemError) {
      let (service, writer) = (Bytes("vfs"), Bytes("writer"))
      try oneDeath(service)
      try manyDeaths(service, writer)
      try deathsOfClients(writer)
    } catch { fail(error.name) }
    try files.sync()
  }

  /// `body`, whose failure is the test's.
  private func attempt(_ name: StaticString, _ body: () throws(FileError) -> Bool) {
    do throws(FileError) { expect(name, try body()) } catch { fail(name, Bytes(error.name)) }
  }

  private func oneDeath(_ service: Bytes) throws(SystemError) {
    let kept = Bytes("/disk/kept")
    var file: Files.File?
    attempt("a file is made and synced") { () throws(FileError) in
      try make(kept, size: 100_000, seed: 21)
      try put(Bytes("/tmp/gone"), Bytes("in memory"))
      try files.sync()
      file = try files.open(kept, .read)
      return true
    }
    guard let file else { return }
    try Services.end(service)
    expect("an open file of a dead service is an error", .serviceGone) { () throws(FileError) in
      _ = try files.read(file, 0, into: block.area.slice(0, 100))
    }
    files.patience = 200_000
    let start = Clock.now
    expect("a dead service is an error", .serviceGone) { () throws(FileError) in
      _ = try files.attributes(at: kept)
    }
    expect("and soon", Clock.now - start < Clock.ticks(microseconds: 3_000_000))
    try Services.restart(service)
    files.patience = 20_000_000
    attempt("after a restart the disk's file is there") { () throws(FileError) in
      try holds(kept, size: 100_000, seed: 21)
    }
    attempt("what was in memory is not") { () throws(FileError) in try !isThere(Bytes("/tmp/gone")) }
    expect("the old open file stays an error", .serviceGone) { () throws(FileError) in
      _ = try files.read(file, 0, into: block.area.slice(0, 100))
    }
  }

  private func manyDeaths(_ service: Bytes, _ writer: Bytes) throws(SystemError) {
    var random = Random(state: Clock.now)
    for round in 0..<Self.rounds {
      // The writer is in the middle of something.
      try waitForWriter(writer, writes: Services.remark(writer).writes + 3)
      Clock.sleep(microseconds: random.next(30_000))
      let gone = try Services.remark(writer).gone
      try Services.end(service)
      try Services.restart(service)
      // It has got an error, and goes on.
      let deadline = Clock.now + Clock.frequency * 20
      while try Services.remark(writer).gone == gone, Clock.now < deadline { Clock.sleep(microseconds: 5000) }
      expect("a client at work gets an error and not silence", try Services.remark(writer).gone > gone)
      expect("so does one that comes back later", .serviceGone) { () throws(FileError) in
        _ = try files.attributes(at: Bytes("/disk/kept"))
      }
      attempt("the disk's file is there") { () throws(FileError) in
        try holds(Bytes("/disk/kept"), size: 100_000, seed: 21)
      }
      attempt("a new file is made") { () throws(FileError) in
        let path = names(Bytes("/disk"), "round", round)
        try make(path, size: 20_000, seed: round)
        try files.sync()
        return try holds(path, size: 20_000, seed: round)
      }
    }
    for round in 0..<Self.rounds {
      attempt("files of all rounds are there") { () throws(FileError) in
        try holds(names(Bytes("/disk"), "round", round), size: 20_000, seed: round)
      }
    }
    expect("the writer has seen no other error", try Services.remark(writer).errors == 0)
  }

  private func deathsOfClients(_ writer: Bytes) throws(SystemError) {
    var random = Random(state: Clock.now)
    for _ in 0..<Self.rounds * 2 {
      try waitForWriter(writer, writes: 2)
      Clock.sleep(microseconds: random.next(20_000))
      try Services.end(writer)
      attempt("a client's death leaves the service at work") { () throws(FileError) in
        try make(Bytes("/disk/after"), size: 30_000, seed: 22)
        return try holds(Bytes("/disk/after"), size: 30_000, seed: 22)
      }
      try Services.restart(writer)
    }
    try Services.end(writer)
    attempt("what a dead client had open is free") { () throws(FileError) in
      try files.unlink(Bytes("/disk/writer"))
      try files.unlink(Bytes("/disk/after"))
      try removeRounds()
      try files.sync()
      var line = Text("free ")
      line.add(try freeBlocks("/disk"))
      line.add("\n")
      line.print()
      return true
    }
  }

  private func removeRounds() throws(FileError) {
    for round in 0..<Self.rounds { try files.unlink(names(Bytes("/disk"), "round", round)) }
    try files.unlink(Bytes("/disk/kept"))
  }

  private func waitForWriter(_ writer: Bytes, writes: UInt64) throws(SystemError) {
    let deadline = Clock.now + Clock.frequency * 20
    while try Services.remark(writer).writes < writes {
      guard Clock.now < deadline else {
        fail("the writer does not write")
        return
      }
      Clock.sleep(microseconds: 2000)
    }
  }

  // MARK: The writer

  func writeWhateverHappens() -> Never {
    var (writes, gone, errors): (UInt64, UInt64, UInt64) = (0, 0, 0)
    files.patience = 20_000_000
    Services.tell(writes, gone, errors)
    while true {
      do throws(FileError) {
        // A name that is taken away while the file is open, one that stays, and a sync of its own now and then.
        let nameless = try files.open(Bytes("/disk/nameless"), [.write, .create])
        try files.unlink(Bytes("/disk/nameless"))
        let file = try files.open(Bytes("/disk/writer"), [.write, .create, .truncate])
        for index in 0..<8 as Range<UInt64> {
          try files.write(file, index * 20_000, from: block.area.slice(0, 20_000))
          try files.write(nameless, index * 20_000, from: block.area.slice(0, 20_000))
          writes += 1
          Services.tell(writes, gone, errors)
        }
        if writes % 24 == 0 { try files.sync() }
        try files.close(file)
        try files.close(nameless)
      } catch {
        if error == .serviceGone {
          gone += 1
        } else {
          errors += 1
          fail("the writer met another error:", Bytes(error.name))
          Clock.sleep(microseconds: 100_000)
        }
        Services.tell(writes, gone, errors)
      }
    }
  }
}

/// SplitMix64.
struct Random {
  var state: UInt64
  /// A number below `limit`.
  mutating func next(_ limit: UInt64) -> UInt64 {
    state &+= 0x9e37_79b9_7f4a_7c15
    var value = state
    value = (value ^ value >> 30) &* 0xbf58_476d_1ce4_e5b9
    value = (value ^ value >> 27) &* 0x94d0_49bb_1331_11eb
    return (value ^ value >> 31) % limit
  }
}
