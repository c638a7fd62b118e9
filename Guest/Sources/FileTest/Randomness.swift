// Random bytes by /dev/hwrng, and the nodes of the devices that Linux's drivers drive.

import Files
import Pollux

extension Tester {
  private static let generator: StaticString = "/dev/hwrng"

  func entropy() throws(FileError) {
    Console.write("\n")
    let node = Bytes(Self.generator)
    expect("the generator is announced", try comes(node))
    expect("it is a character device", try isNode(node, .characterDevice, 0))
    expect("the disk is announced", try comes(Bytes("/dev/vda")))
    expect("and is a block device", try files.attributes(at: Bytes("/dev/vda")).kind == .blockDevice)
    expect("the interface is announced", try comes(Bytes("/dev/eth0")))
    expect("an interface is no file", .unsupported) { () throws(FileError) in
      _ = try files.open(Bytes("/dev/eth0"), .read)
    }
    expect("nor one to write to", .unsupported) { () throws(FileError) in
      _ = try files.open(Bytes("/dev/eth0"), .write)
    }
    let file = try files.open(node, [.read, .write])
    expect("nothing is written to the generator", .unsupported) { () throws(FileError) in
      try files.write(file, 0, from: block.area.slice(0, 8))
    }
    expect("a read of no bytes has none", try files.read(file, 0, into: block.area.slice(0, 0)) == 0)
    for size in [1, 7, 47, 48, 49] {
      block.area.fill()
      let count = try files.read(file, 0, into: block.area.slice(0, size))
      expect("a short read is whole", count == size)
      expect("and goes no further", isZero(block.area.slice(size, 64)))
    }
    try gather(file, 0, 4096)
    try gather(file, 4096, 4096)
    expect("what is read differs each time", differs(0, 4096))
    expect("no sixteen bytes come twice", !repeats(8192))
    expect("half of the bits are set", hasBalancedBits(8192))
    try restart(file)
  }

  /// What becomes of node and open file when the driver is killed, and started again by init.
  private func restart(_ old: Files.File) throws(FileError) {
    let node = Bytes(Self.generator)
    expect("the driver is killed", attempt { () throws(SystemError) in try Services.kill(Bytes("entropy")) })
    expect(
      "an open file has lost its device",
      waits { () throws(FileError) in _ = try files.read(old, 0, into: block.area.slice(0, 8)) })
    try files.close(old)
    expect("the driver comes back with its node", try comes(node))
    let file = try files.open(node, .read)
    try gather(file, 4096, 4096)
    expect("and gives other bytes", differs(0, 4096))
    expect("no sixteen bytes come twice after that", !repeats(8192))
    try files.close(file)
  }

  /// Whether `body` soon fails because the device has gone.
  private func waits(_ body: () throws(FileError) -> Void) -> Bool {
    let end = Clock.now + Clock.frequency * 10
    while Clock.now < end {
      do throws(FileError) { try body() } catch { return error == .deviceGone }
      Clock.sleep(microseconds: 2000)
    }
    return false
  }

  func readRandomForever() throws(FileError) {
    guard try comes(Bytes(Self.generator)) else { throw .notFound }
    let file = try files.open(Bytes(Self.generator), .read)
    var round: UInt64 = 0
    while true {
      try gather(file, Int(round % 2) * 4096, 4096)
      if round > 0, !differs(0, 4096) || repeats(8192) { fail("random bytes are repeated") }
      round += 1
      var line = Text("random ")
      line.add(round)
      line.add("\n")
      line.print()
    }
  }

  /// Reads until `count` bytes lie at `position` of the block.
  private func gather(_ file: Files.File, _ position: Int, _ count: Int) throws(FileError) {
    var done = 0
    while done < count {
      let read = try files.read(file, 0, into: block.area.slice(position + done, count - done))
      guard read > 0 else { throw .inputOutput }
      done += read
    }
  }

  private func isZero(_ area: ByteArea) -> Bool {
    for index in 0..<area.count where area.load8(index) != 0 { return false }
    return true
  }

  /// Whether the parts of 4096 bytes at these positions differ.
  private func differs(_ one: Int, _ other: Int) -> Bool {
    for index in 0..<4096 where block.area.load8(one + index) != block.area.load8(other + index) { return true }
    return false
  }

  /// Whether two of the first `count` bytes' groups of sixteen are the same.
  private func repeats(_ count: Int) -> Bool {
    var group = 0
    while group < count {
      var other = group + 16
      while other < count {
        if block.area.load64(group) == block.area.load64(other),
          block.area.load64(group + 8) == block.area.load64(other + 8)
        {
          return true
        }
        other += 16
      }
      group += 16
    }
    return false
  }

  /// Of 65,536 bits 32,768 are set, give or take 128; ten times that is accepted.
  private func hasBalancedBits(_ count: Int) -> Bool {
    var bits = 0
    for index in 0..<count { bits += block.area.load8(index).nonzeroBitCount }
    return abs(bits - count * 4) <= 1280
  }
}
