// What the kernel as a whole owns. It lies at a fixed place in the image; zero memory is its initial value.
import CArch
import KernelCore
import PolluxABI

struct KernelState {
  var frames: FrameAllocator<DirectMemory>
  var heap: Heap
  var clock: Clock
  var log: Log
  var underCastor: Bool
  var processorCount: Int
  var nextThread: UInt32
  var nextProcess: UInt32
  var highestThread: UInt32
  var callSequence: UInt32
  /// Mark of the latest search over services.
  var searchMark: UInt32
  var nextVector: Int
  var interrupts: UInt64
  var systemCalls: UInt64
  var pageFaults: UInt64
  /// Guest-physical address of the page of zeros that read faults map; 0: none yet.
  var zeroPage: UInt64
  /// Frames for page tables and handle tables.
  var tableFrames: UInt64
  /// Protection keys do what they should; the top-level entry of the entry area, or 0 (Isolation/Walls.swift).
  var keysWork: Bool
  var entryArea: UInt64
  /// Boot: the thread that init starts with, and whether its first trap is the probe's.
  var initThread: Reference<Thread>?
  var isProbing: Bool
  var initEntry: UInt64
  /// Which interrupt object a vector belongs to.
  var vectors: InlineArray<256, Reference<Interrupt>?>
}

/// The kernel's state; its users hold the big kernel lock.
@inline(__always) var kernel: Reference<KernelState> { Reference(trusted: address_of_kernel_state()) }

/// Memory for the kernel's own objects: size classes of 64 to 2048 bytes, cut from frames that stay.
struct Heap {
  private var free: InlineArray<6, UInt64>
  var frames: UInt64

  private static func sizeClass(_ size: Int) -> Int {
    max(0, Int.bitWidth - (size - 1).leadingZeroBitCount - 6)
  }

  /// An object's memory, not cleared; nil if there is none.
  mutating func allocate(_ size: Int) -> UInt64? {
    let index = Heap.sizeClass(size)
    if free[index] == 0 {
      guard let frame = kernel.pointee.frames.allocate(size: 4096) else { return nil }
      frames += 1
      let step = UInt64(64) << UInt64(index)
      let start = DirectMemory.address(frame)
      var block = start
      while block + step < start + 4096 {
        store64(block, block + step)
        block += step
      }
      free[index] = start
    }
    let block = free[index]
    free[index] = load64(block)
    return block
  }

  mutating func release(_ address: UInt64, _ size: Int) {
    let index = Heap.sizeClass(size)
    store64(address, free[index])
    free[index] = address
  }

  mutating func make<Object>(_ value: Object) throws(SystemError) -> Reference<Object> {
    guard let address = allocate(MemoryLayout<Object>.size) else { throw .noMemory }
    let object = Reference<Object>(trusted: address)
    object.initialize(to: value)
    return object
  }

  mutating func destroy<Object>(_ object: Reference<Object>) {
    release(object.address, MemoryLayout<Object>.size)
  }
}

/// Makes the allocators serve page tables and regions; one for each operation on a process.
struct SpaceSource: TableSource, RegionSource {
  let process: Reference<Process>

  mutating func allocateTable() -> UInt64? {
    guard let frame = kernel.pointee.frames.allocate(size: 4096) else { return nil }
    process.pointee.tableFrames += 1
    kernel.pointee.tableFrames += 1
    return frame
  }
  mutating func releaseTable(_ address: UInt64) {
    process.pointee.tableFrames -= 1
    kernel.pointee.tableFrames -= 1
    kernel.pointee.frames.release(address, size: 4096)
  }
  mutating func allocateRegion() -> Reference<Region>? {
    guard let address = kernel.pointee.heap.allocate(MemoryLayout<Region>.size) else { return nil }
    return Reference(trusted: address)
  }
  mutating func releaseRegion(_ region: Reference<Region>) { kernel.pointee.heap.destroy(region) }
  mutating func retain(memory: UInt64) { Reference<MemoryObject>(trusted: memory).pointee.references += 1 }
  mutating func release(memory: UInt64) { Objects.release(memory: Reference(trusted: memory)) }
}
