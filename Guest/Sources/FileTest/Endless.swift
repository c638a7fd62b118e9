// Writes until the machine is killed, so that the next run can say what must be there: step N makes the file fN under another name and
// renames it, and removes f(N - 40); every fourth step renames a new counter over the old one, syncs, and says so.

import Files
import Pollux

extension Tester {
  private static let lifetime: UInt64 = 40
  private var base: Bytes { Bytes("/disk/endless") }

  private static func size(_ step: UInt64) -> UInt64 { (step &* 0x9e37_79b9_7f4a_7c15) >> 40 % 40_000 + 1 }

  /// Number behind the letter `letter`; nil for another name.
  private static func number(_ name: [UInt8], _ letter: UInt8) -> UInt64? {
    guard name.count > 1, name.count < 12, name[0] == letter else { return nil }
    var value: UInt64 = 0
    for index in 1..<name.count {
      guard name[index] >= 0x30, name[index] <= 0x39 else { return nil }
      value = value * 10 + UInt64(name[index] - 0x30)
    }
    return value
  }

  /// Checks that everything is there that lay on the disk when step `synced` had said so; 0: nothing has been said.
  func checkSynced(_ synced: UInt64) throws(FileError) {
    if synced == 0, try !isThere(base) {
      try files.makeDirectory(base)
      Console.write("checked 0\n")
      return
    }
    var found: UInt64 = 0
    var (whole, kept) = (true, true)
    for entry in try files.list(base) {
      guard let step = Self.number(entry.name, 0x66) else { continue }
      let path = names(base, entry.name)
      if step <= synced {
        found += 1
        // Those that an earlier step removed.
        if step + Self.lifetime <= synced { kept = false }
        if try !holds(path, size: Self.size(step), seed: step) {
          whole = false
          fail("a synced file has other contents:", path)
        }
      } else {
        // Of these nothing was promised but that they can be read.
        _ = try text(path)
      }
    }
    expect("all that is there of what was synced has its contents", whole)
    expect("what was removed before the sync stays away", kept)
    // The run that was killed may have gone on for some steps that it could not say, and they remove the oldest.
    var isThere = true
    var step = synced > 8 ? synced - 8 : 0
    while step < synced {
      step += 1
      if try !self.isThere(names(base, "f", step)) {
        isThere = false
        fail("a synced file is missing:", names(base, "f", step))
      }
    }
    expect("all that was synced last is there", isThere)
    if synced > 0 {
      let value = try text(names(base, "counter"))
      var number: UInt64 = 0
      for byte in value where byte >= 0x30 && byte <= 0x39 { number = number * 10 + UInt64(byte - 0x30) }
      expect("the counter is the synced one or a later one", number >= synced && number < synced + 1000)
    }
    var line = Text("checked ")
    line.add(found)
    line.add("\n")
    line.print()
  }

  func writeForever() throws(FileError) -> Never {
    var last: UInt64 = 0
    for entry in try files.list(base) {
      if let step = Self.number(entry.name, 0x66) { last = max(last, step) }
      if Self.number(entry.name, 0x74) != nil { try files.unlink(names(base, entry.name)) }
    }
    while true {
      last += 1
      try step(last)
    }
  }

  private func step(_ number: UInt64) throws(FileError) {
    let temporary = names(base, "t", number)
    try make(temporary, size: Self.size(number), seed: number, piece: 3000)
    try files.rename(temporary, to: names(base, "f", number))
    if number > Self.lifetime {
      let old = names(base, "f", number - Self.lifetime)
      // A killed run may have come that far already.
      if try isThere(old) { try files.unlink(old) }
    }
    if number % 5 == 0 {
      let directory = names(base, "d", number)
      if try !isThere(directory) { try files.makeDirectory(directory) }
      if number > 10 {
        let old = names(base, "d", number - 10)
        if try isThere(old) { try files.removeDirectory(old) }
      }
    }
    guard number % 4 == 0 else { return }
    var value = Text()
    value.add(number)
    let block = ByteBlock(count: value.bytes.count)
    for index in value.bytes.indices { block.area.store(value.bytes[index], at: index) }
    try put(names(base, "counter.new"), block.area.bytes)
    try files.rename(names(base, "counter.new"), to: names(base, "counter"))
    try files.sync()
    var line = Text("synced ")
    line.add(number)
    line.add("\n")
    line.print()
  }
}
