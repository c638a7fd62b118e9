import KernelCore
import Testing

struct FrameAllocatorTests {
  private func allocator(_ memory: SimulatedMemory, bytes: UInt64) -> FrameAllocator<SimulatedMemory> {
    var allocator = FrameAllocator(memory: memory)
    allocator.addFresh(start: 0x10_0000, end: 0x10_0000 + bytes)
    return allocator
  }

  @Test func freshMemoryIsHandedOutInOrderAndRunsOut() {
    var frames = allocator(SimulatedMemory(), bytes: 0x3000)
    #expect(frames.allocate(size: 4096) == 0x10_0000)
    #expect(frames.allocate(size: 0x3000) == nil)
    #expect(frames.allocate(size: 0x2000) == 0x10_1000)
    #expect(frames.allocate(size: 4096) == nil)
    #expect(frames.freeBytes == 0)
  }

  @Test func partialFramesAtTheEndsOfARangeAreLeftOut() {
    var frames = FrameAllocator(memory: SimulatedMemory())
    frames.addFresh(start: 0x1001, end: 0x3fff)
    #expect(frames.freeBytes == 0x1000)
    #expect(frames.allocate(size: 4096) == 0x2000)
  }

  @Test func alignmentSkipsMemoryWithoutLosingIt() {
    var frames = FrameAllocator(memory: SimulatedMemory())
    frames.addFresh(start: 0x1000, end: 0x80_0000)
    #expect(frames.allocate(size: 0x20_0000, alignment: 0x20_0000) == 0x20_0000)
    #expect(frames.freeBytes == 0x80_0000 - 0x1000 - 0x20_0000)
    // What was skipped serves when the rest is gone.
    #expect(frames.allocate(size: 0x40_0000) == 0x40_0000)
    #expect(frames.allocate(size: 0x1f_f000) == 0x1000)
    #expect(frames.freeBytes == 0)
  }

  @Test func returnedExtentsMergeInAnyOrder() {
    for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
      var frames = allocator(SimulatedMemory(), bytes: 0x3000)
      for _ in 0..<3 { _ = frames.allocate(size: 4096) }
      for index in order { frames.release(0x10_0000 + UInt64(index) * 4096, size: 4096) }
      #expect(frames.allocate(size: 0x3000) == 0x10_0000, "\(order)")
    }
  }

  @Test func usedMemoryIsZeroWhenItComesBack() {
    let memory = SimulatedMemory()
    var frames = allocator(memory, bytes: 0x2000)
    guard let first = frames.allocate(size: 0x2000) else { return #expect(Bool(false)) }
    for offset in stride(from: UInt64(0), to: 0x2000, by: 8) { memory.store(first + offset, .max) }
    frames.release(first, size: 0x2000)
    guard let again = frames.allocate(size: 0x1000) else { return #expect(Bool(false)) }
    for offset in stride(from: UInt64(0), to: 0x1000, by: 8) { #expect(memory.load(again + offset) == 0) }
  }

  @Test(arguments: 1...20)
  func randomUseNeverOverlapsAndLosesNothing(seed: Int) {
    var random = TestRandom(state: UInt64(seed))
    let memory = SimulatedMemory()
    let total: UInt64 = 64 * 4096
    var frames = allocator(memory, bytes: total)
    var live: [(start: UInt64, size: UInt64)] = []
    for _ in 0..<400 {
      if Bool.random(using: &random) || live.isEmpty {
        let size = UInt64.random(in: 1...9, using: &random) * 4096
        let alignment: UInt64 = [4096, 8192, 16384].randomElement(using: &random) ?? 4096
        guard let start = frames.allocate(size: size, alignment: alignment) else { continue }
        #expect(start % alignment == 0 && start >= 0x10_0000 && start + size <= 0x10_0000 + total)
        #expect(!live.contains { $0.start < start + size && start < $0.start + $0.size })
        #expect(memory.load(start) == 0 && memory.load(start + 8) == 0)
        memory.store(start, 1)
        memory.store(start + 8, 1)
        live.append((start, size))
      } else {
        let victim = live.remove(at: Int.random(in: 0..<live.count, using: &random))
        frames.release(victim.start, size: victim.size)
      }
      #expect(frames.freeBytes == total - live.reduce(0) { $0 + $1.size })
    }
    for extent in live { frames.release(extent.start, size: extent.size) }
    #expect(frames.freeBytes == total)
  }
}
